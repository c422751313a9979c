package spool

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

func openDir(t *testing.T, fs vfs.FS) *Dir {
	t.Helper()
	d, err := OpenDir(fs, "spool")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, b Body) []byte {
	t.Helper()
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func files(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("spool")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestBytesComeBackFromMemoryAndFile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, fs := range []vfs.FS{vfs.NewMem(), vfs.Default} {
		path := "spool"
		if fs == vfs.Default {
			path = t.TempDir()
		}
		d, err := OpenDir(fs, path)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 2048, mail.InlineLimit - 1, mail.InlineLimit, mail.InlineLimit + 1, bufferSize, bufferSize + 1, 1 << 20} {
			for _, hint := range []int64{0, int64(size)} {
				want := make([]byte, size)
				for i := range want {
					want[i] = byte(rng.Uint32())
				}
				w := d.NewWriter(hint)
				prefix := []byte("X: y\r\n")
				if err := w.Prefix(prefix); err != nil {
					t.Fatal(err)
				}
				for rest := want; len(rest) > 0; {
					n := min(1+rng.IntN(20000), len(rest))
					if _, err := w.Write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				b, err := w.Finish()
				if err != nil {
					t.Fatal(err)
				}
				whole := append(prefix, want...)
				if got := read(t, b); !bytes.Equal(got, whole) || b.Size() != int64(len(whole)) {
					t.Fatalf("size %d hint %d: %d octets came back, Size %d", size, hint, len(got), b.Size())
				}
				if inMemory := b.Path() == ""; inMemory != (len(whole) <= mail.InlineLimit && hint <= mail.InlineLimit) {
					t.Errorf("size %d hint %d: in memory %v", size, hint, inMemory)
				}
				b.Discard()
			}
		}
		if names, err := fs.List(path); err != nil || len(names) != 0 {
			t.Errorf("left behind: %v %v", names, err)
		}
	}
}

func TestReaderSeeks(t *testing.T) {
	d := openDir(t, vfs.NewMem())
	w := d.NewWriter(1 << 20)
	if _, err := w.Write([]byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "456789" {
		t.Errorf("after the seek: %q %v", got, err)
	}
}

func TestAbortAndSweepLeaveNothing(t *testing.T) {
	fs := vfs.NewMem()
	d := openDir(t, fs)
	w := d.NewWriter(1 << 20)
	if _, err := w.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, fs)); n != 1 {
		t.Fatalf("%d files while writing", n)
	}
	w.Abort()
	w.Abort()
	if n := len(files(t, fs)); n != 0 {
		t.Fatalf("%d files after Abort", n)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Write after Abort: %v", err)
	}

	left := d.NewWriter(1 << 20)
	if _, err := left.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	openDir(t, fs) // the next process
	if n := len(files(t, fs)); n != 0 {
		t.Errorf("%d files after the sweep", n)
	}
}

func TestMovedFileStays(t *testing.T) {
	fs := vfs.NewMem()
	d := openDir(t, fs)
	w := d.NewWriter(1 << 20)
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	m := b.(Mover)
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(); err == nil {
		t.Error("a second Sync claims success")
	}
	if err := m.Move("kept"); err != nil {
		t.Fatal(err)
	}
	b.Discard()
	if got := read(t, b); string(got) != "hello" || b.Path() != "kept" {
		t.Errorf("after Move and Discard: %q at %q", got, b.Path())
	}
}

// Every single operation on the disk fails once with ENOSPC: the writer reports
// ErrFull and leaves no file, or succeeds with the right octets.
func TestFullDisk(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 8192)
	failed := 0
	for n := int32(0); ; n++ {
		fs := vfs.NewMem()
		d := openDir(t, fs)
		index := errorfs.OnIndex(n)
		d.fs = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpFileClose {
				return nil
			}
			if index.MaybeError(op) != nil {
				return syscall.ENOSPC
			}
			return nil
		}))
		w := d.NewWriter(0)
		_, err := w.Write(want)
		var b Body
		if err == nil {
			b, err = w.Finish()
		}
		if err != nil {
			failed++
			if !errors.Is(err, ErrFull) {
				t.Fatalf("operation %d: %v", n, err)
			}
			if left := files(t, fs); len(left) != 0 {
				t.Fatalf("operation %d: left behind %v", n, left)
			}
			continue
		}
		if got := read(t, b); !bytes.Equal(got, want) {
			t.Fatalf("operation %d: wrong octets", n)
		}
		break
	}
	if failed < 3 {
		t.Errorf("only %d operations could fail", failed)
	}
}

func BenchmarkSmallMessage(b *testing.B) {
	d, err := OpenDir(vfs.NewMem(), "spool")
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 2048)
	b.ReportAllocs()
	for b.Loop() {
		w := d.NewWriter(0)
		if _, err := w.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
	}
}
