// Package bcc is a filter that sends copies of mail to further addresses: an archive,
// an auditor, a colleague.
package bcc

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "bcc" block.
type Config struct {
	Copies []Rule `hcl:"copy,block" doc:"An address, and which mail it gets."`
}

// Rule is one address that gets copies.
type Rule struct {
	To         string   `hcl:"to,label"`
	Senders    []string `hcl:"senders,optional" doc:"Reverse-paths whose mail is copied: addresses, or domains as @ryan.example; none: any." example:"[\"@ryan.example\"]"`
	Recipients []string `hcl:"recipients,optional" doc:"Recipients whose mail is copied, in the same form; none: any." example:"[\"sales@ryan.example\"]"`
	Notices    bool     `hcl:"notices,optional" doc:"Whether mail from the null reverse-path is copied too, if no sender is asked for."`
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Copies) == 0 {
		errs = append(errs, schema.Errorf(nil, `there is no copy: add one, as copy "archive@ryan.example" {}`))
	}
	for i, r := range c.Copies {
		if _, err := address.Parse(r.To, true); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("copy", i), "%q is no mail address", r.To))
		}
		for name, list := range map[string][]string{"senders": r.Senders, "recipients": r.Recipients} {
			for k, p := range list {
				if !strings.Contains(p, "@") || strings.HasSuffix(p, "@") || strings.ContainsAny(p, "* ") {
					errs = append(errs, schema.Errorf(schema.Path("copy", i, name, k), "%q is neither an address nor a domain as @ryan.example", p))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Filter is one instance.
type Filter struct {
	*Config
	copied *sdk.Value
}

var _ filter.Filter = (*Filter)(nil)

// Filter adds who is not among the recipients already.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	v := filter.Accept()
	added := map[string]bool{}
	for _, r := range ev.Envelope.GetRecipients() {
		added[strings.ToLower(r.GetAddress())] = true
	}
	for i := range f.Copies {
		r := &f.Copies[i]
		to := strings.ToLower(r.To)
		if added[to] || !r.wants(ev.Envelope) {
			continue
		}
		added[to] = true
		f.copied.Add(1)
		// The sender knows nothing of the copy, so it hears of no trouble with it.
		v.AddRecipientDSN(&v1.Recipient{Address: r.To, Notify: []string{"NEVER"}})
	}
	return v, nil
}

func (r *Rule) wants(e *v1.Envelope) bool {
	if e.GetSender() == "" && (len(r.Senders) > 0 || !r.Notices) {
		return false
	}
	if len(r.Senders) > 0 && !slices.ContainsFunc(r.Senders, func(p string) bool { return fits(p, e.GetSender()) }) {
		return false
	}
	return len(r.Recipients) == 0 || slices.ContainsFunc(e.GetRecipients(), func(to *v1.Recipient) bool {
		return slices.ContainsFunc(r.Recipients, func(p string) bool { return fits(p, to.GetAddress()) })
	})
}

// fits tells whether an address is the one, or of the domain, that was written.
func fits(pattern, a string) bool {
	if pattern[0] == '@' {
		return strings.EqualFold(pattern, a[max(strings.LastIndexByte(a, '@'), 0):])
	}
	return strings.EqualFold(pattern, a)
}

// Plugin describes the bcc filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "bcc", Version: "1.0.0", Summary: "send copies of mail to an archive or a colleague",
		Config: Config{},
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_EDIT,
		},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return &Filter{in.Config.(*Config), in.Metrics.Counter("copies_total", "Copies that were sent.")}, nil
		},
	}
}
