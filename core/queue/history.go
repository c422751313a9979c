package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"
)

// past is the mail journal: what happened to mail, kept for a time, also of mail
// that is gone. It decides nothing, and nobody waits for it.
//
// It is files that only grow, written by the committer after each group: a record
// of the group's entries in one, and in the other the hashes of what they can be
// found by. A mail costs the octets of its story and no key; who looks for one
// reads all the hashes of the time in question, 4 octets each. What is too old or
// too much goes by whole files.
//
// Rejected: the same records in the database, in the same commit. What stays there
// is flushed and compacted, and every scan of what is due then opens tables that an
// empty queue does not have: a fifth to a third more CPU for each mail
// (docs/decisions/0012-mail-journal.md). So a power cut, or a kill between a commit
// and its record, may lose the journal's last lines; the queue's own state is whole.
type past struct {
	fs  vfs.FS
	dir string
	log zerolog.Logger

	mu     sync.Mutex
	keep   time.Duration
	most   int64 // octets on the disk
	open   *chapter
	broken time.Time // no attempt before: the disk would not take it
	looked time.Time // for what is too old

	// refusals of this hour, and those that were too many.
	hour              int64
	refusals, tooMany int
}

// chapter is a pair of files: the newest is being written.
type chapter struct {
	begun      time.Time
	log, names vfs.File
	size       int64
	// unnamed are hashes that are not written yet. Who finds the log longer than
	// the names say reads the rest itself.
	unnamed []byte
}

const (
	// refusalsPerHour are kept: a stranger must not fill the disk.
	refusalsPerHour = 10_000
	chapterTime     = time.Hour
	chaptersMost    = 8 // at least so many make up the size that is allowed
	forgetEvery     = 10 * time.Minute
	afterBroken     = time.Minute
	unnamedMost     = 16 << 10
	// historyText bounds each text of a record, in octets.
	historyText = 512
	notesMost   = 64
)

// Note is a step of a mail's way that the queue cannot know by itself.
type Note struct {
	// What: the event of a filter ("MESSAGE", "RCPT"), "route", or "asked" for what
	// the sender wanted.
	What string `json:"what"`
	By   string `json:"by"`
	// Verdict of a filter; "taken" or "no" of a route.
	Verdict string        `json:"verdict,omitempty"`
	Text    string        `json:"text,omitempty"`
	Edits   []string      `json:"edits,omitempty"`
	Score   float64       `json:"score,omitempty"`
	Took    time.Duration `json:"took_ns,omitempty"`
}

// Refusal is a mail, or one recipient of it, that was not taken.
type Refusal struct {
	At          time.Time `json:"at"`
	Transaction string    `json:"transaction,omitempty"`
	Sender      string    `json:"sender"`
	// Recipients it was about; none: before there were any.
	Recipients []string `json:"recipients,omitempty"`
	ClientIP   string   `json:"client_ip,omitempty"`
	Hello      string   `json:"hello,omitempty"`
	User       string   `json:"user,omitempty"`
	Listener   string   `json:"listener,omitempty"`
	// By is the block that refused.
	By       string `json:"by,omitempty"`
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
	Notes    []Note `json:"notes,omitempty"`
}

// entry is one of a group's history, encoded when the group is written.
type entry struct {
	id      id
	at      int64 // microseconds
	parent  id
	env     *Envelope // of a Put
	changes []Change  // of a Commit or an Operate
	made    []id
	refusal *Refusal
}

// SetHistory keeps the journal for a time and in about so many octets; 0: not at
// all, and what there is of it is forgotten.
func (e *Engine) SetHistory(keep time.Duration, most int64) error {
	e.history.mu.Lock()
	defer e.history.mu.Unlock()
	e.history.keep, e.history.most, e.history.looked = keep, most, time.Time{}
	if e.keeping.Store(keep > 0); keep > 0 {
		return e.fs.MkdirAll(e.history.dir, 0o700)
	}
	e.history.end()
	return e.fs.RemoveAll(e.history.dir)
}

