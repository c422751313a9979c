// Package local is the embedded default storage: mailboxes on one machine's
// disk, on an embedded key-value store with large bodies as files beside it.
// It is not a server: access plugins serve its mailboxes.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Options of a store. Dir is required.
type Options struct {
	// Dir is the directory of the store; it comes into being.
	Dir string
	// FS is the file system, for tests; nil: the machine's. On any other, large
	// messages are copied in and fetched inline.
	FS vfs.FS
	// CacheBytes for blocks read; 0: 32 MiB.
	CacheBytes int64
	// ViewBytes is what materialised large messages may use; 0: 512 MiB.
	ViewBytes int64
	// MinFreeBytes: with less than that on the disk nothing new is stored
	// (NO_SPACE), so that removing still works; 0: 64 MiB.
	MinFreeBytes int64
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	Log zerolog.Logger
	// Metrics to count in; nil: nobody looks.
	Metrics *sdk.Metrics
	// NoIndex: no search index is made or used.
	NoIndex bool
	// Tune changes the database's options before it is opened, for tests; nil:
	// they stay as they are.
	Tune func(*pebble.Options)
	// Exit ends the process after a failed write or fsync, when nothing can be
	// promised any more; nil: os.Exit. It must not return.
	Exit func(code int)
}

// Store is a storage.Storage on pebble.
//
// A writer holds its account's lock while it reads, decides and applies its
// batch, and waits for the batch's fsync after it let go of the lock: so
// deposits into one account share an fsync too. What a batch wrote is visible
// before it is durable; therefore a reader waits for the last batch that its
// snapshot may hold before it answers. Rejected: holding the lock over the
// fsync, which makes a busy mailbox as slow as the disk.
type Store struct {
	opts  Options
	fs    vfs.FS
	local bool // fs is the machine's: paths in it can be handed out
	db    *pebble.DB

	accounts struct {
		sync.Mutex
		byName map[string]*account
	}
	depositing turns
	fresh      fresh
	blobs      blobs
	views      views
	space      space
	opened     atomic.Bool
	stop       chan struct{}
	garbage    chan struct{}
	workers    sync.WaitGroup
	gate       gate
	meters     meters
	index      index
	// keeping: no body is removed, because a backup or a check looks at them.
	keeping sync.Mutex
	backing sync.Mutex
}

var _ storage.Storage = (*Store)(nil)

var errTorn = errors.New("record is damaged")

// New opens the store in opts.Dir, which must not be open elsewhere.
func New(opts Options) (*Store, error) {
	s := &Store{opts: opts, meters: newMeters(opts.Metrics), fs: opts.FS, stop: make(chan struct{}), garbage: make(chan struct{}, 1)}
	if s.fs == nil {
		s.fs, s.local = vfs.Default, true
	}
	if s.opts.CacheBytes == 0 {
		s.opts.CacheBytes = 32 << 20
	}
	if s.opts.ViewBytes == 0 {
		s.opts.ViewBytes = 512 << 20
	}
	if s.opts.MinFreeBytes == 0 {
		s.opts.MinFreeBytes = 64 << 20
	}
	if s.opts.Now == nil {
		s.opts.Now = time.Now
	}
	if s.opts.Exit == nil {
		s.opts.Exit = os.Exit
	}
	s.accounts.byName = map[string]*account{}
	s.index.wake = make(chan struct{}, 1)
	for _, sub := range []string{"", "db", "blobs", "views"} {
		if err := s.fs.MkdirAll(s.path(sub), 0o700); err != nil {
			return nil, fmt.Errorf("storage local: %w", err)
		}
	}
	if err := s.syncDir(s.opts.Dir); err != nil {
		return nil, fmt.Errorf("storage local: %w", err)
	}
	// In a sandbox the directory above is closed: then the core made this one, and
	// its name durable.
	if err := s.syncDir(s.fs.PathDir(s.opts.Dir)); err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("storage local: %w", err)
	}
	cache := pebble.NewCache(s.opts.CacheBytes)
	defer cache.Unref()
	o := &pebble.Options{
		FS:                 dbFS{s.fs, s},
		Cache:              cache,
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       16 << 20,
		Logger:             (*logger)(s),
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if opts.Tune != nil {
		opts.Tune(o)
	}
	db, err := pebble.Open(s.path("db"), o)
	if err != nil {
		return nil, fmt.Errorf("storage local: open %s: %w", opts.Dir, err)
	}
	s.db = db
	if err := s.recover(); err != nil {
		db.Close()
		return nil, fmt.Errorf("storage local: open %s: %w", opts.Dir, err)
	}
	s.opened.Store(true)
	s.workers.Go(s.collector)
	s.workers.Go(s.indexer)
	return s, nil
}

