// Package storage is what a storage plugin implements and what its callers use:
// the core to deposit mail, the access plugins to serve mailboxes. The requests
// are the contract's own types; storage.proto documents each field.
// It is not a mail store: those are plugins.
package storage

import (
	"context"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Storage keeps the mailboxes of many accounts. All methods may be called
// concurrently; the context carries the caller's deadline. Errors are
// *fail.Error. A nil error from a method that changes something means that the
// change survives a power cut. The callee never keeps a request's memory after
// it returned, and never changes it.
type Storage interface {
	// Deposit delivers one message to the targets, each exactly once by
	// (queue id, key): a key seen before gets its first result again. A
	// target's failure stands in its result; the error is for what failed as
	// a whole (then nothing is known of the targets and the caller repeats).
	Deposit(ctx context.Context, req *v1.DepositRequest) (*v1.DepositResponse, error)
	// Open returns an account. Accounts come into being when first opened or
	// deposited into, with INBOX; INVALID for a name no account can have.
	Open(ctx context.Context, account string) (Account, error)
}

// Account is one account's mailboxes and messages, as seen by one caller. It
// holds nothing that must be closed. The methods' errors: NOT_FOUND (mailbox or
// account), EXISTS, INVALID, OVER_QUOTA, NO_SPACE, UNAVAILABLE, CONFLICT.
type Account interface {
	Mailboxes
	Messages
	// Quota tells what the account uses.
	Quota(ctx context.Context) (*v1.QuotaResponse, error)
	// Watch calls event at once with the current MODSEQ, and then after every
	// change, until ctx ends or event fails; it returns that error (ctx.Err()
	// for the former). Changes that come faster than event returns are merged.
	Watch(ctx context.Context, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error
}

// Mailboxes is the part of Account that knows mailboxes.
type Mailboxes interface {
	// List returns the mailboxes by name, with their counters; containers too. A
	// name or id that is not there gives none, and no error.
	List(ctx context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error)
	// Create makes a mailbox and its parents; EXISTS for a name or a role that
	// there is, INVALID for one that cannot be.
	Create(ctx context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error)
	// Rename takes children along; of INBOX it moves the messages alone and returns
	// the new mailbox. EXISTS, INVALID (below itself), NOT_FOUND.
	Rename(ctx context.Context, req *v1.RenameMailboxRequest) (*v1.Mailbox, error)
	// Delete removes a mailbox with its messages and leaves its children; INVALID
	// for INBOX, NOT_FOUND.
	Delete(ctx context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error)
	// Update sets what the request has and leaves the rest.
	Update(ctx context.Context, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error)
}

// Messages is the part of Account that knows messages.
type Messages interface {
	// Snapshot returns a mailbox's columns, or what of them changed, as they are at
	// one moment.
	Snapshot(ctx context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error)
	// Fetch calls item for each message found, by growing UID; item may keep
	// the Item until it returns. A message file named in it stays readable
	// until then.
	Fetch(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error
	// Append stores what a client brought, octet for octet: all or nothing.
	// OVER_QUOTA, NO_SPACE; INVALID for a file that cannot be read or has another
	// size than its reference says.
	Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error)
	// SetFlags answers with the columns of what changed; no change, no MODSEQ.
	// INVALID for what is neither a system flag nor a keyword.
	SetFlags(ctx context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error)
	// Copy copies or moves within the account: all or nothing. OVER_QUOTA unless it
	// moves.
	Copy(ctx context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error)
	// Expunge removes messages and leaves their tombstones.
	Expunge(ctx context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error)
	// Search returns the UIDs that match, growing; INVALID for a criterion that is
	// malformed or too large.
	Search(ctx context.Context, req *v1.SearchRequest) (*v1.SearchResponse, error)
}
