package local

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Whatever the order of the ids, and after a restart, a deposit that is stored is
// known, and of those beyond all others nothing is asked of the database.
func TestADepositIsKnownWhateverTheOrder(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	rnd := rand.New(rand.NewPCG(1, 2))
	uids := map[string]uint32{}
	deposit := func(id string) uint32 {
		t.Helper()
		resp, err := s.Deposit(context.Background(), &v1.DepositRequest{
			QueueId: id, Message: inlineMessage("Subject: hello\r\n\r\nhello\r\n"),
			Targets: []*v1.DepositRequest_Target{{Account: "meg@ryan.example"}},
		})
		if err != nil || resp.Results[0].Problem != nil {
			t.Fatal(resp, err)
		}
		return resp.Results[0].Uid
	}
	for i := range 60 {
		id := fmt.Sprintf("%03d", rnd.IntN(1000))
		if i == 30 {
			s.Close()
			s = open(t, Options{Dir: dir})
		}
		uid := deposit(id)
		if before, ok := uids[id]; ok && before != uid {
			t.Fatalf("%s was stored as %d and as %d", id, before, uid)
		}
		uids[id] = uid
	}
	for id, uid := range uids {
		if got := deposit(id); got != uid {
			t.Errorf("%s was stored as %d and as %d", id, uid, got)
		}
	}
	defer s.Close()
	if s.fresh.has(keyDeposit("999999", 0)) {
		t.Error("the database is asked of an id beyond all")
	}
}

// The keys that fall out of memory are below the floor then.
func TestFreshLeavesNoKeyOut(t *testing.T) {
	f := fresh{recent: map[string]struct{}{}}
	rnd := rand.New(rand.NewPCG(3, 4))
	var all [][]byte
	for i := range 3 * recentDeposits {
		key := keyDeposit(fmt.Sprintf("%08d", i+rnd.IntN(200)), 0)
		f.add(key)
		all = append(all, key)
	}
	for _, key := range all {
		if !f.has(key) {
			t.Fatalf("%q was left out", key)
		}
	}
	if len(f.recent) > recentDeposits {
		t.Errorf("%d keys in memory", len(f.recent))
	}
	if f.has(keyDeposit("99999999", 0)) {
		t.Error("a key that was never added is taken for one that was")
	}
}
