// Package policy is a filter that asks a policy server, over the protocol to which
// Postfix delegates its decisions (SMTPD_POLICY_README): postgrey, policyd-spf and
// others go on to work.
package policy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/socket"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "policy" block.
type Config struct {
	Address string   `hcl:"address" doc:"Where the policy server listens: unix:/path, inet:host:port or inet:port@host." example:"\"inet:127.0.0.1:10023\""`
	States  []string `hcl:"states,optional" oneof:"CONNECT,EHLO,MAIL,RCPT,DATA,END-OF-MESSAGE" doc:"At which states of SMTP it is asked, by Postfix's names."`
	Context string   `hcl:"context,optional" doc:"The attribute policy_context, by which a server tells its callers apart."`
	Modify  bool     `hcl:"modify,optional" doc:"Whether its PREPEND, REDIRECT and BCC are done. A server that has none of them is asked beside other filters that change nothing."`

	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" doc:"How long a connection to it may take."`
	ReplyTimeout   time.Duration `hcl:"reply_timeout,optional" doc:"How long an answer may take. The block's timeout bounds it too, 30 s unless it says otherwise."`
	Keep           time.Duration `hcl:"keep,optional" doc:"How long a connection that is not used stays open for the next question; 0s: not at all."`
}

func defaults() Config {
	return Config{States: []string{"RCPT"}, Modify: true, ConnectTimeout: 5 * time.Second, ReplyTimeout: 25 * time.Second, Keep: 5 * time.Minute}
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
	if len(c.States) == 0 {
		wrong("states", "it would never be asked: name a state, RCPT above all")
	}
	if strings.ContainsFunc(c.Context, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		wrong("context", "it is one line without control characters")
	}
	if c.ConnectTimeout <= 0 {
		wrong("connect_timeout", "it must be above zero")
	}
	if c.ReplyTimeout <= 0 {
		wrong("reply_timeout", "it must be above zero")
	}
	return errors.Join(errs...)
}

// events of the states.
var events = map[string]v1.FilterEvent{
	"CONNECT": v1.FilterEvent_CONNECT, "EHLO": v1.FilterEvent_HELLO, "MAIL": v1.FilterEvent_MAIL, "RCPT": v1.FilterEvent_RCPT,
	"DATA": v1.FilterEvent_ENVELOPE, "END-OF-MESSAGE": v1.FilterEvent_MESSAGE,
}

// Interest has the states, and the message for what is then done to it: none of
// it is read.
func (c *Config) Interest() *v1.FilterInterest {
	in := &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_EDIT}
	for _, s := range c.States {
		if e := events[s]; !slices.Contains(in.Events, e) {
			in.Events = append(in.Events, e)
		}
	}
	if !c.Modify {
		in.Effect = v1.FilterInterest_JUDGE
	}
	return in
}

// Filter is one instance.
type Filter struct {
	Config
	conns   *pool
	memory  *memory
	log     zerolog.Logger
	metrics *sdk.Metrics
	trouble atomic.Pointer[error]
}

var _ filter.Filter = (*Filter)(nil)

// Filter asks about the state, and at the message does what was decided before it.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	v, err := f.decide(ctx, ev)
	if err != nil {
		f.trouble.Store(&err)
		return nil, err
	}
	f.trouble.Store(nil)
	return v, nil
}

func (f *Filter) decide(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	state := ""
	for name, e := range events {
		if e == ev.Kind && slices.Contains(f.States, name) {
			state = name
		}
	}
	switch ev.Kind {
	case v1.FilterEvent_CONNECT, v1.FilterEvent_HELLO:
		a, err := f.ask(ctx, state, ev.Envelope, nil)
		if err != nil {
			return nil, err
		}
		return a.now()
	case v1.FilterEvent_MAIL, v1.FilterEvent_RCPT, v1.FilterEvent_ENVELOPE:
		a, err := f.ask(ctx, state, ev.Envelope, ev.Recipient)
		if err != nil {
			return nil, err
		}
		f.memory.add(ev.Envelope.GetTransaction(), a)
		return a.early(), nil
	case v1.FilterEvent_MESSAGE:
		return f.message(ctx, state, ev.Envelope)
	}
	return filter.Accept(), nil // of a later contract
}

// message does what was decided for the mail as a whole. If nothing is known of it,
// this process is not the one that was asked before: it asks again.
func (f *Filter) message(ctx context.Context, state string, e *v1.Envelope) (*filter.Verdict, error) {
	decided, known := f.memory.take(e.GetTransaction())
	refused := map[int32]*filter.Verdict{}
	if !known {
		for _, name := range []string{"MAIL", "RCPT", "DATA"} {
			if !slices.Contains(f.States, name) {
				continue
			}
			about := []*v1.Recipient{nil}
			if name == "RCPT" {
				about = e.GetRecipients()
			}
			for _, r := range about {
				a, err := f.ask(ctx, name, e, r)
				if err != nil {
					return nil, err
				}
				switch {
				case !a.refuses():
					decided = append(decided, a)
				case r == nil || a.disconnects():
					return a.early(), nil
				default:
					refused[r.GetIndex()] = a.early()
				}
			}
		}
	}
	if state != "" {
		a, err := f.ask(ctx, state, e, nil)
		if err != nil {
			return nil, err
		}
		if a.refuses() {
			return a.early(), nil
		}
		decided = append(decided, a)
	}
	v, err := f.carryOut(decided, e)
	for index, no := range refused {
		v.For(index, no)
	}
	return v, err
}

// Health tells the last trouble, until the server answers again.
func (f *Filter) Health() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the connections.
func (f *Filter) Close() error {
	f.conns.close()
	return nil
}

// Plugin describes the policy filter.
func Plugin() sdk.Plugin {
	c := defaults()
	return sdk.Plugin{
		Name: "policy", Version: "1.0.0", Summary: "ask a policy server of Postfix's (postgrey, policyd-spf)",
		Config: c, Interest: c.Interest(),
		Needs: &v1.Needs{Network: true, ReadPaths: []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/run/systemd/resolve"}},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			c := *in.Config.(*Config)
			network, place, err := socket.Parse(c.Address)
			if err != nil {
				return nil, err
			}
			return &Filter{
				Config: c, conns: newPool(network, place, &c), memory: newMemory(time.Now), log: in.Log, metrics: in.Metrics,
			}, nil
		},
	}
}
