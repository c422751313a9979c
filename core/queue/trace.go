package queue

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Trace is what the mail journal tells of an id, a Message-ID or an address.
type Trace struct {
	Mails    []*Story  `json:"mails"`
	Refusals []Refusal `json:"refusals"`
	// Others came of these mails, or these of them.
	Others []*Story `json:"others,omitempty"`
	// More: there are more than were asked for; the newest are told.
	More bool `json:"more,omitempty"`
	// Kept: the journal is on. What is in the queue is told in any case.
	Kept bool `json:"kept"`
}

// Story is one mail's life, as far as it is known.
type Story struct {
	ID          string    `json:"id"`
	Received    time.Time `json:"received,omitzero"`
	Transaction string    `json:"transaction,omitempty"`
	Sender      string    `json:"sender"`
	Origin      string    `json:"origin,omitempty"`
	Size        int64     `json:"size,omitempty"`
	MessageID   string    `json:"message_id,omitempty"`
	From        string    `json:"from,omitempty"`
	Subject     string    `json:"subject,omitempty"`
	ClientIP    string    `json:"client_ip,omitempty"`
	Hello       string    `json:"hello,omitempty"`
	User        string    `json:"user,omitempty"`
	Protocol    string    `json:"protocol,omitempty"`
	TLS         string    `json:"tls,omitempty"`
	// Parent is the mail that this one came from: a notice, a filter's message.
	Parent string `json:"parent,omitempty"`
	// Notes of what was done with it before it was queued.
	Notes      []Note    `json:"notes,omitempty"`
	Recipients []Reached `json:"recipients"`
	Events     []Event   `json:"events"`

	whole bool // its beginning is known
}

// Reached is a recipient of a story and what became of it.
type Reached struct {
	Index    int32  `json:"index"`
	Address  string `json:"address"`
	Original string `json:"original,omitempty"`
	// From is the recipient that this one came from, Why how.
	From  string `json:"from,omitempty"`
	Why   string `json:"why,omitempty"`
	State string `json:"state"`
}

