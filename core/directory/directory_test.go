package directory

import (
	"context"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// table is a directory for ryan.example: a target list per address; "=" is a mailbox.
type table map[string]string

func (t table) Resolve(_ context.Context, r *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	a := strings.ToLower(r.GetAddress())
	if !strings.HasSuffix(a, "@ryan.example") {
		return &v1.ResolveResponse{}, nil
	}
	switch v, ok := t[strings.TrimSuffix(a, "@ryan.example")]; {
	case !ok:
		return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
	case v == "=":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: a}, nil
	case v == "!":
		return nil, fail.New(fail.Unavailable, "the source is down")
	default:
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: strings.Fields(v)}, nil
	}
}

func (table) Authenticate(context.Context, *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	return nil, fail.New(fail.Denied, "no")
}

func (table) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return nil, fail.New(fail.Unsupported, "no")
}

func (table) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{Domains: []string{"Ryan.Example"}}, nil
}

var _ directory.Directory = table{}

func TestExpand(t *testing.T) {
	set := NewSet([]Named{{"directory.file.people", table{
		"meg": "=", "joe": "=", "down": "!",
		"all":    "meg@ryan.example joe@ryan.example tom@hanks.example",
		"nested": "all@ryan.example meg@ryan.example",
		"loop":   "pool@ryan.example", "pool": "loop@ryan.example",
		"nobody": "ghost@ryan.example", "half": "ghost@ryan.example meg@ryan.example",
	}}})
	for _, c := range []struct{ address, want string }{
		{"meg@ryan.example", "meg@ryan.example=meg@ryan.example"},
		{"all@ryan.example", "meg@ryan.example=meg@ryan.example joe@ryan.example=joe@ryan.example tom@hanks.example="},
		{"nested@ryan.example", "meg@ryan.example=meg@ryan.example joe@ryan.example=joe@ryan.example tom@hanks.example="},
		{"half@ryan.example", "meg@ryan.example=meg@ryan.example"},
		{"tom@hanks.example", "tom@hanks.example="},
		{"ghost@ryan.example", ""},
	} {
		targets, _, err := set.Expand(context.Background(), c.address)
		if err != nil {
			t.Errorf("%s: %v", c.address, err)
			continue
		}
		var got []string
		for _, x := range targets {
			got = append(got, x.Address+"="+x.Account)
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: %q, want %q", c.address, g, c.want)
		}
	}
	for _, address := range []string{"loop@ryan.example", "nobody@ryan.example"} {
		if _, _, err := set.Expand(context.Background(), address); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v, want INVALID", address, err)
		}
	}
	if _, _, err := set.Expand(context.Background(), "down@ryan.example"); !fail.Is(err, fail.Unavailable) {
		t.Errorf("a directory that is down must be temporary, got %v", err)
	}
}

func TestMine(t *testing.T) {
	set := NewSet([]Named{{"directory.file.people", table{}}})
	for domain, want := range map[string]bool{"ryan.example": true, "RYAN.example": true, "hanks.example": false} {
		if got, err := set.Mine(context.Background(), domain); err != nil || got != want {
			t.Errorf("Mine(%s) = %v, %v", domain, got, err)
		}
	}
	if _, ok := set.Ref("directory.file.others"); ok {
		t.Error("found a directory that is not there")
	}
}
