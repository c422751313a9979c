package local

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	// smallBody is the largest body kept in the database; a larger one is a file.
	smallBody = 64 << 10
	// blobsPerDir files share a directory, in the order of their numbers, so
	// that only the newest directories can hold what a crash left behind.
	blobsPerDir = 1024

	blobInline = 'i'
	blobFile   = 'f'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blobs numbers the bodies. Small ones live and die with their batch. A large
// one is a file first, durable with its directory, and then a record; between
// the two it is in flight. Every large body's batch writes the lowest number in
// flight ("low"): after a crash a file from there on without a record is waste.
type blobs struct {
	making   sync.Mutex // a directory
	mu       sync.Mutex
	next     uint64
	inFlight map[uint64]bool
	pinned   map[uint64]int // files that readers have been told of
}

func (b *blobs) recover(s *Store) error {
	b.inFlight, b.pinned = map[uint64]bool{}, map[uint64]int{}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tabBlob}, UpperBound: []byte{tabBlob + 1}})
	if err != nil {
		return err
	}
	b.next = 1
	if it.Last() {
		b.next = be.Uint64(it.Key()[1:]) + 1
	}
	if err := it.Close(); err != nil {
		return err
	}
	var low uint64
	v, err := get(s.db, keyStore("low"))
	if err != nil {
		return err
	}
	if v != nil {
		low = be.Uint64(v)
	}
	dirs, err := s.fs.List(s.path("blobs"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		n, err := strconv.ParseUint(dir, 16, 64)
		if err != nil || n < low/blobsPerDir {
			continue
		}
		files, err := s.fs.List(s.path("blobs", dir))
		if err != nil {
			return err
		}
		for _, f := range files {
			id, err := strconv.ParseUint(strings.TrimSuffix(f, ".eml"), 16, 64)
			if err != nil {
				continue
			}
			v, err := get(s.db, key8(tabBlob, id))
			if err != nil {
				return err
			}
			// A number that came to nothing is given out again, to a small body too.
			if v == nil || v[0] != blobFile {
				if err := s.fs.Remove(s.path("blobs", dir, f)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// start gives out a number and returns it with the lowest one in flight.
func (b *blobs) start() (id, low uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id = b.next
	b.next++
	b.inFlight[id] = true
	low = id
	for n := range b.inFlight {
		low = min(low, n)
	}
	return id, low
}

func (b *blobs) finish(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.inFlight, id)
}

func (b *blobs) pin(id uint64, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pinned[id] += n; b.pinned[id] == 0 {
		delete(b.pinned, id)
	}
}

func (s *Store) blobDir(id uint64) string {
	return s.path("blobs", fmt.Sprintf("%08x", id/blobsPerDir))
}

func (s *Store) blobPath(id uint64) string {
	return s.fs.PathJoin(s.blobDir(id), fmt.Sprintf("%016x.eml", id))
}

// body is a message on its way in: rendered, and on the disk if it is large.
type body struct {
	id, low uint64
	size    int64
	inline  []byte // nil: a file
	sum     uint32 // of a file's octets: CRC-32C
	*mime.Rendered
}

// take renders a message and makes a large one durable as a file.
func (s *Store) take(ref *v1.MessageRef) (_ *body, err error) {
	msg := mail.FromRef(ref)
	r, err := msg.Open()
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return nil, fail.Wrap(fail.Invalid, err, "the message cannot be read")
		}
		return nil, s.wrap(err, "open message")
	}
	defer r.Close()
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, s.wrap(err, "read message")
	}
	if size != ref.GetSize() {
		return nil, fail.New(fail.Invalid, "the message has %d octets, its reference says %d", size, ref.GetSize())
	}
	if err := s.room(size); err != nil {
		return nil, err
	}
	b := &body{size: size}
	var from io.Reader = io.NewSectionReader(r, 0, size)
	if size <= smallBody {
		b.inline = make([]byte, size)
		if _, err := io.ReadFull(from, b.inline); err != nil {
			return nil, s.wrap(err, "read message")
		}
		from = bytes.NewReader(b.inline)
	}
	sum := crc32.New(castagnoli)
	if b.inline == nil {
		from = io.TeeReader(from, sum)
	}
	if b.Rendered, err = mime.Summarize(from); err == nil {
		_, err = io.Copy(io.Discard, from)
	}
	if err != nil {
		return nil, s.wrap(err, "read message")
	}
	b.sum = sum.Sum32()
	b.id, b.low = s.blobs.start()
	if b.inline == nil {
		if err := s.writeFile(b.id, msg.Path(), io.NewSectionReader(r, 0, size)); err != nil {
			s.drop(b)
			return nil, s.wrap(err, "store message")
		}
	}
	return b, nil
}

// drop undoes take for a body that no batch refers to.
func (s *Store) drop(b *body) {
	if b.inline == nil {
		_ = s.fs.Remove(s.blobPath(b.id))
	}
	s.blobs.finish(b.id)
}

// write adds the blob itself to the batch.
func (b *body) write(batch *pebble.Batch) {
	if b.inline != nil {
		op := batch.SetDeferred(9, 1+len(b.inline))
		copy(op.Key, key8(tabBlob, b.id))
		op.Value[0] = blobInline
		copy(op.Value[1:], b.inline)
		_ = op.Finish()
		return
	}
	batch.Set(key8(tabBlob, b.id), be.AppendUint32(be.AppendUint64([]byte{blobFile}, uint64(b.size)), b.sum), nil)
	batch.Set(keyStore("low"), be.AppendUint64(nil, b.low), nil)
}

// makeBlobDir makes a directory whose name is durable when it returns, whoever of
// two that want it made it.
func (s *Store) makeBlobDir(dir string) error {
	s.blobs.making.Lock()
	defer s.blobs.making.Unlock()
	if _, err := s.fs.Stat(dir); err == nil {
		return nil
	}
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.syncDir(s.path("blobs")); err != nil {
		s.fatal("fsync of a directory", err)
	}
	return nil
}

// writeFile puts a large body in its place, durable with its directory entry: by
// a hard link where path is on the same file system, else by a copy.
func (s *Store) writeFile(id uint64, path string, r io.Reader) error {
	dir, dst := s.blobDir(id), s.blobPath(id)
	if err := s.makeBlobDir(dir); err != nil {
		return err
	}
	if s.local && path != "" && s.fs.Link(path, dst) == nil {
		f, err := s.fs.Open(dst)
		if err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			s.fatal("fsync of a message", err)
		}
		if err := f.Close(); err != nil {
			return err
		}
	} else if err := s.copyFile(dst, r, true); err != nil {
		return err
	}
	if err := s.syncDir(dir); err != nil {
		s.fatal("fsync of a directory", err)
	}
	return nil
}

