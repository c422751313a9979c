package queue

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Put is part of Queue.
func (e *Engine) Put(ctx context.Context, env *Envelope, body spool.Body) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	if err := e.reserve(body.Size()); err != nil {
		return err
	}
	p, err := e.prepare(env, body)
	if err != nil {
		return err
	}
	e.mu.Lock()
	g, err := e.join()
	if err == nil {
		err = e.add(g, p)
	}
	if err != nil {
		e.mu.Unlock()
		e.undo(p)
		return err
	}
	e.filled(g)
	e.mu.Unlock()
	if !e.o.faults.earlyAck {
		if err := e.wait(g); err != nil {
			return err
		}
	}
	if e.o.faults.lateIndex {
		if err := e.indexLate(p); err != nil {
			return err
		}
	}
	env.ID, env.reserved = p.id.String(), 0
	return nil
}

// prepared is a message whose file is safe and whose records are encoded.
type prepared struct {
	id     id
	due    due
	key    []byte
	rec    []byte
	body   []byte // of a small message, sealed
	places []destination
	file   string // where the file of a large one is
	feed   [][]byte
	told   entry
}

// prepare does all of Put that needs no lock. The envelope is not changed but
// for its recipients' numbers and lanes.
func (e *Engine) prepare(env *Envelope, body spool.Body) (*prepared, error) {
	if len(env.Recipients) == 0 {
		return nil, errors.New("queue a message: it has no recipients")
	}
	number(env.Recipients)
	for _, r := range env.Recipients {
		r.Lane, r.Recheck = "", time.Time{}
	}
	now := e.o.Clock()
	stored := *env
	stored.Size = body.Size()
	stored.MessageID, stored.From, stored.Subject = cut(env.MessageID), cut(env.From), cut(env.Subject)
	if stored.Received.IsZero() {
		stored.Received = now
	}
	p := &prepared{id: env.reserved}
	if p.id == 0 {
		p.id = e.ids.next(now)
	}
	p.key = messageKey(p.id)
	file, err := fileOf(e.fs, body)
	if err != nil {
		return nil, fmt.Errorf("queue a message: %w", err)
	}
	if p.rec, err = encodeEnvelope(p.key, &stored, file); err != nil {
		return nil, fmt.Errorf("queue a message: %w", err)
	}
	st := stateOf(&stored)
	p.due = st.due(p.id)
	p.places = st.destinations(p.id)
	env.Received, env.Size = stored.Received, stored.Size
	p.told = entry{id: p.id, env: &stored}
	if e.feeding.Load() {
		if p.feed, err = e.observations([]*v1.Observation{queuedObservation(p.id, &stored)}); err != nil {
			return nil, fmt.Errorf("queue a message: %w", err)
		}
	}
	if body.Path() == "" {
		b := body.Bytes()
		p.body = seal(bodyKey(p.id), append(make([]byte, 0, len(b)+5), append([]byte{recordVersion}, b...)...))
		return p, nil
	}
	if err := e.keepFile(p, body); err != nil {
		return nil, err
	}
	return p, nil
}

// fileOf is what the record says of a body's octets. A file that was not written here
// is read for that.
func fileOf(fs vfs.FS, body spool.Body) (f bodyPlace, err error) {
	if f.large = body.Path() != ""; !f.large {
		return f, nil
	}
	if s, ok := body.(spool.Summed); ok {
		if f.sum, f.summed = s.Sum(); f.summed {
			return f, nil
		}
	}
	f.sum, err = sumOf(fs, body.Path())
	f.summed = err == nil
	return f, err
}

// sumOf reads a file.
func sumOf(fs vfs.FS, path string) (sum uint32, err error) {
	r, err := fs.Open(path)
	if err != nil {
		return 0, err
	}
	h := crc32.New(castagnoli)
	_, err = io.Copy(h, r)
	return h.Sum32(), errors.Join(err, r.Close())
}

