package maildir

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/maildir"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	logName      = "stagecoach-index"
	keepDeposits = 10 * 24 * time.Hour
)

// state is what the log says: the sum of its records.
type state struct {
	annotations
	counters
	boxes    map[uint32]*box
	deposits map[string]deposited
	answers  map[string]answered // of requests with a key
	threads  map[uint64]uint64   // by hash of the Message-ID
	kept     map[string]bool     // subscriptions of names without a mailbox
	records  int
}

type counters struct{ Modseq, Mailbox, Message, UIDValidity uint64 }

// box is a mailbox: a folder of the Maildir.
type box struct {
	Num         uint32
	Name, Role  string `json:",omitempty"`
	Subscribed  bool
	UIDValidity uint32
	UIDNext     uint32
	Modseq      uint64
	Created     int64

	msgs     []*message // by growing UID
	byBase   map[string]*message
	vanished []tombstone
	seen     stamp
	dirty    bool
}

// message is a file of a folder.
type message struct {
	UID             uint32
	File            string   // within the folder: "cur/base:2,S"
	Flags           uint32   `json:",omitempty"`
	Keywords        []string `json:",omitempty"`
	Modseq          uint64
	Size            int64
	Received, Saved int64
	ID, Thread      uint64
	Hash            uint64 `json:",omitempty"`
}

type tombstone struct {
	Modseq uint64
	UID    uint32
}

// deposited is the kept result of a deposit.
type deposited struct {
	MS           int64
	Mailbox, UID uint32
	Message      uint64
}

// record is one change: what it sets and what it removes.
type record struct {
	Counters counters
	Boxes    []*box                 `json:",omitempty"`
	Gone     []uint32               `json:",omitempty"` // mailboxes
	Put      map[uint32][]*message  `json:",omitempty"` // by mailbox
	Vanished map[uint32][]tombstone `json:",omitempty"` // by mailbox
	Deposits map[string]deposited   `json:",omitempty"`
	Answers  map[string]answered    `json:",omitempty"`
	Kept     map[string]bool        `json:",omitempty"` // false: no more

	stepped bool
	list    bool
	undo    []string // files made by the change
	// unsubscribed: mailboxes that come into being are not subscribed.
	unsubscribed bool

	Notes map[uint32]map[string]*annotation `json:",omitempty"` // by mailbox; 0: the account's
}

func (st *state) apply(r *record) {
	st.counters = r.Counters
	st.applyNotes(r)
	for _, b := range r.Boxes {
		if old := st.boxes[b.Num]; old != nil {
			b.msgs, b.byBase, b.vanished = old.msgs, old.byBase, old.vanished
		} else {
			b.byBase = map[string]*message{}
		}
		st.boxes[b.Num] = b
	}
	for num, list := range r.Vanished {
		if b := st.boxes[num]; b != nil {
			b.drop(list)
			b.vanished = append(b.vanished, list...)
		}
	}
	for num, list := range r.Put {
		if b := st.boxes[num]; b != nil {
			for _, m := range list {
				b.put(m)
				st.threads[m.Hash] = m.Thread
			}
		}
	}
	for _, num := range r.Gone {
		delete(st.boxes, num)
	}
	for k, d := range r.Deposits {
		st.deposits[k] = d
	}
	for k, d := range r.Answers {
		st.answers[k] = d
	}
	st.applyKept(r.Kept)
	st.records++
}

func base(file string) string { return maildir.Base(filepath.Base(file)) }

func (b *box) find(uid uint32) (int, bool) {
	return slices.BinarySearchFunc(b.msgs, uid, func(m *message, uid uint32) int { return int(int64(m.UID) - int64(uid)) })
}

func (b *box) put(m *message) {
	i, ok := b.find(m.UID)
	if ok {
		delete(b.byBase, base(b.msgs[i].File))
		b.msgs[i] = m
	} else {
		b.msgs = slices.Insert(b.msgs, i, m)
	}
	b.byBase[base(m.File)] = m
}

func (b *box) drop(list []tombstone) {
	gone := make(map[uint32]bool, len(list))
	for _, t := range list {
		gone[t.UID] = true
	}
	b.msgs = slices.DeleteFunc(b.msgs, func(m *message) bool {
		if gone[m.UID] {
			delete(b.byBase, base(m.File))
		}
		return gone[m.UID]
	})
}

// load reads the log. A torn last record, which a crash left, is cut off. A
// damaged one before others is passed over: the log is set aside and a new one
// begun with the sum of the rest, as when most of it is history.
func (a *account) load() error {
	a.state = state{boxes: map[uint32]*box{}, deposits: map[string]deposited{}, answers: map[string]answered{}, threads: map[uint64]uint64{}, kept: map[string]bool{}}
	path := filepath.Join(a.dir, logName)
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return a.create()
	}
	if err != nil {
		return err
	}
	damaged, err := a.replay(f)
	if err == nil && len(a.boxes) == 0 {
		// The first record is written whole before the log has its name.
		err = fmt.Errorf("%s is damaged: move it away and the folders get new UIDs", path)
	}
	if err != nil {
		f.Close()
		return err
	}
	a.log, a.loaded = f, true
	if damaged > 0 {
		err = a.setLogAside(path)
		a.s.opts.Log.Error().Str("account", a.name).Int("records", damaged).Str("copy", path+".damaged").
			Msg("storage maildir: the log has damaged records; what they told of gets new UIDs")
	}
	if err == nil && (damaged > 0 || a.records > 1000) {
		err = a.compact()
	}
	if err != nil {
		a.unload()
	}
	return err
}

