package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// BenchmarkFsync is the disk's own rate: one 2 KiB record appended and synced.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rec := make([]byte, 2048)
	for b.Loop() {
		if _, err := f.Write(rec); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsync/s")
}

func BenchmarkDeposit(b *testing.B) {
	for _, workers := range []int{1, 20} {
		b.Run(fmt.Sprintf("concurrent=%d", workers), func(b *testing.B) {
			s := open(b, Options{Dir: b.TempDir()})
			defer s.Close()
			text := "From: tom@hanks.example\r\nTo: meg@ryan.example\r\nSubject: hello\r\nMessage-ID: <%d@hanks.example>\r\n\r\n" + strings.Repeat("0123456789 the text\r\n", 90)
			var n atomic.Int64
			b.SetParallelism((workers + 1) / 2) // two processors
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := n.Add(1)
					account := fmt.Sprintf("user%d@ryan.example", i%50)
					resp, err := s.Deposit(context.Background(), &v1.DepositRequest{
						QueueId: fmt.Sprintf("%011d", i), Message: inlineMessage(fmt.Sprintf(text, i)), ReturnPath: "tom@hanks.example",
						Targets: []*v1.DepositRequest_Target{{Account: account, Recipient: account}},
					})
					if err != nil || resp.Results[0].Problem != nil {
						b.Error(resp, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deposits/s")
		})
	}
}

// BenchmarkMailbox reads and changes a mailbox of 100,000 messages.
func BenchmarkMailbox(b *testing.B) {
	s := open(b, Options{Dir: b.TempDir()})
	defer s.Close()
	ctx := context.Background()
	a, err := s.Open(ctx, "meg@ryan.example")
	if err != nil {
		b.Fatal(err)
	}
	for i := range 100 {
		req := &v1.AppendRequest{MailboxId: "F1"}
		for j := range 1000 {
			req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: inlineMessage(fmt.Sprintf(
				"From: Tom <tom@hanks.example>\r\nTo: meg@ryan.example\r\nSubject: mail %d\r\nMessage-ID: <%d.%d@hanks.example>\r\nDate: Thu, 15 Feb 2007 01:02:03 +0200\r\n\r\ntext\r\n", i, i, j))})
		}
		if _, err := a.Append(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			if r, err := a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: "F1"}); err != nil || len(r.Uids) != 100000 {
				b.Fatal(err)
			}
		}
	})
	b.Run("summaries", func(b *testing.B) {
		for b.Loop() {
			if err := a.Fetch(ctx, &v1.FetchRequest{MailboxId: "F1", Summary: true}, func(*v1.FetchResponse_Item) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bodies of 1000", func(b *testing.B) {
		for b.Loop() {
			if err := a.Fetch(ctx, &v1.FetchRequest{MailboxId: "F1", Message: true, Uids: []*v1.UIDRange{{First: 50000, Last: 50999}}}, func(*v1.FetchResponse_Item) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if _, err := a.List(ctx, &v1.ListMailboxesRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("flags on all", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: "F1", Op: v1.SetFlagsRequest_Op(i % 2), Flags: []string{`\Seen`}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("search header", func(b *testing.B) {
		c := &v1.Criterion{Test: &v1.Criterion_Header{Header: &v1.HeaderTest{Name: "Subject", Value: "mail 55"}}}
		for b.Loop() {
			if r, err := a.Search(ctx, &v1.SearchRequest{MailboxId: "F1", Criterion: c}); err != nil || len(r.Uids) != 1000 {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSearchText looks for a word that ten of 100,000 messages have, with and
// without the index.
func BenchmarkSearchText(b *testing.B) {
	s := open(b, Options{Dir: b.TempDir()})
	defer s.Close()
	ctx := context.Background()
	a, err := s.Open(ctx, "meg@ryan.example")
	if err != nil {
		b.Fatal(err)
	}
	for i := range 100 {
		req := &v1.AppendRequest{MailboxId: "F1"}
		for j := range 1000 {
			var text strings.Builder
			for k := range 300 {
				fmt.Fprintf(&text, "w%d text ", (i*1009+j*31+k*k)%2000)
			}
			if i%10 == 0 && j == 500 {
				text.WriteString("Zanzibar")
			}
			req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: inlineMessage(
				fmt.Sprintf("From: Tom <tom@hanks.example>\r\nSubject: mail %d.%d\r\n\r\n%s\r\n", i, j, text.String()))})
		}
		if _, err := a.Append(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
	c := &v1.Criterion{Test: &v1.Criterion_Text{Text: "zanzibar"}}
	search := func(b *testing.B) {
		for b.Loop() {
			if r, err := a.Search(ctx, &v1.SearchRequest{MailboxId: "F1", Criterion: c}); err != nil || len(r.Uids) != 10 {
				b.Fatal(r, err)
			}
		}
	}
	if _, err := a.Quota(ctx); err != nil { // somebody reads the account
		b.Fatal(err)
	}
	began := time.Now()
	for s.meters.indexed.Value() < 99_800 && time.Since(began) < 10*time.Minute {
		time.Sleep(100 * time.Millisecond)
	}
	b.Logf("the index is made in %v", time.Since(began).Round(time.Second))
	b.Run("index", search)
	s.opts.NoIndex = true
	b.Run("no index", search)
}
