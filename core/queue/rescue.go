package queue

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/message"
)

// Orphan is the body of a message whose record is lost, with what is known of it. It
// cannot be delivered: nobody knows for sure to whom. It is set aside as ID.eml, octets
// as received, with this beside it as ID.json, for an operator to send again.
type Orphan struct {
	ID string `json:"id"`
	// Where it is: a file, or "the database".
	Where string `json:"where"`
	// Received, by the id.
	Received time.Time `json:"received"`
	Size     int64     `json:"size"`
	// Journal: the mail journal knows the mail, and says Sender and Recipients with
	// their last state. Ended: none of them was open any more, nothing is to be done.
	Journal    bool      `json:"journal"`
	Ended      bool      `json:"ended"`
	Sender     string    `json:"sender,omitempty"`
	Recipients []Reached `json:"recipients,omitempty"`
	// What its own header says: anybody may have written that.
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	Subject   string `json:"subject,omitempty"`
	MessageID string `json:"message_id,omitempty"`
}

// orphanSuffix ends the name of a body that was set aside.
const orphanSuffix = ".eml"

// headMost octets are looked at for what the header says.
const headMost = 16 << 10

// lostBody is where the body of an orphan is: a file, or the value of a key.
type lostBody struct {
	id   id
	path string
	key  []byte
}

// rescue looks for what is known of bodies, and if keep sets them aside. The keys that
// are safe in files then are deleted in b.
func (e *Engine) rescue(bodies []lostBody, keep bool, b *pebble.Batch) ([]Orphan, error) {
	stories, err := e.storiesOf(bodies)
	if err != nil {
		return nil, err
	}
	var aside string
	if keep && len(bodies) > 0 {
		aside = e.fs.PathJoin(e.o.Dir, asideDir)
		if err := errors.Join(e.fs.MkdirAll(aside, 0o700), e.syncDir(e.o.Dir)); err != nil {
			return nil, err
		}
	}
	var found []Orphan
	for _, l := range bodies {
		o, small, err := e.orphan(l, stories[l.id])
		if errors.Is(err, ErrCorrupt) || errors.Is(err, os.ErrNotExist) {
			continue // there is nothing to be kept
		}
		if err == nil && keep {
			err = e.keepOrphan(o, l, small, aside)
		}
		if err == nil && keep && l.key != nil {
			err = b.Delete(l.key, nil)
		}
		if err != nil {
			return nil, fmt.Errorf("set the body of %s aside: %w", l.id, err)
		}
		found = append(found, *o)
	}
	return found, nil
}

