// Package rspamd is a filter that has rspamd look at mail, over its own HTTP
// protocol. rspamd's proxy as a milter is asked by package milter.
package rspamd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/foreign"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "rspamd" block.
type Config struct {
	Servers  []string `hcl:"servers" doc:"Where rspamd's normal workers or proxies listen, asked in this order: http://host:port, https://host:port, unix:/path, inet:host:port or inet:port@host. One that failed is asked last for ten seconds." example:"[\"http://127.0.0.1:11333\"]"`
	Password string   `hcl:"password,optional" sensitive:"true" doc:"Sent along, for a worker that wants one."`
	CA       string   `hcl:"ca,optional" semantic:"path" doc:"A PEM file of the authorities that may vouch for an https server. Empty: those of the system."`
	Settings string   `hcl:"settings,optional" doc:"The id of the settings that rspamd shall use (Settings-ID)."`
	Tag      string   `hcl:"tag,optional" doc:"How rspamd's logs and rules know this server (MTA-Tag)."`

	Reject         string `hcl:"reject,optional" oneof:"reject,defer,hold,discard,accept" doc:"What becomes of a mail when rspamd's action is reject."`
	SoftReject     string `hcl:"soft_reject,optional" oneof:"reject,defer,hold,discard,accept" doc:"The same for soft reject, with which its greylisting and its rate limits answer."`
	Greylist       string `hcl:"greylist,optional" oneof:"reject,defer,hold,discard,accept" doc:"The same for greylist: a score, and no wish to put off; rspamd's module greylist says soft reject when it wants that."`
	AddHeader      string `hcl:"add_header,optional" oneof:"reject,defer,hold,discard,accept" doc:"The same for add header: probable spam."`
	RewriteSubject string `hcl:"rewrite_subject,optional" oneof:"reject,defer,hold,discard,accept" doc:"The same for rewrite subject; a mail that is accepted gets rspamd's subject."`
	Quarantine     string `hcl:"quarantine,optional" oneof:"reject,defer,hold,discard,accept" doc:"The same for quarantine."`
	Discard        string `hcl:"discard,optional" oneof:"reject,defer,hold,discard,accept" doc:"The same for discard."`
	Text           string `hcl:"text,optional" doc:"What the client is told when a mail is refused and rspamd has no words of its own (smtp_message)."`

	Changes  bool        `hcl:"changes,optional" doc:"Whether the header fields that rspamd adds and removes, its subject and its DKIM signatures are put into the mail. Without them, and with mark = \"none\", it is asked beside other filters that change nothing."`
	Mark     string      `hcl:"mark,optional" oneof:"none,spam,all" doc:"Fields of this filter's own: \"spam\" writes X-Spam: Yes at add header and rewrite subject; \"all\" also writes X-Spam-Action, X-Spam-Score and X-Spam-Symbols on every mail. Those that came with the mail are removed."`
	MaxSize  schema.Size `hcl:"max_size,optional" doc:"Larger mails are not sent to rspamd. 0B: all are."`
	TooLarge string      `hcl:"too_large,optional" oneof:"accept,hold,reject,fail" doc:"What becomes of those: unseen, held, refused with 552 5.3.4, or no verdict, so that on_failure decides."`

	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" doc:"How long a connection may take."`
	ScanTimeout    time.Duration `hcl:"scan_timeout,optional" doc:"How long one server may take for a mail, the sending included; then the next one is asked. The block's timeout bounds all of it, 30 s unless it says otherwise."`
}

func defaults() Config {
	return Config{
		Reject: "reject", SoftReject: "defer", Greylist: "accept", AddHeader: "accept", RewriteSubject: "accept",
		Quarantine: "hold", Discard: "discard", Text: "The message looks like spam",
		Changes: true, Mark: "spam", MaxSize: 50 << 20, TooLarge: "accept",
		ConnectTimeout: 3 * time.Second, ScanTimeout: 12 * time.Second,
	}
}

// Validate points at what cannot work.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(attribute, format string, args ...any) {
		errs = append(errs, schema.Errorf(schema.Path(attribute), format, args...))
	}
	if len(c.Servers) == 0 {
		wrong("servers", "name a server: \"http://127.0.0.1:11333\" is where rspamd's normal worker listens")
	}
	for _, s := range c.Servers {
		if _, err := parseServer(s); err != nil {
			wrong("servers", "%v", err)
		}
	}
	for name, value := range map[string]string{"password": c.Password, "settings": c.Settings, "tag": c.Tag} {
		if value != foreign.Text(value) {
			wrong(name, "it is one line of at most 450 printable ASCII characters")
		}
	}
	if c.Text == "" || c.Text != foreign.Text(c.Text) {
		wrong("text", "it is one line of at most 450 printable ASCII characters")
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
		// All names: a field to be removed may be counted from the last one.
	}
	if !c.Changes && c.Mark == "none" {
		in.Effect, in.HeaderNames = v1.FilterInterest_JUDGE, []string{"none"}
	}
	return in
}