// write appends a group's entries; the committer calls it, and nobody is told of
// a failure but the log.
func (p *past) write(entries []entry, now time.Time) {
	if len(entries) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keep <= 0 || now.Before(p.broken) {
		return
	}
	if err := p.append(entries, now); err != nil {
		p.log.Error().Err(err).Msg("queue: the mail journal could not be written; mail is not held up by that")
		p.end()
		p.broken = now.Add(afterBroken)
	}
}

func (p *past) append(entries []entry, now time.Time) error {
	c := p.open
	if c != nil && (now.Sub(c.begun) >= chapterTime || now.Before(c.begun) || p.most > 0 && c.size >= p.most/chaptersMost) {
		p.end()
		c = nil
	}
	if c == nil || now.Sub(p.looked) >= forgetEvery {
		p.looked = now
		if err := p.forget(now); err != nil {
			return err
		}
	}
	if c == nil {
		var err error
		if c, err = p.begin(now); err != nil {
			return err
		}
		p.open = c
	}
	w := writer{b: make([]byte, 8, 64+256*len(entries))}
	names := writer{b: c.unnamed}
	w.byte(recordVersion)
	w.len(len(entries))
	for n := range entries {
		w.entry(&entries[n])
	}
	binary.LittleEndian.PutUint32(w.b, uint32(len(w.b)-8))
	binary.LittleEndian.PutUint32(w.b[4:], crc32.Checksum(w.b[8:], castagnoli))
	appendNames(&names, entries, c.size)
	if _, err := c.log.Write(w.b); err != nil {
		return err
	}
	c.size += int64(len(w.b))
	if c.unnamed = names.b; len(c.unnamed) < unnamedMost {
		return nil
	}
	return c.flush()
}

// appendNames writes what a record at an offset of the log can be found by.
func appendNames(w *writer, entries []entry, at int64) {
	start := len(w.b)
	w.b = append(w.b, make([]byte, namesHead)...)
	for n := range entries {
		entries[n].names(w)
	}
	head := w.b[start:]
	binary.LittleEndian.PutUint32(head[4:], uint32(len(head)-namesHead)/4)
	binary.LittleEndian.PutUint64(head[8:], uint64(at))
	binary.LittleEndian.PutUint32(head, crc32.Checksum(head[4:], castagnoli))
}

func (c *chapter) flush() error {
	_, err := c.names.Write(c.unnamed)
	c.unnamed = c.unnamed[:0]
	return err
}

// namesHead is checksum, number of hashes, and where the record is in the log.
const namesHead = 4 + 4 + 8

// begin makes the two files of a new chapter.
func (p *past) begin(now time.Time) (c *chapter, err error) {
	path := p.fs.PathJoin(p.dir, fmt.Sprintf("%016x", now.UnixMicro()))
	c = &chapter{begun: now}
	if c.log, err = p.fs.Create(path+logSuffix, vfs.WriteCategoryUnspecified); err != nil {
		return nil, err
	}
	if c.names, err = p.fs.Create(path+namesSuffix, vfs.WriteCategoryUnspecified); err != nil {
		return nil, errors.Join(err, c.log.Close())
	}
	return c, nil
}

const logSuffix, namesSuffix = ".log", ".names"

// end closes the chapter that is open.
func (p *past) end() {
	if c := p.open; c != nil {
		if err := errors.Join(c.flush(), c.log.Close(), c.names.Close()); err != nil {
			p.log.Error().Err(err).Msg("queue: a file of the mail journal could not be closed")
		}
		p.open = nil
	}
}

