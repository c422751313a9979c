package pop3

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// anybody is a directory and a storage: every password is right, and every
// maildrop has two messages. It remembers what was removed.
type anybody struct {
	directory.Directory
	storage.Storage
	storage.Account
	removed int
}

func (a *anybody) Authenticate(_ context.Context, r *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	return &v1.AuthenticateResponse{Account: r.GetUsername()}, nil
}

func (a *anybody) Open(context.Context, string) (storage.Account, error) { return a, nil }

func (a *anybody) List(context.Context, *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	return &v1.ListMailboxesResponse{Mailboxes: []*v1.Mailbox{{Id: "1"}}}, nil
}

func (a *anybody) Snapshot(context.Context, *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	return &v1.SnapshotResponse{Mailbox: &v1.Mailbox{UidValidity: 7}, Uids: []uint32{3, 5}, Sizes: []int64{12, 6}}, nil
}

func (a *anybody) Fetch(_ context.Context, r *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	text := map[uint32]string{3: "A: b\r\n\r\nc.\r\n", 5: "D: e\r\n"}[r.GetUids()[0].GetFirst()]
	return item(&v1.FetchResponse_Item{Message: &v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte(text)}}})
}

func (a *anybody) Expunge(_ context.Context, r *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	for _, u := range r.GetUids() {
		a.removed += int(u.GetLast() - u.GetFirst() + 1)
	}
	return &v1.ExpungeResponse{}, nil
}

// script is a connection on which a client says its text and hangs up.
type script struct {
	io.Reader
	bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)       { return s.Reader.Read(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// FuzzCommands: whatever is said, the session ends without a panic, answers in
// whole lines, and removes only what DELE named, after QUIT.
func FuzzCommands(f *testing.F) {
	for _, s := range []string{
		"STAT", "LIST 1", "UIDL", "DELE 1\r\nRSET\r\nQUIT\r\n", "DELE 2\r\nQUIT\r\n", "DELE 1\r\nDELE 2\r\nquit\n",
		"TOP 1 99999999999", "TOP 1 0\r\nRETR 2\r\n", "AUTH PLAIN =", "AUTH PLAIN\r\n*\r\n", "capa", "LIST -1", "RETR", "\x00",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, in bool) {
		if in {
			text = "USER meg@ryan.example\r\nPASS sleep less\r\n" + text
		}
		config := DefaultConfig()
		config.LoginDelay, config.MaxLoginDelay = 0, 0
		a := &anybody{}
		s, err := New(config, &access.Host{Hostname: "mx.ryan.example", InsecureAuth: true, Storage: a, Directory: a, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		nc := &script{Reader: strings.NewReader(text)}
		ss := newSession(s, nc, admission.Source(nc.RemoteAddr()))
		ss.Serve(false)
		got := nc.String()
		if !strings.HasPrefix(got, "+OK mx.ryan.example") || !strings.HasSuffix(got, "\r\n") || strings.Count(got, "\n") != strings.Count(got, "\r\n") {
			t.Errorf("%q is answered with %q", text, got)
		}
		upper := strings.ToUpper(text)
		if said := strings.Count(upper, "DELE"); a.removed > said || a.removed > 0 && !strings.Contains(upper, "QUIT") {
			t.Errorf("%q removed %d messages", text, a.removed)
		}
	})
}

// FuzzStuff: undoing the stuffing gives the message, with a line end at its end.
func FuzzStuff(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n.b\r\n", "a\nb", "\r", "x\r\r\n", "a\r\n\r\n."} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if err := stuff(w, bytes.NewReader(text), -1); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		got, ok := strings.CutSuffix(out.String(), ".\r\n")
		if !ok {
			t.Fatalf("no final dot in %q", out.String())
		}
		want := strings.ReplaceAll(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n", "\r\n")
		switch {
		case want == "", strings.HasSuffix(want, "\r\n"):
		case strings.HasSuffix(want, "\r"):
			want += "\n"
		default:
			want += "\r\n"
		}
		var back strings.Builder
		for _, l := range strings.SplitAfter(got, "\r\n") {
			if l == ".\r\n" {
				t.Fatalf("a dot alone within %q", got)
			}
			back.WriteString(strings.TrimPrefix(l, "."))
		}
		if back.String() != want {
			t.Errorf("%q comes back as %q, want %q", text, back.String(), want)
		}
	})
}

// FuzzTop: TOP gives the header, the empty line and that many lines (RFC 1939
// section 7).
func FuzzTop(f *testing.F) {
	f.Add("A: b\r\n\r\n.c\r\nd\r\n", 1)
	f.Add("A: b\n\nc\n\nd", 2)
	f.Add("A: "+strings.Repeat("x", large-3)+"\r\n\r\n"+strings.Repeat("y", large-1)+"\r\nz\r\n", 1)
	f.Add("\r\n\r\n", 0)
	f.Fuzz(func(t *testing.T, text string, lines int) {
		lines = max(lines, 0)
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if err := stuff(w, strings.NewReader(text), lines); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		var want strings.Builder
		body := -1
		for line := range strings.Lines(text) {
			if body >= lines {
				break
			}
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			if strings.HasPrefix(line, ".") {
				want.WriteByte('.')
			}
			want.WriteString(line + "\r\n")
			if body >= 0 || line == "" {
				body++
			}
		}
		want.WriteString(".\r\n")
		if out.String() != want.String() {
			t.Errorf("TOP of %q with %d lines is %q, want %q", text, lines, out.String(), want.String())
		}
	})
}
