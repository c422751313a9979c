package local

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/plugins/local/trigram"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

var _ storage.Checker = (*Store)(nil)

// checker is one check under way. Each account is looked at as it is at one moment,
// while others change it; bodies are not removed meanwhile.
type checker struct {
	s        *Store
	ctx      context.Context
	repair   bool
	progress func(*v1.CheckResponse) error
	told     time.Time
	out      *v1.CheckResponse
	// whole: all accounts are checked, and each body once, at the end.
	whole bool
	// about is the account and mailbox that is looked at.
	about string
}

// tellEvery is how often a check says how far it is, findingsAtOnce how many it
// keeps to itself.
const (
	tellEvery      = 500 * time.Millisecond
	findingsAtOnce = 200
)

// Check implements storage.Checker.
func (s *Store) Check(ctx context.Context, req *v1.CheckRequest, progress func(*v1.CheckResponse) error) (*v1.CheckResponse, error) {
	return s.check(ctx, req.GetAccount(), req.GetRepair(), progress)
}

func (s *Store) check(ctx context.Context, account string, repair bool, progress func(*v1.CheckResponse) error) (*v1.CheckResponse, error) {
	if err := s.gate.enter(); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	s.keeping.Lock()
	defer s.keeping.Unlock()
	c := &checker{s: s, ctx: ctx, repair: repair, progress: progress, told: time.Now(), out: &v1.CheckResponse{}, whole: account == ""}
	for _, what := range []string{"accounts", "mailboxes", "messages", "bodies", "search index"} {
		c.out.Checked = append(c.out.Checked, &v1.CheckResponse_Checked{What: what})
	}
	if err := c.run(account); err != nil {
		return nil, s.wrap(err, "check")
	}
	return c.out, nil
}

