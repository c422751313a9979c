// Package mail has the message as plugins see it: a header to look into and a
// body to open, wherever the bytes are. It is not a MIME library.
package mail

import (
	"bytes"
	"fmt"
	"io"
	"os"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// InlineLimit is the largest message, in octets, that travels within a call;
// a larger one is a file (measured break-even: 4 to 16 KiB).
const InlineLimit = 16 << 10

// Message is a message by value or by reference: the same to its reader.
type Message struct {
	ref *v1.MessageRef
}

// FromRef wraps the contract's reference.
func FromRef(ref *v1.MessageRef) *Message { return &Message{ref: ref} }

// FromBytes wraps a message in memory, for tests and small messages.
func FromBytes(b []byte) *Message {
	return &Message{ref: &v1.MessageRef{Size: int64(len(b)), Where: &v1.MessageRef_Inline{Inline: b}}}
}

// FromFile refers to a file; its size must be that of the file.
func FromFile(path string, size int64) *Message {
	return &Message{ref: &v1.MessageRef{Size: size, Where: &v1.MessageRef_Path{Path: path}}}
}

// Ref is the contract's form.
func (m *Message) Ref() *v1.MessageRef { return m.ref }

// Size in octets.
func (m *Message) Size() int64 { return m.ref.GetSize() }

// Path of the file, or "" for a message in memory.
func (m *Message) Path() string { return m.ref.GetPath() }

// Reader reads a message; it must be closed.
type Reader interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// Open starts reading at the first octet of the header. It may be called more
// than once and concurrently.
func (m *Message) Open() (Reader, error) {
	if p := m.ref.GetPath(); p != "" {
		f, err := os.Open(p)
		if err != nil {
			return nil, fmt.Errorf("open message: %w", err)
		}
		return f, nil
	}
	return nopCloser{bytes.NewReader(m.ref.GetInline())}, nil
}

// Bytes reads the whole message into memory; limit guards it (0: none).
func (m *Message) Bytes(limit int64) ([]byte, error) {
	if limit > 0 && m.Size() > limit {
		return nil, fmt.Errorf("message of %d octets is over the limit of %d", m.Size(), limit)
	}
	if m.Path() == "" {
		return m.ref.GetInline(), nil
	}
	return os.ReadFile(m.Path())
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }
