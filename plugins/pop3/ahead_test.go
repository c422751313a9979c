package pop3_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// counting counts the calls of Fetch.
type counting struct {
	storage.Storage
	fetches atomic.Int32
}

func (s *counting) Open(ctx context.Context, account string) (storage.Account, error) {
	a, err := s.Storage.Open(ctx, account)
	return &countingAccount{a, s}, err
}

type countingAccount struct {
	storage.Account
	s *counting
}

func (a *countingAccount) Fetch(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	a.s.fetches.Add(1)
	return a.Account.Fetch(ctx, req, item)
}

// TestReadAhead: who reads one mail after the other causes few calls to the
// storage, and gets each as it is, in whatever order they are asked for; what is
// deleted or too large lies between.
func TestReadAhead(t *testing.T) {
	counted := &counting{}
	s := startOver(t, true, nil, func(inner storage.Storage) storage.Storage {
		counted.Storage = inner
		return counted
	})
	const count = 100
	mails := make([]string, count)
	for i := range mails {
		lines := 1 + i*7%50
		if i == 40 {
			lines = 5000 // in a file
		}
		mails[i] = fmt.Sprintf("Subject: %d\r\n\r\n", i+1) + strings.Repeat(fmt.Sprintf("line of %d\r\n", i+1), lines)
	}
	s.deposit(mails...)
	c := s.in()
	retrieve := func(n int) {
		t.Helper()
		c.ask(fmt.Sprint("RETR ", n), fmt.Sprintf("+OK %d octets", len(mails[n-1])))
		var got strings.Builder
		for l := c.line(); l != "."; l = c.line() {
			got.WriteString(l + "\r\n")
		}
		if got.String() != mails[n-1] {
			t.Fatalf("RETR %d has %d octets, want %d: %.60q", n, got.Len(), len(mails[n-1]), got.String())
		}
	}
	c.ask("DELE 60", "+OK")
	for n := 1; n <= count; n++ {
		if n == 60 {
			c.ask("RETR 60", "-ERR")
			continue
		}
		retrieve(n)
	}
	if n := counted.fetches.Load(); n > 12 {
		t.Errorf("%d calls for %d mails in order", n, count)
	}
	for _, n := range []int{7, 3, 4, 5, 99, 100, 2, 3, 42, 41, 40, 1, 1, 2, 61, 59, 61} {
		retrieve(n)
	}
	c.ask("RSET", "+OK")
	retrieve(60)
}
