// Package tarpit is a filter that takes its time with strangers: a pause before the
// banner, which programs do not wait for that never read what a server says, and a
// pause for each recipient of a long list.
package tarpit

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "tarpit" block.
type Config struct {
	Banner         time.Duration `hcl:"banner,optional" doc:"How long a client waits for the banner; 0s: not at all. At most 60s."`
	Early          string        `hcl:"early,optional" doc:"What becomes of a client that speaks before its turn, before the banner or the reply to EHLO: disconnect (421 4.7.0), reject (its EHLO gets 550 5.5.1), or tag alone." oneof:"disconnect,reject,tag"`
	FreeRecipients int           `hcl:"free_recipients,optional" doc:"So many recipients of a mail are answered at once."`
	RecipientDelay time.Duration `hcl:"recipient_delay,optional" doc:"How long the client waits for the reply to each further one; 0s: not at all. At most 60s."`
	Except         []string      `hcl:"except,optional" semantic:"cidr" doc:"Clients that never wait." example:"[\"192.0.2.0/24\"]"`
}

func defaults() Config {
	return Config{Banner: 3 * time.Second, Early: "disconnect", FreeRecipients: 20, RecipientDelay: time.Second}
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for name, d := range map[string]time.Duration{"banner": c.Banner, "recipient_delay": c.RecipientDelay} {
		if d < 0 || d > time.Minute {
			errs = append(errs, schema.Errorf(schema.Path(name), "it is from 0s to 60s: mail servers give up when they wait longer"))
		}
	}
	if c.FreeRecipients < 0 {
		errs = append(errs, schema.Errorf(schema.Path("free_recipients"), "it is 0 or more"))
	}
	return errors.Join(errs...)
}

// Interest is in what the configuration makes wait.
func (c *Config) Interest() *v1.FilterInterest {
	in := interest()
	in.Events = []v1.FilterEvent{v1.FilterEvent_HELLO}
	if c.Banner > 0 {
		in.Events = append(in.Events, v1.FilterEvent_CONNECT)
	}
	if c.RecipientDelay > 0 {
		in.Events = append(in.Events, v1.FilterEvent_RCPT)
	}
	return in
}

func interest() *v1.FilterInterest {
	return &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_CONNECT, v1.FilterEvent_HELLO, v1.FilterEvent_RCPT},
		Body:   v1.FilterInterest_NONE, Effect: v1.FilterInterest_JUDGE,
	}
}

// Filter is one instance.
type Filter struct {
	*Config
	except       []netip.Prefix
	early, delay *sdk.Value
}

var _ filter.Filter = (*Filter)(nil)

// Filter answers at once: it is the core that lets the client wait.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	client := ev.Envelope.GetClient()
	ip, err := netip.ParseAddr(client.GetIp())
	if err == nil && slices.ContainsFunc(f.except, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) }) {
		return filter.Accept(), nil
	}
	switch ev.Kind {
	case v1.FilterEvent_CONNECT:
		return filter.Accept().Delay(f.Banner), nil
	case v1.FilterEvent_HELLO:
		if !client.GetEarly() {
			return filter.Accept(), nil
		}
		f.early.Add(1)
		v := filter.Accept()
		switch f.Early {
		case "disconnect":
			v = filter.Disconnect(421, "4.7.0", "Wait for your turn")
		case "reject":
			v = filter.Reject(550, "5.5.1", "Wait for your turn")
		}
		return v.TagBool("early", true), nil
	}
	if client.GetUser() == "" && len(ev.Envelope.GetRecipients()) > f.FreeRecipients {
		f.delay.Add(1)
		return filter.Accept().Delay(f.RecipientDelay), nil
	}
	return filter.Accept(), nil
}

// Plugin describes the tarpit filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "tarpit", Version: "1.0.0", Summary: "let strangers wait, and catch those who do not",
		Config: defaults(), Interest: interest(),
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			f := &Filter{Config: in.Config.(*Config)}
			f.early = in.Metrics.Counter("early_total", "Clients that spoke before their turn.")
			f.delay = in.Metrics.Counter("delayed_total", "Recipients whose reply was kept waiting.")
			var err error
			f.except, err = schema.Networks(f.Except)
			return f, err
		},
	}
}
