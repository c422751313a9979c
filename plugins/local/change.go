package local

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

// change collects what one call changes in one account, under its lock. All of
// it gets one MODSEQ and goes into one batch: all or nothing.
type change struct {
	s     *Store
	a     *account
	b     *pebble.Batch // shared by the accounts of one deposit
	rec   accountRecord
	boxes map[uint32]*box
	names map[string]uint32 // known or written in this batch; 0: removed
	// places and threads written in this batch, which the database cannot
	// tell yet.
	places  map[uint64]uint32
	threads map[uint64]uint64
	stepped bool
	list    bool // the list of mailboxes changed
	// unsubscribed: mailboxes that come into being are not subscribed.
	unsubscribed bool
	garbage      bool
	deposit      bool
	annotated    []string // ids of mailboxes
}

// box is a mailbox in a change.
type box struct {
	num uint32
	*v1.Mailbox
	dirty   bool
	removed bool
}

// maxSettled mailboxes of one account are kept for its next deposit.
const maxSettled = 8

// settled is what the account's last deposit wrote. It saves the next one to read
// it, and any other change ends it: those hand their mailboxes out.
type settled struct {
	rec   accountRecord
	names map[string]uint32
	boxes map[uint32]*v1.Mailbox
}

// beginDeposit is begin for a deposit; the account is locked.
func (s *Store) beginDeposit(a *account, b *pebble.Batch) (*change, error) {
	k := a.settled
	if k == nil {
		c, err := s.begin(a, b)
		c.deposit = true
		return c, err
	}
	a.settled = nil // until the commit
	c := &change{s: s, a: a, b: b, rec: k.rec, names: k.names, boxes: make(map[uint32]*box, len(k.boxes)), deposit: true}
	for num, m := range k.boxes {
		c.boxes[num] = &box{num: num, Mailbox: m}
	}
	return c, nil
}

// settle keeps what a deposit wrote; the account is locked.
func (c *change) settle() {
	if !c.deposit || c.list || len(c.boxes) > maxSettled {
		return
	}
	k := &settled{rec: c.rec, names: c.names, boxes: make(map[uint32]*v1.Mailbox, len(c.boxes))}
	for num, x := range c.boxes {
		k.boxes[num] = x.Mailbox
	}
	c.a.settled = k
}

// nameKnown notes a mailbox's number, so that it is not read again.
func (c *change) nameKnown(name string, num uint32) {
	if c.names == nil {
		c.names = map[string]uint32{}
	}
	c.names[name] = num
}

// begin reads the account's record; the account is locked.
func (s *Store) begin(a *account, b *pebble.Batch) (*change, error) {
	a.settled = nil
	c := &change{s: s, a: a, b: b, boxes: map[uint32]*box{}}
	v, err := get(s.db, key8(tabAccount, a.num))
	if err == nil {
		err = c.rec.decode(v)
	}
	return c, s.wrap(err, "read account")
}

// step returns the MODSEQ of this change.
func (c *change) step() uint64 {
	if !c.stepped {
		c.stepped = true
		c.rec.modseq++
	}
	return c.rec.modseq
}

// flush writes the counters.
func (c *change) flush() {
	if !c.stepped {
		return
	}
	c.b.Set(key8(tabAccount, c.a.num), c.rec.encode(), nil)
	for _, x := range c.boxes {
		switch {
		case x.removed:
			c.b.Delete(keyMailbox(c.a.num, x.num), nil)
			c.dropAnnotations(x.num)
		case x.dirty:
			c.b.Set(keyMailbox(c.a.num, x.num), encode(x.Mailbox), nil)
		}
	}
	for msg, n := range c.places {
		if n > 1 {
			c.b.Set(key88(tabPlaces, c.a.num, msg), be.AppendUint32(nil, n), nil)
		} else {
			c.b.Delete(key88(tabPlaces, c.a.num, msg), nil)
		}
	}
}

// event is what the watchers hear of this change.
func (c *change) event() *v1.ChangeEvent {
	e := &v1.ChangeEvent{Modseq: c.rec.modseq, Mailboxes: c.list, MailboxIds: c.annotated}
	for _, x := range c.boxes {
		if x.dirty || x.removed {
			e.MailboxIds = append(e.MailboxIds, x.Id)
		}
	}
	return e
}

// write runs f as one change of the account and returns when it is durable.
func (h *handle) write(f func(c *change) error) error {
	if err := h.s.gate.enter(); err != nil {
		return err
	}
	defer h.s.gate.leave()
	h.a.mu.Lock()
	b := h.s.db.NewBatch()
	defer b.Close()
	c, err := h.s.begin(h.a, b)
	if err == nil {
		err = f(c)
	}
	if err != nil {
		h.a.mu.Unlock()
		return h.s.wrap(err, "storage")
	}
	h.s.commit(b, []*change{c}, h.a.mu.Unlock)
	return nil
}

