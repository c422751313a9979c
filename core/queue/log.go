package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The database reads its log as far as it is whole and takes the rest for what a
// power cut tore. Where the log itself proves that more had been synced, it refuses
// to open, but it looks for the proof in later blocks alone, and in none of a new
// database's first log. So the queue reads its logs itself, before the database
// does: what stands behind a damaged place was acknowledged too.
//
// The format is the database's own, pebble's record package: blocks of 32 KiB,
// chunks in them, a checksum for each, and in the newer ones how much of the log
// had been synced when the chunk was written.

const (
	logBlock   = 32 << 10
	logHeader  = 7  // of the oldest format: checksum, length, kind
	logNumber  = 11 // with the log's number, in a file that is used again
	logSynced  = 19 // with how much was synced
	chunkFull  = 0
	chunkFirst = 1
	chunkLast  = 3
)

// chunk is a piece of a record.
type chunk struct {
	at, end int64
	part    int // chunkFull, chunkFirst, a middle one, chunkLast
	synced  int64
	payload []byte
}

var errChunk = errors.New("this is no chunk")

// chunkSums is the checksum's table.
var chunkSums = crc32.MakeTable(crc32.Castagnoli)

// readChunk reads the chunk at an offset of a block. With an error, next is where
// the next one begins if the header is to be believed; 0: the rest of the block
// tells nothing.
func readChunk(block []byte, at int, base int64, num uint32) (c chunk, next int, err error) {
	b := block[at:]
	kind := int(b[6]) - 1
	if kind < 0 || kind >= 12 {
		return c, 0, errChunk
	}
	size := [...]int{logHeader, logNumber, logSynced}[kind/4]
	end := size + int(binary.LittleEndian.Uint16(b[4:]))
	if end > len(b) {
		return c, 0, errChunk
	}
	if size > logHeader {
		switch got := binary.LittleEndian.Uint32(b[7:]); got {
		case num:
		case num + 1:
			if binary.LittleEndian.Uint32(b) == 0 && end == size {
				return c, 0, io.EOF // the mark of an orderly end
			}
		default:
			return c, 0, errChunk // of what the file was used for before
		}
	}
	if binary.LittleEndian.Uint32(b) != bits.RotateLeft32(crc32.Checksum(b[6:end], chunkSums), 17)+0xa282ead8 {
		return c, at + end, errChunk
	}
	c = chunk{at: base + int64(at), end: base + int64(at+end), part: kind % 4, payload: b[size:end]}
	if size == logSynced {
		c.synced = int64(binary.LittleEndian.Uint64(b[11:]))
	}
	return c, at + end, nil
}

// eachChunk calls chunk for every whole one of a log and gap for where one should
// stand.
func eachChunk(r io.Reader, num uint32, whole func(c chunk), gap func(at int64)) error {
	block := make([]byte, logBlock)
	for base := int64(0); ; base += logBlock {
		n, err := io.ReadFull(r, block)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		for at := 0; at+logHeader <= n; {
			rest := block[at:n]
			if len(rest) < logSynced && len(strings.Trim(string(rest), "\x00")) == 0 {
				break // no chunk fits here
			}
			c, next, err := readChunk(block[:n], at, base, num)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				gap(base + int64(at))
			} else {
				whole(c)
			}
			if next == 0 {
				break
			}
			at = next
		}
	}
}

// logState is what a look at a log has found.
type logState struct {
	gaps  []int64 // places that were synced and are not whole
	limit int64   // from here on it is what a power cut tore
}

// damage says where the gaps are.
func (s logState) damage() string {
	text := fmt.Sprintf("damaged at octet %d", s.gaps[0])
	if n := len(s.gaps) - 1; n > 0 {
		text += fmt.Sprintf(" and in %d places behind it", n)
	}
	return text
}

func inspectLog(r io.Reader, num uint32) (s logState, err error) {
	var synced int64
	var gaps []int64
	err = eachChunk(r, num, func(c chunk) { synced = max(synced, c.synced) }, func(at int64) { gaps = append(gaps, at) })
	s.limit = math.MaxInt64
	for _, at := range gaps {
		if at >= synced {
			s.limit = at
			break
		}
		s.gaps = append(s.gaps, at)
	}
	return s, err
}

