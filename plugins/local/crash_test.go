package local

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var (
	crashSeed   = flag.Uint64("crash.seed", 0, "seed of TestCrash; 0: a new one")
	crashRounds = flag.Int("crash.rounds", 6, "crashes per run of TestCrash")
)

// place is where a message was seen.
type place struct {
	account string
	box     string
	uid     uint32
}

// fact is what the oracle knows of a place that was acknowledged.
type fact struct {
	text    string
	leaving bool // an expunge or move began
	gone    bool // and was acknowledged
}

// oracle knows what must be, what may be and what must not be in the store.
type oracle struct {
	sync.Mutex
	facts    map[place]fact
	deposits map[string]*v1.DepositRequest // begun, by queue id
	results  map[string]place              // acknowledged
	texts    map[string]bool               // of everything begun
	left     map[string]bool               // texts for which an expunge began
}

func (o *oracle) copy() *oracle {
	o.Lock()
	defer o.Unlock()
	return &oracle{facts: maps.Clone(o.facts), deposits: maps.Clone(o.deposits), results: maps.Clone(o.results), texts: maps.Clone(o.texts), left: maps.Clone(o.left)}
}

var crashAccounts = []string{"meg@ryan.example", "tom@hanks.example", "nora@ryan.example"}

// TestCrash runs a random workload, cuts the power at a random moment, opens what
// is left on the disk, checks it against the oracle, and goes on from there.
func TestCrash(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (go test -run TestCrash -crash.seed %d)", seed, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	o := &oracle{facts: map[place]fact{}, deposits: map[string]*v1.DepositRequest{}, results: map[string]place{}, texts: map[string]bool{}, left: map[string]bool{}}
	fs := vfs.NewCrashableMem()
	for round := range *crashRounds {
		s := open(t, Options{Dir: "store", FS: fs})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for w := range 4 {
			wrng := rand.New(rand.NewPCG(seed, uint64(round*100+w+2)))
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						o.step(t, s, wrng, fmt.Sprintf("q%d-%d-%d", round, w, n))
					}
				}
			})
		}
		time.Sleep(time.Duration(5+rng.IntN(200)) * time.Millisecond) // the moment is random, nothing waits for it
		known := o.copy()
		fs2 := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 70, 100}[rng.IntN(4)], RNG: rng})
		begun := o.copy()
		close(stop)
		wg.Wait()
		s.Close()
		if t.Failed() {
			return
		}
		fs = fs2
		s = open(t, Options{Dir: "store", FS: fs})
		known.deposits, known.texts, known.left = begun.deposits, begun.texts, begun.left
		for p, f := range begun.facts {
			if f.leaving || f.gone {
				if k, ok := known.facts[p]; ok {
					k.leaving = true
					known.facts[p] = k
				}
			}
		}
		o = known
		o.check(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("after crash %d", round)
		}
	}
	t.Logf("%d deposits, %d places known at the end", len(o.deposits), len(o.facts))
}

// step is one random operation.
func (o *oracle) step(t *testing.T, s *Store, rng *rand.Rand, id string) {
	ctx := context.Background()
	fill := strings.Repeat("x", rng.IntN(3000))
	if rng.IntN(10) == 0 {
		fill = strings.Repeat("large\r\n", 10000+rng.IntN(5000))
	}
	text := "Subject: " + id + "\r\nMessage-ID: <" + id + ">\r\n\r\n" + fill + "\r\n.end " + id + "\r\n"
	account := crashAccounts[rng.IntN(len(crashAccounts))]
	a, err := s.Open(ctx, account)
	if err != nil {
		t.Error(err)
		return
	}
	switch rng.IntN(8) {
	case 0, 1, 2:
		o.deposit(t, s, o.request(id, text, rng))
	case 3:
		o.Lock()
		o.texts[text] = true
		o.Unlock()
		resp, err := a.Append(ctx, &v1.AppendRequest{MailboxId: "F1", Messages: []*v1.AppendRequest_Message{{Message: inlineMessage(text)}}})
		if err != nil {
			t.Error(err)
			return
		}
		o.Lock()
		o.facts[place{account, "F1", resp.Uids[0]}] = fact{text: text}
		o.Unlock()
	case 4:
		if _, err := a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: "F1", Uids: []*v1.UIDRange{{First: uint32(rng.IntN(50)), Last: uint32(rng.IntN(100))}}, Flags: []string{`\Seen`, "$Work"}, Op: v1.SetFlagsRequest_Op(rng.IntN(3))}); err != nil {
			t.Error(err)
		}
	default:
		o.leave(t, a, account, rng)
	}
}

