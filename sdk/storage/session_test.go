package storage_test

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is a storage of one account; it notes the name of the method called.
type box struct {
	method  string
	fetches atomic.Int32
	stopped atomic.Int32 // fetches that were cancelled
	watches atomic.Int32
}

func (b *box) note(method string) error {
	b.method = method
	return nil
}

func (b *box) Deposit(context.Context, *v1.DepositRequest) (*v1.DepositResponse, error) {
	return &v1.DepositResponse{}, b.note("Deposit")
}

func (b *box) Open(_ context.Context, account string) (storage.Account, error) {
	if account != "meg@ryan.example" {
		return nil, fail.New(fail.NotFound, "no account %s", account)
	}
	return b, nil
}

func (b *box) List(context.Context, *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	return &v1.ListMailboxesResponse{}, b.note("List")
}

func (b *box) Create(context.Context, *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	return &v1.Mailbox{}, b.note("Create")
}

func (b *box) Rename(context.Context, *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	return &v1.Mailbox{}, b.note("Rename")
}

func (b *box) Delete(context.Context, *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	return &v1.DeleteMailboxResponse{}, b.note("Delete")
}

func (b *box) Update(context.Context, *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	return &v1.Mailbox{}, b.note("Update")
}

func (b *box) Snapshot(context.Context, *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	return &v1.SnapshotResponse{}, b.note("Snapshot")
}

func (b *box) Append(context.Context, *v1.AppendRequest) (*v1.AppendResponse, error) {
	return &v1.AppendResponse{}, b.note("Append")
}

func (b *box) SetFlags(context.Context, *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	return &v1.SetFlagsResponse{}, b.note("SetFlags")
}

func (b *box) Copy(context.Context, *v1.CopyRequest) (*v1.CopyResponse, error) {
	return &v1.CopyResponse{}, b.note("Copy")
}

func (b *box) Expunge(context.Context, *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	return &v1.ExpungeResponse{}, b.note("Expunge")
}

func (b *box) Search(context.Context, *v1.SearchRequest) (*v1.SearchResponse, error) {
	return &v1.SearchResponse{}, b.note("Search")
}

func (b *box) Quota(context.Context) (*v1.QuotaResponse, error) {
	return &v1.QuotaResponse{}, b.note("Quota")
}

func (b *box) Annotations(context.Context, *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
	return &v1.AnnotationsResponse{}, b.note("Annotations")
}

func (b *box) SetAnnotations(context.Context, *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
	return &v1.SetAnnotationsResponse{}, b.note("SetAnnotations")
}

// Fetch gives the odd UIDs up to 1999 with 8 KiB each and reuses its item.
func (b *box) Fetch(_ context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	b.fetches.Add(1)
	it := &v1.FetchResponse_Item{Header: bytes.Repeat([]byte("h"), 8<<10)}
	for uid := uint32(1); uid < 2000; uid += 2 {
		wanted := len(req.GetUids()) == 0
		for _, r := range req.GetUids() {
			wanted = wanted || uid >= r.GetFirst() && (uid <= r.GetLast() || r.GetLast() == 0)
		}
		if !wanted {
			continue
		}
		it.Uid = uid
		if err := item(it); err != nil {
			b.stopped.Add(1)
			return err
		}
	}
	return nil
}

