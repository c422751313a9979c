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
// Drain was called and the sessions have ended; Drain tells clients to go and
// returns when they have, or when ctx ends.
type Server interface {
	Serve(ctx context.Context) error
	Drain(ctx context.Context) error
}

// Host is what the core gives an access plugin. Storage and Directory call the
// other plugins directly, over sockets that survive their restarts: a call that
// meets a restart waits for the new process within its context's deadline.
type Host struct {
	Hostname  string
	Listeners []Listener
	// TLS is nil if the block has none.
	TLS *tls.Config
	// InsecureAuth allows plain-text login without TLS (loopback tests only).
	InsecureAuth bool
	Storage      storage.Storage
	Directory    directory.Directory
	// UploadDir is where a message larger than mail.InlineLimit is written
	// before it is appended; the storage takes the file over.
	UploadDir string
	Log       zerolog.Logger
}

// Listener is a bound socket.
type Listener struct {
	net.Listener
	ImplicitTLS bool
}
