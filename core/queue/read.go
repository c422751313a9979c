package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// stored is a message as the database has it.
type stored struct {
	id    id
	env   *Envelope
	state *state
	err   error // the message record is corrupt
	bad   []uint32
}

// messageIter reads messages, and what belongs to them, in the order of ids.
func (e *Engine) messageIter(from id) (*pebble.Iterator, error) { return messageIter(e.db, from) }

func messageIter(db pebble.Reader, from id) (*pebble.Iterator, error) {
	return db.NewIter(&pebble.IterOptions{LowerBound: messageKey(from), UpperBound: []byte{keyMessage + 1}})
}

// readMessage reads i; nil if there is none.
func readMessage(it *pebble.Iterator, i id) (*stored, error) {
	key := messageKey(i)
	if !it.SeekGE(key) || !bytes.HasPrefix(it.Key(), key) {
		return nil, it.Error()
	}
	return readHere(it)
}

// readHere reads the message on whose first record it stands, and leaves it on
// the next message.
func readHere(it *pebble.Iterator) (*stored, error) {
	key := append([]byte(nil), it.Key()[:messageKeyLen]...)
	s := &stored{id: id(binary.BigEndian.Uint64(key[1:]))}
	var file bodyPlace
	if len(it.Key()) != messageKeyLen {
		s.err = fmt.Errorf("%w: a journal without its message", ErrCorrupt)
	} else {
		rec, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		s.env, file, s.err = decodeEnvelope(key, rec)
		it.Next()
	}
	st := &state{}
	for ; it.Valid() && bytes.HasPrefix(it.Key(), key); it.Next() {
		if len(it.Key()) != journalKeyLen {
			continue
		}
		seq := binary.BigEndian.Uint32(it.Key()[messageKeyLen:])
		if st.journal == 0 {
			st.first = seq
		}
		st.journal = seq + 1
		if s.err != nil {
			continue
		}
		rec, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		changes, err := decodeJournal(it.Key(), rec)
		if err != nil {
			// The result is unknown: its recipients are tried again.
			s.bad = append(s.bad, seq)
			continue
		}
		s.env.apply(changes)
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	first, journal := st.first, st.journal
	if s.err == nil {
		st = stateOf(s.env)
		s.env.ID = s.id.String()
	}
	st.first, st.journal, st.file = first, journal, file
	st.indexed = st.due(s.id)
	st.lanes = st.laneDues(s.id)
	s.state = st
	return s, nil
}

// scan calls each for all messages from an id on, in one consistent view.
func (e *Engine) scan(from id, each func(*stored) bool) error { return scan(e.db, from, each) }

func scan(db pebble.Reader, from id, each func(*stored) bool) error {
	it, err := messageIter(db, from)
	if err != nil {
		return err
	}
	defer it.Close()
	it.First()
	for it.Valid() {
		s, err := readHere(it)
		if err != nil {
			return err
		}
		if !each(s) {
			return nil
		}
	}
	return it.Error()
}

// Get is part of Queue.
func (e *Engine) Get(ctx context.Context, text string) (*Envelope, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	i, err := parseID(text)
	if err != nil {
		return nil, err
	}
	it, err := e.messageIter(i)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	s, err := readMessage(it, i)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, text)
	}
	return s.env, s.err
}

// Stats is part of Queue.
func (e *Engine) Stats(ctx context.Context) (Stats, error) {
	if err := e.check(ctx); err != nil {
		return Stats{}, err
	}
	e.mu.Lock()
	c := e.counts
	s := Stats{Messages: c.messages, Recipients: c.recipients, Held: c.held, Tried: c.tried, Bytes: c.bytes, Leased: int64(len(e.leases))}
	from := e.oldest
	e.mu.Unlock()
	// From the oldest known, so that the tombstones before it are not met. A Put
	// that runs now may still commit an id of a moment ago.
	oldest := idAt(e.o.Clock().Add(-time.Minute))
	err := e.scan(from, func(m *stored) bool {
		oldest = min(oldest, m.id)
		if m.err == nil {
			s.OldestReceived = m.env.Received
		}
		return m.err != nil
	})
	e.mu.Lock()
	e.oldest = max(e.oldest, oldest)
	e.mu.Unlock()
	return s, err
}

// quarantineKey: where a record of that key is set aside.
func quarantineKey(key []byte) []byte { return append([]byte{keyQuarantine}, key...) }

func (e *Engine) quarantined(i id) bool {
	_, c, err := e.db.Get(quarantineKey(messageKey(i)))
	if err != nil {
		return !errors.Is(err, pebble.ErrNotFound)
	}
	_ = c.Close()
	return true
}

// setAside moves all that is left of a message with a corrupt record out of the
// way, as it is, and takes the entry by which it was found from its index; those in
// lanes go when they are met. A large body's file stays.
func (e *Engine) setAside(s *stored, entry []byte) {
	e.log.Error().Str("id", s.id.String()).Err(s.err).Msg("queue: a message is set aside because its record is corrupt")
	e.moveAside(s.id, s.keys(), entry, nil)
}

// keys of all records of the message.
func (s *stored) keys() [][]byte {
	keys := [][]byte{messageKey(s.id), bodyKey(s.id)}
	for seq := s.state.first; seq < s.state.journal; seq++ {
		keys = append(keys, journalKey(s.id, seq))
	}
	return keys
}

// setAsideJournal does so with the corrupt records of a whole message's journal.
func (e *Engine) setAsideJournal(s *stored) {
	var keys [][]byte
	for _, seq := range s.bad {
		e.log.Error().Str("id", s.id.String()).Uint32("record", seq).Msg("queue: a corrupt result is set aside; its recipients are tried again")
		keys = append(keys, journalKey(s.id, seq))
	}
	e.moveAside(s.id, keys, nil, s.state.destinations(s.id))
}

// moveAside sets records of a message aside. What is left of it has its places by
// destination at last: those of now may be of what nobody can read.
func (e *Engine) moveAside(i id, keys [][]byte, entry []byte, left []destination) {
	places, err := e.destinationsOf(i)
	if err != nil {
		e.log.Error().Str("id", i.String()).Err(err).Msg("queue: a corrupt record stays where it is")
		return
	}
	values := make([][]byte, len(keys))
	for n, key := range keys {
		values[n], _ = e.get(key) // what cannot be read has no copy
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	g, err := e.join()
	if err != nil {
		return
	}
	for n, key := range keys {
		if values[n] != nil && err == nil {
			err = g.batch.Set(quarantineKey(key), values[n], nil)
		}
		if err == nil {
			err = g.batch.Delete(key, nil)
		}
	}
	if err == nil && entry != nil {
		err = g.batch.SingleDelete(entry, nil)
	}
	for n := range places {
		if err == nil && !slices.Contains(left, places[n]) {
			err = g.leave(&places[n], true)
		}
	}
	for n := range left {
		if err == nil && !slices.Contains(places, left[n]) {
			err = g.enter(&left[n])
		}
	}
	if err != nil {
		e.stop.stop(err)
		return
	}
	e.corrupted++
	e.filled(g)
}

// Corrupted tells how many records were set aside since Open.
func (e *Engine) Corrupted() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.corrupted
}
