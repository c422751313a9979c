// Package spamd is a filter that has SpamAssassin's spamd look at mail, as spamc
// does. spamass-milter is asked by package milter.
package spamd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/foreign"
	"github.com/stagecoach-mta/stagecoach/plugins/milter/socket"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "spamd" block.
type Config struct {
	Servers      []string `hcl:"servers" doc:"Where spamd listens, asked in this order: inet:host:port, inet:port@host or unix:/path. One that failed is asked last for ten seconds." example:"[\"inet:127.0.0.1:783\"]"`
	User         string   `hcl:"user,optional" doc:"Whose preferences spamd shall use. Empty: spamd's own."`
	PerRecipient bool     `hcl:"per_recipient,optional" doc:"Whether a mail to one recipient is looked at with the preferences of that address, in lower case. A mail to several, or to an address with other characters than ASCII letters, digits and -+_.,=@, is looked at with those of user."`

	Spam     string  `hcl:"spam,optional" oneof:"tag,reject,hold,discard" doc:"What becomes of a mail that spamd calls spam: tagged and marked, refused with 550 5.7.1, held for an operator, or thrown away."`
	RejectAt float64 `hcl:"reject_at,optional" doc:"The score from which on a mail is refused whatever spam says. 0: none."`
	Text     string  `hcl:"text,optional" doc:"What the client is told when a mail is refused."`

	Mark    string      `hcl:"mark,optional" oneof:"none,spam,all" doc:"Which mails get the X-Spam-* fields that spamd writes; those that came with a mail are removed. With \"none\" nothing is changed, and spamd is asked beside other filters that change nothing."`
	MaxSize schema.Size `hcl:"max_size,optional" doc:"Larger mails are not sent to spamd, and pass. 0B: all are."`

	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" doc:"How long a connection may take."`
	ScanTimeout    time.Duration `hcl:"scan_timeout,optional" doc:"How long one server may take for a mail, the sending included; then the next one is asked. The block's timeout bounds all of it, 30 s unless it says otherwise."`
}

func defaults() Config {
	return Config{
		Spam: "tag", Text: "The message looks like spam", Mark: "all", MaxSize: 500 << 10,
		ConnectTimeout: 3 * time.Second, ScanTimeout: 25 * time.Second,
	}
}

// Validate points at what cannot work.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(attribute, format string, args ...any) {
		errs = append(errs, schema.Errorf(schema.Path(attribute), format, args...))
	}
	if len(c.Servers) == 0 {
		wrong("servers", "name a server: \"inet:127.0.0.1:783\" is where spamd listens")
	}
	for _, s := range c.Servers {
		if _, _, err := socket.Parse(s); err != nil {
			wrong("servers", "%v", err)
		}
	}
	if c.User != foreign.Text(c.User) || c.User != strings.TrimSpace(c.User) {
		wrong("user", "it is one line of at most 450 printable ASCII characters, without spaces around it")
	}
	if c.Text == "" || c.Text != foreign.Text(c.Text) {
		wrong("text", "it is one line of at most 450 printable ASCII characters")
	}
	if c.RejectAt < 0 {
		wrong("reject_at", "it must not be below zero")
	}
	if c.MaxSize < 0 {
		wrong("max_size", "it must not be below zero")
	}
	if c.ConnectTimeout <= 0 {
		wrong("connect_timeout", "it must be above zero")
	}
	if c.ScanTimeout <= 0 {
		wrong("scan_timeout", "it must be above zero")
	}
	return errors.Join(errs...)
}

// Interest has no edits to offer where none is wanted.
func (c *Config) Interest() *v1.FilterInterest {
	in := &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
		Body:   v1.FilterInterest_FULL, Effect: v1.FilterInterest_EDIT,
		// All names: whatever begins with X-Spam- is removed.
	}
	if c.Mark == "none" {
		in.Effect, in.HeaderNames = v1.FilterInterest_JUDGE, []string{"none"}
	}
	return in
}

// Filter is one instance.
type Filter struct {
	Config
	servers []*server
	metrics *sdk.Metrics
	trouble atomic.Pointer[error]
}

var _ filter.Filter = (*Filter)(nil)

// Filter has the message looked at.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	if f.MaxSize > 0 && ev.Message.Size() > int64(f.MaxSize) {
		f.count("too_large")
		v := filter.Accept()
		f.unmark(v, ev.Header)
		return v.TagMap("spamd", map[string]any{"skipped": true}), nil
	}
	a, err := f.ask(ctx, ev)
	if err != nil {
		f.count("fail")
		f.trouble.Store(&err)
		return nil, err
	}
	f.trouble.Store(nil)
	if a.spam {
		f.count("spam")
	} else {
		f.count("ham")
	}
	v := f.verdict(a)
	f.unmark(v, ev.Header)
	if f.Mark == "all" || f.Mark == "spam" && a.spam {
		a.mark(v)
	}
	return v.TagMap("spamd", a.tags()), nil
}

// verdict is what the operator wants done with such a mail.
func (f *Filter) verdict(a *answer) *filter.Verdict {
	reason := fmt.Sprintf("spamd: %.1f of %.1f", a.score, a.required)
	switch {
	case f.RejectAt > 0 && a.score >= f.RejectAt, a.spam && f.Spam == "reject":
		return filter.Reject(550, "5.7.1", f.Text).Reason(reason)
	case a.spam && f.Spam == "hold":
		return filter.Hold(reason)
	case a.spam && f.Spam == "discard":
		return filter.Discard().Reason(reason)
	}
	return filter.Accept().Reason(reason)
}

// unmark removes the fields that the sender may have written.
func (f *Filter) unmark(v *filter.Verdict, header mail.Header) {
	if f.Mark == "none" {
		return
	}
	done := map[string]bool{}
	for _, h := range header {
		if name := strings.ToLower(h.GetName()); isMark(name) && !done[name] {
			done[name] = true
			v.DeleteHeader(h.GetName(), 0)
		}
	}
}

func (f *Filter) count(result string) {
	f.metrics.Counter("answers_total", "Messages by what spamd said.", "result", result).Add(1)
}

// Health tells the last trouble, until spamd answers again.
func (f *Filter) Health() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Plugin describes the spamd filter.
func Plugin() sdk.Plugin {
	c := defaults()
	return sdk.Plugin{
		Name: "spamd", Version: "1.0.0", Summary: "have SpamAssassin's spamd look at mail",
		Config: c, Interest: c.Interest(),
		// As many as spamd has children for (--max-children), unless it is told otherwise.
		MaxConcurrent: 5,
		Needs:         &v1.Needs{Network: true, ReadPaths: []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/run/systemd/resolve"}},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			f := &Filter{Config: *in.Config.(*Config), metrics: in.Metrics}
			for _, name := range f.Servers {
				network, address, err := socket.Parse(name)
				if err != nil {
					return nil, err
				}
				f.servers = append(f.servers, &server{name: name, network: network, address: address})
			}
			return f, nil
		},
	}
}
