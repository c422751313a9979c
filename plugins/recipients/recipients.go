// Package recipients is a filter that bounds how many recipients a mail has, by who
// sends it.
package recipients

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "recipients" block.
type Config struct {
	Strangers  int    `hcl:"strangers,optional" doc:"The most recipients of a mail from a client that has not logged in; 0: any number."`
	Users      int    `hcl:"users,optional" doc:"The most of a mail from a user; 0: any number."`
	NullSender int    `hcl:"null_sender,optional" doc:"The most of a mail from the null reverse-path, as notices have it: they go to one; 0: any number."`
	Domains    int    `hcl:"domains,optional" doc:"The most different domains of a mail's recipients, whoever sends it; 0: any number."`
	Action     string `hcl:"action,optional" doc:"later: each recipient beyond is answered 452 4.5.3, and mail servers send to it in a mail of its own (RFC 5321 section 4.5.3.1.10); reject: the whole mail gets 550 5.5.3." oneof:"later,reject"`
}

func defaults() Config { return Config{Strangers: 100, Users: 100, NullSender: 1, Action: "later"} }

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for name, n := range map[string]int{"strangers": c.Strangers, "users": c.Users, "null_sender": c.NullSender, "domains": c.Domains} {
		if n < 0 {
			errs = append(errs, schema.Errorf(schema.Path(name), "it is above zero, or 0 for any number"))
		}
	}
	return errors.Join(errs...)
}

// Interest is in the moment at which it may say something.
func (c *Config) Interest() *v1.FilterInterest {
	in := interest()
	in.Events = in.Events[:1]
	if c.Action == "reject" {
		in.Events[0] = v1.FilterEvent_ENVELOPE
	}
	return in
}

func interest() *v1.FilterInterest {
	return &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_RCPT, v1.FilterEvent_ENVELOPE},
		Body:   v1.FilterInterest_NONE, Effect: v1.FilterInterest_JUDGE,
	}
}

// Filter is one instance.
type Filter struct {
	*Config
	above *sdk.Value
}

var _ filter.Filter = (*Filter)(nil)

// Filter counts those accepted so far, the one asked about among them.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	e := ev.Envelope
	most := f.Strangers
	switch {
	case e.GetSender() == "" && f.NullSender > 0:
		most = f.NullSender
	case e.GetClient().GetUser() != "":
		most = f.Users
	}
	n, what := len(e.GetRecipients()), "recipients"
	if (most == 0 || n <= most) && f.Domains > 0 {
		n, most, what = domains(e.GetRecipients()), f.Domains, "domains"
	}
	if most == 0 || n <= most {
		return filter.Accept(), nil
	}
	f.above.Add(1)
	text := fmt.Sprintf("A mail has at most %d %s here", most, what)
	if f.Action == "reject" {
		return filter.Reject(550, "5.5.3", text), nil
	}
	return filter.Defer(452, "4.5.3", text), nil
}

func domains(rs []*v1.Recipient) int {
	seen := map[string]bool{}
	for _, r := range rs {
		a := r.GetAddress()
		seen[strings.ToLower(a[strings.LastIndexByte(a, '@')+1:])] = true
	}
	return len(seen)
}

// Plugin describes the recipients filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "recipients", Version: "1.0.0", Summary: "bound how many recipients a mail has",
		Config: defaults(), Interest: interest(),
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return &Filter{in.Config.(*Config), in.Metrics.Counter("above_total", "Recipients, or mails, above a limit.")}, nil
		},
	}
}
