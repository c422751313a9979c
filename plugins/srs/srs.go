// Package srs is a filter that rewrites the reverse-path of forwarded mail, so that
// SPF passes for the forwarder and bounces come back (the Sender Rewriting Scheme).
// The directory srsreverse takes those bounces.
package srs

import (
	"context"
	"strings"
	"time"

	rewrite "github.com/stagecoach-mta/stagecoach/plugins/mailauth/srs"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "srs" block.
type Config struct {
	Domain  string   `hcl:"domain" doc:"Domain of the rewritten addresses, to which bounces come; one that is for this alone keeps the others' reputation apart." example:"ryan.example"`
	Secrets []string `hcl:"secrets" sensitive:"true" doc:"What makes the addresses ours, 16 octets or more each. The first is used, all are taken: put a new one in front, and drop the old one after max_age." example:"[\"0123456789abcdef0123456789abcdef\"]"`
	Except  []string `hcl:"except,optional" doc:"Domains whose senders are not rewritten: your own." example:"[\"ryan.example\"]"`
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	if attribute, err := c.rewriter().Check(); err != nil {
		return schema.Errorf(schema.Path(attribute), "%v", err)
	}
	return nil
}

func (c *Config) rewriter() *rewrite.Rewriter {
	return &rewrite.Rewriter{Domain: c.Domain, Secrets: trimmed(c.Secrets), Age: rewrite.MaxAge, Now: time.Now}
}

// trimmed secrets: a file ends in a line end.
func trimmed(secrets []string) []string {
	out := make([]string, len(secrets))
	for i, s := range secrets {
		out[i] = strings.TrimSpace(s)
	}
	return out
}

// Filter is one instance.
type Filter struct {
	rewriter *rewrite.Rewriter
	except   map[string]bool
	metrics  *sdk.Metrics
}

var _ filter.Filter = (*Filter)(nil)

// Filter rewrites the reverse-path of one delivery.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	sender := ev.Envelope.GetSender()
	if at := strings.LastIndexByte(sender, '@'); at < 0 || f.except[strings.ToLower(sender[at+1:])] {
		return filter.Accept(), nil
	}
	to, err := f.rewriter.Forward(sender)
	if err != nil {
		return nil, err
	}
	if to == sender {
		return filter.Accept(), nil
	}
	f.metrics.Counter("rewritten_total", "Reverse-paths that were rewritten.").Add(1)
	return filter.Accept().SetSender(to, nil), nil
}

// Plugin describes the srs filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "srs", Version: "1.0.0", Summary: "rewrite the reverse-path of forwarded mail",
		Config: Config{},
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
			Body:   v1.FilterInterest_NONE, Effect: v1.FilterInterest_EDIT,
		},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			c := in.Config.(*Config)
			f := &Filter{rewriter: c.rewriter(), except: map[string]bool{}, metrics: in.Metrics}
			for _, d := range c.Except {
				f.except[strings.ToLower(d)] = true
			}
			return f, nil
		},
	}
}
