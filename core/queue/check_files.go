package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// bodyFiles looks for files in body/ that no message has.
func (c *checker) bodyFiles() error {
	c.see(ofFiles, 0)
	for d := range idDigits {
		dir := c.o.FS.PathJoin(c.o.Dir, "body", idDigits[d:d+1])
		names, err := c.o.FS.List(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // the next start makes it
		}
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			c.see(ofFiles, 1)
			path := c.o.FS.PathJoin(dir, name)
			text, lost, err := c.stray(path, name)
			if err != nil {
				return err
			}
			if text == "" {
				continue
			}
			if lost {
				i, _ := readID(name)
				if err := c.ownerless(Problem{What: ofFiles, Where: path, Text: text}, lostBody{id: i, path: path}); err != nil {
					return err
				}
				continue
			}
			if err := c.fileAside(Problem{What: ofFiles, Where: path, Text: text}, dir, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// stray says why a file belongs to no message; "": it does, or that is not known. lost:
// it is the body of one that is not there.
func (c *checker) stray(path, name string) (text string, lost bool, err error) {
	i, ok := readID(name)
	if !ok {
		return "a file that is no message's body", false, nil
	}
	rec, err := c.e.get(messageKey(i))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if c.e.quarantined(i) {
			return "", false, nil
		}
		return "the body of a message that is not there: it ended, or was never promised, when the server did, or its record is lost", true, nil
	case err != nil:
		return "", false, c.corruption(err, ofFiles)
	}
	if _, file, err := decodeEnvelope(messageKey(i), rec); err != nil {
		return "", false, nil // told with the messages
	} else if !file.large || path != c.e.bodyPath(i) {
		return "a second body of a message that has its own elsewhere", false, nil
	}
	return "", false, nil
}

// ownerless tells of a body whose message is not there; rescueAside sets it aside. What
// is no whole body stays as a record.
func (c *checker) ownerless(p Problem, l lostBody) error {
	if l.key != nil {
		rec, err := c.e.get(l.key)
		if err != nil {
			return c.corruption(err, p.What)
		}
		if _, err := unseal(l.key, rec); err != nil {
			p.Text += "; it is corrupt"
			return c.repair(p, "set aside", func(b *pebble.Batch) error { return c.moveAside(b, l.key) })
		}
	}
	if c.lost = append(c.lost, l); c.o.Repair {
		p.Repair = "set aside as " + c.o.FS.PathJoin(c.o.Dir, asideDir, l.id.String()+".eml")
	}
	c.problem(p)
	return nil
}

// asideDir has what was moved out of the way, for somebody to look at and remove.
const asideDir = "aside"

// fileAside moves a file there. It is gone from its place only when it is safe there.
func (c *checker) fileAside(p Problem, dir, name string) error {
	if !c.o.Repair {
		c.problem(p)
		return nil
	}
	to, err := c.makeAside()
	if err != nil {
		return err
	}
	from := c.o.FS.PathJoin(dir, name)
	if err := errors.Join(c.e.fs.Rename(from, c.o.FS.PathJoin(to, name)), c.e.syncDir(to)); err != nil {
		return err
	}
	// A rename onto another name of the same file, which a cut one may leave, does
	// nothing.
	if err := c.e.fs.Remove(from); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := c.e.syncDir(dir); err != nil {
		return err
	}
	p.Repair = "moved to " + c.o.FS.PathJoin(to, name)
	c.problem(p)
	return nil
}

func (c *checker) makeAside() (string, error) {
	dir := c.o.FS.PathJoin(c.o.Dir, asideDir)
	if err := c.e.fs.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, c.e.syncDir(c.o.Dir)
}

// fixedSuffix is of a file of the mail journal that is being written anew.
const fixedSuffix = ".fixed"

// history looks at the files of the mail journal. An end that is torn is what any
// kill leaves, and no problem.
func (c *checker) history() error {
	dir := c.o.FS.PathJoin(c.o.Dir, "history")
	names, err := c.o.FS.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // there is no journal
	}
	if err != nil {
		return err
	}
	c.see(ofHistory, 0)
	slices.Sort(names)
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		path := c.o.FS.PathJoin(dir, name)
		switch {
		case strings.HasSuffix(name, fixedSuffix):
			if c.o.Repair { // of a repair that was cut off
				if err := c.e.fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
		case strings.HasSuffix(name, logSuffix):
			if err := c.chapter(strings.TrimSuffix(path, logSuffix)); err != nil {
				return err
			}
		case strings.HasSuffix(name, namesSuffix):
			if log := strings.TrimSuffix(name, namesSuffix) + logSuffix; !slices.Contains(names, log) {
				p := Problem{What: ofHistory, Where: path, Text: "its " + log + " is not there"}
				if err := c.fileAside(p, dir, name); err != nil {
					return err
				}
			}
		default:
			if err := c.fileAside(Problem{What: ofHistory, Where: path, Text: "a file that is not of the mail journal"}, dir, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// span is where a record of a log is, with its head.
type span struct{ from, to int64 }

// chapter compares a pair of files with their checksums and with each other.
func (c *checker) chapter(path string) error {
	log, err := c.o.FS.Open(path + logSuffix)
	if err != nil {
		return err
	}
	defer log.Close()
	var whole []span
	var problems []Problem
	for at := int64(0); ; {
		_, next, err := historyAt(log, at, true)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		c.see(ofHistory, 1)
		if err == nil {
			whole = append(whole, span{at, next})
			at = next
			continue
		}
		p := Problem{What: ofHistory, Where: path + logSuffix, Text: fmt.Sprintf("the record at %d is corrupt", at)}
		_, next, err = historyAt(log, at, false)
		problems = append(problems, p)
		if err != nil || next <= at+8 {
			break // nobody knows where the next one begins
		}
		at = next
	}
	text, err := c.namesFault(path+namesSuffix, whole)
	if err != nil {
		return err
	}
	damaged := len(problems) > 0
	if text != "" && !damaged {
		problems = append(problems, Problem{What: ofHistory, Where: path + namesSuffix, Text: text})
	}
	if len(problems) == 0 {
		return nil
	}
	if c.o.Repair {
		if err := c.rewriteChapter(path, log, whole, damaged); err != nil {
			return err
		}
	}
	for _, p := range problems {
		if c.o.Repair {
			p.Repair = "written anew from the log"
			if damaged {
				p.Repair = "the pair is written anew without it; the log as it was is in " + c.o.FS.PathJoin(c.o.Dir, asideDir)
			}
		}
		c.problem(p)
	}
	return nil
}

// namesFault compares the file of names with where the records of the log are.
func (c *checker) namesFault(path string, whole []span) (string, error) {
	f, err := c.o.FS.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "it is not there: nothing of its hour is found", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	for n, at := 0, int64(0); n < len(whole) && at+namesHead <= st.Size(); n++ {
		head := make([]byte, namesHead)
		if _, err := f.ReadAt(head, at); err != nil {
			return "", err
		}
		size := 4 * int64(binary.LittleEndian.Uint32(head[4:]))
		if at+namesHead+size > st.Size() {
			if size > historyMost {
				return fmt.Sprintf("what it has at %d is corrupt", at), nil
			}
			return "", nil // torn
		}
		hashes := make([]byte, size)
		if _, err := f.ReadAt(hashes, at+namesHead); err != nil {
			return "", err
		}
		sum := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, hashes)
		if sum != binary.LittleEndian.Uint32(head) || int64(binary.LittleEndian.Uint64(head[8:])) != whole[n].from {
			return fmt.Sprintf("what it has at %d is corrupt", at), nil
		}
		at += namesHead + size
	}
	return "", nil
}

// rewriteChapter writes a pair with the records that are whole. The log as it was
// stays in the folder for what was set aside. Without names the pair is not read, so
// those go first and come last.
func (c *checker) rewriteChapter(path string, log vfs.File, whole []span, damaged bool) error {
	to, err := c.makeAside()
	if err != nil {
		return err
	}
	fs, dir := c.e.fs, c.o.FS.PathDir(path)
	var octets bytes.Buffer
	var names writer
	for _, s := range whole {
		rec := make([]byte, s.to-s.from)
		if _, err := log.ReadAt(rec, s.from); err != nil {
			return err
		}
		entries, err := decodeHistory(rec[8:])
		if err != nil {
			return err
		}
		appendNames(&names, entries, int64(octets.Len()))
		octets.Write(rec)
	}
	for suffix, b := range map[string][]byte{logSuffix: octets.Bytes(), namesSuffix: names.b} {
		f, err := fs.Create(path+suffix+fixedSuffix, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	if damaged {
		if err := c.linkAside(path+logSuffix, to); err != nil {
			return err
		}
	}
	if err := fs.Remove(path + namesSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(c.e.syncDir(dir), fs.Rename(path+logSuffix+fixedSuffix, path+logSuffix), c.e.syncDir(dir),
		fs.Rename(path+namesSuffix+fixedSuffix, path+namesSuffix), c.e.syncDir(dir))
}

// linkAside gives a file a second name, one that is free, in the folder for what was
// set aside.
func (c *checker) linkAside(path, to string) error {
	for n := 1; ; n++ {
		name := c.o.FS.PathBase(path)
		if n > 1 {
			name = fmt.Sprintf("%s.%d", name, n)
		}
		name = c.o.FS.PathJoin(to, name)
		if _, err := c.o.FS.Stat(name); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return errors.Join(c.e.fs.Link(path, name), c.e.syncDir(to))
	}
}
