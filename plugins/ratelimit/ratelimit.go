// Package ratelimit is a filter that bounds how much mail comes in a time: from a
// user, a sender, an address, a network, or for a recipient.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Limit is one bound.
type Limit struct {
	Name   string        `hcl:"name,label"`
	By     []string      `hcl:"by" doc:"What is counted apart; several together: each pair. A mail that lacks one of them (no user) is not counted." oneof:"user,sender,sender_domain,recipient,recipient_domain,address,network,hello" example:"[\"user\"]"`
	Max    int           `hcl:"max" doc:"The most in that time." example:"100"`
	Per    time.Duration `hcl:"per,optional" doc:"The time: a window that slides."`
	Count  string        `hcl:"count,optional" doc:"What counts: each mail, or each recipient." oneof:"mails,recipients"`
	Action string        `hcl:"action,optional" doc:"What becomes of mail above it: defer (451 4.7.1, the client tries again), reject (550 5.7.1), or tag alone." oneof:"defer,reject,tag"`
	Reply  string        `hcl:"reply,optional" doc:"Text of the reply." example:"Too many mails, try later"`
}

// Config of a filter "ratelimit" block.
type Config struct {
	Limits  []Limit  `hcl:"limit,block" doc:"A bound, with a name for the log and the metrics."`
	Except  []string `hcl:"except,optional" semantic:"cidr" doc:"Clients that are not counted." example:"[\"192.0.2.0/24\"]"`
	IPv4    int      `hcl:"ipv4_prefix,optional" doc:"How many bits of an IPv4 address are its network."`
	IPv6    int      `hcl:"ipv6_prefix,optional" doc:"How many bits of an IPv6 address are its network, and what counts as one address."`
	MaxKeys int      `hcl:"max_keys,optional" doc:"The most counters that are kept; the ones longest unused go first."`
}

func defaults() Config {
	return Config{
		Limits: []Limit{{Per: time.Hour, Count: "mails", Action: "defer"}},
		IPv4:   24, IPv6: 64, MaxKeys: 100_000,
	}
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Limits) == 0 {
		errs = append(errs, schema.Errorf(nil, `there is no limit: add one, as limit "users" { by = ["user"] max = 100 }`))
	}
	names := map[string]bool{}
	for i, l := range c.Limits {
		if names[l.Name] {
			errs = append(errs, schema.Errorf(schema.Path("limit", i), "there are two limits %q", l.Name))
		}
		names[l.Name] = true
		if len(l.By) == 0 {
			errs = append(errs, schema.Errorf(schema.Path("limit", i, "by"), "name what is counted apart, as [\"user\"]"))
		}
		if l.Max < 1 {
			errs = append(errs, schema.Errorf(schema.Path("limit", i, "max"), "it must be above zero"))
		}
		if l.Per < time.Second {
			errs = append(errs, schema.Errorf(schema.Path("limit", i, "per"), "the shortest window is a second"))
		}
		if l.Count == "mails" && slices.ContainsFunc(l.By, func(by string) bool { return strings.HasPrefix(by, "recipient") }) {
			errs = append(errs, schema.Errorf(schema.Path("limit", i, "count"), `by recipient it is recipients that are counted: write count = "recipients"`))
		}
		for _, r := range l.Reply {
			if r < ' ' || r >= 0x7f {
				errs = append(errs, schema.Errorf(schema.Path("limit", i, "reply"), "a reply is one line of ASCII"))
				break
			}
		}
	}
	if c.IPv4 < 8 || c.IPv4 > 32 {
		errs = append(errs, schema.Errorf(schema.Path("ipv4_prefix"), "it is from 8 to 32"))
	}
	if c.IPv6 < 16 || c.IPv6 > 128 {
		errs = append(errs, schema.Errorf(schema.Path("ipv6_prefix"), "it is from 16 to 128"))
	}
	if c.MaxKeys < 1 {
		errs = append(errs, schema.Errorf(schema.Path("max_keys"), "it must be above zero"))
	}
	return errors.Join(errs...)
}

