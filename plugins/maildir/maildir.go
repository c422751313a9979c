// Package maildir is a storage of Maildir++ directories that mutt, another
// delivery agent or Dovecot may use at the same time: a message is a file, its
// flags stand in the file's name, and a log beside the folders has what a
// Maildir cannot say (UIDs, MODSEQ, keywords, what was delivered). It is made to
// share mail with other programs, not for speed: that is plugin local.
package maildir

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Config of a storage "maildir" block.
type Config struct {
	Path string `hcl:"path,optional" semantic:"path" doc:"Where the accounts' Maildirs lie, one directory per account; empty: in the instance's data directory." example:"/var/mail/maildirs"`
}

// Plugin describes the Maildir++ storage.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "maildir", Version: "1.0.0", Summary: "Maildir++ that other mail programs may open too",
		Config: Config{},
		Needs:  &v1.Needs{DataDir: true, Exclusive: true, WritePaths: []string{"{path}"}}, Features: []string{storage.RequestKeys},
		Storage: func(_ context.Context, in *sdk.Instance) (storage.Storage, error) {
			dir := in.Config.(*Config).Path
			if dir == "" {
				dir = in.DataDir
			}
			return New(Options{Dir: dir, Log: in.Log})
		},
	}
}

// Options of a store. Dir is required.
type Options struct {
	Dir string
	Log zerolog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Exit ends the process after a failed fsync; nil: os.Exit.
	Exit func(code int)
}

// Store is a storage.Storage of Maildirs.
type Store struct {
	opts     Options
	lock     *os.File
	reading  *reading
	mu       sync.Mutex
	accounts map[string]*account
}

var _ storage.Storage = (*Store)(nil)

// New opens the store in opts.Dir. One process of Stagecoach may have it open;
// other mail programs do not count.
func New(opts Options) (*Store, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Exit == nil {
		opts.Exit = os.Exit
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("storage maildir: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(opts.Dir, ".stagecoach-lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("storage maildir: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("storage maildir: %s is open in another process", opts.Dir)
	}
	reading, err := newReading(opts.Dir, opts.Now)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("storage maildir: %w", err)
	}
	return &Store{opts: opts, lock: lock, reading: reading, accounts: map[string]*account{}}, nil
}

// Close ends the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		a.mu.Lock()
		a.closed = true
		a.unload()
		a.mu.Unlock()
	}
	s.reading.close()
	return s.lock.Close()
}

// account returns the account of that name; its files come with the first use.
func (s *Store) account(name string) (*account, error) {
	dir := strings.ReplaceAll(url.PathEscape(name), "%40", "@")
	if strings.HasPrefix(dir, ".") {
		dir = "%2E" + dir[1:]
	}
	if name == "" || len(dir) > 250 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, fail.New(fail.Invalid, "%.60q is no account name: it has 1 to 250 octets of UTF-8 without control characters", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[name]
	if a == nil {
		a = &account{s: s, name: name, dir: filepath.Join(s.opts.Dir, dir)}
		s.accounts[name] = a
	}
	return a, nil
}

// Open implements storage.Storage.
func (s *Store) Open(_ context.Context, name string) (storage.Account, error) {
	a, err := s.account(name)
	if err != nil {
		return nil, err
	}
	return a, a.read(func() error { return nil })
}

// account is one account: its Maildir and what the log says of it. Everything is
// done under its lock, the disk's part included.
type account struct {
	s    *Store
	name string
	dir  string

	mu     sync.Mutex
	closed bool
	loaded bool
	log    *os.File
	state
	rec *record // of the change under way
	hub hub
}

var _ storage.Account = (*account)(nil)

// read runs f on a state that is in step with the disk.
func (a *account) read(f func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.refresh(); err != nil {
		return wrap(err)
	}
	return wrap(f())
}

// write runs f as one change and makes it durable. After an error the state is
// read anew from the disk.
func (a *account) write(f func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.refresh(); err != nil {
		return wrap(err)
	}
	r := &record{}
	a.rec = r
	err := f()
	if err == nil {
		err = a.commit()
	}
	if err != nil {
		for _, path := range r.undo {
			os.Remove(path)
		}
		a.unload()
	}
	return wrap(err)
}

// refresh loads the account and picks up what other programs did.
func (a *account) refresh() error {
	if a.closed {
		return fail.New(fail.Unavailable, "the storage is closing: try again")
	}
	if !a.loaded {
		if err := a.load(); err != nil {
			return err
		}
	}
	a.rec = &record{}
	err := a.scanFolders()
	if err == nil {
		err = a.commit()
	}
	if err != nil {
		a.unload()
	}
	return err
}

func (a *account) unload() {
	if a.log != nil {
		a.log.Close()
	}
	a.log, a.loaded = nil, false
}

func wrap(err error) error {
	var f *fail.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fail.Wrap(fail.NoSpace, err, "maildir")
	}
	return fail.Wrap(fail.Unavailable, err, "maildir")
}

// sync makes a file or directory durable. A failed fsync ends the process: it
// must not be tried again, and what is in memory is no longer what is on disk.
func (s *Store) sync(f *os.File) {
	if err := f.Sync(); err != nil {
		s.opts.Log.Error().Str("file", f.Name()).Err(err).Msg("storage maildir stops: fsync failed; the host restarts it")
		s.opts.Exit(70)
		panic("storage maildir: Exit returned")
	}
}

func (s *Store) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	s.sync(d)
	return d.Close()
}

func (s *Store) nowMS() int64 { return s.opts.Now().UnixMilli() }
