package local

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// BenchmarkSession is what an access plugin sees of the store: the same calls over a
// session on a unix socket.
func BenchmarkSession(b *testing.B) {
	s := open(b, Options{Dir: b.TempDir()})
	defer s.Close()
	socket := filepath.Join(b.TempDir(), "s")
	lis, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	server := stream.NewPeerServer(ctx, stream.NewTokens("token"), 0, storage.Handler(s))
	go server.Serve(lis)
	defer server.Stop()
	conn, err := stream.DialPeer(ctx, socket, "token")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	a, err := storage.NewClient(conn).Open(ctx, "meg@ryan.example")
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10 {
		req := &v1.AppendRequest{MailboxId: "F1"}
		for j := range 1000 {
			n := 120
			if i > 0 {
				n = 2
			}
			req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: inlineMessage(fmt.Sprintf(
				"From: Tom <tom@hanks.example>\r\nTo: meg@ryan.example\r\nSubject: mail %d\r\nMessage-ID: <%d.%d@hanks.example>\r\nDate: Thu, 15 Feb 2007 01:02:03 +0200\r\n\r\n%s\r\n",
				i, i, j, strings.Repeat("a line of a letter that has seventy octets in all, with its line end\r\n", n)))})
		}
		if _, err := a.Append(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("bodies of 1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			octets := int64(0)
			err := a.Fetch(ctx, &v1.FetchRequest{MailboxId: "F1", Message: true, Uids: []*v1.UIDRange{{First: 1, Last: 1000}}}, func(it *v1.FetchResponse_Item) error {
				octets += it.GetMessage().GetSize()
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(octets)
		}
	})
	b.Run("summaries of 10000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			err := a.Fetch(ctx, &v1.FetchRequest{MailboxId: "F1", Summary: true}, func(it *v1.FetchResponse_Item) error {
				if len(it.GetSummary().GetSubject()) > 0 {
					n++
				}
				return nil
			})
			if err != nil || n != 10000 {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("snapshot of 10000", func(b *testing.B) {
		for b.Loop() {
			if r, err := a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: "F1"}); err != nil || len(r.Uids) != 10000 {
				b.Fatal(err)
			}
		}
	})
	b.Run("no change since", func(b *testing.B) {
		for b.Loop() {
			if _, err := a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: "F1", SinceModseq: 100}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one of the list", func(b *testing.B) {
		for b.Loop() {
			if _, err := a.List(ctx, &v1.ListMailboxesRequest{Name: "INBOX"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("flags on 10000", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: "F1", Op: v1.SetFlagsRequest_Op(i % 2), Flags: []string{`\Seen`}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