// commit applies the batch, unlocks, waits for the disk and tells the watchers.
// It returns when all that the accounts show is durable.
func (s *Store) commit(b *pebble.Batch, changes []*change, unlock func()) {
	if b.Empty() && !anyStepped(changes) {
		unlock()
		for _, c := range changes {
			c.a.wait()
		}
		return
	}
	com := &commit{done: make(chan struct{})}
	garbage := false
	for _, c := range changes {
		c.flush()
		c.a.setPending(com)
		garbage = garbage || c.garbage
	}
	err := s.db.ApplyNoSyncWait(b, pebble.Sync)
	for _, c := range changes {
		c.settle()
	}
	unlock()
	if err == nil {
		err = b.SyncWait()
	}
	if err != nil {
		s.fatal("commit", err)
	}
	close(com.done)
	for _, c := range changes {
		if c.stepped {
			c.a.hub.publish(c.event())
		}
	}
	if garbage {
		s.wakeCollector()
	}
}

func anyStepped(changes []*change) bool {
	for _, c := range changes {
		if c.stepped {
			return true
		}
	}
	return false
}

func boxID(num uint32) string { return "F" + strconv.FormatUint(uint64(num), 10) }

func objectID(kind byte, num uint64) string { return string(kind) + strconv.FormatUint(num, 10) }

func parseBoxID(id string) (uint32, bool) {
	digits, ok := strings.CutPrefix(id, "F")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && n > 0 && boxID(uint32(n)) == id
}

func noMailbox(id string) error {
	return fail.New(fail.NotFound, "there is no mailbox with id %q", id)
}

// byID returns the mailbox; NOT_FOUND if there is none.
func (c *change) byID(id string) (*box, error) {
	num, ok := parseBoxID(id)
	if !ok {
		return nil, noMailbox(id)
	}
	return c.byNum(num)
}

func (c *change) byNum(num uint32) (*box, error) {
	if x := c.boxes[num]; x != nil {
		if x.removed {
			return nil, noMailbox(x.Id)
		}
		return x, nil
	}
	m, err := readMailbox(c.s.db, c.a.num, num)
	if err != nil {
		return nil, err
	}
	x := &box{num: num, Mailbox: m}
	c.boxes[num] = x
	return x, nil
}

func readMailbox(r pebble.Reader, account uint64, num uint32) (*v1.Mailbox, error) {
	v, err := get(r, keyMailbox(account, num))
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, noMailbox(boxID(num))
	}
	return decodeMailbox(v)
}

// touch marks the mailbox as changed now.
func (c *change) touch(x *box) {
	x.dirty = true
	x.HighestModseq = c.step()
}

// count keeps the mailbox's and the account's counters; n is 1 or -1.
func (c *change) count(x *box, col *columns, n int) {
	x.Messages += uint32(n)
	x.Size += int64(n) * col.size
	c.countFlags(x, col.flags, n)
	c.rec.messages += uint64(n)
	c.rec.bytes += uint64(int64(n) * col.size)
}

func (c *change) countFlags(x *box, flags uint32, n int) {
	if flags&uint32(v1.Flag_FLAG_SEEN) == 0 {
		x.Unseen += uint32(n)
	}
	if flags&uint32(v1.Flag_FLAG_DELETED) != 0 {
		x.Deleted += uint32(n)
	}
}

// add gives the message a UID in the mailbox; col lacks only its MODSEQ.
func (c *change) add(x *box, col columns) (uint32, error) {
	uid := x.UidNext
	if uid == math.MaxUint32 {
		return 0, fail.New(fail.Unavailable, "mailbox %q has used up its UIDs: rename it and create it anew", x.Name)
	}
	c.touch(x)
	x.UidNext++
	col.modseq = c.rec.modseq
	c.count(x, &col, 1)
	c.b.Set(keyColumn(c.a.num, x.num, uid), col.append(nil), nil)
	return uid, nil
}

// remove takes the message out of the mailbox; the caller writes tombstones.
// The message itself goes with its last place, unless keep.
func (c *change) remove(x *box, uid uint32, col *columns, keep bool) error {
	c.touch(x)
	c.count(x, col, -1)
	c.b.Delete(keyColumn(c.a.num, x.num, uid), nil)
	if keep {
		return nil
	}
	n, err := c.placesOf(col.message)
	if err != nil {
		return err
	}
	if n > 1 {
		c.places[col.message] = n - 1
		return nil
	}
	delete(c.places, col.message)
	return c.forget(col.message)
}

// placesOf tells in how many places a message is.
func (c *change) placesOf(msg uint64) (uint32, error) {
	if n, ok := c.places[msg]; ok {
		return n, nil
	}
	if c.places == nil {
		c.places = map[uint64]uint32{}
	}
	v, err := get(c.s.db, key88(tabPlaces, c.a.num, msg))
	if err != nil {
		return 0, err
	}
	if v == nil {
		return 1, nil
	}
	return be.Uint32(v), nil
}

// forget removes a message that has no place any more.
func (c *change) forget(msg uint64) error {
	v, err := get(c.s.db, key88(tabRendered, c.a.num, msg))
	if err != nil {
		return err
	}
	var r rendered
	if v == nil || r.decode(v) != nil {
		return fmt.Errorf("message %d of account %q: %w", msg, c.a.name, errTorn)
	}
	c.b.Delete(key88(tabRendered, c.a.num, msg), nil)
	c.b.Delete(key88(tabPlaces, c.a.num, msg), nil)
	c.b.Delete(keyReference(r.blob, c.a.num, msg), nil)
	c.b.Set(key8(tabGarbage, r.blob), nil, nil)
	c.garbage = true
	if r.hash != 0 {
		return c.unthread(r.hash, msg)
	}
	return nil
}
