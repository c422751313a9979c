// Package authverify is a filter that finds out who sent a mail: SPF, DKIM, DMARC,
// ARC and the client's name. It writes that into tags and an
// Authentication-Results field, and leaves what becomes of the mail to the
// configuration.
package authverify

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/arc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/authres"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dmarc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/iprev"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/spf"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "authverify" block.
type Config struct {
	AuthservID     string        `hcl:"authserv_id,optional" doc:"Name in Authentication-Results; fields of that name that come with a mail are removed. Empty is the server's hostname." example:"mx.ryan.example"`
	Resolvers      []string      `hcl:"resolvers,optional" doc:"Recursive name servers, address or address:port; none is those of /etc/resolv.conf." example:"[\"127.0.0.1:53\"]"`
	DNSTimeout     time.Duration `hcl:"dns_timeout,optional" doc:"How long one name server may take for one answer."`
	Timeout        time.Duration `hcl:"lookup_timeout,optional" doc:"How long all look-ups of a mail may take; what is not known by then is temperror."`
	DNSCache       int           `hcl:"dns_cache,optional" doc:"The most DNS answers that are kept."`
	MaxSignatures  int           `hcl:"max_signatures,optional" doc:"The most DKIM signatures of a mail that are looked at, from the top."`
	MinRSABits     int           `hcl:"min_rsa_bits,optional" doc:"RSA keys with fewer bits are not taken: policy in place of pass."`
	PartialBody    bool          `hcl:"partial_body,optional" doc:"Whether a DKIM signature passes that leaves a part of the body unsigned (l=)."`
	Organizational string        `hcl:"organizational_domain,optional" doc:"How DMARC finds the domain of an organization: by the public suffix list (RFC 7489), or by the DNS tree walk (RFC 9989)." oneof:"public_suffix,tree_walk"`
}

func defaults() Config {
	return Config{
		DNSTimeout: 3 * time.Second, Timeout: 15 * time.Second, DNSCache: 10_000, MaxSignatures: 10, MinRSABits: dkim.MinRSABits,
		Organizational: "public_suffix",
	}
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for i, s := range c.Resolvers {
		if _, err := dns.ServerAddress(s); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("resolvers", i), "%v", err))
		}
	}
	for name, n := range map[string]int64{
		"dns_timeout": int64(c.DNSTimeout), "lookup_timeout": int64(c.Timeout), "dns_cache": int64(c.DNSCache),
		"max_signatures": int64(c.MaxSignatures), "min_rsa_bits": int64(c.MinRSABits),
	} {
		if n <= 0 {
			errs = append(errs, schema.Errorf(schema.Path(name), "%s must be above zero", name))
		}
	}
	if c.MinRSABits > 0 && c.MinRSABits < dkim.MinRSABits {
		errs = append(errs, schema.Errorf(schema.Path("min_rsa_bits"), "RFC 8301 takes no keys of fewer than %d bits", dkim.MinRSABits))
	}
	if strings.ContainsAny(c.AuthservID, " \t\r\n\x00;()\"") {
		errs = append(errs, schema.Errorf(schema.Path("authserv_id"), "%q is no name: write the server's, as mx.ryan.example", c.AuthservID))
	}
	return errors.Join(errs...)
}

// Filter is one instance.
type Filter struct {
	id      string
	timeout time.Duration
	dns     dns.Resolver
	spf     *spf.Checker
	dkim    *dkim.Verifier
	arc     *arc.Verifier
	dmarc   *dmarc.Evaluator
	metrics *sdk.Metrics
}

var _ filter.Filter = (*Filter)(nil)

// results is what was found out about a mail.
type results struct {
	iprev     iprev.Result
	name      string
	spf       spf.Outcome
	dkim      []dkim.Verdict
	arc       arc.Outcome
	dmarc     dmarc.Outcome
	ip        netip.Addr
	sender    string
	hello     string
	forged    []int // indexes of Authentication-Results fields of our name
	hasClient bool
}

// Filter looks at one mail. Mail of a user who logged in is not looked at: it has
// no authentication yet. What others wrote in our name goes all the same.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	r, err := ev.Message.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m, err := message.Read(r)
	if err != nil {
		return nil, err
	}
	found := &results{forged: f.forged(m.Header)}
	v := filter.Accept()
	for _, i := range found.forged {
		v.DeleteHeader("Authentication-Results", i)
	}
	f.count("forged_total", "Authentication-Results fields in our name that came with a mail and were removed.", int64(len(found.forged)))
	if ev.Envelope.GetClient().GetUser() != "" {
		v.AddHeader("Authentication-Results", authres.Format(f.id, []authres.Result{{Method: "auth", Value: "pass"}}))
		return v, nil
	}
	if err := f.look(ctx, ev.Envelope, m, found); err != nil {
		return nil, err
	}
	v.AddHeader("Authentication-Results", authres.Format(f.id, found.fields()))
	found.tag(v)
	for method, result := range map[string]string{"spf": string(found.spf.Result), "dmarc": string(found.dmarc.Result), "arc": string(found.arc.Result)} {
		f.metrics.Counter("mails_total", "Mails by method and its result.", "method", method, "result", result).Add(1)
	}
	for _, s := range found.dkim {
		f.metrics.Counter("signatures_total", "DKIM signatures by result.", "result", string(s.Result)).Add(1)
	}
	return v, nil
}

func (f *Filter) count(name, help string, n int64) { f.metrics.Counter(name, help).Add(n) }

// forged finds the fields that bear our name, or one that cannot be told (RFC 8601
// section 5): their indexes, from 1 on.
func (f *Filter) forged(h message.Header) []int {
	var out []int
	for i, field := range h.All("Authentication-Results") {
		if name, ok := authres.Name(string(field.Value())); !ok || strings.EqualFold(name, f.id) {
			out = append(out, i+1)
		}
	}
	return out
}

// look starts everything that asks the DNS at once, and reads the body meanwhile.
func (f *Filter) look(ctx context.Context, env *v1.Envelope, m *message.Message, found *results) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	found.sender, found.hello = env.GetSender(), env.GetClient().GetHello()
	ip, err := netip.ParseAddr(env.GetClient().GetIp())
	found.hasClient, found.ip = err == nil, ip.Unmap()

	bodies := &dkim.Bodies{}
	signatures := f.dkim.Begin(ctx, m.Header, bodies)
	chain := f.arc.Begin(ctx, m.Header, bodies)
	policy := f.dmarc.Begin(ctx, m.Header)
	spfDone, iprevDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(spfDone)
		found.spf = f.spf.Check(ctx, spf.Query{IP: ip, Hello: found.hello, Sender: found.sender})
	}()
	go func() {
		defer close(iprevDone)
		if found.hasClient {
			found.iprev, found.name = iprev.Check(ctx, f.dns, ip)
		}
	}()
	err = bodies.Read(ctx, m.Body)
	<-spfDone
	<-iprevDone
	if err != nil {
		return err
	}
	found.dkim, found.arc = signatures.Finish(), chain.Finish()
	found.dmarc = policy.Finish(found.authenticated())
	return nil
}

// Plugin describes the authverify filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "authverify", Version: "1.0.0", Summary: "find out who sent a mail: SPF, DKIM, DMARC, ARC, iprev",
		Config: defaults(),
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Body: v1.FilterInterest_FULL,
			HeaderNames: []string{"authentication-results"}, Effect: v1.FilterInterest_EDIT,
		},
		Needs:  &v1.Needs{Network: true, ReadPaths: []string{"/etc/resolv.conf", "/run/systemd/resolve"}},
		Filter: open,
	}
}

func open(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
	c := in.Config.(*Config)
	id := c.AuthservID
	if id == "" {
		id = in.Hostname
	}
	client, err := dns.New(dns.Config{
		Servers: c.Resolvers, Timeout: c.DNSTimeout, CacheSize: c.DNSCache,
		Asked: func(outcome string) {
			in.Metrics.Counter("dns_questions_total", "Questions to name servers by outcome; answers from the cache are none.", "outcome", outcome).Add(1)
		},
	})
	if err != nil {
		return nil, err
	}
	org := dmarc.PublicSuffix
	if c.Organizational == "tree_walk" {
		org = dmarc.TreeWalk
	}
	return &Filter{
		id: id, timeout: c.Timeout, dns: client, metrics: in.Metrics,
		spf:   &spf.Checker{Resolver: client, Receiver: in.Hostname},
		dkim:  &dkim.Verifier{Resolver: client, MaxSignatures: c.MaxSignatures, MinRSABits: c.MinRSABits, PartialBody: c.PartialBody},
		arc:   &arc.Verifier{Resolver: client, MinRSABits: c.MinRSABits},
		dmarc: &dmarc.Evaluator{Resolver: client, Organizational: org},
	}, nil
}