// Filter is one instance.
type Filter struct {
	Config
	hostname string
	servers  []*server
	log      zerolog.Logger
	metrics  *sdk.Metrics
	trouble  atomic.Pointer[error]
}

var _ filter.Filter = (*Filter)(nil)

// Filter has the message looked at.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	if f.MaxSize > 0 && ev.Message.Size() > int64(f.MaxSize) {
		return f.tooLarge()
	}
	v, err := f.judge(ctx, ev)
	if err != nil {
		f.count("fail")
		f.trouble.Store(&err)
		return nil, err
	}
	f.trouble.Store(nil)
	return v, nil
}

func (f *Filter) judge(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	a, err := f.ask(ctx, ev)
	if err != nil {
		return nil, err
	}
	v := f.verdict(a)
	for _, name := range f.marks() { // as the sender may have written them
		v.DeleteHeader(name, 0)
	}
	if f.Changes {
		if err := a.change(v, ev.Header); err != nil {
			return nil, fmt.Errorf("what rspamd wants to change cannot be: %w", err)
		}
	}
	f.mark(v, a)
	f.count(strings.ReplaceAll(a.known(), " ", "_"))
	return v.TagMap("rspamd", a.tags()).TagMap("rspamd_symbols", a.symbols()), nil
}

// verdict is what the operator wants done at rspamd's action.
func (f *Filter) verdict(a *answer) *filter.Verdict {
	reason := fmt.Sprintf("rspamd: %s, %.2f of %.2f", foreign.Text(a.Action), a.Score, a.Required)
	text := f.Text
	if said := foreign.Text(a.said()); said != "" {
		text = said
	}
	switch f.wish(a.Action) {
	case "reject":
		return filter.Reject(550, "5.7.1", text).Reason(reason)
	case "defer":
		if text == f.Text {
			text = "Try again later"
		}
		return filter.Defer(451, "4.7.1", text).Reason(reason)
	case "hold":
		return filter.Hold(reason)
	case "discard":
		return filter.Discard().Reason(reason)
	}
	return filter.Accept().Reason(reason)
}

func (f *Filter) wish(action string) string {
	switch action {
	case "reject":
		return f.Reject
	case "soft reject":
		return f.SoftReject
	case "greylist":
		return f.Greylist
	case "add header":
		return f.AddHeader
	case "rewrite subject":
		return f.RewriteSubject
	case "quarantine":
		return f.Quarantine
	case "discard":
		return f.Discard
	}
	return "accept" // "no action", and actions of the operator's own: tags.rspamd.action
}

// marks are the names of this filter's own fields.
func (f *Filter) marks() []string {
	switch f.Mark {
	case "spam":
		return []string{"X-Spam"}
	case "all":
		return []string{"X-Spam", "X-Spam-Action", "X-Spam-Score", "X-Spam-Symbols"}
	}
	return nil
}

// mark writes them.
func (f *Filter) mark(v *filter.Verdict, a *answer) {
	if f.Mark == "all" {
		v.AddHeader("X-Spam-Symbols", foreign.FieldValue(strings.Join(a.named(), ", ")))
		v.AddHeader("X-Spam-Score", fmt.Sprintf("%.2f / %.2f", a.Score, a.Required))
		v.AddHeader("X-Spam-Action", foreign.Text(a.Action))
	}
	if f.Mark != "none" && (a.Action == "add header" || a.Action == "rewrite subject") {
		v.AddHeader("X-Spam", "Yes")
	}
}

func (f *Filter) tooLarge() (*filter.Verdict, error) {
	f.count("too_large")
	v := filter.Accept()
	switch f.TooLarge {
	case "fail":
		return nil, errors.New("the message is larger than max_size: raise it and rspamd's max_message, or say with too_large what shall become of such mail")
	case "hold":
		v = filter.Hold("too large for rspamd")
	case "reject":
		v = filter.Reject(552, "5.3.4", "The message is too large to be looked at")
	}
	return v.TagMap("rspamd", map[string]any{"action": "too large"}), nil
}

func (f *Filter) count(action string) {
	f.metrics.Counter("answers_total", "Messages by rspamd's action.", "action", action).Add(1)
}

// Health tells the last trouble, until rspamd answers again.
func (f *Filter) Health() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the connections that are kept.
func (f *Filter) Close() error {
	for _, s := range f.servers {
		s.client.CloseIdleConnections()
	}
	return nil
}

// Plugin describes the rspamd filter.
func Plugin() sdk.Plugin {
	c := defaults()
	return sdk.Plugin{
		Name: "rspamd", Version: "1.0.0", Summary: "have rspamd look at mail",
		Config: c, Interest: c.Interest(),
		Needs: &v1.Needs{Network: true, ReadPaths: []string{
			"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/run/systemd/resolve", "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "{ca}",
		}},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			f := &Filter{Config: *in.Config.(*Config), hostname: in.Hostname, log: in.Log, metrics: in.Metrics}
			if err := f.connectTo(); err != nil {
				return nil, err
			}
			return f, nil
		},
	}
}
