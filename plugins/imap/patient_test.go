package imap

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/access"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// slow is a storage whose searches wait.
type slow struct {
	storage.Storage
	release chan struct{}
}

type slowAccount struct {
	storage.Account
	release chan struct{}
}

func (s slow) Open(ctx context.Context, name string) (storage.Account, error) {
	a, err := s.Storage.Open(ctx, name)
	return slowAccount{a, s.release}, err
}

func (a slowAccount) Search(ctx context.Context, req *v1.SearchRequest) (*v1.SearchResponse, error) {
	<-a.release
	return a.Account.Search(ctx, req)
}

// TestInProgress: a client hears that its search is still under way.
func TestInProgress(t *testing.T) {
	dir := t.TempDir()
	store := slow{sdktest.NewStorage(dir), make(chan struct{})}
	s, err := New(DefaultConfig(), access.Host{
		Hostname: "mx.ryan.example", InsecureAuth: true, Storage: store, Directory: nobody{}, UploadDir: dir, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.progressEvery = time.Millisecond
	ours, its := net.Pipe()
	defer ours.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.newSession(newConn(s, its, netip.Prefix{})).serve(false)
	}()
	ours.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(ours)
	await := func(prefix string) {
		t.Helper()
		for {
			l, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("no %q: %v", prefix, err)
			}
			if strings.HasPrefix(l, prefix) {
				return
			}
		}
	}
	await("* OK")
	fmt.Fprint(ours, "a LOGIN meg x\r\n")
	await("a OK")
	fmt.Fprint(ours, "b SELECT INBOX\r\n")
	await("b OK")
	fmt.Fprint(ours, "c SEARCH ALL\r\n")
	await(`* OK [INPROGRESS ("c" NIL NIL)]`)
	close(store.release)
	await("c OK")
	fmt.Fprint(ours, "d LOGOUT\r\n")
	await("d OK")
	<-ended
	s.Cancel()
	s.feeds.wait()
}
