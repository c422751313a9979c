package queue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// List is part of Queue. Oldest first is by id, that is by the time of Put. What the
// filter says of where recipients go chooses the messages that are read at all.
func (e *Engine) List(ctx context.Context, f Filter, each func(*Envelope) bool) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	var after id
	if f.After != "" {
		i, err := parseID(f.After)
		if err != nil {
			return err
		}
		after = i + 1
	}
	n := 0
	visit := func(s *stored) bool {
		if ctx.Err() != nil {
			return false
		}
		if s.err != nil || !f.match(s.env) {
			return true
		}
		n++
		return each(s.env) && (f.Limit <= 0 || n < f.Limit)
	}
	at := e.db.NewSnapshot() // for all of the iterators
	defer at.Close()
	if len(f.IDs) > 0 {
		return cmp.Or(listIDs(at, &f, after, visit), ctx.Err())
	}
	ws, few, err := e.ways(at, &f)
	if err != nil {
		return err
	}
	if few {
		return cmp.Or(listWays(at, ws, after, f.Limit, visit), ctx.Err())
	}
	return cmp.Or(scan(at, after, visit), ctx.Err())
}

func listIDs(db pebble.Reader, f *Filter, after id, visit func(*stored) bool) error {
	it, err := messageIter(db, after)
	if err != nil {
		return err
	}
	defer it.Close()
	ids := slices.Clone(f.IDs)
	slices.Sort(ids)
	for _, text := range slices.Compact(ids) {
		i, err := parseID(text)
		if err != nil || i < after {
			continue
		}
		s, err := readMessage(it, i)
		if err != nil {
			return err
		}
		if s != nil && !visit(s) {
			break
		}
	}
	return nil
}

// maxListed are the ways that a list follows at most; beyond that it reads all
// messages.
const maxListed = 4096

// ways are where all that f selects goes; few is false when it is no slower to read
// all messages.
func (e *Engine) ways(db pebble.Reader, f *Filter) (ws []way, few bool, err error) {
	domain, deliver, either := f.where()
	if domain == nil && deliver == "" && either == "" {
		return nil, false, nil
	}
	prefix := []byte{keyDestination}
	if domain != nil {
		prefix = append(append(prefix, *domain...), 0)
	}
	upper := slices.Clone(prefix)
	upper[len(upper)-1]++
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
	if err != nil {
		return nil, false, err
	}
	defer it.Close()
	seen := 0
	for valid := it.First(); valid; {
		w, _, ok := parseWay(it.Key())
		if !ok {
			valid = it.Next()
			continue
		}
		if seen++; seen > maxListed {
			return nil, false, it.Error()
		}
		if (deliver == "" || w.deliver == deliver) && (either == "" || w.deliver == wayText(either) || w.domain == foldDomain(either)) {
			ws = append(ws, w)
		}
		next := w.appendPrefix(nil)
		next[len(next)-1]++ // behind all of that way
		valid = it.SeekGE(next)
	}
	return ws, domain != nil || !e.most(ws), it.Error()
}

// most tells whether a quarter of the queue or more goes these ways: then the index
// is a detour. Nobody knows before the stock is taken.
func (e *Engine) most(ws []way) bool {
	select {
	case <-e.stock.taken:
	default:
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := int64(0)
	for _, w := range ws {
		if s := e.stock.ways[w]; s != nil {
			n += s.messages
		}
	}
	return e.stock.ways == nil || n > e.counts.messages/4
}

// where is what a filter says of where recipients go: a domain, a deliver block, or a
// name that may be one of both.
func (f *Filter) where() (domain *string, deliver, either string) {
	of := func(name string) {
		name = foldDomain(name)
		domain = &name // what else there is of them, the messages tell
	}
	if n := len(f.Recipient); n > 2 && f.Recipient[0] == '<' && f.Recipient[n-1] == '>' {
		of(domainOf(f.Recipient[1 : n-1]))
	}
	if f.Domain != "" {
		of(f.Domain)
	}
	deliver = wayText(f.Deliver)
	if block, hop, both := bytes.Cut([]byte(f.Destination), []byte(" ")); both {
		of(string(hop))
		deliver = wayText(string(block))
	} else {
		either = f.Destination
	}
	return domain, deliver, either
}

// listedAtOnce bounds how many ids a list has in its memory.
const listedAtOnce = 1 << 16

// listWays visits the messages that go these ways, oldest first.
func listWays(db pebble.Reader, ws []way, from id, limit int, visit func(*stored) bool) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyDestination}, UpperBound: []byte{keyDestination + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	ms := &manyReader{db: db}
	defer ms.close()
	// So many of each way at a time, and of these all up to where each is known.
	most := max(16, listedAtOnce/max(len(ws), 1))
	if limit > 0 {
		most = min(most, max(64, limit))
	}
	var ids []id
	var prefix []byte
	for upto := id(0); upto < math.MaxInt64; from = upto + 1 {
		ids, upto = ids[:0], math.MaxInt64
		for _, w := range ws {
			prefix = w.appendPrefix(prefix[:0])
			n := 0
			for valid := it.SeekGE(binary.BigEndian.AppendUint64(prefix, uint64(from))); valid && bytes.HasPrefix(it.Key(), prefix); valid = it.Next() {
				i := id(binary.BigEndian.Uint64(it.Key()[len(prefix):]))
				if ids = append(ids, i); n+1 == most {
					upto = min(upto, i)
					break
				}
				n++
			}
		}
		if err := it.Error(); err != nil {
			return err
		}
		slices.Sort(ids)
		ids = slices.Compact(ids)
		if n, _ := slices.BinarySearch(ids, upto); n < len(ids) {
			ids = ids[:n+1] // of another way there may be more before what follows
		}
		if more, err := ms.each(ids, visit); err != nil || !more {
			return err
		}
	}
	return nil
}

// manyReader reads messages that are far from each other: some at a time, so that a disk
// has more than one to look for. What it has read in vain is bounded.
type manyReader struct {
	db    pebble.Reader
	iters []*pebble.Iterator
}

const (
	readersMost = 8
	// readFirst messages are read before the first is visited, readMost later on.
	readFirst, readMost = 2 * readersMost, 256
)

func (m *manyReader) close() {
	for _, it := range m.iters {
		_ = it.Close()
	}
}

// each visits the messages that are there, in that order, until visit returns false.
func (m *manyReader) each(ids []id, visit func(*stored) bool) (more bool, err error) {
	for n := readFirst; len(ids) > 0; n = min(4*n, readMost) {
		n = min(n, len(ids))
		found, err := m.read(ids[:n])
		if err != nil {
			return false, err
		}
		for _, s := range found {
			if s != nil && !visit(s) {
				return false, nil
			}
		}
		ids = ids[n:]
	}
	return true, nil
}

func (m *manyReader) read(ids []id) ([]*stored, error) {
	readers := min(readersMost, len(ids))
	for len(m.iters) < readers {
		it, err := messageIter(m.db, 0)
		if err != nil {
			return nil, err
		}
		m.iters = append(m.iters, it)
	}
	found, errs := make([]*stored, len(ids)), make([]error, readers)
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			for n := r * len(ids) / readers; n < (r+1)*len(ids)/readers && errs[r] == nil; n++ {
				found[n], errs[r] = readMessage(m.iters[r], ids[n])
			}
		})
	}
	wg.Wait()
	return found, errors.Join(errs...)
}