// copyRecords writes the whole records of a log anew.
func (s logState) copyRecords(w *record.Writer, r io.Reader, num uint32) (kept int, err error) {
	var rec []byte
	begun := false
	rerr := eachChunk(r, num, func(c chunk) {
		if err != nil || c.at >= s.limit {
			return
		}
		if c.part == chunkFull || c.part == chunkFirst {
			rec, begun = rec[:0], true
		}
		rec = append(rec, c.payload...)
		if !begun || c.part != chunkFull && c.part != chunkLast {
			return
		}
		begun = false
		var out io.Writer
		if out, err = w.Next(); err == nil {
			_, err = out.Write(rec)
			kept++
		}
	}, func(int64) { begun = false })
	return kept, errors.Join(rerr, err)
}

// logsDo calls do for every log of the database.
func (e *Engine) logsDo(do func(name string, num uint32) error) error {
	db := e.fs.PathJoin(e.o.Dir, "db")
	names, err := e.fs.List(db)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		num, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 32)
		if !strings.HasSuffix(name, ".log") || err != nil {
			continue
		}
		if err := do(e.fs.PathJoin(db, name), uint32(num)); err != nil {
			return fmt.Errorf("look for damage in %s: %w", name, err)
		}
	}
	return nil
}

// mendLogs looks for damage in the logs of the database. A damaged one is written
// anew from its whole records and kept under another name, and the mark has the
// database built anew, because what was lost was counted. A crash at any moment
// leaves it to the next start.
func (e *Engine) mendLogs() error {
	l, err := pebble.LockDirectory(e.fs.PathJoin(e.o.Dir, "db"), e.fs)
	if err != nil {
		return nil //nolint:nilerr // there is none yet, or it is another's, which who opens it is told
	}
	return errors.Join(e.logsDo(e.mendLog), l.Close())
}

func (e *Engine) mendLog(name string, num uint32) error {
	var s logState
	err := e.readLog(name, func(r io.Reader) (err error) { s, err = inspectLog(r, num); return err })
	if err != nil || len(s.gaps) == 0 {
		return err
	}
	if err := e.markDamaged(path.Base(name) + " is " + s.damage() + "\n"); err != nil {
		return err
	}
	fresh, aside := name+".mended", name+".damaged"
	f, err := e.fs.Create(fresh, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w, kept := record.NewWriter(f), 0
	err = e.readLog(name, func(r io.Reader) (err error) { kept, err = s.copyRecords(w, r, num); return err })
	if err = errors.Join(err, w.Close()); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := e.fs.Remove(aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir := e.fs.PathDir(name)
	if err := errors.Join(e.fs.Link(name, aside), e.syncDir(dir)); err != nil {
		return err
	}
	if err := errors.Join(e.fs.Rename(fresh, name), e.syncDir(dir)); err != nil {
		return err
	}
	e.log.Error().Str("log", path.Base(name)).Ints64("octets", s.gaps).Int("records", kept).
		Msg("queue: the disk damaged the log: mail or results that stood in these places are lost, though they were acknowledged; the mail journal tells what was accepted. What is whole is kept, and so is the damaged log, in db.damaged")
	return nil
}

// logs looks for damage in the logs of a stopped queue's database.
func (c *checker) logs() error {
	var ps []Problem
	err := c.e.logsDo(func(name string, num uint32) error {
		var s logState
		err := c.e.readLog(name, func(r io.Reader) (err error) { s, err = inspectLog(r, num); return err })
		c.see(ofLogs, 1)
		if len(s.gaps) > 0 {
			ps = append(ps, Problem{What: ofLogs, Where: name, Text: s.damage() + ": mail and results that stood there are lost, though they were acknowledged"})
		}
		return err
	})
	if err == nil && c.o.Repair && len(ps) > 0 {
		return c.rebuilt(ps...)
	}
	for _, p := range ps {
		c.problem(p)
	}
	return err
}

func (e *Engine) readLog(name string, read func(io.Reader) error) error {
	f, err := e.fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	return errors.Join(read(f), f.Close())
}
