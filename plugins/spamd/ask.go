package spamd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/failover"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

// server gets one connection per mail: spamd closes it after its answer.
type server struct {
	failover.Record
	name, network, address string
}

func (s *server) String() string { return "spamd at " + s.name }

// ask asks one server after the other until one answers.
func (f *Filter) ask(ctx context.Context, ev *filter.Event) (*answer, error) {
	return failover.Ask(ctx, f.servers, func(s *server) (*answer, error) {
		begin := time.Now()
		a, err := f.askOne(ctx, s, ev)
		f.metrics.Histogram("scan_seconds", "Time that an answer takes.", sdk.Seconds()).Since(begin)
		return a, err
	})
}

func (f *Filter) askOne(ctx context.Context, s *server, ev *filter.Event) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, f.ScanTimeout)
	defer cancel()
	dialing, dialed := context.WithTimeout(ctx, f.ConnectTimeout)
	conn, err := (&net.Dialer{}).DialContext(dialing, s.network, s.address)
	dialed()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// A deadline in the past wakes both directions when nobody waits any more. No
	// other one is set: it would replace this one.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	message, err := ev.Message.Open()
	if err != nil {
		return nil, err
	}
	defer message.Close()
	// spamd may refuse before it has read all: so it is heard at the same time.
	type said struct {
		a   *answer
		err error
	}
	answered := make(chan said, 1)
	go func() {
		a, err := parse(conn)
		answered <- said{a, err}
	}()
	sent := f.send(conn, message, ev)
	if half, ok := conn.(interface{ CloseWrite() error }); ok && sent == nil {
		_ = half.CloseWrite() // spamd waits for the end of a last line that has none
	}
	var broken *readError
	if errors.As(sent, &broken) {
		return nil, broken.error
	}
	got := <-answered
	switch {
	case got.err == nil:
		return got.a, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("no answer in time: %w", ctx.Err())
	case sent != nil && errors.Is(got.err, errBrokeOff):
		return nil, fmt.Errorf("it broke off while the message was sent: %w", sent)
	}
	return nil, got.err
}

// readError is the message's, not the connection's.
type readError struct{ error }

// send is the question and the message, whose sender spamd finds where spamass-milter
// writes it too.
func (f *Filter) send(conn io.Writer, message io.Reader, ev *filter.Event) error {
	above := "X-Envelope-From: <" + oneLine(ev.Envelope.GetSender()) + ">\r\n"
	command := "HEADERS"
	if f.Mark == "none" {
		command = "SYMBOLS"
	}
	head := fmt.Sprintf("%s SPAMC/1.5\r\nContent-length: %d\r\n", command, int64(len(above))+ev.Message.Size())
	if user := f.user(ev); user != "" {
		head += "User: " + user + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"+above); err != nil {
		return err
	}
	from := &reader{from: message}
	n, err := io.Copy(conn, from)
	switch {
	case from.err != nil:
		return &readError{fmt.Errorf("the message cannot be read: %w", from.err)}
	case err != nil:
		return err
	case n != ev.Message.Size():
		return &readError{fmt.Errorf("the message has %d octets, and not the %d that were announced", n, ev.Message.Size())}
	}
	return nil
}

// reader remembers whose an error was.
type reader struct {
	from io.Reader
	err  error
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// user is whose preferences are used.
func (f *Filter) user(ev *filter.Event) string {
	if to := ev.Envelope.GetRecipients(); f.PerRecipient && len(to) == 1 && plain(to[0].GetAddress()) {
		return strings.ToLower(to[0].GetAddress())
	}
	return f.User
}

// plain is an address that may become a file's name: spamd makes one of it with
// --virtual-config-dir.
func plain(address string) bool {
	return address != "" && len(address) <= 320 && !strings.ContainsFunc(address, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-+_.,=@", r)
	})
}

// oneLine keeps an address from being more than a field's value.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