func (s *Store) copyFile(dst string, r io.Reader, durable bool) error {
	f, err := s.fs.Create(dst, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	if durable {
		if err := f.Sync(); err != nil {
			s.fatal("fsync of a message", err)
		}
	}
	return f.Close()
}

// wakeCollector tells the collector that there may be garbage.
func (s *Store) wakeCollector() {
	select {
	case s.garbage <- struct{}{}:
	default:
	}
}

// collector removes bodies that lost their last reference. References are only
// written together with their blob, never later: once none is left, none comes.
func (s *Store) collector() {
	s.collect()
	tick := newTicker()
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.garbage:
			s.collect()
		case <-tick.C:
			s.collect()
			s.forgetDeposits()
			s.forgetRequests()
		}
	}
}

// collect is one round of the collector; it returns how many blobs it removed.
func (s *Store) collect() int {
	s.keeping.Lock()
	n, err := s.tryCollect()
	s.keeping.Unlock()
	if err != nil {
		s.opts.Log.Error().Err(err).Msg("storage local: removing bodies that nobody refers to")
	}
	s.meters.collected.Add(int64(n))
	return n
}

func (s *Store) tryCollect() (int, error) {
	var ids []uint64
	err := scan(s.db, []byte{tabGarbage}, func(k, _ []byte) error {
		ids = append(ids, be.Uint64(k[1:]))
		return nil
	})
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	// What took the last reference must be durable before a file goes.
	if err := s.db.LogData(nil, pebble.Sync); err != nil {
		return 0, err
	}
	b := s.db.NewBatch()
	defer b.Close()
	n := 0
	dirs := map[string]bool{}
	for _, id := range ids {
		removed, err := s.collectOne(b, dirs, id)
		if err != nil {
			return 0, err
		}
		if removed {
			n++
		}
	}
	// The files must be gone for good before their records go: a file without a
	// record would stay for ever.
	for dir := range dirs {
		if err := s.syncDir(dir); err != nil {
			s.fatal("fsync of a directory", err)
		}
	}
	return n, b.Commit(pebble.NoSync)
}

func (s *Store) collectOne(b *pebble.Batch, dirs map[string]bool, id uint64) (bool, error) {
	s.blobs.mu.Lock()
	pinned := s.blobs.pinned[id] > 0
	s.blobs.mu.Unlock()
	if pinned {
		return false, nil // a later round
	}
	used := false
	err := scan(s.db, key8(tabReference, id), func(_, _ []byte) error {
		used = true
		return nil
	})
	if err != nil {
		return false, err
	}
	b.Delete(key8(tabGarbage, id), nil)
	if used {
		return false, nil
	}
	v, err := get(s.db, key8(tabBlob, id))
	if err != nil {
		return false, err
	}
	if len(v) > 0 && v[0] == blobFile {
		if err := s.fs.Remove(s.blobPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		dirs[s.blobDir(id)] = true
	}
	b.Delete(key8(tabBlob, id), nil)
	return true, nil
}
