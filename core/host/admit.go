package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What follows lets a plugin that runs as a user of its own reach what its Spec
// grants and nothing else of the core's: the directories stay closed to all
// others (mode 0700), and an access control list (acl(5)) names that one user.
// Groups were rejected: one group for all plugins would let each read all, and a
// group per plugin cannot own the spool.

// foreign tells whether the spec's process runs as another user than the core.
func foreign(s *Spec) bool {
	return s.Sandbox != nil && s.Sandbox.UID != 0 && os.Geteuid() == 0
}

// makeDurable makes a directory that is there after a power cut, too: a plugin in
// a sandbox cannot sync the directory above its own.
func makeDurable(dir string) error {
	above := filepath.Dir(dir)
	if _, err := os.Stat(above); errors.Is(err, fs.ErrNotExist) && above != dir {
		if err := makeDurable(above); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.Open(above)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// own makes the data directory the user's who works in it; also back to the
// core's user, when a sandbox lost its user. Another directory to write to is
// made if it is missing (a path that is not there cannot be granted).
func own(s *Spec) error {
	if s.Sandbox != nil {
		for _, dir := range s.Sandbox.Write {
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			if foreign(s) {
				if err := os.Chown(dir, s.Sandbox.UID, s.Sandbox.GID); err != nil {
					return err
				}
			}
		}
	}
	if os.Geteuid() != 0 || s.DataDir == "" {
		return nil
	}
	uid, gid := 0, 0
	if foreign(s) {
		uid, gid = s.Sandbox.UID, s.Sandbox.GID
	}
	info, err := os.Stat(s.DataDir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid {
		return nil
	}
	// From the inside out: if it breaks off, the next start finds the old owner.
	var paths []string
	err = filepath.WalkDir(s.DataDir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(paths) {
		if err := os.Lchown(path, uid, gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// admit opens the way to what the spec grants to its user.
func (h *Host) admit(s *Spec) error {
	if !foreign(s) {
		return nil
	}
	box := s.Sandbox
	here := instanceDir(h.opts.RunDir, s.Instance)
	ways := []string{filepath.Join(here, "any")}
	if s.DataDir != "" {
		ways = append(ways, s.DataDir)
	}
	for _, dir := range s.SpoolDirs {
		ways = append(ways, filepath.Join(dir, "any"))
		if err := open(dir, box.UID, aclRead); err != nil {
			return err
		}
	}
	for _, g := range s.Grants {
		to := place{dir: instanceDir(h.opts.RunDir, g.Instance)}
		ways = append(ways, to.dataSocket())
		// Who may write to a socket may connect to it (unix(7)).
		if err := addACL(to.dataSocket(), aclAccess, box.UID, aclRead|aclWrite); err != nil {
			return err
		}
		if g.UploadDir != "" {
			ways = append(ways, filepath.Join(g.UploadDir, "any"))
			if err := addACL(g.UploadDir, aclAccess, box.UID, aclRead|aclWrite|aclSearch); err != nil {
				return err
			}
		}
	}
	for _, way := range ways {
		if err := h.lead(way, box); err != nil {
			return err
		}
	}
	return nil
}

// lead lets the user search all directories above path.
func (h *Host) lead(path string, box *Sandbox) error {
	ours := filepath.Dir(h.opts.RunDir)
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: dir, Err: err}
		}
		open := st.Mode&0o001 != 0
		switch {
		case int(st.Uid) == box.UID:
			open = st.Mode&0o100 != 0
		case int(st.Gid) == box.GID:
			open = st.Mode&0o010 != 0
		}
		if !open {
			if dir != ours && !strings.HasPrefix(dir, ours+"/") {
				return fmt.Errorf("user %s cannot reach %s: %s is closed to it; choose a data_dir outside, or open that directory (chmod o+x)", box.User, path, dir)
			}
			if err := addACL(dir, aclAccess, box.UID, aclSearch); err != nil {
				return err
			}
		}
		if dir == "/" || dir == "." {
			return nil
		}
	}
}

// open lets the user read the files below dir, those to come too. It goes
// through what is there only the first time.
func open(dir string, uid int, perm uint16) error {
	if known, err := hasACL(dir, aclDefault, uid); err != nil || known {
		return err
	}
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			dirs = append(dirs, path)
			return nil
		}
		if err := addACL(path, aclAccess, uid, perm); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	// From the inside out, so that the outermost one's list says that all is done.
	for _, d := range slices.Backward(dirs) {
		if err == nil {
			err = addACL(d, aclAccess, uid, aclSearch)
		}
		if err == nil {
			err = addACL(d, aclDefault, uid, perm)
		}
	}
	return err
}

// The form of access control lists in the kernel's interface
// (linux/posix_acl_xattr.h): a version, then entries of tag, rights and id, in
// the order of the tags.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"

	aclVersion = 2

	aclSearch, aclWrite, aclRead = 1, 2, 4

	aclOwner, aclUser, aclGroup, aclNamedGroup, aclMask, aclOther = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

	aclNobody = ^uint32(0)
)

type aclEntry struct {
	Tag, Perm uint16
	ID        uint32
}

// readACL returns the list, or the one that the file's mode stands for.
func readACL(path, which string) ([]aclEntry, error) {
	buf := make([]byte, 4+8*1000)
	n, err := unix.Getxattr(path, which, buf)
	if err == nil && n >= 4 {
		entries := make([]aclEntry, (n-4)/8)
		_, err = binary.Decode(buf[4:n], binary.LittleEndian, entries)
		return entries, err
	}
	if err != nil && !errors.Is(err, unix.ENODATA) {
		return nil, aclError(path, err)
	}
	mode := uint16(0o700)
	if which == aclAccess {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		mode = uint16(st.Mode)
	}
	return []aclEntry{
		{aclOwner, mode >> 6 & 7, aclNobody}, {aclGroup, mode >> 3 & 7, aclNobody}, {aclOther, mode & 7, aclNobody},
	}, nil
}

func hasACL(path, which string, uid int) (bool, error) {
	entries, err := readACL(path, which)
	return slices.ContainsFunc(entries, func(e aclEntry) bool { return e.Tag == aclUser && e.ID == uint32(uid) }), err
}

// addACL gives the user these rights beside those that it has by the list.
func addACL(path, which string, uid int, perm uint16) error {
	entries, err := readACL(path, which)
	if err != nil {
		return err
	}
	k := slices.IndexFunc(entries, func(e aclEntry) bool { return e.Tag == aclUser && e.ID == uint32(uid) })
	if k < 0 {
		k = 1 // after the owner
		entries = slices.Insert(entries, k, aclEntry{aclUser, 0, uint32(uid)})
	} else if entries[k].Perm&perm == perm {
		return nil
	}
	entries[k].Perm |= perm
	// The mask bounds all but owner and others.
	entries = slices.DeleteFunc(entries, func(e aclEntry) bool { return e.Tag == aclMask })
	var mask uint16
	for _, e := range entries {
		if e.Tag != aclOwner && e.Tag != aclOther {
			mask |= e.Perm
		}
	}
	other := slices.IndexFunc(entries, func(e aclEntry) bool { return e.Tag == aclOther })
	entries = slices.Insert(entries, max(other, 0), aclEntry{aclMask, mask, aclNobody})
	value, err := binary.Append(binary.LittleEndian.AppendUint32(nil, aclVersion), binary.LittleEndian, entries)
	if err != nil {
		return err
	}
	if err := unix.Setxattr(path, which, value, 0); err != nil {
		return aclError(path, err)
	}
	return nil
}

func aclError(path string, err error) error {
	if errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("%s: this file system has no access control lists, which a sandbox's user needs; move data_dir, or leave user out", path)
	}
	return &fs.PathError{Op: "access control list", Path: path, Err: err}
}
