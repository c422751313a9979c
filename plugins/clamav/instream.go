package clamav

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

const (
	// chunk is what one piece of INSTREAM has at most: clamd takes any length.
	chunk = 64 << 10
	// longestAnswer of clamd; a signature's name is far shorter.
	longestAnswer = 4 << 10
	// longestText keeps a reply within an SMTP line (RFC 5321 section 4.5.3.1.5).
	longestText = 450
	// longestName of a signature, in a tag.
	longestName = 200
)

var errTooLarge = errors.New("the message is larger than clamd or max_size allows: raise clamd's StreamMaxLength and max_size, or say with too_large what shall become of such mail")

// scan returns the signature's name, or nothing for a clean message.
func (f *Filter) scan(ctx context.Context, m *mail.Message) (virus string, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.ScanTimeout)
	defer cancel()
	dialing, dialed := context.WithTimeout(ctx, f.ConnectTimeout)
	conn, err := (&net.Dialer{}).DialContext(dialing, f.network, f.place)
	dialed()
	if err != nil {
		return "", fmt.Errorf("clamd does not answer at %s: %w", f.Address, err)
	}
	defer conn.Close()
	// A deadline in the past wakes both directions when nobody waits any more.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	message, err := m.Open()
	if err != nil {
		return "", err
	}
	defer message.Close()
	// What is too long is refused, and the connection closed, while it is sent: so
	// the answer is read at the same time, and lost with no reset connection.
	type said struct {
		answer []byte
		err    error
	}
	answered := make(chan said, 1)
	go func() {
		answer, err := readAnswer(conn)
		answered <- said{answer, err}
	}()
	sent := send(conn, message)
	var broken *readError
	if errors.As(sent, &broken) {
		return "", broken.error
	}
	// When sending failed it may have said why before it closed. No deadline is set
	// for that: it would replace the one by which ctx ends the reading.
	got := <-answered
	switch {
	case got.err == nil:
		return parse(got.answer)
	case ctx.Err() != nil:
		return "", fmt.Errorf("clamd gave no answer in time: %w", ctx.Err())
	case sent != nil:
		return "", fmt.Errorf("clamd broke off while the message was sent: %w", sent)
	}
	return "", fmt.Errorf("clamd broke off before it answered: %w", got.err)
}

// readError is the message's, not the connection's.
type readError struct{ error }

// send is INSTREAM: chunks, each after its length, and one of no length.
func send(conn io.Writer, message io.Reader) error {
	if _, err := io.WriteString(conn, "zINSTREAM\x00"); err != nil {
		return err
	}
	buf := make([]byte, 4+chunk)
	for {
		n, err := io.ReadFull(message, buf[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n))
			if _, err := conn.Write(buf[:4+n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			_, err := conn.Write(make([]byte, 4))
			return err
		case err != nil:
			return &readError{fmt.Errorf("the message cannot be read: %w", err)}
		}
	}
}

// readAnswer reads up to the NUL that ends an answer to a z command.
func readAnswer(r io.Reader) ([]byte, error) {
	buf := make([]byte, longestAnswer)
	for n := 0; n < len(buf); {
		m, err := r.Read(buf[n:])
		if end := bytes.IndexByte(buf[n:n+m], 0); end >= 0 {
			return buf[:n+end], nil
		}
		n += m
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("its answer has more than %d octets", longestAnswer)
}

// parse reads "stream: OK", "stream: NAME FOUND" and the ways of "… ERROR".
func parse(answer []byte) (virus string, err error) {
	s := strings.TrimSpace(string(answer))
	verdict, stream := strings.CutPrefix(s, "stream: ")
	name, found := strings.CutSuffix(verdict, " FOUND")
	switch {
	case stream && verdict == "OK":
		return "", nil
	case stream && found && strings.TrimSpace(name) != "":
		return signature(name), nil
	case s == "INSTREAM size limit exceeded. ERROR":
		return "", errTooLarge
	case strings.HasSuffix(s, "ERROR"):
		return "", fmt.Errorf("clamd could not scan the message: %s", printable(s))
	}
	return "", fmt.Errorf("clamd answers %q, which is neither OK, FOUND nor ERROR: is it clamd that listens there?", printable(s))
}

// signature is the name without what ExtendedDetectionInfo of clamd.conf adds:
// NAME(HASH:SIZE).
func signature(name string) string {
	name = strings.TrimSpace(name)
	if at := strings.LastIndexByte(name, '('); at > 0 && strings.HasSuffix(name, ")") && strings.Contains(name[at:], ":") {
		name = name[:at]
	}
	name = printable(name)
	return name[:min(len(name), longestName)]
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), longestText)]
}
