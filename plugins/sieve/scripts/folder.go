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
)

// Folder is a Store of files: a directory per account, a file per script, and a file
// that names the active one.
type Folder struct {
	root   string
	limits Limits
}

var _ Store = (*Folder)(nil)

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

// Global is "NAME.sieve" in the folder "global".
func (f *Folder) Global(name string) ([]byte, error) { return global(f.global(), name) }

func global(dir, name string) ([]byte, error) {
	if dir == "" || !validName(name) {
		return nil, nil
	}
	return read(filepath.Join(dir, fileName(name)))
}

// Account implements Store.
func (f *Folder) Account(name string) Account {
	return &directory{folder: f, dir: filepath.Join(f.users(), strings.TrimSuffix(fileName(strings.ToLower(name)), suffix))}
}

// directory has one user's scripts.
type directory struct {
	folder *Folder
	dir    string
}

const (
	suffix     = ".sieve"
	activeFile = "active"
	troubleIn  = "trouble"
	lockFile   = "lock"
)

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

func (a *directory) path(name string) string { return filepath.Join(a.dir, fileName(name)) }

func read(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, err
}

// List implements Account.
func (a *directory) List(context.Context) ([]Entry, error) {
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

// Get implements Account.
func (a *directory) Get(_ context.Context, name string) ([]byte, error) {
	if !validName(name) {
		return nil, ErrNotFound
	}
	b, err := read(a.path(name))
	if err == nil && b == nil {
		err = ErrNotFound
	}
	return b, err
}

func (a *directory) activeName() (string, error) {
	b, err := read(filepath.Join(a.dir, activeFile))
	return strings.TrimSuffix(string(b), "\n"), err
}

// Active implements Account.
func (a *directory) Active(context.Context) (string, []byte, error) {
	name, err := a.activeName()
	if err != nil || name == "" {
		return "", nil, err
	}
	b, err := read(a.path(name))
	if err != nil || b == nil {
		return "", nil, err
	}
	return name, b, nil
}

// change runs f with the account's lock, its directory made.
func (a *directory) change(ctx context.Context, f func() error) error {
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

// Space implements Account.
func (a *directory) Space(ctx context.Context, name string, size int64) error {
	list, err := a.List(ctx)
	if err != nil {
		return err
	}
	return a.folder.limits.space(list, name, size)
}

// Put implements Account.
func (a *directory) Put(ctx context.Context, name string, text []byte) error {
	return a.change(ctx, func() error {
		if err := a.Space(ctx, name, int64(len(text))); err != nil {
			return err
		}
		return a.write(fileName(name), text)
	})
}

// Delete implements Account.
func (a *directory) Delete(ctx context.Context, name string) error {
	return a.change(ctx, func() error {
		if _, err := a.Get(ctx, name); err != nil {
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

// Rename implements Account.
func (a *directory) Rename(ctx context.Context, from, to string) error {
	return a.change(ctx, func() error {
		text, err := a.Get(ctx, from)
		if err != nil {
			return err
		}
		if !validName(to) {
			return ErrName
		}
		if have, err := read(a.path(to)); err != nil || have != nil {
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

// Activate implements Account.
func (a *directory) Activate(ctx context.Context, name string) error {
	return a.change(ctx, func() error {
		if name != "" {
			if _, err := a.Get(ctx, name); err != nil {
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

// Report implements Account.
func (a *directory) Report(_ context.Context, text string) error {
	path := filepath.Join(a.dir, troubleIn)
	if text == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return os.WriteFile(path, []byte(shortened(text)), 0o600)
}

// Trouble implements Account.
func (a *directory) Trouble(context.Context) (string, error) {
	b, err := read(filepath.Join(a.dir, troubleIn))
	return string(b), err
}

// write a file of the account's: whole, or as it was.
func (a *directory) write(name string, data []byte) error {
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
