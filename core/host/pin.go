package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// PinError is a program whose checksum is not the one in its Spec. It was not
// started, or ended before it was told anything.
type PinError struct{ Path string }

func (e *PinError) Error() string {
	return fmt.Sprintf("%s is not the file that sha256 pins and was not started; if you replaced it on purpose, write what `sha256sum %s` prints", e.Path, e.Path)
}

// verify compares the file that would be executed with its pinned checksum.
func verify(cmd *exec.Cmd, pinned string) error {
	f, err := openProgram(cmd.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return matches(f, io.Discard, cmd.Path, pinned)
}

// openProgram is for reading it; anything but a file has no checksum.
func openProgram(path string) (*os.File, error) {
	// A pipe would otherwise wait for somebody to write.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// matches is a *PinError if what f holds is not what was pinned. It goes to w too.
func matches(f *os.File, w io.Writer, path, pinned string) error {
	want, err := hex.DecodeString(pinned)
	if err != nil || len(want) != sha256.Size {
		return fmt.Errorf("sha256 %q: write the 64 hexadecimal digits that `sha256sum %s` prints", pinned, path)
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(sum, w), f); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return &PinError{path}
	}
	return nil
}

// pinned is a program whose checksum was right.
type pinned struct {
	// file is what is executed, not its path: nobody can put another in its place
	// after the check. nil for a script, which its interpreter opens by its path.
	file *os.File
	// copied: file is a copy of it in the process's own directory.
	copied bool
}

// pin checks the program of cmd and keeps hold of what was checked. dir is the
// process's own directory.
//
// What was checked could still be overwritten in place before it runs. Where only
// root and the core's own user may do that, it is their program; where somebody else
// may, a copy is checked and run. Not always a copy: a program may look for its
// libraries beside itself.
func pin(cmd *exec.Cmd, sum, dir string) (*pinned, error) {
	f, err := openProgram(cmd.Path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case script(cmd.Path):
		defer f.Close()
		return &pinned{}, matches(f, io.Discard, cmd.Path, sum)
	case othersWrite(info):
		defer f.Close()
		return copyPinned(f, cmd.Path, sum, dir)
	default:
		if err = matches(f, io.Discard, cmd.Path, sum); err == nil {
			return &pinned{file: f}, nil
		}
	}
	f.Close()
	return nil, err
}

// hold is a program that ran before, checked again if it is pinned.
func hold(f *os.File, path, sum string) (*pinned, error) {
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return nil, err
	}
	if sum != "" {
		if err := matches(f, io.Discard, path, sum); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &pinned{file: f}, nil
}

// othersWrite tells whether somebody else than root and this process's user may
// write to a file. Access control lists give no more than the group's bits say
// (acl(5)).
func othersWrite(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || info.Mode().Perm()&0o022 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid()
}

func copyPinned(f *os.File, path, sum, dir string) (*pinned, error) {
	// A process that is forked meanwhile would hold the copy open for writing, and
	// what is open for writing cannot be executed (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := os.OpenFile(filepath.Join(dir, filepath.Base(path)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o555)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := matches(f, w, path, sum); err != nil {
		return nil, err
	}
	// By its descriptor: the directory may be the plugin's user's.
	c, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(w.Fd())))
	if err != nil {
		return nil, err
	}
	return &pinned{file: c, copied: true}, nil
}

// execute makes cmd run what was checked.
func (p *pinned) execute(cmd *exec.Cmd) {
	if p != nil && p.file != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.file)
		cmd.Path = "/proc/self/fd/" + strconv.Itoa(2+len(cmd.ExtraFiles))
	}
}

// explain names the program in an error of its execution.
func (p *pinned) explain(err error, path string) error {
	var exec *fs.PathError
	if p == nil || !errors.As(err, &exec) {
		return err
	}
	exec.Path = path
	if p.copied && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; others than root may write to it, so a copy is run: is the data directory's file system mounted noexec?", err)
	}
	return err
}

// recheck finds another script in the place of the one that was checked, once its
// interpreter has read it.
func (p *pinned) recheck(cmd *exec.Cmd, sum string) error {
	if p == nil || p.file != nil {
		return nil
	}
	return verify(cmd, sum)
}

func (p *pinned) close() {
	if p != nil && p.file != nil {
		p.file.Close()
	}
}