// add writes p's records into g; mu is held.
func (e *Engine) add(g *group, p *prepared) error {
	err := g.batch.Set(p.key, p.rec, nil)
	if err == nil && p.body != nil {
		err = g.batch.Set(bodyKey(p.id), p.body, nil)
	}
	if err == nil {
		err = g.addDue(p.due)
	}
	if err == nil && !e.o.faults.lateIndex {
		err = g.moveDestinations(nil, p.places)
	}
	if err == nil {
		err = e.feed(g, p.feed)
	}
	if err != nil { // the group holds half a message
		e.stop.stop(err)
		return e.stop.err()
	}
	e.tell(g, p.told)
	return nil
}

// undo removes the file of a message that came into no group.
func (e *Engine) undo(p *prepared) {
	if p.file != "" {
		_ = e.fs.Remove(p.file)
	}
}

// number gives the recipients indexes, unless they have them in ascending order.
func number(rs []*Recipient) {
	for i, r := range rs {
		if i > 0 && r.Index <= rs[i-1].Index {
			for i, r := range rs {
				r.Index = int32(i)
			}
			return
		}
	}
}

// headerLimit of what is kept for lists.
const headerLimit = 512

func cut(s string) string {
	if len(s) > headerLimit {
		return strings.ToValidUTF8(s[:headerLimit], "")
	}
	return s
}

// spaceStep is how much may be put between two looks at the disk, in octets.
const spaceStep = 4 << 20

// reserve refuses a message when the disk is nearly full.
func (e *Engine) reserve(size int64) error {
	need := size + 1024
	if e.space.Add(-need) >= 0 {
		return nil
	}
	u, err := e.fs.GetDiskUsage(e.o.Dir)
	if err != nil {
		return nil // not known here: the writes will tell
	}
	if u.AvailBytes < e.o.MinFree+uint64(need) {
		e.space.Store(0)
		return fmt.Errorf("%w: %d MiB are free in %s, %d are kept for results", ErrFull, u.AvailBytes>>20, e.o.Dir, e.o.MinFree>>20)
	}
	e.space.Store(min(spaceStep, int64(u.AvailBytes-e.o.MinFree)))
	return nil
}

// shards spread the body files: a directory of millions is slow to sync and list.
const shards = 64

func (e *Engine) shard(i id) string {
	return e.fs.PathJoin(e.o.Dir, "body", idDigits[(i>>epochBits)%shards%62:][:1])
}

func (e *Engine) bodyPath(i id) string { return e.fs.PathJoin(e.shard(i), i.String()) }

