// Package directory is what a directory plugin implements: who exists, what an
// alias stands for, and who may log in. directory.proto documents the fields.
package directory

import (
	"context"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Directory answers from what it knows; all methods may be called concurrently.
// Errors are *fail.Error: UNAVAILABLE when the source cannot be asked (the mail
// is then deferred, never bounced).
type Directory interface {
	// Resolve takes one step: a mailbox, an alias's targets, or neither.
	Resolve(ctx context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error)
	// Authenticate checks a password; DENIED if it is wrong, taking as long
	// for a user that does not exist as for one that does.
	Authenticate(ctx context.Context, req *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error)
	// Credentials returns the SCRAM verifier of a user; UNSUPPORTED if this
	// directory has none for the mechanism.
	Credentials(ctx context.Context, req *v1.CredentialsRequest) (*v1.CredentialsResponse, error)
	// Domains lists the domains that this directory answers for.
	Domains(ctx context.Context, req *v1.DomainsRequest) (*v1.DomainsResponse, error)
}
