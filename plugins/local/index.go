package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/plugins/local/trigram"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
)

// index tells a search which messages cannot have a text. It is a file for each
// trigram.Slots messages of an account, by their numbers, made in the background
// once all of those numbers are given out: index/ACCOUNT/BLOCK.tri. A message never
// changes and its number never comes again, so a file is right for as long as it is
// there. Nothing depends on it: where a file is missing or damaged the messages are
// looked into, and it is made anew.
//
// Rejected: an index in the database, whose compactions would move it about with
// the mail; one at delivery, which makes delivery slower for mail that nobody will
// search.
type index struct {
	mu   sync.Mutex
	due  map[*account]bool
	wake chan struct{}

	// The worker's own, made when first needed: they take some MiB.
	set     *trigram.Set
	builder *trigram.Builder
}

const (
	// indexShare: a block takes at most one part in so many of its messages' size.
	indexShare = 4
	// minBlock octets a block may have in any case.
	minBlock = 32 << 10
	// indexPause: while there are calls, the worker rests so many times as long as
	// it works, so that it takes a fifth of a processor at most.
	indexPause = 4
)

// closed is how many blocks are full after the message of that number.
func closed(last uint64) uint64 { return (last + 1) / trigram.Slots }

// indexFrom has the worker look at an account that has more blocks than it was told
// of. One that nobody has looked at since the start has not.
func (s *Store) indexFrom(a *account, rec *accountRecord) {
	if n := closed(rec.message); n > a.blocks.Load() {
		a.blocks.Store(n)
		s.indexDue(a)
	}
}

// indexDue has the worker look at the account.
func (s *Store) indexDue(a *account) {
	if s.opts.NoIndex {
		return
	}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	if s.index.due == nil {
		s.index.due = map[*account]bool{}
	}
	s.index.due[a] = true
	select {
	case s.index.wake <- struct{}{}:
	default:
	}
}

// nextDue is an account to look at; nil: none.
func (s *Store) nextDue() *account {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	for a := range s.index.due {
		delete(s.index.due, a)
		return a
	}
	return nil
}

// indexer is the worker.
func (s *Store) indexer() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.index.wake:
		}
		for a := s.nextDue(); a != nil; a = s.nextDue() {
			if err := s.indexAccount(a); err != nil && !s.stopping() {
				s.opts.Log.Warn().Str("account", a.name).Err(err).Msg("storage local: the search index is not made; searches look into the messages instead")
			}
		}
	}
}

func (s *Store) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// rest lets calls pass.
func (s *Store) rest(worked time.Duration) {
	t := time.NewTimer(min(indexPause*worked, time.Second))
	defer t.Stop()
	select {
	case <-s.stop:
	case <-t.C:
	}
}

func (s *Store) indexDir(account uint64) string {
	return s.path("index", fmt.Sprintf("%016x", account))
}

func (s *Store) indexPath(account, block uint64) string {
	return s.fs.PathJoin(s.indexDir(account), fmt.Sprintf("%014x.tri", block))
}

// indexed lists the blocks that have a file, and removes what is none.
func (s *Store) indexed(account uint64) (map[uint64]bool, error) {
	files, err := s.fs.List(s.indexDir(account))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	have := make(map[uint64]bool, len(files))
	for _, f := range files {
		digits, ok := strings.CutSuffix(f, ".tri")
		n, err := strconv.ParseUint(digits, 16, 64)
		if !ok || err != nil {
			// What a crash left half written.
			if err := s.fs.Remove(s.fs.PathJoin(s.indexDir(account), f)); err != nil {
				return nil, err
			}
			continue
		}
		have[n] = true
	}
	return have, nil
}

