package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"
)

// Options of the embedded queue.
type Options struct {
	// Dir is the queue's own directory, made if need be. The spool must lie on
	// the same file system.
	Dir string
	// FS is the disk; nil: the operating system's.
	FS vfs.FS
	// Clock; nil: time.Now.
	Clock func() time.Time
	Log   zerolog.Logger
	// MinFree is kept free on the disk, in octets: below it Put gives ErrFull,
	// so that results can still be recorded. 0: 64 MiB.
	MinFree uint64
	// CacheSize of the database in octets; 0: 32 MiB.
	CacheSize int64
	// Tune changes the database's options before it is opened, for tests; nil:
	// they stay as they are.
	Tune func(*pebble.Options)

	faults faults
}

// faults are bugs that a test plants to see that its checker finds them.
type faults struct {
	earlyAck, lateEnqueue, noRetire, untold, lateIndex, staleIndex, unfair, unfairFresh bool
}

// Engine is the Queue in one directory of one machine.
//
// Invariants:
//   - One goroutine commits (group.go). The order in which groups were filled
//     under mu is the order of the records in the log.
//   - A message is changed only by who has it in leases; leases is memory
//     alone, so a restart frees all of them.
//   - A message has at most one entry in the due index: where its earliest
//     waiting recipient is due, or one that waits in a lane is to be looked at;
//     and at most one in each lane.
//   - It has one place in the index by destination for each way that open recipients
//     go (destination.go).
//   - Counts are written with each group: the same batch as what they count. They are
//     what the index by destination adds up to.
type Engine struct {
	o    Options
	fs   vfs.FS
	db   *pebble.DB
	ids  idMaker
	boot id // the least id of this epoch's messages; older files may be orphans
	stop *stopper
	wake chan struct{}
	fed  chan struct{}
	log  zerolog.Logger

	feeding, keeping atomic.Bool
	history          past
	opened           atomic.Bool
	onEnd            atomic.Pointer[func(Outcome, time.Duration)]
	onOperate        atomic.Pointer[func(Operated)]

	space atomic.Int64 // octets that may be put before the disk is asked again

	claiming sync.Mutex // one Claim at a time

	mu        sync.Mutex
	changed   sync.Cond // a lease or a group moved on
	group     *group    // being filled
	leases    map[id]*lease
	token     uint64
	sequence  uint64 // of the last observation
	expiry    int64  // no lease ends before
	lanes     knownLanes
	known     int64 // the earliest due that the scheduler was told
	counts    counts
	stock     stock
	oldest    id // no message is older
	corrupted int64

	closing atomic.Bool
	work    sync.WaitGroup
	swept   chan struct{} // closed when stock is taken and the orphans of before are gone
}

var _ Queue = (*Engine)(nil)

// counts are what Stats tells; they live in one record.
type counts struct {
	messages, recipients, held, bytes, tried int64
}

func (c *counts) add(o counts) {
	c.messages += o.messages
	c.recipients += o.recipients
	c.held += o.held
	c.bytes += o.bytes
	c.tried += o.tried
}

