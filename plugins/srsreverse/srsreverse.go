// Package srsreverse is a directory that takes bounces of forwarded mail: it knows
// the addresses that the filter srs made, and who is behind them.
package srsreverse

import (
	"context"
	"errors"
	"strings"
	"time"

	rewrite "github.com/stagecoach-mta/stagecoach/plugins/mailauth/srs"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a directory "srsreverse" block.
type Config struct {
	Domain  string        `hcl:"domain" doc:"Domain of the rewritten addresses, as in the filter." example:"ryan.example"`
	Secrets []string      `hcl:"secrets" sensitive:"true" doc:"The same as in the filter." example:"[\"0123456789abcdef0123456789abcdef\"]"`
	MaxAge  time.Duration `hcl:"max_age,optional" doc:"How long a bounce is taken after the mail was forwarded, in days."`
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	if attribute, err := c.rewriter().Check(); err != nil {
		return schema.Errorf(schema.Path(attribute), "%v", err)
	}
	return nil
}

func (c *Config) rewriter() *rewrite.Rewriter {
	r := &rewrite.Rewriter{Domain: c.Domain, Age: c.MaxAge, Now: time.Now}
	for _, s := range c.Secrets {
		r.Secrets = append(r.Secrets, strings.TrimSpace(s)) // a file ends in a line end
	}
	return r
}

// Directory knows the addresses of one forwarder.
type Directory struct {
	rewriter *rewrite.Rewriter
	metrics  *sdk.Metrics
}

var _ directory.Directory = (*Directory)(nil)

// Resolve answers for rewritten addresses alone: all others are the next
// directory's, also those of the same domain.
func (d *Directory) Resolve(_ context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	to, err := d.rewriter.Reverse(req.GetAddress())
	switch {
	case errors.Is(err, rewrite.ErrOther):
		return &v1.ResolveResponse{Result: v1.ResolveResponse_NOT_MINE}, nil
	case err != nil:
		result := "forged"
		if errors.Is(err, rewrite.ErrExpired) {
			result = "expired"
		}
		d.count(result)
		return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
	}
	d.count("reversed")
	return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: []string{to}}, nil
}

func (d *Directory) count(result string) {
	d.metrics.Counter("addresses_total", "SRS addresses that were asked for, by what they were found to be.", "result", result).Add(1)
}

// Authenticate knows nobody who could log in.
func (d *Directory) Authenticate(context.Context, *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	return nil, fail.New(fail.Denied, "nobody logs in with an address of a forwarder")
}

// Credentials knows nobody who could log in.
func (d *Directory) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return nil, fail.New(fail.Unsupported, "nobody logs in with an address of a forwarder")
}

// Domains has the one to which bounces come.
func (d *Directory) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{Domains: []string{d.rewriter.Domain}}, nil
}

// Plugin describes the srsreverse directory.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "srsreverse", Version: "1.0.0", Summary: "take the bounces of mail that srs rewrote",
		Config: Config{MaxAge: 21 * 24 * time.Hour},
		Directory: func(_ context.Context, in *sdk.Instance) (directory.Directory, error) {
			return &Directory{rewriter: in.Config.(*Config).rewriter(), metrics: in.Metrics}, nil
		},
	}
}
