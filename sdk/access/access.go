// Package access is what an access plugin implements: a protocol (IMAP, POP3)
// that serves a storage's mailboxes on listeners that the core bound.
package access

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Server serves one instance. Serve returns when the listeners are closed or
// Drain was called and the sessions have ended; Drain lets the sessions go on for a
// while, tells the clients that are left to go and returns when they have, or when
// ctx ends.
type Server interface {
	// Serve accepts on the listeners. An error ends the instance's work and shows
	// in its health; ctx ends when the process is to end at once.
	Serve(ctx context.Context) error
	// Drain closes the listeners and waits; shortly before ctx ends, it tells clients
	// to go (BYE, [SYS/TEMP]). ctx has a minute when another process takes over, and
	// 3 s when the server stops.
	Drain(ctx context.Context) error
}

// Host is what the core gives an access plugin. Storage and Directory call the
// other plugins directly, over sockets that survive their restarts: a call that
// meets a restart waits for the new process within its context's deadline.
type Host struct {
	// Hostname of the server, for greetings.
	Hostname string
	// Listeners that the core bound, one at least. They outlive the process.
	Listeners []Listener
	// TLS is nil if the block has none.
	TLS *tls.Config
	// InsecureAuth allows plain-text login without TLS (loopback tests only).
	InsecureAuth bool
	// Storage has the mailboxes. What is asked while it restarts waits for it, and is
	// repeated: what only reads, Expunge and SetFlags without UnchangedSince, whose
	// replies may then leave out what was changed before; and everything else, if the
	// storage keeps requests' keys (storage.RequestKeys), as the bundled ones do. If
	// not, those fail as UNAVAILABLE, and whether they were done is to be looked up.
	Storage storage.Storage
	// Directory knows who may log in.
	Directory directory.Directory
	// UploadDir is where a message larger than mail.InlineLimit is written
	// before it is appended; remove the file afterwards.
	UploadDir string
	// Log ends in the server's log under the instance's name.
	Log zerolog.Logger
}

// Listener is a bound socket.
type Listener struct {
	net.Listener
	// ImplicitTLS: TLS from the first octet (IMAPS, POP3S; RFC 8314).
	ImplicitTLS bool
}
