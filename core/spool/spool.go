// Package spool holds the bytes of a message on their way through the core:
// small ones in memory, larger ones in one file that is written as they arrive.
// It is not durable by itself; the queue makes it so.
package spool

import (
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// Body is a complete message, readable any number of times.
type Body interface {
	// Message is the body as plugins get it: inline or by its file.
	Message() *mail.Message
	// Size in octets.
	Size() int64
	// Path of the file; "" for a body in memory.
	Path() string
	// Bytes of a body in memory; nil for one in a file.
	Bytes() []byte
	// Open reads from the first octet.
	Open() (mail.Reader, error)
	// Discard removes the file, unless the queue took it over (then: no-op).
	Discard()
}
