package queue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"

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
	ms, err := messageIter(db, from)
	if err != nil {
		return err
	}
	defer ms.Close()
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
		for _, i := range slices.Compact(ids) {
			if i > upto {
				break // of another way there may be more before it
			}
			s, err := readMessage(ms, i)
			if err != nil {
				return err
			}
			if s != nil && !visit(s) {
				return nil
			}
		}
	}
	return nil
}
