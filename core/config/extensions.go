package config

import "time"

// Who may ask for a higher priority with MT-PRIORITY (RFC 6710).
const (
	PriorityAuthenticated = "authenticated" // and clients of relay_from
	PriorityAll           = "all"
	PriorityOff           = "off" // the extension is not offered
)

// mostHold: HOLDFOR has nine digits (RFC 4865 section 4).
const mostHold = 999999999 * time.Second

// extensions reads what the listener lets clients say of a mail's times.
func (l *loader) extensions(c *Receive, r *reader) {
	c.Priority = PriorityAuthenticated
	r.oneOf("mt_priority", &c.Priority, PriorityAuthenticated, PriorityAll, PriorityOff)
	r.duration("deliver_by_min", &c.MinDeliverBy)
	if x := r.expr("deliver_by_min"); x != nil && c.MinDeliverBy%time.Second != 0 {
		l.err(x.Range(), "deliver_by_min is less than a second, or not whole seconds", `Write deliver_by_min = "1m".`)
	}
	r.duration("future_release", &c.FutureRelease)
	x := r.expr("future_release")
	switch {
	case x == nil || c.FutureRelease == 0:
	case c.FutureRelease > mostHold || c.FutureRelease%time.Second != 0:
		l.err(x.Range(), "future_release is too long, or not whole seconds", `Write future_release = "30d": how long a mail may be held at most.`)
	case !r.set("auth"):
		l.err(x.Range(), "future_release without auth: nobody could use it", "It is for clients that log in. Add: auth = directory.file.people")
	}
}
