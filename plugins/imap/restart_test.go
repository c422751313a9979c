package imap

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/access"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// mortal is a storage whose process ends when it has made the next change and has not
// said so; what it keeps outlives it.
type mortal struct {
	storage.Storage
	mu  sync.Mutex
	die func()
}

type mortalAccount struct {
	storage.Account
	s *mortal
}

func (m *mortal) Open(ctx context.Context, name string) (storage.Account, error) {
	a, err := m.Storage.Open(ctx, name)
	return mortalAccount{a, m}, err
}

func (m *mortal) next(die func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.die = die
}

// last is what comes after a change.
func last[R any](ctx context.Context, m *mortal, r R, err error) (R, error) {
	m.mu.Lock()
	die := m.die
	m.die = nil
	m.mu.Unlock()
	if die == nil {
		return r, err
	}
	die()
	<-ctx.Done()
	return r, ctx.Err()
}

func (a mortalAccount) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	r, err := a.Account.Append(ctx, req)
	return last(ctx, a.s, r, err)
}

func (a mortalAccount) Copy(ctx context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error) {
	r, err := a.Account.Copy(ctx, req)
	return last(ctx, a.s, r, err)
}

func (a mortalAccount) SetFlags(ctx context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	r, err := a.Account.SetFlags(ctx, req)
	return last(ctx, a.s, r, err)
}

func (a mortalAccount) Expunge(ctx context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	r, err := a.Account.Expunge(ctx, req)
	return last(ctx, a.s, r, err)
}

func (a mortalAccount) Create(ctx context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	r, err := a.Account.Create(ctx, req)
	return last(ctx, a.s, r, err)
}

func (a mortalAccount) Rename(ctx context.Context, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	r, err := a.Account.Rename(ctx, req)
	return last(ctx, a.s, r, err)
}

func (a mortalAccount) Delete(ctx context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	r, err := a.Account.Delete(ctx, req)
	return last(ctx, a.s, r, err)
}

// processes serve a storage on a data socket, one after the other.
type processes struct {
	t      *testing.T
	socket *net.UnixListener
	store  *mortal
	now    *stream.PeerServer
}

func (p *processes) start() {
	f, err := p.socket.File()
	if err != nil {
		p.t.Error(err)
		return
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		p.t.Error(err)
		return
	}
	p.now = stream.NewPeerServer(context.Background(), stream.NewTokens("t"), 0, storage.Handler(p.store), storage.RequestKeys)
	go p.now.Serve(l)
}

// TestChangesGoOnOverARestart: the storage's process ends when it has done what the
// client asked and before it says so; the client sees a pause, and all is done once.
func TestChangesGoOnOverARestart(t *testing.T) {
	dir := t.TempDir()
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	mails := sdktest.NewStorage(dir)
	store := &mortal{Storage: mails}
	p := &processes{t: t, socket: lis, store: store}
	p.start()
	dialed := stream.Redial(func(ctx context.Context) (*stream.Conn, error) {
		return stream.DialPeer(ctx, filepath.Join(dir, "s"), "t")
	})
	defer dialed.Close()
	for n := range 4 {
		mails.Put("meg@ryan.example", "INBOX", fmt.Sprintf("Subject: m%d\n\nx\n", n))
	}
	s, err := New(DefaultConfig(), access.Host{
		Hostname: "mx.ryan.example", InsecureAuth: true, Storage: storage.NewClient(dialed), Directory: nobody{}, UploadDir: dir, Log: zerolog.New(zerolog.NewTestWriter(t)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ours, its := net.Pipe()
	defer ours.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.newSession(newConn(s, its, netip.Prefix{})).serve(false)
	}()
	ours.SetDeadline(time.Now().Add(2 * time.Minute))
	r := bufio.NewReader(ours)
	ask := func(tag, command string) string {
		t.Helper()
		fmt.Fprintf(ours, "%s %s\r\n", tag, command)
		var said strings.Builder
		for {
			l, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v after %q", command, err, said.String())
			}
			said.WriteString(l)
			if strings.HasPrefix(l, tag+" ") {
				if !strings.HasPrefix(l, tag+" OK") {
					t.Errorf("%s is answered with %q", command, said.String())
				}
				return said.String()
			}
		}
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ask("a", "LOGIN meg x")
	ask("b", "ENABLE CONDSTORE")
	ask("c", "SELECT INBOX")
	for i, test := range []struct{ command, says string }{
		{"APPEND INBOX {14+}\r\nSubject: x\r\n\r\n", "APPENDUID "},
		{`STORE 1 +FLAGS (\Seen)`, `FLAGS (\Seen`},
		{`STORE 2 (UNCHANGEDSINCE 9999) +FLAGS (\Flagged)`, `FLAGS (\Flagged`},
		{"COPY 1:2 Archive", "COPYUID "},
		{"MOVE 3 Archive", "COPYUID "},
		{`STORE 1 +FLAGS.SILENT (\Deleted)`, ""},
		{"EXPUNGE", "* 1 EXPUNGE"},
		{"CREATE new", ""},
		{"RENAME new newer", ""},
		{"DELETE newer", ""},
	} {
		restarted := make(chan struct{})
		old := p.now
		store.next(func() {
			go func() {
				old.Stop()
				p.start()
				close(restarted)
			}()
		})
		said := ask(fmt.Sprint("x", i), test.command)
		select {
		case <-restarted:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: the storage did not end", test.command)
		}
		if !strings.Contains(said, test.says) || strings.Contains(said, "MODIFIED") {
			t.Errorf("%s: %q", test.command, said)
		}
	}
	for name, want := range map[string]string{"INBOX": "MESSAGES 3", "Archive": "MESSAGES 3"} {
		if said := ask("y", "STATUS "+name+" (MESSAGES)"); !strings.Contains(said, want) {
			t.Errorf("%s: %q, want %s", name, said, want)
		}
	}
	if said := ask("z", `LIST "" new*`); strings.Contains(said, "* LIST") {
		t.Errorf("a deleted mailbox is there: %q", said)
	}
	ask("e", "LOGOUT")
	<-ended
	s.Cancel()
	s.feeds.wait()
	p.now.Stop()
}
