package imap

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// nobody is a directory in which every password is right.
type nobody struct{}

func (nobody) Authenticate(_ context.Context, r *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	return &v1.AuthenticateResponse{Account: "meg@ryan.example"}, nil
}
func (nobody) Resolve(context.Context, *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	return &v1.ResolveResponse{QuotaBytes: 1 << 20}, nil
}
func (nobody) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return nil, fail.New(fail.Unsupported, "none")
}
func (nobody) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{}, nil
}

// script is a client that sends its text and then hears the rest.
type script struct {
	in  *bytes.Reader
	mu  sync.Mutex
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.Len() > 8<<20 {
		return 0, errors.New("too much")
	}
	return s.out.Write(p)
}
func (*script) Close() error                     { return nil }
func (*script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (*script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// FuzzSession: whatever a client sends, the session ends without a panic, and
// answers no tag that is inside a literal.
func FuzzSession(f *testing.F) {
	for _, text := range []string{
		"b SELECT INBOX\r\nc FETCH 1:* (FLAGS BODY.PEEK[1.HEADER.FIELDS (a b)]<0.10> ENVELOPE BODYSTRUCTURE PREVIEW EMAILID)\r\n",
		"b SELECT INBOX (QRESYNC (1 1 1:2 (1 1)))\r\nc ENABLE QRESYNC\r\nd UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)\r\n",
		"b APPEND INBOX (\\Seen) \"01-Feb-2025 10:00:00 +0000\" {5+}\r\nhello CATENATE (URL \"/INBOX/;UID=1/;SECTION=1\" TEXT {2+}\r\nxx)\r\n",
		"b SELECT INBOX\r\nc SEARCH RETURN (MIN MAX SAVE) OR NOT (SEEN 1:2) UID $ OLDER 3 SENTON 1-Feb-2025\r\n",
		"b SELECT INBOX\r\nc SORT (REVERSE DATE SUBJECT) UTF-8 ALL\r\nd THREAD REFERENCES UTF-8 ALL\r\ne THREAD ORDEREDSUBJECT UTF-8 ALL\r\n",
		"b LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (% *) RETURN (STATUS (MESSAGES SIZE MAILBOXID) CHILDREN)\r\n",
		"b SELECT INBOX\r\nc STORE 1 (UNCHANGEDSINCE 0) +FLAGS.SILENT (\\Seen a)\r\nd MOVE 1 INBOX\r\ne REPLACE 1 INBOX ~{3+}\r\na\x00b\r\n",
		"b IDLE\r\nDONE\r\nc ID (\"a\" NIL)\r\nd GETQUOTAROOT INBOX\r\ne UNAUTHENTICATE\r\nf AUTHENTICATE PLAIN AGEAYg==\r\n",
		"b CREATE &AOQ- (USE (\\Archive))\r\nc RENAME &AOQ- {3+}\r\nx/y\r\nd STATUS x/y (HIGHESTMODSEQ DELETED-STORAGE)\r\n",
		"b SETMETADATA INBOX (/private/a ~{3+}\r\na\x00b /shared/b NIL)\r\nc ENABLE METADATA\r\nd GETMETADATA (DEPTH 1 MAXSIZE 2) INBOX (/private /shared)\r\ne SETMETADATA \"\" (/private/x {1+}\r\ny)\r\nf GETMETADATA Sent (DEPTH infinity) /private/specialuse\r\n",
		"b UNAUTHENTICATE\r\nc AUTHENTICATE OAUTHBEARER biwsAWF1dGg9QmVhcmVyIHBlYXJsAQE=\r\nAQ==\r\nd AUTHENTICATE XOAUTH2\r\ndXNlcj1tZWcBYXV0aD1CZWFyZXIgcAEB\r\n\r\n",
		"b NOTIFY SET (personal (MailboxMetadataChange ServerMetadataChange))\r\nc SETMETADATA INBOX (/shared/a \"x\")\r\nd NOOP\r\n",
		"b NOTIFY SET STATUS (selected (MessageNew (uid body[1]) MessageExpunge FlagChange)) (subtree (a b) (MailboxName))\r\nc SELECT INBOX\r\nd SORT RETURN (UPDATE PARTIAL -1:-2) (ARRIVAL) UTF-8 SEEN\r\ne STORE 1 FLAGS (\\Seen)\r\nf CANCELUPDATE \"d\"\r\ng ENABLE UIDONLY\r\n",
	} {
		f.Add(text)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToUpper(text), "STARTTLS") {
			return
		}
		store := sdktest.NewStorage(dir)
		store.Put("meg@ryan.example", "INBOX", "Subject: one\nMessage-ID: <1@a>\n\none\n")
		store.Put("meg@ryan.example", "INBOX", "Subject: Re: one\nReferences: <1@a>\nContent-Type: multipart/mixed; boundary=a\n\n--a\n\none\n--a--\n", `\Seen`)
		var log bytes.Buffer
		config := DefaultConfig()
		config.MaxMessage = 100_000
		s, err := New(config, access.Host{
			Hostname: "mx.ryan.example", InsecureAuth: true, Storage: store, Directory: nobody{}, UploadDir: dir,
			Log: zerolog.New(&log).Level(zerolog.ErrorLevel),
		})
		if err != nil {
			t.Fatal(err)
		}
		client := &script{in: bytes.NewReader([]byte("a LOGIN meg x\r\n" + text))}
		s.gate.Enter(netip.Prefix{})
		s.newSession(newConn(s, client, netip.Prefix{})).serve(false)
		s.Cancel()
		s.feeds.wait()
		if strings.Contains(log.String(), "panic") {
			t.Fatal(log.String())
		}
		left, err := filepath.Glob(filepath.Join(dir, "append-*"))
		if err != nil || len(left) > 0 {
			for _, p := range left {
				os.Remove(p)
			}
			t.Errorf("uploads are left: %v %v", left, err)
		}
	})
}
