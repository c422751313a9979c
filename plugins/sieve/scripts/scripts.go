// Package scripts keeps users' Sieve scripts in a folder: a directory per account,
// a file per script, and a file that names the active one. Several processes may
// have it open: the filter reads, ManageSieve and the command line write. A change
// is on stable storage when its call returns. It does not know what a script
// means.
package scripts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// Limits of an account.
type Limits struct {
	// Scripts at most, and octets of one.
	Scripts, Size int
}

// DefaultLimits are enough for people.
func DefaultLimits() Limits { return Limits{Scripts: 32, Size: 1 << 20} }

// MaxName octets of a script's name; RFC 5804 section 1.6 asks for 128.
const MaxName = 160

// What a call may fail with.
var (
	ErrNotFound = errors.New("there is no such script")
	ErrExists   = errors.New("there is a script of that name")
	ErrActive   = errors.New("the script is active: activate another one, or none, first")
	ErrName     = errors.New("no script can have that name")
	ErrTooLarge = errors.New("the script is too large")
	ErrTooMany  = errors.New("there are too many scripts: delete one first")
)

// Folder has the scripts of all accounts.
type Folder struct {
	root   string
	limits Limits
}

// Open makes the folder if it is missing.
func Open(root string, limits Limits) (*Folder, error) {
	f := &Folder{root: root, limits: limits}
	for _, d := range []string{root, f.users(), f.global()} {
		if err := makeDir(d); err != nil {
			return nil, fmt.Errorf("folder of Sieve scripts: %w", err)
		}
	}
	return f, nil
}

func (f *Folder) users() string  { return filepath.Join(f.root, "users") }
func (f *Folder) global() string { return filepath.Join(f.root, "global") }

// Global is a script of the operator's, "NAME.sieve" in the folder "global"; nil if
// there is none.
func (f *Folder) Global(name string) ([]byte, error) {
	if !validName(name) {
		return nil, nil
	}
	return f.read(filepath.Join(f.global(), fileName(name)))
}

// Account of that name; nothing is made of it until a script is put.
func (f *Folder) Account(name string) *Account {
	return &Account{folder: f, dir: filepath.Join(f.users(), strings.TrimSuffix(fileName(strings.ToLower(name)), suffix))}
}

// Account has one user's scripts.
type Account struct {
	folder *Folder
	dir    string
}

// Entry of a list.
type Entry struct {
	Name   string
	Size   int64
	Active bool
}

const (
	suffix     = ".sieve"
	activeFile = "active"
	troubleIn  = "trouble"
	lockFile   = "lock"
)

// validName tells whether a script can have that name.
func validName(s string) bool {
	if s == "" || len(s) > MaxName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == '/' {
			return false
		}
	}
	return true
}

// fileName of a script: its own where that is harmless, else in base64.
func fileName(name string) string {
	plain := name != "" && name[0] != '.' && name[0] != '='
	for _, c := range []byte(name) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("-_.@+", c) < 0 {
			plain = false
		}
	}
	switch {
	case len(name) > MaxName: // of an account: nobody needs it back
		return fmt.Sprintf("=%x", sha256.Sum256([]byte(name))) + suffix
	case plain:
		return name + suffix
	}
	return "=" + base64.RawURLEncoding.EncodeToString([]byte(name)) + suffix
}

func scriptName(file string) (string, bool) {
	name, ok := strings.CutSuffix(file, suffix)
	if !ok {
		return "", false
	}
	if enc, ok := strings.CutPrefix(name, "="); ok {
		b, err := base64.RawURLEncoding.DecodeString(enc)
		return string(b), err == nil
	}
	return name, true
}

func (a *Account) path(name string) string { return filepath.Join(a.dir, fileName(name)) }

func (f *Folder) read(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, err
}