// Close waits for the calls under way and ends the store; calls that come later
// are answered UNAVAILABLE. A Watch ends by its own context and is not waited for.
func (s *Store) Close() error {
	if !s.gate.close() {
		return nil
	}
	close(s.stop)
	s.workers.Wait()
	return s.db.Close()
}

// recover brings the directory into step with the database.
func (s *Store) recover() error {
	if err := s.views.clear(s); err != nil {
		return err
	}
	if err := s.fresh.open(s.db); err != nil {
		return err
	}
	return s.blobs.recover(s)
}

func (s *Store) path(elem ...string) string {
	return s.fs.PathJoin(append([]string{s.opts.Dir}, elem...)...)
}

func (s *Store) syncDir(dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) nowMS() int64 { return s.opts.Now().UnixMilli() }

// get reads one value into memory of the caller's own; nil, nil if absent.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(v)), v...)
	return out, closer.Close()
}

// account is what the process knows of an account: its lock and its watchers.
type account struct {
	name string
	num  uint64

	// mu is held by whoever changes the account, and is never held while
	// waiting for the disk.
	mu      sync.Mutex
	settled *settled // under mu
	// last is the newest batch on its way to the disk; guarded by lastMu.
	lastMu sync.Mutex
	last   *commit

	hub hub

	// blocks that were closed when the index was last told of the account.
	blocks atomic.Uint64
}

// commit is a batch on its way to the disk.
type commit struct{ done chan struct{} }

func (a *account) pending() *commit {
	a.lastMu.Lock()
	defer a.lastMu.Unlock()
	return a.last
}

func (a *account) setPending(c *commit) {
	a.lastMu.Lock()
	defer a.lastMu.Unlock()
	a.last = c
}

// wait returns when everything visible in the account so far is durable.
func (a *account) wait() {
	if c := a.pending(); c != nil {
		<-c.done
	}
}

// account returns the account of that name, creating it.
func (s *Store) account(name string) (*account, error) {
	if err := checkAccount(name); err != nil {
		return nil, err
	}
	s.accounts.Lock()
	defer s.accounts.Unlock()
	if a := s.accounts.byName[name]; a != nil {
		return a, nil
	}
	v, err := get(s.db, keyAccountName(name))
	if err != nil {
		return nil, s.wrap(err, "read account")
	}
	a := &account{name: name}
	if v != nil {
		a.num = be.Uint64(v)
	} else if err := s.create(a); err != nil {
		return nil, err
	}
	s.accounts.byName[name] = a
	return a, nil
}

func checkAccount(name string) error {
	if name == "" || len(name) > 512 || !utf8.ValidString(name) {
		return fail.New(fail.Invalid, "%q is no account name: it has 1 to 512 octets of UTF-8", name)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return fail.New(fail.Invalid, "account name %q has a control character", name)
		}
	}
	return nil
}

// defaults are the mailboxes of a new account (RFC 6154 roles).
var defaults = []struct{ name, role string }{
	{inbox, "inbox"}, {"Drafts", "drafts"}, {"Sent", "sent"},
	{"Trash", "trash"}, {"Junk", "junk"}, {"Archive", "archive"},
}