func (c *checker) run(account string) error {
	if !c.whole {
		a, err := c.s.existing(c.s.db, account)
		if err == nil && a == nil {
			err = fail.New(fail.NotFound, "there is no account %q", account)
		}
		if err != nil {
			return err
		}
		return c.account(a)
	}
	var names []string
	if err := scan(c.s.db, []byte{tabAccountName}, func(k, _ []byte) error {
		names = append(names, string(k[1:]))
		return nil
	}); err != nil {
		return err
	}
	for _, name := range names {
		a, err := c.s.account(name)
		if err == nil {
			err = c.account(a)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(c.bodies(), c.strays())
}

// counted is one more thing that was looked at.
func (c *checker) counted(what string) error {
	for _, k := range c.out.Checked {
		if k.What == what {
			k.Count++
		}
	}
	if time.Since(c.told) < tellEvery && len(c.out.Findings) < findingsAtOnce {
		return c.ctx.Err()
	}
	c.told = time.Now()
	p := &v1.CheckResponse{Findings: c.out.Findings}
	for _, k := range c.out.Checked {
		p.Checked = append(p.Checked, proto.CloneOf(k))
	}
	c.out.Findings = nil
	return errors.Join(c.progress(p), c.ctx.Err())
}

// wrong notes a finding. repaired does what repair says; nil: nothing can be done.
func (c *checker) wrong(what, counts, where, text, repair string, repaired func() error) error {
	for _, k := range c.out.Checked {
		if k.What == counts {
			k.Wrong++
		}
	}
	f := &v1.CheckResponse_Finding{What: what, Where: where, Text: text, Repair: repair}
	c.out.Findings = append(c.out.Findings, f)
	if !c.repair || repaired == nil {
		return nil
	}
	if err := repaired(); err != nil {
		return fmt.Errorf("repair of %s: %w", where, err)
	}
	f.Repaired = true
	return nil
}

// totals are the counters of a mailbox as its messages make them.
type totals struct {
	messages, unseen, deleted uint32
	size                      int64
	lastUID                   uint32
	modseq                    uint64
}

func (t *totals) add(uid uint32, col *columns) {
	t.messages++
	t.size += col.size
	if col.flags&uint32(v1.Flag_FLAG_SEEN) == 0 {
		t.unseen++
	}
	if col.flags&uint32(v1.Flag_FLAG_DELETED) != 0 {
		t.deleted++
	}
	t.lastUID, t.modseq = max(t.lastUID, uid), max(t.modseq, col.modseq)
}

// account looks at all that one account has.
func (c *checker) account(a *account) error {
	h := &handle{s: c.s, a: a}
	v, err := h.view(c.ctx)
	if errors.Is(err, errTorn) {
		return c.wrong("account", "accounts", a.name, "its record is damaged: nothing of it can be read", "", nil)
	}
	if err != nil {
		return err
	}
	defer v.Close()
	c.about = a.name
	if err := c.counted("accounts"); err != nil {
		return err
	}
	list, err := readMailboxes(v, a.num)
	if err != nil {
		return c.wrong("mailbox", "mailboxes", a.name, "the record of a mailbox is damaged", "", nil)
	}
	m := h.messages(v)
	defer m.close()
	var all totals
	var places []uint64
	for _, box := range list {
		num, _ := parseBoxID(box.Id)
		t, err := c.mailbox(h, v, m, num, box, &places)
		if err != nil {
			return err
		}
		all.messages += t.messages
		all.size += t.size
	}
	if uint64(all.messages) != v.rec.messages || uint64(all.size) != v.rec.bytes {
		text := fmt.Sprintf("it counts %d messages of %d octets, and there are %d of %d", v.rec.messages, v.rec.bytes, all.messages, all.size)
		if err := c.wrong("account", "accounts", a.name, text, "count anew", func() error { return h.recount() }); err != nil {
			return err
		}
	}
	if err := c.names(h, v, list); err != nil {
		return err
	}
	if err := c.places(h, v, places); err != nil {
		return err
	}
	return c.index(a)
}

// mailbox looks at a mailbox and its messages.
func (c *checker) mailbox(h *handle, v *view, m *messages, num uint32, box *v1.Mailbox, places *[]uint64) (totals, error) {
	var t totals
	where := h.a.name + " " + box.Name
	if err := c.counted("mailboxes"); err != nil {
		return t, err
	}
	err := eachColumn(v, h.a.num, num, mime.NewRanges(nil), func(uid uint32, col *columns) error {
		t.add(uid, col)
		*places = append(*places, col.message)
		if err := c.counted("messages"); err != nil {
			return err
		}
		return c.message(h, v, m, num, uid, col, fmt.Sprintf("%s UID %d", where, uid))
	})
	if errors.Is(err, errTorn) {
		return t, c.wrong("message", "messages", where, "the entry of a message is damaged", "", nil)
	}
	if err != nil {
		return t, err
	}
	recount := func() error { return h.recount() }
	if t.messages != box.Messages || t.unseen != box.Unseen || t.deleted != box.Deleted || t.size != box.Size {
		text := fmt.Sprintf("it counts %d messages (%d unseen, %d deleted, %d octets), and there are %d (%d, %d, %d)",
			box.Messages, box.Unseen, box.Deleted, box.Size, t.messages, t.unseen, t.deleted, t.size)
		err = c.wrong("mailbox", "mailboxes", where, text, "count anew", recount)
	}
	if err == nil && t.lastUID >= box.UidNext {
		text := fmt.Sprintf("its next UID is %d, and UID %d is there", box.UidNext, t.lastUID)
		err = c.wrong("mailbox", "mailboxes", where, text, "go on after the last UID", recount)
	}
	return t, err
}

// message looks at what one message refers to.
func (c *checker) message(h *handle, v *view, m *messages, num, uid uint32, col *columns, where string) error {
	lost := func(text string) error {
		return c.wrong("message", "messages", where, text, "remove it from the mailbox, which cannot be read with it", func() error { return h.takeOut(num, uid) })
	}
	r, err := m.rendered(col.message)
	if errors.Is(err, errTorn) {
		return lost("its record is gone or damaged")
	}
	if err != nil {
		return err
	}
	if r.size != col.size {
		if err := c.wrong("message", "messages", where, fmt.Sprintf("the mailbox says it has %d octets, its record %d", col.size, r.size), "", nil); err != nil {
			return err
		}
	}
	blob := r.blob
	text, gone, err := c.body(v, blob, r.size-int64(len(r.prefix)), !c.whole)
	switch {
	case err != nil:
		return err
	case gone:
		return lost(text)
	case text != "" && !c.whole:
		if err := c.wrong("message", "messages", where, text+"; restore it from a backup", "", nil); err != nil {
			return err
		}
	}
	ref := keyReference(blob, h.a.num, col.message)
	if b, err := get(v, ref); err != nil || b != nil {
		return err
	}
	return c.wrong("message", "messages", where, "its body does not know that it is used, and would be removed with another one's", "tell it", func() error {
		return c.s.db.Set(ref, nil, pebble.Sync)
	})
}

// body tells what is wrong with a body; gone: it cannot be read at all. size -1: it
// is not known. The octets of a file are read if deep.
func (c *checker) body(r pebble.Reader, id uint64, size int64, deep bool) (text string, gone bool, err error) {
	v, err := get(r, key8(tabBlob, id))
	switch {
	case err != nil:
		return "", false, err
	case len(v) == 0:
		return "its body is gone", true, nil
	case v[0] == blobInline:
		if n := int64(len(v) - 1); size >= 0 && n != size {
			return fmt.Sprintf("its body has %d octets instead of %d", n, size), false, nil
		}
		return "", false, nil
	case len(v) < 9:
		return "the record of its body is damaged", false, nil
	}
	want := int64(be.Uint64(v[1:]))
	f, err := c.s.fs.Open(c.s.blobPath(id))
	if errors.Is(err, os.ErrNotExist) {
		return "the file of its body is gone: " + c.s.blobPath(id), true, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", false, err
	}
	if info.Size() != want || size >= 0 && want != size {
		return fmt.Sprintf("the file of its body has %d octets instead of %d: %s", info.Size(), max(want, size), c.s.blobPath(id)), false, nil
	}
	if !deep || len(v) < 13 { // what was stored before there was a checksum
		return "", false, nil
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, &reading{f, c.ctx}); err != nil {
		return "the file of its body cannot be read: " + err.Error(), false, c.ctx.Err()
	}
	if sum.Sum32() != be.Uint32(v[9:]) {
		return "the file of its body is not what was stored: " + c.s.blobPath(id), false, nil
	}
	return "", false, nil
}

// reading ends when nobody waits any more.
type reading struct {
	io.Reader
	ctx context.Context
}

func (r *reading) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// names looks for names that lead to no mailbox, or to another one's.
func (c *checker) names(h *handle, v *view, list []*v1.Mailbox) error {
	byName := map[string]uint32{}
	for _, box := range list {
		byName[box.Name], _ = parseBoxID(box.Id)
	}
	prefix := key8(tabName, h.a.num)
	if err := scan(v, prefix, func(k, val []byte) error {
		name := string(k[len(prefix):])
		if num := byName[name]; num != 0 && len(val) == 4 && be.Uint32(val) == num {
			delete(byName, name)
			return nil
		}
		if byName[name] != 0 {
			return nil // below
		}
		key := slices.Clone(k)
		return c.wrong("mailbox", "mailboxes", h.a.name+" "+name, "the name leads to no mailbox", "remove the name", func() error {
			return c.s.db.Delete(key, pebble.Sync)
		})
	}); err != nil {
		return err
	}
	for _, box := range list {
		num := byName[box.Name]
		if num == 0 {
			continue
		}
		if err := c.wrong("mailbox", "mailboxes", h.a.name+" "+box.Name, "its name does not lead to it", "make it", func() error {
			return c.s.db.Set(keyName(h.a.num, box.Name), be.AppendUint32(nil, num), pebble.Sync)
		}); err != nil {
			return err
		}
	}
	return nil
}

// places compares in how many mailboxes each message is with what its record says,
// and finds messages that are in none.
func (c *checker) places(h *handle, v *view, places []uint64) error {
	slices.Sort(places)
	prefix := key8(tabRendered, h.a.num)
	return scan(v, prefix, func(k, _ []byte) error {
		msg := be.Uint64(k[len(prefix):])
		at, there := slices.BinarySearch(places, msg)
		n := uint32(0)
		for ; there && at < len(places) && places[at] == msg; at++ {
			n++
		}
		said := uint32(1)
		key := key88(tabPlaces, h.a.num, msg)
		if b, err := get(v, key); err != nil {
			return err
		} else if len(b) == 4 {
			said = be.Uint32(b)
		}
		where := fmt.Sprintf("%s message M%d", h.a.name, msg)
		switch {
		case n == 0:
			return c.wrong("message", "messages", where, "it is in no mailbox", "remove it", func() error {
				return h.write(func(ch *change) error {
					ch.step()
					return ch.forget(msg)
				})
			})
		case n != said:
			return c.wrong("message", "messages", where, fmt.Sprintf("it is in %d mailboxes, and its record says %d", n, said), "count anew", func() error {
				if n == 1 {
					return c.s.db.Delete(key, pebble.Sync)
				}
				return c.s.db.Set(key, be.AppendUint32(nil, n), pebble.Sync)
			})
		}
		return nil
	})
}

// index looks at the files of the account's search index.
func (c *checker) index(a *account) error {
	files, err := c.s.fs.List(c.s.indexDir(a.num))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range files {
		var block uint64
		if n, err := fmt.Sscanf(name, "%014x.tri", &block); n != 1 || err != nil {
			continue // half written
		}
		path := c.s.indexPath(a.num, block)
		if err := c.counted("search index"); err != nil {
			return err
		}
		if err := c.block(path, a.num, block); errors.Is(err, trigram.ErrDamaged) {
			err = c.wrong("search index", "search index", path, "it is damaged; searches look into the messages instead", "make it anew", func() error {
				if err := c.s.fs.Remove(path); err != nil {
					return err
				}
				c.s.indexDue(a)
				return nil
			})
			if err != nil {
				return err
			}
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (c *checker) block(path string, account, block uint64) error {
	f, err := c.s.fs.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := trigram.Load(f, account, block)
	if err != nil {
		return err
	}
	return b.Verify()
}