// leave expunges or moves a message that is known.
func (o *oracle) leave(t *testing.T, a interface {
	Expunge(context.Context, *v1.ExpungeRequest) (*v1.ExpungeResponse, error)
	Copy(context.Context, *v1.CopyRequest) (*v1.CopyResponse, error)
}, account string, rng *rand.Rand) {
	o.Lock()
	var p place
	for q, f := range o.facts {
		if q.account == account && !f.leaving {
			p = q
			break
		}
	}
	f, ok := o.facts[p]
	move := rng.IntN(2) == 0
	if ok {
		f.leaving = true
		o.facts[p] = f
		if !move {
			o.left[f.text+account] = true
		}
	}
	o.Unlock()
	if !ok {
		return
	}
	uids := []*v1.UIDRange{{First: p.uid, Last: p.uid}}
	var to place
	if move {
		resp, err := a.Copy(context.Background(), &v1.CopyRequest{MailboxId: p.box, Uids: uids, TargetMailboxId: "F4", Move: true})
		if err != nil || len(resp.TargetUids) != 1 {
			t.Errorf("move of %v: %v %v", p, resp, err)
			return
		}
		to = place{account, "F4", resp.TargetUids[0]}
	} else if resp, err := a.Expunge(context.Background(), &v1.ExpungeRequest{MailboxId: p.box, Uids: uids, Force: true}); err != nil || len(resp.Expunged) != 1 {
		t.Errorf("expunge of %v: %v %v", p, resp, err)
		return
	}
	o.Lock()
	defer o.Unlock()
	f.gone = true
	o.facts[p] = f
	if move {
		o.facts[to] = fact{text: f.text}
	}
}

func (o *oracle) request(id, text string, rng *rand.Rand) *v1.DepositRequest {
	req := &v1.DepositRequest{QueueId: id, Message: inlineMessage(text)}
	for i := range 1 + rng.IntN(len(crashAccounts)) {
		req.Targets = append(req.Targets, &v1.DepositRequest_Target{Key: int32(i), Account: crashAccounts[i], Mailbox: []string{"", "Lists/" + id[:2]}[rng.IntN(2)]})
	}
	return req
}

// deposit delivers and notes what was acknowledged; a repeat must give the same.
func (o *oracle) deposit(t *testing.T, s *Store, req *v1.DepositRequest) {
	text := "Return-Path: <>\r\n" + string(req.Message.GetInline())
	o.Lock()
	o.deposits[req.QueueId] = req
	o.texts[text] = true
	o.Unlock()
	resp, err := s.Deposit(context.Background(), req)
	if err != nil {
		t.Error(err)
		return
	}
	o.Lock()
	defer o.Unlock()
	for i, r := range resp.Results {
		if r.Problem != nil {
			t.Error(r.Problem)
			continue
		}
		p := place{req.Targets[i].Account, r.MailboxId, r.Uid}
		key := fmt.Sprint(req.QueueId, "/", i)
		if old, ok := o.results[key]; ok && old != p {
			t.Errorf("deposit %s was acknowledged as %v and is now %v", key, old, p)
		}
		o.results[key] = p
		if f, ok := o.facts[p]; !ok {
			o.facts[p] = fact{text: text, leaving: o.left[text+p.account]}
		} else if f.text != text {
			t.Errorf("UID %v was used for two messages", p)
		}
	}
}

// check compares a recovered store with what is known, lets the queue repeat all
// that it has no answer for, and compares again.
func (o *oracle) check(t *testing.T, s *Store) {
	t.Helper()
	o.compare(t, s)
	for _, req := range o.deposits {
		o.deposit(t, s, req)
	}
	found := o.compare(t, s)
	for id, req := range o.deposits {
		text := "Return-Path: <>\r\n" + string(req.Message.GetInline())
		for _, target := range req.Targets {
			n := found[text+target.Account]
			if n > 1 || n == 0 && !o.left[text+target.Account] {
				t.Errorf("deposit %s is %d times in %s", id, n, target.Account)
			}
		}
	}
	s.collect()
	integrity(t, s)
}