func (b *box) Watch(ctx context.Context, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	b.watches.Add(1)
	if err := event(&v1.ChangeEvent{Modseq: req.GetSinceModseq() + 1}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// plugin is a storage behind a data socket that outlives it.
type plugin struct {
	t    *testing.T
	path string
	next func(features ...string) *stream.PeerServer
}

func serve(t *testing.T, s storage.Storage) *plugin {
	path := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := lis.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	lis.(*net.UnixListener).SetUnlinkOnClose(false)
	lis.Close()
	t.Cleanup(func() { f.Close() })
	tokens := stream.NewTokens("t")
	return &plugin{t: t, path: path, next: func(features ...string) *stream.PeerServer {
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		p := stream.NewPeerServer(context.Background(), tokens, 0, storage.Handler(s), features...)
		go p.Serve(l)
		t.Cleanup(p.Stop)
		return p
	}}
}

func (p *plugin) dial() *stream.Redialer {
	r := stream.Redial(func(ctx context.Context) (*stream.Conn, error) { return stream.DialPeer(ctx, p.path, "t") })
	p.t.Cleanup(r.Close)
	return r
}

func minute(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestEveryMethodArrives(t *testing.T) {
	b := &box{}
	p := serve(t, b)
	p.next()
	s := storage.NewClient(p.dial())
	ctx := minute(t)
	if _, err := s.Deposit(ctx, &v1.DepositRequest{}); err != nil || b.method != "Deposit" {
		t.Errorf("Deposit: %v, called %s", err, b.method)
	}
	a, err := s.Open(ctx, "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(a)
	called := 0
	for i := range v.NumMethod() {
		name, typ := v.Type().Method(i).Name, v.Method(i).Type()
		if name == "Fetch" || name == "Watch" {
			continue
		}
		args := []reflect.Value{reflect.ValueOf(ctx)}
		if typ.NumIn() == 2 {
			args = append(args, reflect.New(typ.In(1).Elem()))
		}
		out := v.Method(i).Call(args)
		if !out[1].IsNil() || out[0].IsNil() || b.method != name {
			t.Errorf("%s: %v, called %s", name, out[1], b.method)
		}
		called++
	}
	if called != 14 {
		t.Errorf("%d methods were called", called)
	}
	tom, _ := s.Open(ctx, "tom@hanks.example")
	if _, err := tom.Quota(ctx); !fail.Is(err, fail.NotFound) {
		t.Errorf("unknown account: %v", err)
	}
}

func TestFetchGoesOnAfterASlowReader(t *testing.T) {
	b := &box{}
	p := serve(t, b)
	p.next()
	a, _ := storage.NewClient(p.dial()).Open(minute(t), "meg@ryan.example")
	var last, n uint32
	err := a.Fetch(minute(t), &v1.FetchRequest{}, func(it *v1.FetchResponse_Item) error {
		if it.GetUid() <= last {
			t.Fatalf("uid %d after %d", it.GetUid(), last)
		}
		last = it.GetUid()
		n++
		// 8 MiB in all, and 4 MiB may wait: the reader stops until the engine
		// has had enough of it.
		for deadline := time.Now().Add(10 * time.Second); n == 1 && b.stopped.Load() == 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	if err != nil || n != 1000 || last != 1999 {
		t.Errorf("%d items up to %d, %v", n, last, err)
	}
	if b.fetches.Load() < 2 {
		t.Errorf("the fetch was asked %d times: the reader was never behind", b.fetches.Load())
	}
	n = 0
	err = a.Fetch(minute(t), &v1.FetchRequest{Uids: []*v1.UIDRange{{First: 3, Last: 5}, {First: 1990}}}, func(*v1.FetchResponse_Item) error { n++; return nil })
	if err != nil || n != 7 {
		t.Errorf("%d items of ranges, %v; want 7", n, err)
	}
}

func TestWatchOutlivesARestart(t *testing.T) {
	b := &box{}
	p := serve(t, b)
	first := p.next()
	a, _ := storage.NewClient(p.dial()).Open(minute(t), "meg@ryan.example")
	ctx, cancel := context.WithCancel(minute(t))
	events := make(chan uint64, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- a.Watch(ctx, &v1.WatchRequest{}, func(ev *v1.ChangeEvent) error { events <- ev.GetModseq(); return nil })
	}()
	if m := <-events; m != 1 {
		t.Errorf("first event %d", m)
	}
	began := time.Now()
	long, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	first.Drain(long) // a drain does not wait for watchers
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the drain took %v", took)
	}
	first.Stop()
	second := p.next()
	if m := <-events; m != 2 {
		t.Errorf("event after the drain %d", m)
	}
	second.Stop() // a crash
	p.next()
	if m := <-events; m != 3 {
		t.Errorf("event after the crash %d", m)
	}
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("ended with %v", err)
	}
}
