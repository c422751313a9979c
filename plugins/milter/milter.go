// Package milter is a filter that asks a milter, as Sendmail and Postfix do: what
// people run as one today goes on to work. It is the mail server's side; package
// protocol has the packets.
package milter

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/protocol"
	"github.com/stagecoach-mta/stagecoach/plugins/milter/socket"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "milter" block.
type Config struct {
	Address string            `hcl:"address" doc:"Where the milter listens: unix:/path, inet:port@host or inet:host:port, as Sendmail and Postfix write it." example:"\"inet:8891@localhost\""`
	Early   []string          `hcl:"early,optional" oneof:"connect,helo,mail,rcpt,rejected" doc:"What the milter hears as it happens, and so may answer at once. What is left out it hears together with what comes after it, the rest with the whole message." example:"[\"connect\", \"helo\", \"mail\", \"rcpt\"]"`
	Modify  bool              `hcl:"modify,optional" doc:"Whether the milter may change the message and its envelope. One that may not is asked beside other filters that change nothing."`
	Macros  map[string]string `hcl:"macros,optional" doc:"Macros beside or in place of the usual ones, by Sendmail's names." example:"{ \"{daemon_name}\" = \"ORIGINATING\" }"`

	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" doc:"How long a connection to the milter may take."`
	ReplyTimeout   time.Duration `hcl:"reply_timeout,optional" doc:"How long the milter may be silent: an answer, or a sign that it is at work, has to come within it. The block's timeout is the bound of all of it, 30 s unless it says otherwise."`
	Keep           time.Duration `hcl:"keep,optional" doc:"How long a connection to the milter that is not used stays open for the next mail; 0s: not at all."`
	Reuse          bool          `hcl:"reuse,optional" doc:"Whether a connection to the milter serves one client after another, if the milter speaks version 6. rspamd's proxy does; Sendmail's own library, and so most milters, loses its thread by it."`
	MaxSize        schema.Size   `hcl:"max_size,optional" doc:"The milter does not see larger messages: they pass. 0: it sees all."`
	MaxChange      schema.Size   `hcl:"max_change,optional" doc:"How much the milter may change of one message, a new body and new fields together."`
	Chunk          schema.Size   `hcl:"chunk,optional" doc:"How much of a body goes to the milter at once if it agrees: 64KB, 256KB or 1MB. Few milters know more than 64KB, and some that do not agree to it all the same."`
}

func defaults() Config {
	return Config{
		Early: []string{"rcpt"}, Modify: true, ConnectTimeout: 5 * time.Second, ReplyTimeout: 25 * time.Second, Keep: 10 * time.Second,
		MaxChange: 50 << 20, Chunk: 64 << 10,
	}
}

// Validate points at what cannot work.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(attribute, format string, args ...any) {
		errs = append(errs, schema.Errorf(schema.Path(attribute), format, args...))
	}
	if _, _, err := socket.Parse(c.Address); err != nil {
		wrong("address", "%v", err)
	}
	for name := range c.Macros {
		if !macroName(name) {
			wrong("macros", "%q is no macro: write one letter, or a name in braces like {daemon_name}", name)
		}
	}
	if c.ConnectTimeout <= 0 {
		wrong("connect_timeout", "it must be above zero")
	}
	if c.ReplyTimeout <= 0 {
		wrong("reply_timeout", "it must be above zero")
	}
	if c.MaxChange <= 0 {
		wrong("max_change", "it must be more than nothing")
	}
	if c.Chunk != 64<<10 && c.Chunk != 256<<10 && c.Chunk != 1<<20 {
		wrong("chunk", "milters know 64KB, 256KB and 1MB")
	}
	return errors.Join(errs...)
}

// macroName: a letter (or Sendmail's _), or a name in braces.
func macroName(name string) bool {
	if len(name) == 1 {
		return name[0] > ' ' && name[0] < 0x7f && name != "{" && name != "}"
	}
	inner, opened := strings.CutPrefix(name, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	return opened && closed && inner != "" && !strings.ContainsFunc(inner, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '{' || r == '}' })
}

var earlyEvents = map[string]v1.FilterEvent{
	"connect": v1.FilterEvent_CONNECT, "helo": v1.FilterEvent_HELLO, "mail": v1.FilterEvent_MAIL,
	"rcpt": v1.FilterEvent_RCPT, "rejected": v1.FilterEvent_RCPT_REJECTED,
}