// indexAccount makes the blocks that are missing, and removes those whose messages
// are all gone.
func (s *Store) indexAccount(a *account) error {
	have, err := s.indexed(a.num)
	if err != nil {
		return err
	}
	h := &handle{s: s, a: a}
	for block := uint64(0); ; block++ {
		if s.stopping() {
			return nil
		}
		began, calls := time.Now(), s.gate.calls()
		next, err := s.indexNext(h, block, have)
		if err != nil {
			return err
		}
		if next == nil {
			break
		}
		block = next.block
		delete(have, block)
		// The first call of it is our own.
		if next.made && s.gate.calls() > calls+1 {
			s.rest(time.Since(began))
		}
	}
	for block := range have {
		if err := s.fs.Remove(s.indexPath(a.num, block)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// visited is a block that has messages.
type visited struct {
	block uint64
	made  bool
}

// indexNext finds the next closed block, from this one on, that has messages, and
// makes it if it is missing; nil: there is none.
func (s *Store) indexNext(h *handle, from uint64, have map[uint64]bool) (*visited, error) {
	v, err := h.view(context.Background())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	it, err := v.NewIter(&pebble.IterOptions{
		LowerBound: key88(tabRendered, h.a.num, from*trigram.Slots),
		UpperBound: key88(tabRendered, h.a.num, closed(v.rec.message)*trigram.Slots),
	})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	if !it.First() {
		return nil, it.Error()
	}
	block := be.Uint64(it.Key()[9:]) / trigram.Slots
	if have[block] {
		return &visited{block, false}, nil
	}
	var msgs []uint64
	for ; it.Valid(); it.Next() {
		msg := be.Uint64(it.Key()[9:])
		if msg/trigram.Slots != block {
			break
		}
		msgs = append(msgs, msg)
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	return &visited{block, true}, s.makeBlock(h, v, block, msgs)
}

// makeBlock makes the file of a block. It needs no sync: what a power cut spoils is
// noticed by its checksums.
func (s *Store) makeBlock(h *handle, v *view, block uint64, msgs []uint64) error {
	if s.index.set == nil {
		s.index.set, s.index.builder = &trigram.Set{}, &trigram.Builder{}
	}
	m := h.messages(v)
	defer m.close()
	s.index.builder.Reset()
	var size int64
	for _, msg := range msgs {
		s.index.set.Reset()
		c := &candidate{m: m, col: &columns{message: msg}}
		if err := mime.Texts(c, s.index.set.Piece); err != nil {
			// Nothing is known of it: it is looked into.
			s.index.builder.Open(int(msg % trigram.Slots))
			continue
		}
		size += c.r.size
		s.index.builder.Add(int(msg%trigram.Slots), s.index.set)
	}
	data := s.index.builder.Encode(h.a.num, block, max(minBlock, size/indexShare))
	if err := s.room(int64(len(data))); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(s.indexDir(h.a.num), 0o700); err != nil {
		return err
	}
	path := s.indexPath(h.a.num, block)
	if err := s.writeIndex(path+".new", data); err != nil {
		return err
	}
	if err := s.fs.Rename(path+".new", path); err != nil {
		return err
	}
	s.meters.indexed.Add(int64(len(msgs)))
	return nil
}

func (s *Store) writeIndex(path string, data []byte) error {
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		_ = s.fs.Remove(path)
		return err
	}
	return nil
}

// excluder is the index in one search.
type excluder struct {
	s       *Store
	a       *account
	masks   map[wanted]trigram.Mask
	unknown map[uint64]bool // blocks without a file
	texts   map[string]bool
}

// wanted is a text in a block.
type wanted struct {
	block uint64
	text  string
}

// maxTexts of one search are looked up; messages are looked into for the others.
const maxTexts = 64

func (s *Store) excluder(a *account) *excluder {
	return &excluder{s: s, a: a, masks: map[wanted]trigram.Mask{}, unknown: map[uint64]bool{}, texts: map[string]bool{}}
}

// excludes tells that the message has the text for sure in none of its texts.
func (x *excluder) excludes(msg uint64, text string) bool {
	block := msg / trigram.Slots
	if len(text) < 3 || x.s.opts.NoIndex || x.unknown[block] || !x.texts[text] && len(x.texts) == maxTexts {
		return false
	}
	x.texts[text] = true
	mask, ok := x.masks[wanted{block, text}]
	if !ok {
		var err error
		if mask, err = x.find(block, text); err != nil {
			x.unknown[block] = true
			if !errors.Is(err, os.ErrNotExist) {
				x.s.opts.Log.Warn().Err(err).Str("account", x.a.name).Uint64("block", block).Msg("storage local: a part of the search index cannot be read; it is made anew")
				_ = x.s.fs.Remove(x.s.indexPath(x.a.num, block))
				x.s.indexDue(x.a)
			}
			return false
		}
		x.masks[wanted{block, text}] = mask
	}
	return !mask.Has(int(msg % trigram.Slots))
}

func (x *excluder) find(block uint64, text string) (trigram.Mask, error) {
	f, err := x.s.fs.Open(x.s.indexPath(x.a.num, block))
	if err != nil {
		return trigram.All, err
	}
	defer f.Close()
	b, err := trigram.Load(f, x.a.num, block)
	if err != nil {
		return trigram.All, err
	}
	return b.Find(text)
}
