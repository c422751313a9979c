package simdisk

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// draw is a disk as text, a line for each file.
func draw(t testing.TB, fs vfs.FS, dir string) (out string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		at := path.Join(dir, name)
		st, err := fs.Stat(at)
		if err != nil {
			t.Fatal(err)
		}
		if st.IsDir() {
			out += at + "/\n" + draw(t, fs, at)
			continue
		}
		out += at + " " + squeeze(read(t, fs, at)) + "\n"
	}
	return out
}

// squeeze writes a run of octets as one and its length in sectors.
func squeeze(b []byte) (out string) {
	for len(b) > 0 {
		n := 1
		for n < len(b) && b[n] == b[0] {
			n++
		}
		c := string(b[:1])
		if b[0] == 0 {
			c = "0"
		}
		out += fmt.Sprintf("%s%d", c, n)
		b = b[n:]
	}
	return out
}

func read(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// script does what each line says: create, write FILE OFFSET TEXT LENGTH, sync,
// link, rename, remove, mkdir. A sync that fails is followed by "fails".
func script(t testing.TB, d *Disk, text string) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var err error
		w := strings.Fields(line)
		switch w[0] {
		case "create":
			var f vfs.File
			if f, err = d.Create(w[1], ""); err == nil {
				err = f.Close()
			}
		case "write":
			var f vfs.File
			if f, err = d.OpenReadWrite(w[1], ""); err == nil {
				var off, n int64
				fmt.Sscan(w[2], &off)
				fmt.Sscan(w[4], &n)
				_, err = f.WriteAt([]byte(strings.Repeat(w[3], int(n))), off)
				f.Close()
			}
		case "sync":
			if len(w) > 2 {
				d.Fail(0, Fault{Err: syscall.EIO})
			}
			var f vfs.File
			if f, err = d.Open(w[1]); err == nil {
				err = f.Sync()
				f.Close()
			}
			if len(w) > 2 {
				if !errors.Is(err, syscall.EIO) || !d.Heal() {
					t.Fatalf("%s: %v", line, err)
				}
				err = nil
			}
		case "link":
			err = d.Link(w[1], w[2])
		case "rename":
			err = d.Rename(w[1], w[2])
		case "remove":
			err = d.Remove(w[1])
		case "mkdir":
			err = d.MkdirAll(w[1], 0o700)
		default:
			t.Fatalf("what is %q?", line)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

// left is what crashes at the end of the log leave, drawn.
func left(t testing.TB, l *Log) []string {
	t.Helper()
	l.Stop()
	p := newPlatter(l, nil, maphash.MakeSeed())
	for i := range l.ops {
		p.apply(&l.ops[i])
	}
	slots := p.slots()
	n := combinations(slots, 1<<16)
	sums, texts, here := map[uint64]string{}, map[string]uint64{}, newPosition(p, slots)
	var out []string
	for i := range n {
		dec := p.decide(slots, nth(slots, i))
		d, sum := dec.disk(), here.sum(dec)
		text := draw(t, d, "/")
		if old, ok := sums[sum]; ok && old != text {
			t.Fatalf("two disks have one hash:\n%s\n%s", old, text)
		}
		if old, ok := texts[text]; ok && old != sum {
			t.Fatalf("a disk has two hashes:\n%s", text)
		}
		sums[sum], texts[text] = text, sum
		out = append(out, text)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestWhatACrashLeaves has every kind of state: exactly these.
func TestWhatACrashLeaves(t *testing.T) {
	for _, c := range []struct {
		name, before, then string
		want               []string
	}{
		{
			"what was synced stays",
			"", "create a\nwrite a 0 x 700\nsync a\nsync /",
			[]string{"/a x700\n"},
		}, {
			"octets that were not synced are kept or lost by sectors",
			"create a\nwrite a 0 x 512\n", "write a 512 y 1024",
			[]string{"/a x512\n", "/a x512y512\n", "/a x512y1024\n", "/a x5120512y512\n"},
		}, {
			"a sector is torn off where its synced part ends",
			"create a\nwrite a 0 x 500\n", "write a 500 y 24",
			[]string{"/a x500\n", "/a x500y12\n", "/a x500y24\n", "/a x500012y12\n"},
		}, {
			"what is overwritten is the old or the new",
			"create a\nwrite a 0 x 1024\n", "write a 256 y 512",
			[]string{"/a x1024\n", "/a x256y256x512\n", "/a x512y256x256\n", "/a x256y512x256\n"},
		}, {
			"a sector that is written twice is any of three",
			"create a\nwrite a 0 x 100\n", "write a 0 y 100\nsync /\nwrite a 50 z 50",
			[]string{"/a x100\n", "/a y100\n", "/a y50z50\n"},
		}, {
			"a file without its directory's sync is there or not",
			"", "create a\nwrite a 0 x 10\nsync a",
			[]string{"", "/a x10\n"},
		}, {
			"a name without its file's sync has what it has",
			"", "create a\nwrite a 0 x 10\nsync /",
			[]string{"/a \n", "/a x10\n"},
		}, {
			"names come in any order",
			"", "create a\ncreate b",
			[]string{"", "/a \n", "/b \n", "/a \n/b \n"},
		}, {
			"an unlink that was not synced may have come to the disk",
			"create a\nwrite a 0 x 9\ncreate b\n", "remove a\nremove b",
			[]string{"", "/a x9\n", "/a x9\n/b \n", "/b \n"},
		}, {
			"a rename is done or not",
			"create a\nwrite a 0 x 9\ncreate b\n", "rename a b",
			[]string{"/a x9\n/b \n", "/b x9\n"},
		}, {
			"a rename elsewhere never loses the file",
			"mkdir d\nmkdir e\ncreate d/a\n", "rename d/a e/b",
			[]string{"/d/\n/d/a \n/e/\n", "/d/\n/d/a \n/e/\n/e/b \n", "/d/\n/e/\n/e/b \n"},
		}, {
			"a sync of where it went keeps it there",
			"mkdir d\nmkdir e\ncreate d/a\n", "rename d/a e/b\nsync e",
			[]string{"/d/\n/d/a \n/e/\n/e/b \n", "/d/\n/e/\n/e/b \n"},
		}, {
			"a second name may be lost alone",
			"create a\nwrite a 0 x 9\n", "link a b\nremove a",
			[]string{"", "/a x9\n", "/a x9\n/b x9\n", "/b x9\n"},
		}, {
			"a directory without its parent's sync takes all with it",
			"", "mkdir d\ncreate d/a\nsync d/a\nsync d",
			[]string{"", "/d/\n/d/a \n"},
		}, {
			"a file made anew under a name is the old, none or the new",
			"create a\nwrite a 0 x 9\n", "create a\nwrite a 0 y 9\nsync a",
			[]string{"", "/a x9\n", "/a y9\n"},
		}, {
			"a sync after a failed one brings nothing to the disk",
			"create a\n", "write a 0 x 9\nsync a fails\nsync a",
			[]string{"/a \n", "/a x9\n"},
		}, {
			"but what is written again after it",
			"create a\n", "write a 0 x 600\nsync a fails\nwrite a 600 y 9\nsync a",
			[]string{"/a 0512x88y9\n", "/a x600y9\n"},
		}, {
			"a sync of a directory after a failed one brings nothing to the disk",
			"", "create a\nsync / fails\nsync /",
			[]string{"", "/a \n"},
		}, {
			"a marker of pebble is never without its manifest, nor the old one gone before",
			"create marker.manifest.1\n", "create MANIFEST-2\ncreate marker.manifest.2\nremove marker.manifest.1",
			[]string{
				"/MANIFEST-2 \n/marker.manifest.1 \n", "/MANIFEST-2 \n/marker.manifest.1 \n/marker.manifest.2 \n",
				"/MANIFEST-2 \n/marker.manifest.2 \n", "/marker.manifest.1 \n",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New()
			if c.before != "" {
				script(t, d, c.before)
			}
			l := d.Record()
			script(t, d, c.then)
			slices.Sort(c.want)
			if got := left(t, l); !slices.Equal(got, c.want) {
				t.Errorf("left is\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

// TestSamplesAreOfTheSameStates: chance finds no state that is none, and meets all
// of a few.
func TestSamplesAreOfTheSameStates(t *testing.T) {
	d := New()
	l := d.Record()
	script(t, d, "create a\nwrite a 0 x 1000\ncreate b\nrename a c\nwrite b 0 y 5")
	all := left(t, l)
	p := newPlatter(l, nil, maphash.MakeSeed())
	for i := range l.ops {
		p.apply(&l.ops[i])
	}
	slots, rng, seen := p.slots(), rand.New(rand.NewPCG(1, 2)), map[string]bool{}
	for range 2000 {
		s := p.decide(slots, sample(slots, rng)).disk()
		seen[draw(t, s, "/")] = true
	}
	for s := range seen {
		if !slices.Contains(all, s) {
			t.Errorf("a sample left %q", s)
		}
	}
	if len(seen) != len(all) {
		t.Errorf("samples met %d of %d states", len(seen), len(all))
	}
}

// TestCrashesAreApart: what is done to one disk changes no other of the same log.
func TestCrashesAreApart(t *testing.T) {
	d := New()
	l := d.Record()
	script(t, d, "create a\nwrite a 0 x 1000\nsync a\nsync /\nwrite a 1000 y 1000")
	p := newPlatter(l, nil, maphash.MakeSeed())
	for i := range l.ops {
		p.apply(&l.ops[i])
	}
	p.seed = maphash.MakeSeed()
	slots := p.slots()
	var disks []*Disk
	for i := range combinations(slots, 100) {
		one := p.decide(slots, nth(slots, i)).disk()
		disks = append(disks, one)
	}
	before := draw(t, disks[1], "/")
	for i, one := range disks {
		if i != 1 {
			script(t, one, "write a 10 z 5\nwrite a 990 z 3000\ncreate b")
		}
	}
	script(t, d, "write a 0 z 4000")
	if after := draw(t, disks[1], "/"); after != before {
		t.Errorf("was %q and is %q", before, after)
	}
	c := disks[0].Clone()
	script(t, c, "write a 0 q 1")
	if read(t, disks[0], "a")[0] == 'q' {
		t.Error("a clone's write is seen in what it was cloned from")
	}
}

// TestFaults: the n-th I/O, how, and how often.
func TestFaults(t *testing.T) {
	d := New()
	f, err := d.Create("a", "")
	if err != nil {
		t.Fatal(err)
	}
	d.Fail(1, Fault{Err: syscall.ENOSPC, Short: true})
	if n, err := f.Write([]byte("0123")); n != 4 || err != nil {
		t.Fatalf("the one before: %d %v", n, err)
	}
	if n, err := f.Write([]byte("4567")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a short write: %d %v", n, err)
	}
	if n, err := f.Write([]byte("67")); n != 2 || err != nil {
		t.Errorf("the one after: %d %v", n, err)
	}
	if got := read(t, d, "a"); string(got) != "01234567" {
		t.Errorf("the file is %q", got)
	}
	if !d.Heal() || d.Heal() {
		t.Error("Heal does not tell of the one fault")
	}
	d.Fail(0, Fault{Err: syscall.EIO, Persistent: true})
	for _, err := range []error{f.Sync(), d.Remove("a"), d.MkdirAll("b", 0o700), d.Rename("a", "c"), d.Link("a", "c")} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("on a disk that is gone: %v", err)
		}
	}
	d.Fail(0, Fault{Err: syscall.EIO, Only: func(op Op) bool { return op.Kind == Read }})
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("a read that fails: %v", err)
	}
	d.Heal()
	if names, err := d.List("/"); err != nil || len(names) != 1 {
		t.Errorf("after the faults: %q %v", names, err)
	}
	if err := d.Damage("a", 3); err != nil || read(t, d, "a")[3] != '2' {
		t.Errorf("a bad sector: %v, %q", err, read(t, d, "a"))
	}
	if err := d.Damage("a", 8); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a bad sector behind the end: %v", err)
	}
}

// TestLikeAnyOther does the same to a Disk and to pebble's own file system in
// memory.
func TestLikeAnyOther(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	d, m := New(), vfs.NewMem()
	names := []string{"a", "b", "d/a", "d/b", "d/e/a"}
	both := func(f func(fs vfs.FS) error) {
		t.Helper()
		a, b := f(d), f(m)
		if (a == nil) != (b == nil) || errors.Is(a, os.ErrNotExist) != errors.Is(b, os.ErrNotExist) {
			t.Fatalf("%v, want %v", a, b)
		}
	}
	both(func(fs vfs.FS) error { return fs.MkdirAll("d/e", 0o700) })
	for range 3000 {
		one, two := names[rng.IntN(len(names))], names[rng.IntN(len(names))]
		text, kind := strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(1000)), rng.IntN(6)
		both(func(fs vfs.FS) error {
			var f vfs.File
			var err error
			switch kind {
			case 0:
				f, err = fs.Create(one, "")
			case 1:
				f, err = fs.OpenReadWrite(one, "")
			case 2:
				if one == two {
					return nil
				}
				return fs.Rename(one, two)
			case 3:
				return fs.Remove(one)
			case 4:
				// A rename of a file to another name of it is left out: by POSIX it
				// does nothing, by the other it removes one.
				if err := fs.Link(one, "d/link"); err != nil {
					return err
				}
				return fs.Remove("d/link")
			case 5:
				if one == two {
					return nil
				}
				f, err = fs.ReuseForWrite(one, two, "")
			}
			if err != nil {
				return err
			}
			_, err = f.Write([]byte(text))
			return errors.Join(err, f.Sync(), f.Close())
		})
		if a, b := draw(t, d, "/"), draw(t, m, "/"); a != b {
			t.Fatalf("is\n%s\nwant\n%s", a, b)
		}
	}
	if l, err := d.Lock("LOCK"); err != nil {
		t.Error(err)
	} else if _, err := d.Lock("LOCK"); err == nil {
		t.Error("locked twice")
	} else if err := l.Close(); err != nil {
		t.Error(err)
	}
}