// chapters lists when those that there are begin, the oldest first.
func (p *past) chapters() (begun []int64, err error) {
	names, err := p.fs.List(p.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, name := range names {
		text, ok := strings.CutSuffix(name, namesSuffix)
		if at, perr := strconv.ParseInt(text, 16, 64); ok && perr == nil {
			begun = append(begun, at)
		}
	}
	slices.Sort(begun)
	return begun, err
}

// forget removes the chapters that end before what is kept, and the oldest of
// those that are too much.
func (p *past) forget(now time.Time) error {
	begun, err := p.chapters()
	if err != nil {
		return err
	}
	oldest := now.Add(-p.keep).UnixMicro()
	total := int64(0)
	for n := len(begun) - 1; n >= 0; n-- {
		path := p.fs.PathJoin(p.dir, fmt.Sprintf("%016x", begun[n]))
		if p.open != nil && p.open.begun.UnixMicro() == begun[n] {
			total += p.open.size
			continue
		}
		for _, suffix := range []string{logSuffix, namesSuffix} {
			if st, err := p.fs.Stat(path + suffix); err == nil {
				total += st.Size()
			}
		}
		if begun[n]+chapterTime.Microseconds() < oldest || p.most > 0 && total > p.most {
			for _, suffix := range []string{namesSuffix, logSuffix} {
				if err := p.fs.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

// Refused keeps a refusal. It does not wait for the disk: a power cut may lose
// the last ones.
func (e *Engine) Refused(r Refusal) {
	if !e.keeping.Load() || e.stop.err() != nil {
		return
	}
	now := e.o.Clock()
	if r.At.IsZero() {
		r.At = now
	}
	if !e.history.roomFor(now) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	g, err := e.join()
	if err != nil {
		return
	}
	g.history = append(g.history, entry{at: r.At.UnixMicro(), refusal: &r})
	e.changed.Broadcast()
}

// roomFor counts a refusal; false: there were too many within this hour.
func (p *past) roomFor(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hour := now.Unix() / 3600; hour != p.hour {
		if p.tooMany > 0 {
			p.log.Warn().Int("refusals", p.tooMany).Msg("queue: more mail was refused within an hour than the journal keeps")
		}
		p.hour, p.refusals, p.tooMany = hour, 0, 0
	}
	p.refusals++
	if p.refusals > refusalsPerHour {
		p.tooMany++
	}
	return p.refusals <= refusalsPerHour
}

// tell adds an entry to g; mu is held.
func (e *Engine) tell(g *group, h entry) {
	if e.keeping.Load() {
		h.at = e.o.Clock().UnixMicro()
		g.history = append(g.history, h)
	}
}

// tellChanges does so for changes, unless they only say where mail waits.
func (e *Engine) tellChanges(g *group, i id, changes []Change, fresh []*prepared) {
	if !e.keeping.Load() || !slices.ContainsFunc(changes, func(c Change) bool { return c.telling() }) {
		return
	}
	h := entry{id: i, changes: changes}
	for _, p := range fresh {
		h.made = append(h.made, p.id)
	}
	e.tell(g, h)
}

func (c *Change) telling() bool {
	return c.State != Waiting || c.Attempt != nil || c.operator || len(c.Add)+len(c.Enqueue)+len(c.Notes) > 0
}

// nameOf is what a record is found by: an id, a Message-ID, an address.
func nameOf(s string) uint32 {
	f := fnv.New32a()
	_, _ = f.Write([]byte(strings.ToLower(strings.Trim(s, "<> \t"))))
	return f.Sum32()
}

func (h *entry) names(w *writer) {
	add := func(s string) {
		if s != "" {
			w.b = binary.LittleEndian.AppendUint32(w.b, nameOf(s))
		}
	}
	if h.id != 0 {
		add(h.id.String())
	}
	if e := h.env; e != nil {
		add(e.Sender)
		add(e.MessageID)
		add(e.Transaction)
		for _, r := range e.Recipients {
			add(r.Address)
		}
	}
	for i := range h.changes {
		for _, r := range h.changes[i].Add {
			add(r.Address)
		}
	}
	if r := h.refusal; r != nil {
		add(r.Sender)
		add(r.Transaction)
		for _, to := range r.Recipients {
			add(to)
		}
	}
}
