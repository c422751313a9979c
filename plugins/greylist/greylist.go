// Package greylist is a filter that puts off the first mail of those it has not
// heard of: a mail server comes again, most senders of spam do not.
package greylist

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/spf"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "greylist" block.
type Config struct {
	Delay      time.Duration `hcl:"delay,optional" doc:"How long a new sender has to wait before it is taken."`
	Window     time.Duration `hcl:"window,optional" doc:"By when it has to have come again; later it is new."`
	Keep       time.Duration `hcl:"keep,optional" doc:"How long who was taken is remembered after its last mail."`
	TrustAfter int           `hcl:"trust_after,optional" doc:"After how many senders and recipients of a network (or of a domain whose SPF passes) were taken all others of it are taken at once; 0: never."`
	SPF        bool          `hcl:"spf,optional" doc:"Whether a sender whose SPF passes is known by its domain in place of the client's network: large providers send each attempt from another one."`
	Except     []string      `hcl:"except,optional" semantic:"cidr" doc:"Clients that never wait." example:"[\"192.0.2.0/24\"]"`
	Reply      string        `hcl:"reply,optional" doc:"Text of the reply, 451 4.7.1."`
	IPv4       int           `hcl:"ipv4_prefix,optional" doc:"How many bits of an IPv4 address are its network."`
	IPv6       int           `hcl:"ipv6_prefix,optional" doc:"How many bits of an IPv6 address are its network."`
	MaxEntries int           `hcl:"max_entries,optional" doc:"The most that is remembered; what waits goes first. An entry takes about 100 octets of memory and 50 on the disk."`
	Resolvers  []string      `hcl:"resolvers,optional" doc:"Recursive name servers for SPF, address or address:port; none is those of /etc/resolv.conf." example:"[\"127.0.0.1:53\"]"`
	Timeout    time.Duration `hcl:"lookup_timeout,optional" doc:"How long SPF may take; what is not known by then does not pass."`
}

func defaults() Config {
	return Config{
		Delay: 2 * time.Minute, Window: 48 * time.Hour, Keep: 36 * 24 * time.Hour, TrustAfter: 5, SPF: true,
		Reply: "We have not heard of you yet: please try again in some minutes", IPv4: 24, IPv6: 64, MaxEntries: 500_000, Timeout: 5 * time.Second,
	}
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(attribute, format string, args ...any) {
		errs = append(errs, schema.Errorf(schema.Path(attribute), format, args...))
	}
	if c.Delay < time.Second {
		wrong("delay", "it must be a second or more")
	}
	if c.Window <= c.Delay {
		wrong("window", "it must be longer than delay: servers come again after minutes to hours")
	}
	if c.Keep < c.Window {
		wrong("keep", "it must not be shorter than window")
	}
	if c.TrustAfter < 0 {
		wrong("trust_after", "it must be 0 or more")
	}
	if c.IPv4 < 8 || c.IPv4 > 32 {
		wrong("ipv4_prefix", "it is from 8 to 32")
	}
	if c.IPv6 < 16 || c.IPv6 > 128 {
		wrong("ipv6_prefix", "it is from 16 to 128")
	}
	if c.MaxEntries < 100 {
		wrong("max_entries", "it must be 100 or more")
	}
	if c.Timeout <= 0 {
		wrong("lookup_timeout", "it must be above zero")
	}
	if strings.ContainsFunc(c.Reply, func(r rune) bool { return r < ' ' || r >= 0x7f }) || c.Reply == "" {
		wrong("reply", "a reply is one line of ASCII")
	}
	for i, s := range c.Resolvers {
		if _, err := dns.ServerAddress(s); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("resolvers", i), "%v", err))
		}
	}
	return errors.Join(errs...)
}

// Filter is one instance.
type Filter struct {
	config  Config
	except  []netip.Prefix
	memory  *memory
	spf     *spf.Checker // nil: it does not count
	metrics *sdk.Metrics
}

var _ filter.Filter = (*Filter)(nil)

// Filter answers for one recipient. Users who logged in never wait.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	c := ev.Envelope.GetClient()
	ip, err := netip.ParseAddr(c.GetIp())
	if ip = ip.Unmap().WithZone(""); c.GetUser() != "" || err != nil || slices.ContainsFunc(f.except, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return f.answer("exempt", filter.Accept())
	}
	who := f.who(ctx, ip, ev.Envelope)
	sender := strings.ToLower(ev.Envelope.GetSender())
	result, wait, err := f.memory.see(key("triplet", who, sender, strings.ToLower(ev.Recipient.GetAddress())), key("network", who))
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		return f.answer(result, filter.Defer(451, "4.7.1", f.config.Reply).Note(fmt.Sprintf("%s: %s has %s to wait", result, who, wait.Round(time.Second))))
	}
	return f.answer(result, filter.Accept())
}

func (f *Filter) answer(result string, v *filter.Verdict) (*filter.Verdict, error) {
	f.metrics.Counter("recipients_total", "Recipients by what the sender was found to be.", "result", result).Add(1)
	return v.Tag("greylist", result), nil
}

// who is the client's network, or the sender's domain if that vouches for it.
func (f *Filter) who(ctx context.Context, ip netip.Addr, env *v1.Envelope) string {
	if f.spf != nil {
		ctx, cancel := context.WithTimeout(ctx, f.config.Timeout)
		defer cancel()
		q := spf.Query{IP: ip, Hello: env.GetClient().GetHello(), Sender: env.GetSender()}
		if f.spf.Check(ctx, q).Result == spf.Pass {
			domain := q.Hello
			if at := strings.LastIndexByte(q.Sender, '@'); at >= 0 {
				domain = q.Sender[at+1:]
			}
			return strings.ToLower(domain)
		}
	}
	bits := f.config.IPv6
	if ip.Is4() {
		bits = f.config.IPv4
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return ip.String()
	}
	return p.String()
}

// id is all that is kept of a sender: its hash.
type id [16]byte

func key(parts ...string) id {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return id(sum[:16])
}

// Health tells of a disk that does not take what is learnt.
func (f *Filter) Health() error { return f.memory.health() }

// Close writes what was learnt.
func (f *Filter) Close() error { return f.memory.close() }

// Plugin describes the greylist filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "greylist", Version: "1.0.0", Summary: "put off the first mail of senders not heard of",
		Config: defaults(),
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_RCPT}, Body: v1.FilterInterest_NONE, Effect: v1.FilterInterest_JUDGE,
		},
		Needs:  &v1.Needs{Network: true, DataDir: true, Exclusive: true, ReadPaths: []string{"/etc/resolv.conf", "/run/systemd/resolve"}},
		Filter: open,
	}
}

func open(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
	c := in.Config.(*Config)
	f := &Filter{config: *c, metrics: in.Metrics}
	var err error
	if f.except, err = schema.Networks(c.Except); err != nil {
		return nil, fmt.Errorf("except: %w", err)
	}
	if c.SPF {
		client, err := dns.New(dns.Config{Servers: c.Resolvers})
		if err != nil {
			return nil, err
		}
		f.spf = &spf.Checker{Resolver: client, Receiver: in.Hostname}
	}
	f.memory, err = remember(in.DataDir, c, time.Now)
	return f, err
}
