package imap_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// STATUS of many mailboxes at once asks the storage for all of them, and what another
// session has done meanwhile, and was answered for, is in every answer.
func TestStatusOfMany(t *testing.T) {
	inner, err := local.New(local.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inner.Close() })
	store := &counting{Storage: inner}
	s := serve(t, store, listen(t), listen(t), true, imap.DefaultConfig())
	a := s.account()
	const boxes = 100
	for n := range boxes {
		if _, err := a.Create(context.Background(), &v1.CreateMailboxRequest{Name: fmt.Sprintf("box-%03d", n)}); err != nil {
			t.Fatal(err)
		}
	}
	asks, other := s.raw(true), s.raw(true)
	var all strings.Builder
	for n := range boxes {
		fmt.Fprintf(&all, "s%d STATUS box-%03d (MESSAGES)\r\n", n, n)
	}
	few := false
	for range 20 { // the machine may be slow, and then nothing is read ahead
		store.lists.Store(0)
		asks.say(all.String())
		if got := asks.until(fmt.Sprintf("s%d ", boxes-1)); strings.Count(got, "(MESSAGES 0)") != boxes {
			t.Fatal(got)
		}
		if few = store.lists.Load() < boxes/2; few {
			break
		}
	}
	if !few {
		t.Errorf("%d questions for %d STATUS commands sent at once", store.lists.Load(), boxes)
	}
	for n := range 50 {
		// Three in a row, so that there is something read ahead.
		asks.say("a STATUS box-001 (MESSAGES)\r\nb STATUS box-002 (MESSAGES)\r\nc STATUS box-003 (MESSAGES)\r\n")
		asks.until("c OK")
		other.say("x APPEND box-007 {5+}\r\nA: b\n\r\n")
		other.until("x OK")
		asks.say("d STATUS box-007 (MESSAGES)\r\n")
		if got := asks.until("d OK"); !strings.Contains(got, fmt.Sprintf("(MESSAGES %d)", n+1)) {
			t.Fatalf("after %d mails: %s", n+1, got)
		}
	}
	other.say("y RENAME box-007 gone\r\n")
	other.until("y OK")
	asks.say("e STATUS box-007 (MESSAGES)\r\n")
	if got := asks.until("e "); !strings.Contains(got, "NONEXISTENT") {
		t.Fatal(got)
	}
}