// replay applies the records of f, cuts off a torn end, and counts what is
// damaged before it.
func (a *account) replay(f *os.File) (damaged int, err error) {
	r := bufio.NewReader(f)
	var whole, read int64
	bad := 0 // since the last good one
	for {
		line, err := r.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return 0, err
		}
		read += int64(len(line))
		if rec := (&record{}); decode(line, rec) {
			a.apply(rec)
			whole, damaged, bad = read, damaged+bad, 0
		} else if len(line) > 0 {
			bad++
		}
		if err == io.EOF {
			break
		}
	}
	if err := f.Truncate(whole); err != nil {
		return 0, err
	}
	_, err = f.Seek(whole, io.SeekStart)
	return damaged, err
}

// setLogAside keeps the log under another name, for whoever wants to repair it.
func (a *account) setLogAside(path string) error {
	if err := os.Remove(path + ".damaged"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Link(path, path+".damaged")
}

// create makes the Maildir of a new account.
func (a *account) create() error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	if err := a.s.syncDir(a.s.opts.Dir); err != nil {
		return err
	}
	a.rec = &record{}
	for _, d := range defaults {
		if _, err := a.createBox(d.name, d.role); err != nil {
			return err
		}
	}
	return a.compact()
}

// compact writes the sum of the log as the first record of a new one.
func (a *account) compact() error {
	old := a.s.opts.Now().Add(-keepDeposits).UnixMilli()
	for k, d := range a.deposits {
		if d.MS < old {
			delete(a.deposits, k)
		}
	}
	a.forgetAnswers()
	rec := &record{Counters: a.counters, Deposits: a.deposits, Answers: a.answers, Put: map[uint32][]*message{}, Vanished: map[uint32][]tombstone{}, Kept: a.kept}
	for num, b := range a.boxes {
		rec.Boxes = append(rec.Boxes, b)
		rec.Put[num], rec.Vanished[num] = b.msgs, b.vanished
	}
	rec.Notes = a.notes
	path := filepath.Join(a.dir, logName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(encode(rec)); err != nil {
		f.Close()
		return err
	}
	a.s.sync(f)
	if err := os.Rename(path+".new", path); err != nil {
		f.Close()
		return err
	}
	if a.log != nil {
		a.log.Close()
	}
	a.log, a.loaded, a.records = f, true, 1
	return a.s.syncDir(a.dir)
}

// encode writes a record as one line: its checksum, then JSON.
func encode(r *record) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain data
	}
	return append(fmt.Appendf(nil, "%08x %s", crc32.ChecksumIEEE(b), b), '\n')
}

func decode(line []byte, r *record) bool {
	if len(line) < 10 || line[len(line)-1] != '\n' {
		return false
	}
	b := line[9 : len(line)-1]
	return fmt.Sprintf("%08x ", crc32.ChecksumIEEE(b)) == string(line[:9]) && json.Unmarshal(b, r) == nil
}

// step returns the MODSEQ of the change under way.
func (a *account) step() uint64 {
	if !a.rec.stepped {
		a.rec.stepped = true
		a.Modseq++
	}
	return a.Modseq
}

func (a *account) touch(b *box) {
	b.Modseq = a.step()
	b.dirty = true
}

// commit appends the change's record and makes it durable.
func (a *account) commit() error {
	r := a.rec
	a.rec = nil
	if !r.stepped && len(r.Deposits) == 0 {
		return nil
	}
	r.Counters = a.counters
	e := &v1.ChangeEvent{Modseq: a.Modseq, Mailboxes: r.list, MailboxIds: r.noted()}
	for _, b := range a.boxes {
		if b.dirty {
			b.dirty = false
			r.Boxes = append(r.Boxes, b)
			e.MailboxIds = append(e.MailboxIds, boxID(b.Num))
		}
	}
	if _, err := a.log.Write(encode(r)); err != nil {
		return err
	}
	a.s.sync(a.log)
	a.records++
	a.hub.publish(e)
	return nil
}

func (r *record) set(num uint32, m *message) {
	if r.Put == nil {
		r.Put = map[uint32][]*message{}
	}
	r.Put[num] = append(r.Put[num], m)
}

// bury takes messages out of the index.
func (a *account) bury(b *box, uids []uint32) {
	if len(uids) == 0 {
		return
	}
	a.touch(b)
	var list []tombstone
	for _, uid := range uids {
		list = append(list, tombstone{a.Modseq, uid})
	}
	b.drop(list)
	b.vanished = append(b.vanished, list...)
	if a.rec.Vanished == nil {
		a.rec.Vanished = map[uint32][]tombstone{}
	}
	a.rec.Vanished[b.Num] = append(a.rec.Vanished[b.Num], list...)
}

// index gives a message that lies in the folder its UID.
func (a *account) index(b *box, m *message) {
	a.touch(b)
	m.UID, m.Modseq = b.UIDNext, a.Modseq
	b.UIDNext++
	b.put(m)
	a.threads[m.Hash] = m.Thread
	a.rec.set(b.Num, m)
}
