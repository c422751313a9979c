// Package dkimsign is a filter that signs the mail of one's own domains with DKIM
// (RFC 6376, RFC 8463): with an RSA and an Ed25519 key side by side where there
// are both.
package dkimsign

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dmarc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/keyring"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "dkimsign" block.
type Config struct {
	Keys             string        `hcl:"keys,optional" semantic:"path" doc:"Folder with the keys, a file DOMAIN/SELECTOR.pem each; stagecoach dkim new makes one. It is read again when a file of it changes." example:"/etc/stagecoach/dkim"`
	Domain           string        `hcl:"domain,optional" doc:"Whose keys sign mail of a domain that has none of its own; empty: it is not signed." example:"hanks.example"`
	Subdomains       bool          `hcl:"subdomains,optional" doc:"Whether mail of news.hanks.example is signed with the keys of hanks.example if it has none of its own."`
	Networks         []string      `hcl:"networks,optional" semantic:"cidr" doc:"Clients whose mail is signed though no user logged in." example:"[\"192.0.2.0/24\"]"`
	Fields           []string      `hcl:"fields,optional" doc:"Header fields that are signed where they stand there."`
	Oversign         []string      `hcl:"oversign,optional" doc:"Header fields that nobody may add on the way: their absence is signed too."`
	Canonicalization string        `hcl:"canonicalization,optional" doc:"What may change on the way, in the header and in the body: relaxed lets white space and folding change." oneof:"relaxed/relaxed,relaxed/simple,simple/relaxed,simple/simple"`
	Lifetime         time.Duration `hcl:"lifetime,optional" doc:"How long a signature is good (x=); 0s: without limit."`
}

func defaults() Config {
	return Config{
		Keys: "/etc/stagecoach/dkim", Subdomains: true, Canonicalization: "relaxed/relaxed",
		// RFC 6376 section 5.4.1, and what says how the body is to be read.
		Fields: []string{
			"From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "In-Reply-To", "References",
			"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
			"Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Date", "Resent-Message-ID",
			"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive",
		},
		Oversign: []string{"From", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"},
	}
}

// neverSigned change on the way (RFC 6376 section 5.4).
var neverSigned = []string{"return-path", "received", "dkim-signature", "authentication-results", "arc-seal", "arc-message-signature", "arc-authentication-results"}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.Domain != "" {
		if _, err := keyring.Domain(c.Domain); err != nil {
			errs = append(errs, schema.Errorf(schema.Path("domain"), "%v", err))
		}
	}
	if !slices.ContainsFunc(slices.Concat(c.Fields, c.Oversign), func(n string) bool { return strings.EqualFold(n, "From") }) {
		errs = append(errs, schema.Errorf(schema.Path("fields"), "From is missing: a signature without it is not valid (RFC 6376 section 5.4)"))
	}
	for attribute, names := range map[string][]string{"fields": c.Fields, "oversign": c.Oversign} {
		for i, n := range names {
			if n == "" || strings.Trim(strings.ToLower(n), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				errs = append(errs, schema.Errorf(schema.Path(attribute, i), "%q is no header field name", n))
			}
			if slices.Contains(neverSigned, strings.ToLower(n)) {
				errs = append(errs, schema.Errorf(schema.Path(attribute, i), "%s changes on the way: a signature of it would break", n))
			}
		}
	}
	if c.Lifetime < 0 || c.Lifetime > 0 && c.Lifetime < time.Hour {
		errs = append(errs, schema.Errorf(schema.Path("lifetime"), "mail may lie in queues for days: give a signature at least an hour, or 0s for no limit"))
	}
	return errors.Join(errs...)
}

// Filter is one instance.
type Filter struct {
	config         Config
	header, body   dkim.Canonicalization
	networks       []netip.Prefix
	keys           *keyring.Ring
	metrics        *sdk.Metrics
	log            zerolog.Logger
	now            func() time.Time
	fallbackDomain string
}

var (
	_ filter.Filter = (*Filter)(nil)
	_ sdk.Checker   = (*Filter)(nil)
)