func (e *Engine) makeDirs() error {
	root := e.fs.PathJoin(e.o.Dir, "body")
	for c := range idDigits {
		if err := e.fs.MkdirAll(e.fs.PathJoin(root, idDigits[c:c+1]), 0o700); err != nil {
			return err
		}
	}
	// The new directories' entries, from the deepest up: a file whose directory
	// is lost at a power cut is lost too.
	for _, dir := range []string{root, e.o.Dir, e.fs.PathDir(e.o.Dir)} {
		if err := e.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) syncDir(path string) error {
	d, err := e.fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// keepFile makes body's file the queue's: octets synced, then its entry in the
// directory synced, and only then may the records be committed.
func (e *Engine) keepFile(p *prepared, body spool.Body) error {
	path := e.bodyPath(p.id)
	var err error
	if m, ok := body.(spool.Mover); ok {
		if err = m.Sync(); err == nil {
			err = m.Move(path)
		} else if !isFull(err) {
			e.stop.stop(err)
		}
	} else {
		err = e.copyFile(path, body)
	}
	if err != nil {
		if e.stop.err() != nil {
			return e.stop.err()
		}
		if isFull(err) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		return fmt.Errorf("keep a message: %w", err)
	}
	p.file = path
	if err := e.syncDir(e.shard(p.id)); err != nil {
		e.stop.stop(err)
		return e.stop.err()
	}
	return nil
}

// copyFile keeps a body that somebody else owns: by a hard link, else a copy.
func (e *Engine) copyFile(path string, body spool.Body) error {
	if e.owns(body) && e.fs.Link(body.Path(), path) == nil {
		return nil // its octets were synced when it was put
	}
	r, err := body.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := e.fs.Create(path, "stagecoach-queue")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		_ = e.fs.Remove(path)
	}
	return err
}

func (e *Engine) owns(body spool.Body) bool {
	return strings.HasPrefix(body.Path(), e.fs.PathJoin(e.o.Dir, "body"))
}

// Body is part of Queue. A message whose body is not what was put is held, for
// an operator to look at: tried again at once it would only fail again.
func (e *Engine) Body(ctx context.Context, text string) (spool.Body, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	i, err := parseID(text)
	if err != nil {
		return nil, err
	}
	b, err := e.body(ctx, i)
	if !errors.Is(err, ErrCorrupt) {
		return b, err
	}
	e.log.Error().Str("id", text).Err(err).Msg("queue: a message is held because its body is corrupt")
	e.mu.Lock()
	e.corrupted++
	e.mu.Unlock()
	_, herr := e.operateAgain(ctx, text, &Operation{Kind: Hold, Reason: err.Error()})
	return nil, errors.Join(err, herr)
}

func (e *Engine) body(ctx context.Context, i id) (spool.Body, error) {
	key := bodyKey(i)
	rec, err := e.get(key)
	if err == nil {
		if rec, err = unseal(key, rec); err != nil {
			return nil, fmt.Errorf("body of %s: %w", i, err)
		}
		return spool.FromBytes(rec[1:]), nil
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return nil, err
	}
	env, err := e.Get(ctx, i.String())
	if err != nil {
		return nil, err
	}
	st, err := e.fs.Stat(e.bodyPath(i))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("body of %s: %w: it is not there", i, ErrCorrupt)
	case err != nil:
		return nil, fmt.Errorf("body of %s: %w", i, err)
	case st.Size() != env.Size:
		return nil, fmt.Errorf("body of %s: %w: %d octets of %d", i, ErrCorrupt, st.Size(), env.Size)
	}
	return spool.FromFile(e.fs, e.bodyPath(i), env.Size), nil
}

// settle is what a start leaves to the background.
func (e *Engine) settle(at *pebble.Snapshot) {
	defer e.work.Done()
	defer close(e.swept)
	defer at.Close()
	if err := e.takeStock(at); err != nil {
		e.log.Error().Err(err).Msg("queue: cannot add up what is queued")
	}
	e.sweep(at)
}

// sweep removes body files whose message is not there: the crash came between
// the file and its record, or between the record's end and the file's. at is the
// database as it was opened: a message that ended since is gone from sight before that
// is durable, and its file is for that end to remove.
func (e *Engine) sweep(at *pebble.Snapshot) {
	for c := range idDigits {
		dir := e.fs.PathJoin(e.o.Dir, "body", idDigits[c:c+1])
		names, err := e.fs.List(dir)
		if err != nil {
			e.log.Warn().Err(err).Msg("queue: cannot look for orphaned files")
			return
		}
		for _, name := range names {
			if e.closing.Load() || e.stop.err() != nil {
				return
			}
			i, err := parseID(name)
			if err == nil && i >= e.boot {
				continue // of this run
			}
			if err == nil {
				_, c, gerr := at.Get(messageKey(i))
				if gerr == nil {
					_ = c.Close()
					continue
				}
				// A message that was set aside keeps its file, and whatever
				// cannot be read might be one.
				if !errors.Is(gerr, pebble.ErrNotFound) || e.quarantined(i) {
					continue
				}
			}
			if err := e.fs.Remove(e.fs.PathJoin(dir, name)); err != nil {
				e.log.Warn().Err(err).Msg("queue: cannot remove an orphaned file")
			}
		}
	}
}
