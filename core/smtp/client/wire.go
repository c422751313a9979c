package client

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// progressConn lies under TLS and over the socket. A write may take as long as
// it likes, provided that the peer takes something within each time-out: a slow
// peer is served, a stuck one noticed (RFC 5321 section 4.5.3.2.5).
type progressConn struct {
	net.Conn
	writeTimeout time.Duration
}

func (c *progressConn) Write(p []byte) (int, error) {
	done := 0
	for {
		c.Conn.SetWriteDeadline(time.Now().Add(c.writeTimeout))
		n, err := c.Conn.Write(p[done:])
		done += n
		if err != nil && n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		return done, err
	}
}

// SetDeadline and SetWriteDeadline leave writing alone: its deadline is set by
// progress, here; crypto/tls would set it for the handshake and close.
func (c *progressConn) SetDeadline(t time.Time) error    { return c.Conn.SetReadDeadline(t) }
func (c *progressConn) SetWriteDeadline(time.Time) error { return nil }

// ioError says a broken connection in words for an operator.
func ioError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &ioFailure{"the server did not answer in time", err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &ioFailure{"the server closed the connection", err}
	}
	return err
}

type ioFailure struct {
	text string
	err  error
}

func (e *ioFailure) Error() string { return e.text }
func (e *ioFailure) Unwrap() error { return e.err }