// Filter signs one mail, or lets it pass as it is. A mail whose From names no
// domain is not ours to judge.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	if !f.own(ev.Envelope.GetClient()) {
		f.unsigned("stranger")
		return filter.Accept(), nil
	}
	r, err := ev.Message.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m, err := message.Read(r)
	if err != nil {
		return nil, err
	}
	author, err := dmarc.Author(m.Header)
	if err != nil {
		f.unsigned("no_author")
		return filter.Accept().Note("not signed: " + err.Error()), nil
	}
	keys := f.keysOf(author)
	if len(keys) == 0 {
		f.unsigned("no_key")
		return filter.Accept().Note("not signed: there is no key for " + author), nil
	}
	bodies := &dkim.Bodies{}
	body := bodies.Want(f.body, crypto.SHA256, -1)
	if err := bodies.Read(ctx, m.Body); err != nil {
		return nil, err
	}
	v, fields := filter.Accept(), f.names(m.Header)
	var by []string
	for _, k := range keys {
		s := &dkim.Signer{
			Domain: k.Domain, Selector: k.Selector, Key: k.Private, Header: f.header, Body: f.body,
			Fields: fields, Lifetime: f.config.Lifetime, Now: f.now,
		}
		value, err := s.Sign(m.Header, body)
		if err != nil {
			return nil, fmt.Errorf("the key %s: %w", k.Path, err)
		}
		v.AddHeader("DKIM-Signature", value)
		by = append(by, k.Selector)
		f.metrics.Counter("signatures_total", "Signatures by the type of the key.", "type", k.Type()).Add(1)
	}
	v.Tag("dkim_signed", keys[0].Domain)
	return v.Note("signed for " + keys[0].Domain + " by " + strings.Join(by, ", ")), nil
}

func (f *Filter) unsigned(why string) {
	f.metrics.Counter("unsigned_total", "Mails that were not signed, by reason.", "reason", why).Add(1)
}

// own tells whether a mail is our users': what a stranger writes in their name is
// not signed. A mail without a client was made here.
func (f *Filter) own(c *v1.Client) bool {
	if c.GetUser() != "" || c.GetIp() == "" {
		return true
	}
	ip, err := netip.ParseAddr(c.GetIp())
	return err == nil && slices.ContainsFunc(f.networks, func(n netip.Prefix) bool { return n.Contains(ip.Unmap()) })
}

// keysOf finds the keys for an author's domain, one above it, or everybody's.
func (f *Filter) keysOf(domain string) []keyring.Key {
	for d := domain; strings.Contains(d, "."); {
		if keys := f.keys.Of(d); len(keys) > 0 {
			return keys
		}
		if !f.config.Subdomains {
			break
		}
		_, d, _ = strings.Cut(d, ".")
	}
	if f.fallbackDomain != "" {
		return f.keys.Of(f.fallbackDomain)
	}
	return nil
}

// names is h=: each field as often as it stands there, and once more where none
// may be added.
func (f *Filter) names(h message.Header) []string {
	var out []string
	seen := map[string]bool{}
	for _, n := range slices.Concat(f.config.Fields, f.config.Oversign) {
		lower := strings.ToLower(n)
		if seen[lower] {
			continue
		}
		seen[lower] = true
		for _, field := range h {
			if field.Is(n) {
				out = append(out, lower)
			}
		}
		if slices.ContainsFunc(f.config.Oversign, func(o string) bool { return strings.EqualFold(o, n) }) {
			out = append(out, lower)
		}
	}
	return out
}

// Health tells of a folder whose keys are not those in use.
func (f *Filter) Health() error { return f.keys.Health() }

// Plugin describes the dkimsign filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "dkimsign", Version: "1.0.0", Summary: "sign the mail of your domains with DKIM",
		Config: defaults(),
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
			Body:   v1.FilterInterest_FULL, Effect: v1.FilterInterest_EDIT,
		},
		Needs:  &v1.Needs{ReadPaths: []string{"{keys}"}},
		Filter: open,
	}
}

func open(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
	c := in.Config.(*Config)
	f := &Filter{config: *c, metrics: in.Metrics, log: in.Log, now: time.Now}
	f.header = strings.HasPrefix(c.Canonicalization, "relaxed/") == bool(dkim.Relaxed)
	f.body = strings.HasSuffix(c.Canonicalization, "/relaxed") == bool(dkim.Relaxed)
	var err error
	if f.networks, err = schema.Networks(c.Networks); err != nil {
		return nil, fmt.Errorf("networks: %w", err)
	}
	if c.Domain != "" {
		f.fallbackDomain, _ = keyring.Domain(c.Domain) // validated
	}
	f.keys, err = keyring.Open(c.Keys, func(err error) {
		if err != nil {
			f.log.Error().Err(err).Msg("dkimsign: the keys are not read anew; those from before still sign")
			return
		}
		f.log.Info().Msg("dkimsign: the keys were read anew")
	})
	if err != nil {
		return nil, fmt.Errorf("%w; `stagecoach dkim new DOMAIN --keys %s` makes a first key", err, c.Keys)
	}
	return f, nil
}
