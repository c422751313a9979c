package directory

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Handler answers a session's calls with d.
func Handler(d Directory) stream.Handler {
	return func(ctx context.Context, call *v1.Call, _ func(*v1.Reply) error) (*v1.Reply, error) {
		out := &v1.DirectoryReply{}
		var err error
		switch op := call.GetDirectory().GetOp().(type) {
		case *v1.DirectoryCall_Resolve:
			var r *v1.ResolveResponse
			r, err = d.Resolve(ctx, op.Resolve)
			out.Op = &v1.DirectoryReply_Resolve{Resolve: r}
		case *v1.DirectoryCall_Authenticate:
			var r *v1.AuthenticateResponse
			r, err = d.Authenticate(ctx, op.Authenticate)
			out.Op = &v1.DirectoryReply_Authenticate{Authenticate: r}
		case *v1.DirectoryCall_Credentials:
			var r *v1.CredentialsResponse
			r, err = d.Credentials(ctx, op.Credentials)
			out.Op = &v1.DirectoryReply_Credentials{Credentials: r}
		case *v1.DirectoryCall_Domains:
			var r *v1.DomainsResponse
			r, err = d.Domains(ctx, op.Domains)
			out.Op = &v1.DirectoryReply_Domains{Domains: r}
		case *v1.DirectoryCall_VerifyToken:
			var r *v1.VerifyTokenResponse
			r, err = VerifyToken(ctx, d, op.VerifyToken)
			out.Op = &v1.DirectoryReply_VerifyToken{VerifyToken: r}
		default:
			err = fail.New(fail.Unsupported, "this directory does not know the call")
		}
		if err != nil {
			return nil, err
		}
		return &v1.Reply{Response: &v1.Reply_Directory{Directory: out}}, nil
	}
}

// NewClient makes a Directory of the calling end of a session to one.
func NewClient(c stream.Caller) Directory { return &client{c} }

type client struct{ c stream.Caller }

var (
	_ Directory     = (*client)(nil)
	_ TokenVerifier = (*client)(nil)
)

// Resolve implements Directory.
func (d *client) Resolve(ctx context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	r, err := d.call(ctx, &v1.DirectoryCall{Op: &v1.DirectoryCall_Resolve{Resolve: req}})
	return result(r.GetResolve(), err)
}

// Authenticate implements Directory.
func (d *client) Authenticate(ctx context.Context, req *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	r, err := d.call(ctx, &v1.DirectoryCall{Op: &v1.DirectoryCall_Authenticate{Authenticate: req}})
	return result(r.GetAuthenticate(), err)
}

// Credentials implements Directory.
func (d *client) Credentials(ctx context.Context, req *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	r, err := d.call(ctx, &v1.DirectoryCall{Op: &v1.DirectoryCall_Credentials{Credentials: req}})
	return result(r.GetCredentials(), err)
}

// Domains implements Directory.
func (d *client) Domains(ctx context.Context, req *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	r, err := d.call(ctx, &v1.DirectoryCall{Op: &v1.DirectoryCall_Domains{Domains: req}})
	return result(r.GetDomains(), err)
}

// VerifyToken implements TokenVerifier: UNSUPPORTED if the other end does not.
func (d *client) VerifyToken(ctx context.Context, req *v1.VerifyTokenRequest) (*v1.VerifyTokenResponse, error) {
	r, err := d.call(ctx, &v1.DirectoryCall{Op: &v1.DirectoryCall_VerifyToken{VerifyToken: req}})
	return result(r.GetVerifyToken(), err)
}

func (d *client) call(ctx context.Context, c *v1.DirectoryCall) (*v1.DirectoryReply, error) {
	r, err := d.c.Call(ctx, &v1.Call{Request: &v1.Call_Directory{Directory: c}})
	return r.GetDirectory(), err
}

// result guards against a directory that answers another question.
func result[T any](r *T, err error) (*T, error) {
	if err == nil && r == nil {
		return nil, fail.New(fail.Internal, "the directory sent no answer")
	}
	return r, err
}
