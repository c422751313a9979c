// Package arcsign is a filter that seals forwarded mail (ARC, RFC 8617): what this
// server saw of its authentication, for receivers behind it, who see it no more.
package arcsign

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/arc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/keyring"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "arcsign" block.
type Config struct {
	Domain     string   `hcl:"domain" doc:"Whose RSA key seals." example:"ryan.example"`
	Keys       string   `hcl:"keys,optional" semantic:"path" doc:"Folder with the keys, a file DOMAIN/SELECTOR.pem each, as dkimsign has it; stagecoach dkim new makes one." example:"/etc/stagecoach/dkim"`
	AuthservID string   `hcl:"authserv_id,optional" doc:"Name in the Authentication-Results fields that are sealed, as authverify writes it. Empty is the server's hostname." example:"mx.ryan.example"`
	Fields     []string `hcl:"fields,optional" doc:"Header fields that the message signature signs where they stand there."`
}

func defaults() Config {
	return Config{
		Keys: "/etc/stagecoach/dkim",
		Fields: []string{
			"From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "In-Reply-To", "References",
			"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "DKIM-Signature",
			"List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Post",
		},
	}
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if _, err := keyring.Domain(c.Domain); err != nil {
		errs = append(errs, schema.Errorf(schema.Path("domain"), "%v", err))
	}
	if strings.ContainsAny(c.AuthservID, " \t\r\n\x00;()\"") {
		errs = append(errs, schema.Errorf(schema.Path("authserv_id"), "%q is no name: write the server's, as mx.ryan.example", c.AuthservID))
	}
	if !slices.ContainsFunc(c.Fields, func(n string) bool { return strings.EqualFold(n, "From") }) {
		errs = append(errs, schema.Errorf(schema.Path("fields"), "From is missing: a signature without it is not valid (RFC 6376 section 5.4)"))
	}
	for i, n := range c.Fields {
		if n == "" || strings.Trim(strings.ToLower(n), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			errs = append(errs, schema.Errorf(schema.Path("fields", i), "%q is no header field name", n))
		}
		if slices.Contains(neverSigned, strings.ToLower(n)) {
			errs = append(errs, schema.Errorf(schema.Path("fields", i), "%s is not for the message signature (RFC 8617 section 4.1.2)", n))
		}
	}
	return errors.Join(errs...)
}

var neverSigned = []string{"return-path", "received", "authentication-results", "arc-seal", "arc-message-signature", "arc-authentication-results"}

// Filter is one instance.
type Filter struct {
	config  Config
	domain  string
	id      string
	keys    *keyring.Ring
	metrics *sdk.Metrics
	now     func() time.Time
}

var (
	_ filter.Filter = (*Filter)(nil)
	_ sdk.Checker   = (*Filter)(nil)
)

// Filter seals one mail, or lets it pass as it is.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	if c := ev.Envelope.GetClient(); c.GetUser() != "" || c.GetIp() == "" {
		return f.leave("own", "not sealed: the mail begins here")
	}
	key := f.key()
	if key == nil {
		return f.leave("no_key", "not sealed: there is no RSA key for "+f.domain)
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
	s := &arc.Sealer{
		Domain: key.Domain, Selector: key.Selector, Key: key.Private, Fields: f.config.Fields, AuthservID: f.id, Now: f.now,
	}
	bodies := &dkim.Bodies{}
	sum := s.Body(bodies)
	if err := bodies.Read(ctx, m.Body); err != nil {
		return nil, err
	}
	set, err := s.Seal(m.Header, sum)
	for reason, why := range map[string]error{"no_results": arc.ErrNoResults, "failed": arc.ErrFailed, "too_long": arc.ErrTooLong} {
		if errors.Is(err, why) {
			return f.leave(reason, "not sealed: "+why.Error())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the key %s: %w", key.Path, err)
	}
	v := filter.Accept()
	for _, field := range slices.Backward(set[:]) { // each goes to the top
		v.AddHeader(field.Name, string(field.Value()))
	}
	f.metrics.Counter("seals_total", "ARC sets that were added.").Add(1)
	return v.Note("sealed for " + key.Domain + " by " + key.Selector), nil
}

func (f *Filter) leave(reason, note string) (*filter.Verdict, error) {
	f.metrics.Counter("unsealed_total", "Mails that were not sealed, by reason.", "reason", reason).Add(1)
	return filter.Accept().Note(note), nil
}

// key is the RSA key in use: verifiers know no other for ARC.
func (f *Filter) key() *keyring.Key {
	for _, k := range f.keys.Of(f.domain) {
		if _, ok := k.Private.(*rsa.PrivateKey); ok {
			return &k
		}
	}
	return nil
}

// Health tells of a folder whose keys are not those in use, and of none.
func (f *Filter) Health() error {
	if err := f.keys.Health(); err != nil {
		return err
	}
	if f.key() == nil {
		return fmt.Errorf("there is no RSA key for %s: `stagecoach dkim new %s --type rsa --keys %s` makes one", f.domain, f.domain, f.config.Keys)
	}
	return nil
}

// Plugin describes the arcsign filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "arcsign", Version: "1.0.0", Summary: "seal forwarded mail with ARC",
		Config: defaults(),
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
			Body:   v1.FilterInterest_FULL, Effect: v1.FilterInterest_EDIT,
		},
		Filter: open,
	}
}

func open(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
	c := in.Config.(*Config)
	f := &Filter{config: *c, id: c.AuthservID, metrics: in.Metrics, now: time.Now}
	if f.id == "" {
		f.id = in.Hostname
	}
	var err error
	if f.domain, err = keyring.Domain(c.Domain); err != nil {
		return nil, err
	}
	f.keys, err = keyring.Open(c.Keys, func(err error) {
		if err != nil {
			in.Log.Error().Err(err).Msg("arcsign: the keys are not read anew; those from before still seal")
			return
		}
		in.Log.Info().Msg("arcsign: the keys were read anew")
	})
	if err == nil && f.key() == nil {
		err = fmt.Errorf("%s has no RSA key for %s", c.Keys, f.domain)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; `stagecoach dkim new %s --type rsa --keys %s` makes one", err, f.domain, c.Keys)
	}
	return f, nil
}