// storiesOf is what the mail journal tells, in one pass.
func (e *Engine) storiesOf(bodies []lostBody) (map[id]*Story, error) {
	stories, names := map[id]*Story{}, map[uint32]bool{}
	for _, l := range bodies {
		stories[l.id] = nil
		names[nameOf(l.id.String())] = true
	}
	if len(bodies) == 0 {
		return stories, nil
	}
	p := past{fs: e.fs, dir: e.fs.PathJoin(e.o.Dir, "history")}
	begun, err := p.chapters()
	if err != nil {
		return nil, err
	}
	for _, at := range begun {
		err := readChapter(p.fs, p.fs.PathJoin(p.dir, fmt.Sprintf("%016x", at)), names, func(h *entry) {
			s, wanted := stories[h.id]
			if !wanted || h.refusal != nil {
				return
			}
			if s == nil {
				s = &Story{ID: h.id.String()}
				stories[h.id] = s
			}
			s.add(h)
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return stories, nil
}

// orphan reads the body of a message that is lost; small is nil of one in a file.
func (e *Engine) orphan(l lostBody, s *Story) (o *Orphan, small []byte, err error) {
	o = &Orphan{ID: l.id.String(), Where: "the database", Received: l.id.time()}
	head := make([]byte, headMost)
	if l.key != nil {
		rec, err := e.get(l.key)
		if err == nil {
			rec, err = unseal(bodyKey(l.id), rec)
		}
		if err != nil {
			return nil, nil, err
		}
		small = rec[1:]
		head, o.Size = small, int64(len(small))
	} else {
		f, err := e.fs.Open(l.path)
		if err != nil {
			return nil, nil, err
		}
		st, err := f.Stat()
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		o.Where, o.Size = l.path, st.Size()
		n, err := f.ReadAt(head, 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, nil, err
		}
		head = head[:n]
	}
	if h, err := message.Parse(head); err == nil {
		o.From, o.To, o.Subject, o.MessageID = cut(h.Get("From")), cut(h.Get("To")), cut(h.Get("Subject")), cut(h.Get("Message-ID"))
	}
	if s != nil {
		o.Journal, o.Sender, o.Recipients = true, s.Sender, s.Recipients
		o.Ended = len(s.Recipients) > 0 && !slices.ContainsFunc(s.Recipients, func(r Reached) bool {
			return r.State == Waiting.String() || r.State == Held.String()
		})
	}
	return o, small, nil
}

// keepOrphan sets a body aside. It is gone from its place only when it is safe there,
// and what is known of it is there first.
func (e *Engine) keepOrphan(o *Orphan, l lostBody, small []byte, aside string) error {
	to := e.fs.PathJoin(aside, o.ID+orphanSuffix)
	o.Where = to
	known, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	if err := e.writeSynced(e.fs.PathJoin(aside, o.ID+".json"), append(known, '\n')); err != nil {
		return err
	}
	if l.key != nil {
		return errors.Join(e.writeSynced(to, small), e.syncDir(aside))
	}
	if err := e.syncDir(aside); err != nil { // or a power cut leaves the body alone
		return err
	}
	if err := errors.Join(e.fs.Rename(l.path, to), e.syncDir(aside)); err != nil {
		return err
	}
	// A rename onto another name of the same file, which a cut one may leave, does
	// nothing.
	if err := e.fs.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return e.syncDir(e.fs.PathDir(l.path))
}

func (e *Engine) writeSynced(path string, octets []byte) error {
	f, err := e.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(octets)
	return errors.Join(err, f.Sync(), f.Close())
}

// lostBodies are all bodies of messages that are neither there nor set aside.
func (e *Engine) lostBodies() (bodies []lostBody, err error) {
	lost := func(i id) bool {
		it, err := e.messageIter(i)
		if err != nil {
			return false
		}
		defer it.Close()
		there := it.First() && bytes.HasPrefix(it.Key(), messageKey(i))
		return !there && it.Error() == nil && !e.quarantined(i)
	}
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyBody}, UpperBound: []byte{keyBody + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if k := it.Key(); len(k) == messageKeyLen {
			if i := id(binary.BigEndian.Uint64(k[1:])); lost(i) {
				bodies = append(bodies, lostBody{id: i, key: bytes.Clone(k)})
			}
		}
	}
	for d := range idDigits {
		dir := e.fs.PathJoin(e.o.Dir, "body", idDigits[d:d+1])
		names, err := e.fs.List(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		slices.Sort(names)
		for _, name := range names {
			if i, ok := readID(name); ok && lost(i) {
				bodies = append(bodies, lostBody{id: i, path: e.fs.PathJoin(dir, name)})
			}
		}
	}
	return bodies, it.Error()
}

// rescueLost sets aside the bodies of messages that a damaged database has lost: the
// sweep of the start would take them for the files of mail that has ended.
func (e *Engine) rescueLost(db *pebble.DB) error {
	r := &Engine{o: e.o, fs: e.fs, db: db, stop: e.stop, log: e.log}
	bodies, err := r.lostBodies()
	if err != nil {
		return err
	}
	b := db.NewBatch()
	found, err := r.rescue(bodies, true, b)
	if err != nil {
		return err
	}
	for _, o := range found {
		e.log.Error().Str("id", o.ID).Str("file", o.Where).Bool("ended", o.Ended).Msg("queue: the record of a message is lost, its body is set aside")
	}
	return b.Commit(pebble.Sync)
}

// rescueAside finds the bodies that nobody's records are of, told as a problem before,
// and those of messages that were set aside, now or in a run.
func (c *checker) rescueAside() error {
	bodies := c.lost
	it, err := c.e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyQuarantine}, UpperBound: []byte{keyQuarantine + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		k := it.Key()[1:]
		if len(k) != messageKeyLen {
			continue
		}
		i := id(binary.BigEndian.Uint64(k[1:]))
		switch k[0] {
		case keyBody:
			bodies = append(bodies, lostBody{id: i, key: bytes.Clone(it.Key())})
		case keyMessage:
			bodies = append(bodies, lostBody{id: i, path: c.e.bodyPath(i)})
		}
	}
	if err := cmp.Or(it.Error(), c.ctx.Err()); err != nil {
		return c.corruption(err, "bodies of lost messages")
	}
	found, err := c.e.rescue(bodies, c.o.Repair, c.b)
	if err != nil {
		return err
	}
	for _, o := range found {
		c.f.Leftover.Bodies++
		c.f.Leftover.Bytes += o.Size
		if len(c.f.Orphans) < maxProblems {
			c.f.Orphans = append(c.f.Orphans, o)
		}
	}
	return c.countAside()
}

// countAside counts the bodies that were set aside, now or before.
func (c *checker) countAside() error {
	dir := c.o.FS.PathJoin(c.o.Dir, asideDir)
	names, err := c.o.FS.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if !strings.HasSuffix(name, orphanSuffix) {
			continue
		}
		st, serr := c.o.FS.Stat(c.o.FS.PathJoin(dir, name))
		if serr != nil {
			return serr
		}
		c.f.Aside.Bodies++
		c.f.Aside.Bytes += st.Size()
	}
	return err
}
