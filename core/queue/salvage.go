package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// damagedMark is a file that says: the next start builds the database anew from
// what of it can be read.
//
// Rejected: going on around a damaged block. Compactions meet it for ever, and
// after some more flushes the database takes no writes at all.
const damagedMark = "damaged"

// damaged stops the queue because of a block that is not what was written.
func (e *Engine) damaged(i pebble.DataCorruptionInfo) {
	if e.stop.err() != nil {
		return // said already
	}
	err := fmt.Errorf("%s is damaged, the next start keeps what is whole: %w", i.Path, i.Details)
	merr := e.markDamaged(err.Error() + "\n")
	e.stop.stop(errors.Join(err, merr))
}

// markDamaged has the next start build the database anew.
func (e *Engine) markDamaged(why string) error {
	f, err := e.fs.Create(e.fs.PathJoin(e.o.Dir, damagedMark), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(why))
	return errors.Join(err, f.Sync(), f.Close(), e.syncDir(e.o.Dir))
}

// salvage builds the database anew, if the last run left the mark. A crash at any
// moment leaves it to the next start.
func (e *Engine) salvage() error {
	fs, dir := e.fs, e.o.Dir
	mark, db := fs.PathJoin(dir, damagedMark), fs.PathJoin(dir, "db")
	fresh, aside := fs.PathJoin(dir, "db.new"), fs.PathJoin(dir, "db.damaged")
	if err := e.mendLogs(); err != nil {
		return err
	}
	if _, err := fs.Stat(mark); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := fs.Stat(db); err == nil {
		if err := fs.RemoveAll(fresh); err != nil {
			return err
		}
		if err := e.rebuild(db, fresh); err != nil {
			return fmt.Errorf("build a new database from the damaged one: %w", err)
		}
		if err := fs.RemoveAll(aside); err != nil {
			return err
		}
		if err := errors.Join(fs.Rename(db, aside), e.syncDir(dir)); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := errors.Join(fs.Rename(fresh, db), e.syncDir(dir)); err != nil {
		return err
	}
	return errors.Join(fs.Remove(mark), e.syncDir(dir))
}

// rebuild copies what can be read. The indexes and the counts are made anew from the messages: a message without its place in them would wait for
// ever.
func (e *Engine) rebuild(from, to string) error {
	// Read only: nothing is compacted. Who reads a damaged block gets the error.
	old, err := pebble.Open(from, e.tuned(&pebble.Options{
		FS: e.dbFS(), ReadOnly: true, Logger: dbLog{e.log, e.stop},
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	}))
	if err != nil {
		return err
	}
	defer old.Close()
	fresh, err := pebble.Open(to, e.tuned(&pebble.Options{
		FS: e.dbFS(), FormatMajorVersion: pebble.FormatNewest, Logger: dbLog{e.log, e.stop},
	}))
	if err != nil {
		return err
	}
	kept, gaps, err := copyReadable(old, fresh)
	if err == nil {
		err = e.reindex(fresh)
	}
	if err == nil {
		err = e.rescueLost(fresh)
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	e.log.Error().Int("records", kept).Int("gaps", gaps).
		Msg("queue: the database was damaged and is built anew from what could be read; the old one is kept as db.damaged")
	return e.syncDir(to)
}

func copyReadable(from, to *pebble.DB) (kept, gaps int, err error) {
	it, err := from.NewIter(nil)
	if err != nil {
		return 0, 0, err
	}
	defer it.Close()
	b := to.NewBatch()
	var last []byte
	for valid := it.First(); ; valid = it.Next() {
		if !valid && it.Error() != nil {
			if !pebble.IsCorruptionError(it.Error()) {
				return 0, 0, it.Error()
			}
			gaps++
			valid = skip(it, last)
		}
		if !valid {
			break
		}
		last = append(last[:0], it.Key()...)
		value, err := it.ValueAndErr()
		if err != nil {
			if pebble.IsCorruptionError(err) {
				gaps++
				continue
			}
			return 0, 0, err
		}
		if bytes.IndexByte(indexSpaces, last[0]) >= 0 || bytes.Equal(last, metaCounts) {
			continue
		}
		kept++
		if err := b.Set(last, value, nil); err != nil {
			return 0, 0, err
		}
		if b.Len() >= maxGroup {
			if err := b.Commit(pebble.NoSync); err != nil {
				return 0, 0, err
			}
			b = to.NewBatch()
		}
	}
	if err := it.Error(); err != nil {
		return 0, 0, err
	}
	return kept, gaps, b.Commit(pebble.Sync)
}

// probeLen octets of a key are looked at to find the end of a damaged block; all
// keys but those of quarantined records and observers are shorter.
const probeLen = 18

// skip puts the iterator on the first record after last that can be read, past
// whatever is damaged between; false: there is none. Keys are taken as numbers:
// steps that double find one behind the damage, halving finds the least.
func skip(it *pebble.Iterator, last []byte) bool {
	padded := make([]byte, probeLen)
	copy(padded, last)
	from := new(big.Int).SetBytes(padded)
	limit := new(big.Int).Lsh(big.NewInt(1), 8*probeLen)
	readable := func(n *big.Int) bool {
		it.SeekGE(n.FillBytes(padded))
		return it.Error() == nil
	}
	bad, good := new(big.Int).Set(from), new(big.Int)
	for step := big.NewInt(1); ; step.Lsh(step, 1) {
		if good.Add(from, step); good.Cmp(limit) >= 0 {
			good.Sub(limit, big.NewInt(1)) // ff ff …: behind all keys
			break
		}
		if readable(good) {
			break
		}
		bad.Set(good)
	}
	for one := big.NewInt(1); ; {
		middle := new(big.Int).Add(bad, good)
		if middle.Rsh(middle, 1); new(big.Int).Sub(good, bad).Cmp(one) <= 0 {
			break
		}
		if readable(middle) {
			good = middle
		} else {
			bad = middle
		}
	}
	return readable(good) && it.Valid()
}

// lostEpoch is where the count of starts goes on when it was lost: higher than any
// that was reached, or tokens and observations of then would come again.
const lostEpoch = 1 << 20

// reindex writes the indexes and the counts of the messages in db, and sets aside what
// is left of those that lost their first record.
func (e *Engine) reindex(db *pebble.DB) error {
	b := db.NewBatch()
	var sum counts
	r := &Engine{db: db}
	err := r.scan(0, func(s *stored) bool {
		if s.err != nil {
			e.log.Error().Str("id", s.id.String()).Err(s.err).Msg("queue: a message is set aside because its record is corrupt")
			for _, key := range s.keys() {
				if v, err := r.get(key); err == nil {
					_ = b.Set(quarantineKey(key), v, nil)
					_ = b.Delete(key, nil)
				}
			}
			return true
		}
		sum.add(total(s.state.destinations(s.id)))
		for _, key := range s.indexKeys() {
			_ = b.Set(key, nil, nil)
		}
		return true
	})
	if err != nil {
		return err
	}
	if err := b.Set(metaCounts, sum.record(), nil); err != nil {
		return err
	}
	if _, err := r.get(metaEpoch); errors.Is(err, pebble.ErrNotFound) {
		if err := b.Set(metaEpoch, seal(metaEpoch, binary.BigEndian.AppendUint64([]byte{recordVersion}, lostEpoch)), nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}