// compare checks every place and every counter; it returns how often each text
// stands in each account.
func (o *oracle) compare(t *testing.T, s *Store) map[string]int {
	t.Helper()
	found := map[string]int{}
	stored := map[place]string{}
	next := map[place]uint32{}
	for _, account := range crashAccounts {
		a, err := s.Open(context.Background(), account)
		if err != nil {
			t.Fatal(err)
		}
		list, err := a.List(context.Background(), &v1.ListMailboxesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var bytes, messages int64
		for _, m := range list.Mailboxes {
			next[place{account, m.Id, 0}] = m.UidNext
			var n, unseen, deleted uint32
			var size int64
			snap, err := a.Snapshot(context.Background(), &v1.SnapshotRequest{MailboxId: m.Id})
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range snap.Flags {
				n++
				size += snap.Sizes[i]
				if f&1 == 0 {
					unseen++
				}
				if f&8 != 0 {
					deleted++
				}
				if snap.Modseqs[i] > m.HighestModseq || m.HighestModseq > list.Modseq || snap.Uids[i] >= m.UidNext {
					t.Errorf("message %d of %q: modseq %d, the mailbox's %d, the account's %d, uid_next %d", snap.Uids[i], m.Name, snap.Modseqs[i], m.HighestModseq, list.Modseq, m.UidNext)
				}
			}
			if n != m.Messages || size != m.Size || unseen != m.Unseen || deleted != m.Deleted {
				t.Errorf("%s %q counts %d messages %d octets %d unseen %d deleted; there are %d %d %d %d", account, m.Name, m.Messages, m.Size, m.Unseen, m.Deleted, n, size, unseen, deleted)
			}
			bytes, messages = bytes+size, messages+int64(n)
			err = a.Fetch(context.Background(), &v1.FetchRequest{MailboxId: m.Id, Message: true, Summary: true}, func(i *v1.FetchResponse_Item) error {
				text := string(i.Message.GetInline())
				if !o.texts[text] {
					t.Errorf("message %d of %q is torn: %.60q … of %d octets", i.Uid, m.Name, text, len(text))
				}
				stored[place{account, m.Id, i.Uid}] = text
				found[text+account]++
				return nil
			})
			if err != nil {
				t.Errorf("fetch of %q: %v", m.Name, err)
			}
		}
		if q, err := a.Quota(context.Background()); err != nil || q.UsedBytes != bytes || q.UsedMessages != messages {
			t.Errorf("quota of %s: %v %v; there are %d octets in %d messages", account, q, err, bytes, messages)
		}
	}
	for p, f := range o.facts {
		text, ok := stored[p]
		switch {
		case ok && text != f.text:
			t.Errorf("%v holds another message than was acknowledged: the UID was used again", p)
		case ok && f.gone:
			t.Errorf("%v is there again after its expunge was acknowledged", p)
		case !ok && !f.leaving && !f.gone:
			t.Errorf("%v was acknowledged and is lost", p)
		}
		if p.uid >= next[place{p.account, p.box, 0}] {
			t.Errorf("%v was acknowledged, but uid_next is %d", p, next[place{p.account, p.box, 0}])
		}
	}
	return found
}

// integrity checks that bodies, references and files belong together.
func integrity(t *testing.T, s *Store) {
	t.Helper()
	referenced := map[uint64]bool{}
	scan(s.db, []byte{tabReference}, func(k, _ []byte) error {
		referenced[be.Uint64(k[1:])] = true
		if v, _ := get(s.db, key88(tabRendered, be.Uint64(k[9:]), be.Uint64(k[17:]))); v == nil {
			t.Errorf("body %d is referred to by a message that is not there", be.Uint64(k[1:]))
		}
		return nil
	})
	files := map[uint64]bool{}
	scan(s.db, []byte{tabBlob}, func(k, v []byte) error {
		id := be.Uint64(k[1:])
		if !referenced[id] {
			t.Errorf("body %d is left over", id)
		}
		if v[0] == blobFile {
			files[id] = true
		}
		delete(referenced, id)
		return nil
	})
	for id := range referenced {
		t.Errorf("body %d is referred to and not there", id)
	}
	dirs, _ := s.fs.List(s.path("blobs"))
	for _, d := range dirs {
		names, _ := s.fs.List(s.path("blobs", d))
		for _, name := range names {
			var id uint64
			fmt.Sscanf(name, "%x.eml", &id)
			if !files[id] {
				t.Errorf("file %s is left over", name)
			}
			delete(files, id)
		}
	}
	for id := range files {
		t.Errorf("the file of body %d is missing", id)
	}
}