// Open opens or makes the queue in o.Dir. Every message of before is claimable
// at once.
func Open(o Options) (*Engine, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.MinFree == 0 {
		o.MinFree = 64 << 20
	}
	if o.CacheSize == 0 {
		o.CacheSize = 32 << 20
	}
	e := &Engine{
		o: o, stop: newStopper(), log: o.Log, wake: make(chan struct{}, 1), fed: make(chan struct{}, 1), swept: make(chan struct{}),
		leases: make(map[id]*lease), lanes: knownLanes{of: map[string]*laneHeads{}}, expiry: never, known: never, stock: newStock(),
	}
	e.fs = syncGuard{o.FS, e.stop}
	e.history = past{fs: e.fs, dir: e.fs.PathJoin(o.Dir, "history"), log: o.Log}
	e.changed.L = &e.mu
	if err := e.makeDirs(); err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	if err := guard(e.stop, e.salvage); err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	if err := e.openDB(); err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	if err := e.start(); err != nil {
		if e.stop.err() == nil {
			err = errors.Join(err, e.db.Close())
		}
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	e.group = newGroup(e.db)
	e.opened.Store(true)
	e.work.Add(2)
	go e.commitLoop()
	go e.settle(e.db.NewSnapshot())
	return e, nil
}

// openDB opens pebble, which a fatal error may park.
func (e *Engine) openDB() error {
	opts := &pebble.Options{
		FS:                 e.dbFS(),
		CacheSize:          e.o.CacheSize,
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       16 << 20,
		MaxOpenFiles:       256,
		Logger:             dbLog{e.log, e.stop},
	}
	opts.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	opts.EventListener = &pebble.EventListener{
		// A flush or compaction failed and is tried again with a new file.
		BackgroundError: func(err error) { e.log.Error().Err(err).Msg("queue: background work failed") },
		DataCorruption:  e.damaged,
	}
	e.tuned(opts)
	e.tuned(opts)
	var db *pebble.DB
	path := e.fs.PathJoin(e.o.Dir, "db")
	_, fresh := e.fs.Stat(path)
	err := guard(e.stop, func() (err error) {
		if db, err = pebble.Open(path, opts); err == nil && fresh != nil {
			// The first log of a new database does not say how much of it was synced:
			// see log.go. The second one does.
			if err = db.Close(); err == nil {
				db, err = pebble.Open(path, opts)
			}
		}
		return err
	})
	if err == nil {
		e.db = db
	}
	return err
}

func (e *Engine) dbFS() vfs.FS { return dbFS{syncGuard{e.o.FS, e.stop}, &e.opened} }

func (e *Engine) tuned(opts *pebble.Options) *pebble.Options {
	if e.o.Tune != nil {
		e.o.Tune(opts)
	}
	return opts
}

// formatVersion of keys and records together.
const formatVersion = 5

// start reads the few records that are about the queue as a whole.
func (e *Engine) start() error {
	if err := e.raise(); err != nil {
		return err
	}
	epoch, err := e.meta(metaEpoch, 0)
	if err != nil {
		return err
	}
	epoch++
	if err := e.loadCounts(); err != nil {
		return err
	}
	e.stock.opened = e.counts
	e.stock.draw()
	e.ids = idMaker{epoch: epoch}
	e.token, e.sequence = epoch<<40, epoch<<40
	b := e.db.NewBatch()
	for _, m := range []struct {
		key   []byte
		value uint64
	}{{metaFormat, formatVersion}, {metaEpoch, epoch}} {
		rec := binary.BigEndian.AppendUint64([]byte{recordVersion}, m.value)
		if err := b.Set(m.key, seal(m.key, rec), nil); err != nil {
			return err
		}
	}
	if err := guard(e.stop, func() error { return b.Commit(pebble.Sync) }); err != nil {
		return err // the batch may be in use for ever
	}
	_ = b.Close()
	// Messages of the future (the clock was set back) keep their place: new ones
	// get later ids, and boot lies behind all old files.
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyMessage}, UpperBound: []byte{keyMessage + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	if it.Last() && len(it.Key()) >= messageKeyLen {
		last := id(binary.BigEndian.Uint64(it.Key()[1:]))
		e.ids.last.Store(int64(last >> epochBits))
	}
	e.boot = e.ids.next(e.o.Clock())
	return it.Error()
}

// meta reads a number about the queue; otherwise is for a new queue.
func (e *Engine) meta(key []byte, otherwise uint64) (uint64, error) {
	rec, err := e.get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return otherwise, nil
	}
	if err != nil {
		return 0, err
	}
	rec, err = unseal(key, rec)
	if err != nil || len(rec) != 9 {
		return 0, fmt.Errorf("%w: %q", ErrCorrupt, key)
	}
	return binary.BigEndian.Uint64(rec[1:]), nil
}

// get copies a value.
func (e *Engine) get(key []byte) ([]byte, error) {
	v, c, err := e.db.Get(key)
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), v...)
	return b, c.Close()
}

func (c counts) record() []byte {
	rec := []byte{recordVersion}
	for _, v := range [...]int64{c.messages, c.recipients, c.held, c.bytes, c.tried} {
		rec = binary.BigEndian.AppendUint64(rec, uint64(v))
	}
	return seal(metaCounts, rec)
}

func (e *Engine) loadCounts() error {
	rec, err := e.get(metaCounts)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	rec, err = unseal(metaCounts, rec)
	if err != nil || len(rec) != countsLen {
		e.log.Error().Msg("queue: the counts are corrupt; counting anew")
		return e.recount()
	}
	for i, v := range []*int64{&e.counts.messages, &e.counts.recipients, &e.counts.held, &e.counts.bytes, &e.counts.tried} {
		*v = int64(binary.BigEndian.Uint64(rec[1+8*i:]))
	}
	return nil
}

// countsLen is the length of their record, without its checksum.
const countsLen = 1 + 5*8

// recount adds up the index: only when the record of the counts is corrupt.
func (e *Engine) recount() error {
	e.counts = counts{}
	return eachDestination(e.db, func(d *destination) bool {
		e.counts.add(d.counts())
		return true
	})
}

// Failed gets the reason when the queue has stopped: the process should end.
func (e *Engine) Failed() <-chan error { return e.stop.failed }

// Wake is part of Queue.
func (e *Engine) Wake() <-chan struct{} { return e.wake }

// Close waits for what is being committed; no other method may run any more. A
// stopped queue is left as it is: its database may never answer again.
func (e *Engine) Close() error {
	if e.closing.Swap(true) {
		return nil
	}
	e.mu.Lock()
	e.changed.Broadcast()
	e.mu.Unlock()
	if e.stop.err() != nil {
		return e.stop.err()
	}
	done := make(chan struct{})
	go func() { e.work.Wait(); close(done) }()
	select {
	case <-done:
		return guard(e.stop, e.db.Close)
	case <-e.stop.down:
		return e.stop.err()
	}
}

// guard runs f in a goroutine that may be parked forever by a fatal error, and
// turns a panic of the database, which follows a failed log, into a stop.
func guard(s *stopper, f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.stop(fmt.Errorf("%v", p))
			}
		}()
		done <- f()
	}()
	select {
	case err := <-done:
		if s.err() != nil {
			return s.err()
		}
		return err
	case <-s.down:
		return s.err()
	}
}