// Interest is what the milter is to hear early, and the whole message.
func (c *Config) Interest() *v1.FilterInterest {
	in := &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
		Body:   v1.FilterInterest_FULL, Effect: v1.FilterInterest_EDIT, MaxSize: int64(c.MaxSize),
	}
	for _, e := range c.Early {
		in.Events = append(in.Events, earlyEvents[e])
	}
	if !c.Modify {
		in.Effect = v1.FilterInterest_JUDGE
	}
	return in
}

// Filter is one instance.
type Filter struct {
	Config
	network, place string
	hostname       string
	offer          protocol.Options
	links          *pool
	bodies         *filter.Bodies
	log            zerolog.Logger
	metrics        *sdk.Metrics
	trouble        atomic.Pointer[error]
}

var _ filter.Filter = (*Filter)(nil)

// Filter brings the milter to where the mail is and gives its verdict.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	begin := time.Now()
	v, err := f.ask(ctx, ev)
	f.metrics.Histogram("answer_seconds", "Time that the milter takes for a question.", sdk.Seconds(), "event", strings.ToLower(ev.Kind.String())).Since(begin)
	if err != nil {
		f.count("fail")
		f.trouble.Store(&err)
		return nil, err
	}
	f.trouble.Store(nil)
	f.count(strings.ToLower(v.Reply().GetVerdict().GetAction().String()))
	return v, nil
}

func (f *Filter) count(verdict string) {
	f.metrics.Counter("answers_total", "Questions to the milter, by verdict.", "verdict", verdict).Add(1)
}

// ask asks on a connection that there is or on a new one. What was kept may have
// ended in the meantime, with the milter it led to: then a new one tells all
// anew, once.
func (f *Filter) ask(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	for {
		l, err := f.link(ctx, ev)
		if err != nil {
			return nil, err
		}
		kept := l.kept
		v, err := f.askOn(ctx, l, ev)
		switch {
		case err == nil:
			return v, nil
		case !kept || ctx.Err() != nil || errors.Is(err, protocol.ErrPatience) || errors.Is(err, protocol.ErrProtocol):
			return nil, fail.Wrap(fail.Unavailable, err, "the milter at "+f.Address)
		}
	}
}

// askOn gives the connection back if it is still good.
func (f *Filter) askOn(ctx context.Context, l *link, ev *filter.Event) (*filter.Verdict, error) {
	l.conn.Deadline, _ = ctx.Deadline()
	release := context.AfterFunc(ctx, l.conn.Interrupt)
	v, err := l.answer(f, ev)
	if !release() || err != nil {
		_ = l.conn.Close()
		if err == nil {
			err = ctx.Err()
		}
		return nil, err
	}
	f.links.put(l)
	return v, nil
}

// Health tells the last trouble, until the milter answers again.
func (f *Filter) Health() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Close says goodbye to the milter.
func (f *Filter) Close() error {
	f.links.close()
	return f.bodies.Close()
}

// Plugin describes the milter filter.
func Plugin() sdk.Plugin {
	c := defaults()
	return sdk.Plugin{
		Name: "milter", Version: "1.0.0", Summary: "ask a milter (Sendmail's and Postfix's mail filters)",
		Config: c, Interest: c.Interest(), MaxConcurrent: 64,
		Needs: &v1.Needs{Network: true, DataDir: true, ReadPaths: []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/run/systemd/resolve"}},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			c := *in.Config.(*Config)
			network, place, err := socket.Parse(c.Address)
			if err != nil {
				return nil, err
			}
			bodies, err := filter.NewBodies(in.DataDir)
			if err != nil {
				return nil, err
			}
			actions := protocol.AllActions
			if !c.Modify {
				// Quarantine is a verdict, and which macros it wants is no change.
				actions = protocol.ActQuarantine | protocol.ActSetSymList
			}
			return &Filter{
				Config: c, network: network, place: place, hostname: in.Hostname, offer: protocol.Offer(actions, int64(c.Chunk)),
				links: newPool(c.Keep, c.Reuse), bodies: bodies, log: in.Log, metrics: in.Metrics,
			}, nil
		},
	}
}
