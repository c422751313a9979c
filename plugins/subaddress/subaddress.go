// Package subaddress is a filter that takes the detail off recipients' addresses
// (RFC 5233: meg+lists@ryan.example) for who does not know details.
package subaddress

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "subaddress" block.
type Config struct {
	Separators string   `hcl:"separators,optional" doc:"Characters that may stand between user and detail; the first one in an address counts." example:"\"+-\""`
	Domains    []string `hcl:"domains,optional" doc:"Domains whose addresses are changed; none: all." example:"[\"ryan.example\"]"`
	Strip      bool     `hcl:"strip,optional" doc:"Deliver to the address without its detail. Otherwise the details are tags alone."`
	Header     string   `hcl:"header,optional" doc:"Field that keeps the address as it was, one for each; empty: none. It tells each recipient of the others' details." example:"\"X-Original-To\""`
}

func defaults() Config { return Config{Separators: "+", Strip: true} }

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.Separators == "" || strings.ContainsFunc(c.Separators, func(r rune) bool {
		return !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", r)
	}) {
		errs = append(errs, schema.Errorf(schema.Path("separators"), `a separator is one of + - = _ . # and their like: write "+"`))
	}
	for i, d := range c.Domains {
		if d == "" || strings.ContainsAny(d, "@ ") {
			errs = append(errs, schema.Errorf(schema.Path("domains", i), "%q is no domain: write ryan.example", d))
		}
	}
	if strings.ContainsFunc(c.Header, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
		errs = append(errs, schema.Errorf(schema.Path("header"), "%q is no header field name", c.Header))
	}
	return errors.Join(errs...)
}

// Interest is that of a judge where nothing is changed.
func (c *Config) Interest() *v1.FilterInterest {
	in := interest()
	if !c.Strip && c.Header == "" {
		in.Effect = v1.FilterInterest_JUDGE
	}
	return in
}

func interest() *v1.FilterInterest {
	return &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_EDIT,
	}
}

// Filter is one instance.
type Filter struct {
	*Config
	stripped *sdk.Value
}

var _ filter.Filter = (*Filter)(nil)

// Filter looks at all recipients of a mail.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	v := filter.Accept()
	var details []string
	for _, r := range ev.Envelope.GetRecipients() {
		base, detail, ok := f.split(r.GetAddress())
		if !ok {
			continue
		}
		details = append(details, detail)
		if f.Header != "" {
			v.AddHeader(f.Header, r.GetAddress())
		}
		if !f.Strip {
			continue
		}
		f.stripped.Add(1)
		original := r.GetOriginalRecipient()
		if original == "" { // RFC 3461 section 4.2: a notice names the address that the sender knows
			original = "rfc822;" + r.GetAddress()
		}
		v.DeleteRecipient(r.GetIndex())
		v.AddRecipientDSN(&v1.Recipient{Address: base, Notify: r.GetNotify(), OriginalRecipient: original})
	}
	if len(details) > 0 {
		v.TagList("subaddress", details...)
	}
	return v, nil
}

// split an address; quoted local parts are left alone.
func (f *Filter) split(a string) (base, detail string, ok bool) {
	at := strings.LastIndexByte(a, '@')
	if at < 1 || a[0] == '"' {
		return "", "", false
	}
	if len(f.Domains) > 0 && !slices.ContainsFunc(f.Domains, func(d string) bool { return strings.EqualFold(d, a[at+1:]) }) {
		return "", "", false
	}
	i := strings.IndexAny(a[:at], f.Separators)
	if i < 1 || i == at-1 {
		return "", "", false
	}
	return a[:i] + a[at:], a[i+1 : at], true
}

// Plugin describes the subaddress filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "subaddress", Version: "1.0.0", Summary: "take the detail off addresses for who does not know details",
		Config: defaults(), Interest: interest(),
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return &Filter{in.Config.(*Config), in.Metrics.Counter("stripped_total", "Recipients whose detail was taken off.")}, nil
		},
	}
}
