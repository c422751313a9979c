package local

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// TestFetchEncoded: over a session, where summaries and structures travel as they are
// stored, every item is what a caller in the same process gets.
func TestFetchEncoded(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	defer s.Close()
	ctx := context.Background()
	lis, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := stream.NewPeerServer(ctx, stream.NewTokens("token"), 0, storage.Handler(s))
	go server.Serve(lis)
	defer server.Stop()
	conn, err := stream.DialPeer(ctx, lis.Addr().String(), "token")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	far, err := storage.NewClient(conn).Open(ctx, "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	near, err := s.Open(ctx, "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	req := &v1.AppendRequest{MailboxId: "F1"}
	for i := range 60 {
		text := fmt.Sprintf("From: Tom <tom@hanks.example>\r\nSubject: mail %d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n%s\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\n",
			i, strings.Repeat("a line\r\n", 100*(i%5)))
		if i%10 == 0 {
			text = "\r\n" // nothing to tell of it
		}
		req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: inlineMessage(text)})
	}
	if _, err := near.Append(ctx, req); err != nil {
		t.Fatal(err)
	}
	items := func(a storage.Account, req *v1.FetchRequest) (out []*v1.FetchResponse_Item) {
		t.Helper()
		err := a.Fetch(ctx, req, func(it *v1.FetchResponse_Item) error {
			out = append(out, proto.CloneOf(it))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for what := range 1 << 6 {
		req := &v1.FetchRequest{
			MailboxId: "F1", Summary: what&1 != 0, Structure: what&2 != 0, Header: what&4 != 0,
			Message: what&8 != 0, Preview: what&16 != 0, Ids: what&32 != 0,
		}
		if what%2 == 1 {
			req.Uids = []*v1.UIDRange{{First: 2, Last: 3}, {First: 11, Last: 11}, {First: 40}}
		}
		got, want := items(far, req), items(near, req)
		if len(want) == 0 || len(got) != len(want) {
			t.Fatalf("%v: %d items, want %d", req, len(got), len(want))
		}
		for i := range want {
			if !proto.Equal(got[i], want[i]) {
				t.Fatalf("%v: %v, want %v", req, got[i], want[i])
			}
		}
	}
}