// Interest is in the moments at which something counts.
func (c *Config) Interest() *v1.FilterInterest {
	in := &v1.FilterInterest{Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_JUDGE}
	for _, count := range []struct {
		what  string
		event v1.FilterEvent
	}{{"mails", v1.FilterEvent_MAIL}, {"recipients", v1.FilterEvent_RCPT}} {
		if slices.ContainsFunc(c.Limits, func(l Limit) bool { return l.Count == count.what }) {
			in.Events = append(in.Events, count.event)
		}
	}
	return in
}

// Filter is one instance.
type Filter struct {
	config  Config
	except  []netip.Prefix
	windows *windows
	metrics *sdk.Metrics
	now     func() time.Time
}

var _ filter.Filter = (*Filter)(nil)

// Filter counts one mail or one recipient; the first limit that it is above
// decides. What is refused does not count: who waits may send again.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	ip, err := netip.ParseAddr(ev.Envelope.GetClient().GetIp())
	if ip = ip.Unmap(); err == nil && slices.ContainsFunc(f.except, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return filter.Accept(), nil
	}
	count := "mails"
	if ev.Kind == v1.FilterEvent_RCPT {
		count = "recipients"
	}
	var above []string
	v, now := filter.Accept(), f.now()
	type counted struct {
		key string
		per time.Duration
	}
	var taken []counted
	for i := range f.config.Limits {
		l := &f.config.Limits[i]
		if l.Count != count {
			continue
		}
		key, ok := f.key(l, ip, ev)
		if !ok {
			continue
		}
		if f.windows.take(key, l.Per, l.Max, now) {
			taken = append(taken, counted{key, l.Per})
			continue
		}
		above = append(above, l.Name)
		f.metrics.Counter("above_total", "Mails or recipients above a limit.", "limit", l.Name).Add(1)
		if l.Action != "tag" && len(above) == 1 {
			v = l.verdict()
		}
	}
	if v.Reply().GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		for _, c := range taken {
			f.windows.giveBack(c.key, c.per, now)
		}
	}
	if len(above) > 0 {
		v.TagList("ratelimit", above...)
	}
	return v, nil
}

func (l *Limit) verdict() *filter.Verdict {
	text := l.Reply
	if text == "" {
		text = fmt.Sprintf("More than %d %s in %s", l.Max, l.Count, l.Per)
	}
	if l.Action == "reject" {
		return filter.Reject(550, "5.7.1", text)
	}
	return filter.Defer(451, "4.7.1", text)
}

// key is what a limit counts under; false: the mail lacks a part of it.
func (f *Filter) key(l *Limit, ip netip.Addr, ev *filter.Event) (string, bool) {
	var b strings.Builder
	b.WriteString(l.Name)
	for _, by := range l.By {
		part := ""
		switch by {
		case "user":
			part = ev.Envelope.GetClient().GetUser()
		case "sender":
			part = ev.Envelope.GetSender()
		case "sender_domain":
			part = domain(ev.Envelope.GetSender())
		case "recipient":
			part = ev.Recipient.GetAddress()
		case "recipient_domain":
			part = domain(ev.Recipient.GetAddress())
		case "hello":
			part = ev.Envelope.GetClient().GetHello()
		case "address", "network":
			if !ip.IsValid() {
				return "", false
			}
			bits := f.config.IPv6
			if ip.Is4() {
				bits = 32
				if by == "network" {
					bits = f.config.IPv4
				}
			}
			p, err := ip.WithZone("").Prefix(bits)
			if err != nil {
				return "", false
			}
			part = p.String()
		}
		if part == "" {
			return "", false
		}
		b.WriteByte(0)
		b.WriteString(strings.ToLower(part))
	}
	return b.String(), true
}

func domain(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// Plugin describes the ratelimit filter.
func Plugin() sdk.Plugin {
	c := defaults()
	return sdk.Plugin{
		Name: "ratelimit", Version: "1.0.0", Summary: "bound how much mail comes from a user, an address or for a recipient",
		Config: c,
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_MAIL, v1.FilterEvent_RCPT}, Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_JUDGE,
		},
		Filter: open,
	}
}

func open(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
	c := in.Config.(*Config)
	f := &Filter{config: *c, windows: newWindows(c.MaxKeys), metrics: in.Metrics, now: time.Now}
	var err error
	if f.except, err = schema.Networks(c.Except); err != nil {
		return nil, fmt.Errorf("except: %w", err)
	}
	return f, nil
}