// List is the account's scripts by name.
func (a *Account) List() ([]Entry, error) {
	files, err := os.ReadDir(a.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	active, err := a.activeName()
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, d := range files {
		name, ok := scriptName(d.Name())
		if !ok {
			continue
		}
		info, err := d.Info()
		if err != nil {
			continue // deleted meanwhile
		}
		out = append(out, Entry{Name: name, Size: info.Size(), Active: name == active})
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Get is a script's text; ErrNotFound.
func (a *Account) Get(name string) ([]byte, error) {
	if !validName(name) {
		return nil, ErrNotFound
	}
	b, err := a.folder.read(a.path(name))
	if err == nil && b == nil {
		err = ErrNotFound
	}
	return b, err
}

func (a *Account) activeName() (string, error) {
	b, err := a.folder.read(filepath.Join(a.dir, activeFile))
	return strings.TrimSuffix(string(b), "\n"), err
}

// Active is the script that is run, by name and text; "" and nil if there is none.
func (a *Account) Active() (string, []byte, error) {
	name, err := a.activeName()
	if err != nil || name == "" {
		return "", nil, err
	}
	b, err := a.folder.read(a.path(name))
	if err != nil || b == nil {
		return "", nil, err
	}
	return name, b, nil
}

// change runs f with the account's lock, its directory made.
func (a *Account) change(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := makeDir(a.dir); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(a.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	owned(lock, a.dir)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	return f()
}

// Space tells whether a script of that size may be put: nil, ErrName, ErrTooLarge
// or ErrTooMany.
func (a *Account) Space(name string, size int64) error {
	switch {
	case !validName(name):
		return ErrName
	case size > int64(a.folder.limits.Size):
		return ErrTooLarge
	}
	list, err := a.List()
	if err != nil {
		return err
	}
	if len(list) >= a.folder.limits.Scripts && !slices.ContainsFunc(list, func(e Entry) bool { return e.Name == name }) {
		return ErrTooMany
	}
	return nil
}

// Put stores a script, in place of one of that name.
func (a *Account) Put(ctx context.Context, name string, text []byte) error {
	return a.change(ctx, func() error {
		if err := a.Space(name, int64(len(text))); err != nil {
			return err
		}
		return a.write(fileName(name), text)
	})
}

// Delete a script that is not active.
func (a *Account) Delete(ctx context.Context, name string) error {
	return a.change(ctx, func() error {
		if _, err := a.Get(name); err != nil {
			return err
		}
		active, err := a.activeName()
		if err != nil {
			return err
		}
		if name == active {
			return ErrActive
		}
		if err := os.Remove(a.path(name)); err != nil {
			return err
		}
		return syncDir(a.dir)
	})
}

// Rename a script; the active one stays active.
func (a *Account) Rename(ctx context.Context, from, to string) error {
	return a.change(ctx, func() error {
		text, err := a.Get(from)
		if err != nil {
			return err
		}
		if !validName(to) {
			return ErrName
		}
		if have, err := a.folder.read(a.path(to)); err != nil || have != nil {
			return errors.Join(err, ErrExists)
		}
		active, err := a.activeName()
		if err != nil {
			return err
		}
		// The new one is there before anything names it, and the old one until
		// nothing does.
		if err := a.write(fileName(to), text); err != nil {
			return err
		}
		if active == from {
			if err := a.write(activeFile, []byte(to+"\n")); err != nil {
				return err
			}
		}
		if err := os.Remove(a.path(from)); err != nil {
			return err
		}
		return syncDir(a.dir)
	})
}

// Activate a script, and no other; "" none.
func (a *Account) Activate(ctx context.Context, name string) error {
	return a.change(ctx, func() error {
		if name != "" {
			if _, err := a.Get(name); err != nil {
				return err
			}
			return a.write(activeFile, []byte(name+"\n"))
		}
		if err := os.Remove(filepath.Join(a.dir, activeFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return syncDir(a.dir)
	})
}

// maxTrouble octets of a report are kept.
const maxTrouble = 4 << 10

// Report keeps what went wrong in the last run for the user to read; "" takes it
// away. It is no promise: a crash may lose it.
func (a *Account) Report(text string) error {
	path := filepath.Join(a.dir, troubleIn)
	if text == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return os.WriteFile(path, []byte(text[:min(len(text), maxTrouble)]), 0o600)
}

// Trouble is what was last reported; "" nothing.
func (a *Account) Trouble() (string, error) {
	b, err := a.folder.read(filepath.Join(a.dir, troubleIn))
	return string(b), err
}

// write a file of the account's: whole, or as it was.
func (a *Account) write(name string, data []byte) error {
	tmp, err := os.CreateTemp(a.dir, "new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	owned(tmp, a.dir)
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(a.dir, name))
	}
	if err != nil {
		return err
	}
	return syncDir(a.dir)
}

// makeDir makes one directory durably, with the owner of the one above: the command
// line may be root's, and the server somebody else's.
func makeDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	parent := filepath.Dir(path)
	if _, err := os.Stat(parent); err != nil {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if d, err := os.Open(path); err == nil {
		owned(d, parent)
		d.Close()
	}
	return syncDir(parent)
}

// owned gives a new file to who owns the directory above, if we may.
func owned(f *os.File, dir string) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(st.Uid), int(st.Gid)) // it is root's then, and the server says what it cannot read
	}
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