// Event is a step of one recipient.
type Event struct {
	At        time.Time `json:"at"`
	Recipient string    `json:"recipient"`
	State     string    `json:"state"`
	Operator  bool      `json:"operator,omitempty"`
	Route     string    `json:"route,omitempty"`
	Deliver   string    `json:"deliver,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Code      int       `json:"code,omitempty"`
	Enhanced  string    `json:"enhanced,omitempty"`
	Text      string    `json:"text,omitempty"`
	RemoteMTA string    `json:"remote_mta,omitempty"`
	TLS       string    `json:"tls,omitempty"`
	Next      time.Time `json:"next,omitzero"`
	Becomes   []string  `json:"becomes,omitempty"`
	// Made are the ids of messages that came of it: notices, filters' messages.
	Made  []string `json:"made,omitempty"`
	Notes []Note   `json:"notes,omitempty"`
}

// Trace tells of all mail that name is the id, the Message-ID or an address of,
// received since then: the newest most of it, in the order of its time.
func (e *Engine) Trace(ctx context.Context, name string, since time.Time, most int) (*Trace, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	t := &tracing{e: e, ctx: ctx, stories: map[id]*Story{}}
	out := &Trace{Kept: e.keeping.Load(), Mails: []*Story{}, Refusals: []Refusal{}}
	name = strings.Trim(name, "<> \t")
	var found []id
	err := t.scan(since.UnixMicro(), map[uint32]bool{nameOf(name): true}, func(h *entry) {
		switch {
		case h.refusal != nil && h.refusal.named(name):
			out.Refusals = append(out.Refusals, *h.refusal)
			if len(out.Refusals) > most {
				out.Refusals, out.More = out.Refusals[1:], true
			}
		case h.refusal == nil && h.named(name):
			found = append(found, h.id)
		}
	})
	if err != nil {
		return nil, err
	}
	if i, ok := readID(name); ok {
		found = append(found, i)
	}
	if !out.Kept {
		err = e.List(ctx, Filter{Words: []string{name}}, func(env *Envelope) bool {
			i, _ := readID(env.ID)
			found = append(found, i)
			return len(found) <= most
		})
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) > most {
		found, out.More = found[len(found)-most:], true
	}
	if err = errors.Join(err, t.tell(found, since)); err != nil {
		return nil, err
	}
	var others []id
	for _, i := range found {
		s := t.stories[i]
		if s == nil {
			continue
		}
		out.Mails = append(out.Mails, s)
		others = append(others, s.relatives()...)
	}
	slices.Sort(others)
	others = slices.DeleteFunc(slices.Compact(others), func(i id) bool { return t.stories[i] != nil })
	if err := t.tell(others[:min(len(others), most)], since); err != nil {
		return nil, err
	}
	for _, i := range others {
		if s := t.stories[i]; s != nil {
			out.Others = append(out.Others, s)
		}
	}
	return out, nil
}

func (s *Story) relatives() (is []id) {
	names := []string{s.Parent}
	for i := range s.Events {
		names = append(names, s.Events[i].Made...)
	}
	for _, name := range names {
		if i, ok := readID(name); ok {
			is = append(is, i)
		}
	}
	return is
}

func same(s, name string) bool { return strings.EqualFold(strings.Trim(s, "<> \t"), name) }

func (r *Refusal) named(name string) bool {
	return same(r.Sender, name) || same(r.Transaction, name) || slices.ContainsFunc(r.Recipients, func(to string) bool { return same(to, name) })
}

func (h *entry) named(name string) bool {
	if h.id.String() == name {
		return true
	}
	is := func(r *Recipient) bool { return same(r.Address, name) }
	if e := h.env; e != nil && (same(e.Sender, name) || same(e.MessageID, name) || same(e.Transaction, name) || slices.ContainsFunc(e.Recipients, is)) {
		return true
	}
	return slices.ContainsFunc(h.changes, func(c Change) bool { return slices.ContainsFunc(c.Add, is) })
}

// tracing is one Trace under way.
type tracing struct {
	e       *Engine
	ctx     context.Context
	stories map[id]*Story
}

// tell puts together what is known of some mails.
func (t *tracing) tell(is []id, since time.Time) error {
	if len(is) == 0 {
		return nil
	}
	wanted := map[uint32]bool{}
	for _, i := range is {
		wanted[nameOf(i.String())] = true
		if _, there := t.stories[i]; !there {
			t.stories[i] = nil
		}
		since = time.UnixMicro(min(since.UnixMicro(), idStart.UnixMicro()+int64(i>>epochBits)-int64(time.Second/time.Microsecond)))
	}
	if err := t.scan(since.UnixMicro(), wanted, func(h *entry) {
		if h.refusal != nil || !slices.Contains(is, h.id) {
			return
		}
		s := t.stories[h.id]
		if s == nil {
			s = &Story{ID: h.id.String(), Recipients: []Reached{}, Events: []Event{}}
			t.stories[h.id] = s
		}
		s.add(h)
	}); err != nil {
		return err
	}
	for _, i := range is {
		if s := t.stories[i]; s != nil && s.whole {
			continue
		}
		env, err := t.e.Get(t.ctx, i.String())
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
			continue
		}
		if err != nil {
			return err
		}
		s := t.stories[i]
		if s == nil {
			s = &Story{ID: i.String(), Events: []Event{}}
			t.stories[i] = s
		}
		s.Recipients = nil
		s.begin(env)
		s.Received = env.Received
	}
	return nil
}

// begin takes over what a Put knows.
func (s *Story) begin(e *Envelope) {
	c := e.Client
	s.whole, s.Transaction, s.Sender, s.Origin, s.Size, s.MessageID = true, e.Transaction, e.Sender, e.Origin, e.Size, e.MessageID
	s.From, s.Subject, s.ClientIP, s.Hello, s.User, s.Protocol = e.From, e.Subject, c.GetIp(), c.GetHello(), c.GetUser(), c.GetProtocol()
	if c.GetTls() {
		s.TLS = strings.TrimSpace(c.GetTlsVersion() + " " + c.GetTlsCipher())
	}
	s.Notes = e.Notes
	for _, r := range e.Recipients {
		s.Recipients = append(s.Recipients, Reached{Index: r.Index, Address: r.Address, Original: r.Original, Why: r.Reason, State: r.State.String()})
	}
}

func (s *Story) add(h *entry) {
	at := time.UnixMicro(h.at).UTC()
	if h.env != nil {
		s.begin(h.env)
		s.Received = at
		if h.parent != 0 {
			s.Parent = h.parent.String()
		}
		return
	}
	for i := range h.changes {
		c := &h.changes[i]
		r := s.reached(c.Index)
		ev := Event{
			At: at, Recipient: r.Address, State: c.State.String(), Operator: c.operator, Route: c.Route, Deliver: c.Deliver,
			Reason: c.Reason, Next: c.Next, Notes: c.Notes,
		}
		if a := c.Attempt; a != nil {
			ev.Code, ev.Enhanced, ev.Text, ev.RemoteMTA, ev.TLS = a.Code, a.Enhanced, a.Text, a.RemoteMTA, a.TLS
			if c.State == Waiting {
				ev.State = "deferred"
			}
		}
		if c.released {
			ev.State = "released"
		}
		if i == 0 {
			for _, m := range h.made {
				ev.Made = append(ev.Made, m.String())
			}
		}
		r.State, r.Why = c.State.String(), cmp.Or(c.Reason, r.Why)
		from := r.Address // s.Recipients grows
		for _, q := range c.Add {
			ev.Becomes = append(ev.Becomes, q.Address)
			s.Recipients = append(s.Recipients, Reached{Index: q.Index, Address: q.Address, Original: q.Original, From: from, Why: cmp.Or(q.Reason, c.Reason), State: Waiting.String()})
		}
		s.Events = append(s.Events, ev)
	}
}

// reached finds a recipient; one that came before the journal has no address.
func (s *Story) reached(index int32) *Reached {
	for n := range s.Recipients {
		if s.Recipients[n].Index == index {
			return &s.Recipients[n]
		}
	}
	s.Recipients = append(s.Recipients, Reached{Index: index})
	return &s.Recipients[len(s.Recipients)-1]
}

// scan calls each for the entries, from a time on, of the records that may have
// one of the names.
func (t *tracing) scan(from int64, names map[uint32]bool, each func(*entry)) error {
	p := &t.e.history
	p.mu.Lock()
	var err error
	if p.open != nil {
		err = p.open.flush()
	}
	begun, lerr := p.chapters()
	from = max(from, t.e.o.Clock().Add(-p.keep).UnixMicro())
	p.mu.Unlock()
	if err = cmp.Or(err, lerr); err != nil {
		return fmt.Errorf("read the mail journal: %w", err)
	}
	for _, at := range begun {
		if at+chapterTime.Microseconds() < from {
			continue
		}
		if t.ctx.Err() != nil {
			return t.ctx.Err()
		}
		path := p.fs.PathJoin(p.dir, fmt.Sprintf("%016x", at))
		err := readChapter(p.fs, path, names, func(h *entry) {
			if h.at >= from {
				each(h)
			}
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) { // forgotten meanwhile
			return fmt.Errorf("read the mail journal: %w", err)
		}
	}
	return nil
}

// readChapter reads the records with one of the names, and those at the end that
// have no names yet: a crash left them so. It ends where a file is torn.
func readChapter(fs vfs.FS, path string, names map[uint32]bool, each func(*entry)) error {
	index, err := fs.Open(path + namesSuffix)
	if err != nil {
		return err
	}
	defer index.Close()
	log, err := fs.Open(path + logSuffix)
	if err != nil {
		return err
	}
	defer log.Close()
	in := bufio.NewReaderSize(index, 256<<10)
	last := int64(-1) // record that is named
	for {
		head := make([]byte, namesHead)
		if _, err := io.ReadFull(in, head); err != nil {
			break
		}
		hashes := make([]byte, 4*min(binary.LittleEndian.Uint32(head[4:]), 1<<20))
		if _, err := io.ReadFull(in, hashes); err != nil || crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, hashes) != binary.LittleEndian.Uint32(head) {
			break
		}
		at := int64(binary.LittleEndian.Uint64(head[8:]))
		hit := false
		for ; len(hashes) > 0 && !hit; hashes = hashes[4:] {
			hit = names[binary.LittleEndian.Uint32(hashes)]
		}
		if last = at; !hit {
			continue
		}
		rec, _, err := historyAt(log, at, true)
		if err != nil {
			return nil
		}
		for n := range rec {
			each(&rec[n])
		}
	}
	next := int64(0)
	if last >= 0 {
		if _, next, err = historyAt(log, last, false); err != nil {
			return nil
		}
	}
	for {
		rec, after, err := historyAt(log, next, true)
		if err != nil {
			return nil
		}
		next = after
		for n := range rec {
			each(&rec[n])
		}
	}
}

// historyMost bounds a record, in octets: groups are far smaller.
const historyMost = 64 << 20

// historyAt reads the record at an offset, if it is wanted, and says where the
// next one is.
func historyAt(log vfs.File, at int64, wanted bool) (hs []entry, next int64, err error) {
	head := make([]byte, 8)
	if _, err := log.ReadAt(head, at); err != nil {
		return nil, 0, err
	}
	size := binary.LittleEndian.Uint32(head)
	if size > historyMost {
		return nil, 0, ErrCorrupt
	}
	next = at + 8 + int64(size)
	if !wanted {
		return nil, next, nil
	}
	rec := make([]byte, size)
	if _, err := log.ReadAt(rec, at+8); err != nil {
		return nil, 0, err
	}
	if crc32.Checksum(rec, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, 0, ErrCorrupt
	}
	hs, err = decodeHistory(rec)
	return hs, next, err
}