// create writes a new account; s.accounts is locked. It is rare, so it holds
// the lock over the fsync.
func (s *Store) create(a *account) error {
	if err := s.room(0); err != nil {
		return err
	}
	v, err := get(s.db, keyStore("account"))
	if err != nil {
		return s.wrap(err, "create account")
	}
	if v != nil {
		a.num = be.Uint64(v)
	}
	a.num++
	num := be.AppendUint64(nil, a.num)
	c := &change{s: s, a: a, b: s.db.NewBatch(), boxes: map[uint32]*box{}}
	c.b.Set(keyStore("account"), num, nil)
	c.b.Set(keyAccountName(a.name), num, nil)
	for _, d := range defaults {
		if _, err := c.create(d.name, d.role); err != nil {
			return err
		}
	}
	c.flush()
	return s.wrap(c.b.Commit(pebble.Sync), "create account")
}

// Open implements storage.Storage.
func (s *Store) Open(ctx context.Context, name string) (storage.Account, error) {
	if err := s.gate.enter(); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	a, err := s.account(name)
	if err != nil {
		return nil, err
	}
	return &handle{s: s, a: a}, ctx.Err()
}

// handle is an account as one caller sees it.
type handle struct {
	s *Store
	a *account
}

var _ storage.Account = (*handle)(nil)

// view is a consistent, durable state of an account.
type view struct {
	*pebble.Snapshot
	rec  accountRecord
	gate *gate
}

func (v *view) Close() error {
	defer v.gate.leave()
	return v.Snapshot.Close()
}

func (h *handle) view(ctx context.Context) (*view, error) {
	if err := h.s.gate.enter(); err != nil {
		return nil, err
	}
	v := &view{Snapshot: h.s.db.NewSnapshot(), gate: &h.s.gate}
	h.a.wait()
	b, err := get(v, key8(tabAccount, h.a.num))
	if err == nil {
		err = v.rec.decode(b)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		v.Close()
		return nil, h.s.wrap(err, "read account")
	}
	h.s.indexFrom(h.a, &v.rec)
	return v, nil
}

// Quota implements storage.Account.
func (h *handle) Quota(ctx context.Context) (*v1.QuotaResponse, error) {
	v, err := h.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return &v1.QuotaResponse{UsedBytes: int64(v.rec.bytes), UsedMessages: int64(v.rec.messages)}, nil
}

// wrap gives an error of the disk or the database its kind.
func (s *Store) wrap(err error, what string) error {
	var f *fail.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fail.Wrap(fail.NoSpace, err, what)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errTorn):
		return fail.Wrap(fail.Internal, err, what)
	}
	return fail.Wrap(fail.Unavailable, err, what)
}

// fatal ends the process: after a failed fsync nothing that is in memory can be
// trusted to reach the disk, and it must not be tried again on the same file.
func (s *Store) fatal(what string, err error) {
	s.opts.Log.Error().Str("what", what).Err(err).Msg("storage local stops: the disk did not take what was written; the host restarts it")
	s.opts.Exit(70) // EX_SOFTWARE
	panic("storage local: Exit returned")
}

// logger takes the database's words.
type logger Store

func (l *logger) Infof(string, ...any) {}
func (l *logger) Errorf(format string, args ...any) {
	l.opts.Log.Error().Str("text", fmt.Sprintf(format, args...)).Msg("storage local: database")
}
func (l *logger) Fatalf(format string, args ...any) {
	(*Store)(l).fatal("database", fmt.Errorf(format, args...))
}

// space watches the disk.
type space struct {
	sync.Mutex
	at    time.Time
	avail uint64
	known bool
}

// room refuses (NO_SPACE) to store n octets more on a disk that is nearly full.
func (s *Store) room(n int64) error {
	sp := &s.space
	sp.Lock()
	defer sp.Unlock()
	if now := time.Now(); now.Sub(sp.at) > time.Second {
		sp.at = now
		du, err := s.fs.GetDiskUsage(s.opts.Dir)
		sp.avail, sp.known = du.AvailBytes, err == nil
	}
	// A message is written to the log and once more to its table.
	need := uint64(2 * n)
	if sp.known && sp.avail < need+uint64(s.opts.MinFreeBytes) {
		return fail.New(fail.NoSpace, "the disk of %s has %d MiB left: less than min_free; make room", s.opts.Dir, sp.avail>>20)
	}
	if sp.avail >= need {
		sp.avail -= need
	}
	return nil
}

// Health tells of a disk that is nearly full.
func (s *Store) Health() error { return s.room(0) }
