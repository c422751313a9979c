package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
)

// sums are what the whole messages ask for: how many places in each index, and the
// counts.
type sums struct {
	counts counts
	// places are how many are there, by the space of their index, as they must be;
	// and small bodies that are in the database.
	places  map[byte]int64
	corrupt int64 // messages that nobody can read
}

// indexKinds are the indexes' names.
var indexKinds = map[byte]string{keyDue: ofDue, keyLane: ofLanes, keyDestination: ofDestinations}

// corruption passes an error on, unless it is of a damaged block: the tables tell of
// that, and what stands behind it is not looked at.
func (c *checker) corruption(err error, what string) error {
	if err == nil || !pebble.IsCorruptionError(err) {
		return err
	}
	c.note("Not all %s could be looked at, because of damaged tables.", what)
	return nil
}

// format is the record of the version, and the epoch's.
func (c *checker) format() error {
	for _, m := range []struct {
		key    []byte
		name   string
		repair uint64
	}{{metaFormat, "the format's version", formatVersion}, {metaEpoch, "the number of starts", lostEpoch}} {
		c.see(ofRecords, 0)
		v, err := c.e.meta(m.key, 0)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			if err = c.corruption(err, ofRecords); err != nil {
				return err
			}
			continue
		}
		if err == nil && v != 0 {
			if bytes.Equal(m.key, metaFormat) {
				c.f.Format = v
			}
			continue
		}
		err = c.repair(Problem{What: ofRecords, Where: string(m.key), Text: m.name + " is corrupt or not there"},
			"written anew", func(b *pebble.Batch) error {
				return b.Set(m.key, seal(m.key, binary.BigEndian.AppendUint64([]byte{recordVersion}, m.repair)), nil)
			})
		if err != nil {
			return err
		}
	}
	switch {
	case c.f.Format == 0: // its record is corrupt; all of this program's is looked for
		c.f.Format = formatVersion
	case c.f.Format < oldestFormat || c.f.Format > formatVersion:
		return fmt.Errorf("it has format %d, this program knows %d to %d: use the program that wrote it, or a newer one", c.f.Format, oldestFormat, formatVersion)
	case c.older() && c.o.Repair:
		if err := c.e.raise(); err != nil {
			return err
		}
		c.note("It was of format %d, of an older program, and is raised to %d.", c.f.Format, formatVersion)
		c.f.Format = formatVersion
		return c.b.Set(metaFormat, seal(metaFormat, binary.BigEndian.AppendUint64([]byte{recordVersion}, formatVersion)), nil)
	case c.older():
		c.note("An older program wrote it, in format %d: the next start, or a repair, raises it to %d.", c.f.Format, formatVersion)
	}
	return nil
}

// shapes looks at every key, and at the records that belong to no message.
func (c *checker) shapes() error {
	it, err := c.e.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		c.see(ofRecords, 1)
		text, err := c.shape(it)
		if err != nil {
			if pebble.IsCorruptionError(err) {
				continue // its value stands in a damaged block
			}
			return err
		}
		if text == "" {
			continue
		}
		key := bytes.Clone(it.Key())
		err = c.repair(Problem{What: ofRecords, Where: hex.EncodeToString(key), Text: text}, "set aside", func(b *pebble.Batch) error {
			return c.moveAside(b, key)
		})
		if err != nil {
			return err
		}
	}
	return c.corruption(it.Error(), ofRecords)
}

// shape says what is wrong with the record on which it stands; "": nothing, or it is
// looked at with its message.
func (c *checker) shape(it *pebble.Iterator) (string, error) {
	k := it.Key()
	sealed := false
	var ok bool
	switch k[0] {
	case keyMessage:
		ok = len(k) == messageKeyLen || len(k) == journalKeyLen
	case keyBody:
		ok = len(k) == messageKeyLen
	case keyDue:
		_, ok = parseDue(k)
		ok = ok || c.raises(keyDue)
	case keyLane:
		_, ok = parseLaneDue(k)
		ok = ok || c.raises(keyLane)
	case keyDestination:
		_, ok = parseDestination(k)
	case keyFeed:
		if len(k) != messageKeyLen {
			ok = false
			break
		}
		_, err := observation(it)
		if errors.Is(err, ErrCorrupt) {
			return "an observation of the feed is corrupt", nil
		}
		return "", err
	case keyObserver:
		ok, sealed = len(k) > 1, true
	case keyQuarantine:
		ok = len(k) > 1
	case keyMeta:
		ok = bytes.Equal(k, metaFormat) || bytes.Equal(k, metaEpoch) || bytes.Equal(k, metaCounts)
	default:
		return "a key of no known kind", nil
	}
	if !ok {
		return "a key that is not whole", nil
	}
	if sealed {
		rec, err := it.ValueAndErr()
		if err != nil {
			return "", err
		}
		if rec, err = unseal(k, rec); err != nil || len(rec) != 9 {
			return "how far an observer is, is corrupt; it begins anew", nil
		}
	}
	return "", nil
}

// moveAside writes keys' records where they are in nobody's way.
func (c *checker) moveAside(b *pebble.Batch, keys ...[]byte) error {
	for _, key := range keys {
		v, err := c.e.get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := b.Set(quarantineKey(key), v, nil); err != nil {
			return err
		}
		if err := b.Delete(key, nil); err != nil {
			return err
		}
	}
	return nil
}

// messages looks at each message, its journal, its body and its places.
func (c *checker) messages() error {
	c.see(ofMessages, 0)
	it, err := c.e.messageIter(0)
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if len(it.Key()) < messageKeyLen {
			it.Next() // told with the shapes
			continue
		}
		s, err := readHere(it)
		if err != nil {
			return c.corruption(err, ofMessages)
		}
		if err := c.message(s); err != nil {
			return err
		}
	}
	return c.corruption(it.Error(), ofMessages)
}

func (c *checker) message(s *stored) error {
	c.see(ofMessages, 1)
	name := s.id.String()
	if s.err != nil {
		c.want.corrupt++
		if _, err := c.e.get(bodyKey(s.id)); err == nil {
			if !c.o.Repair { // else it goes along
				c.want.places[keyBody]++
			}
		}
		return c.repair(Problem{What: ofMessages, Where: name, Text: s.err.Error()}, "set aside with all of its records", func(b *pebble.Batch) error {
			return c.moveAside(b, s.keys()...)
		})
	}
	c.see(ofResults, int64(s.state.journal-s.state.first))
	for _, seq := range s.bad {
		err := c.repair(Problem{What: ofResults, Where: fmt.Sprintf("%s, entry %d", name, seq), Text: ErrCorrupt.Error()},
			"set aside; its recipients are tried again", func(b *pebble.Batch) error {
				return c.moveAside(b, journalKey(s.id, seq))
			})
		if err != nil {
			return err
		}
	}
	if err := c.body(s); err != nil {
		return err
	}
	return c.places(s)
}

// body looks for a message's body. A message without one cannot be delivered: it is
// held, as it is when a delivery meets that.
func (c *checker) body(s *stored) error {
	c.see(ofBodies, 1)
	text, err := c.bodyFault(s)
	if err != nil || text == "" {
		return err
	}
	op := Operation{Kind: Hold, Reason: text}
	changes := op.changes(s.state, s.env, c.o.Clock())
	if len(changes) == 0 {
		c.note("%s is held: %s. `stagecoach queue delete %s` ends it.", s.id, text, s.id)
		return nil
	}
	return c.repair(Problem{What: ofBodies, Where: s.id.String(), Text: text}, "the message is held", func(b *pebble.Batch) error {
		key := journalKey(s.id, s.state.journal)
		rec := encodeJournal(key, changes)
		s.env.apply(changes)
		st := stateOf(s.env)
		st.first, st.journal, st.file = s.state.first, s.state.journal+1, s.state.file
		st.indexed, st.lanes = st.due(s.id), st.laneDues(s.id)
		s.state = st
		return b.Set(key, rec, nil)
	})
}

func (c *checker) bodyFault(s *stored) (string, error) {
	if s.state.file.large {
		path := c.e.bodyPath(s.id)
		st, err := c.o.FS.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return "its body " + path + " is not there", nil
		case err != nil:
			return "", err
		case st.Size() != s.env.Size:
			return fmt.Sprintf("its body %s has %d octets of %d", path, st.Size(), s.env.Size), nil
		case !s.state.file.summed:
			return "", nil // an older program put it
		}
		sum, err := sumOf(c.o.FS, path)
		if err != nil {
			return fmt.Sprintf("its body %s cannot be read: %v", path, err), nil
		}
		if sum != s.state.file.sum {
			return fmt.Sprintf("its body %s is not what was put: the checksum is another", path), nil
		}
		return "", nil
	}
	key := bodyKey(s.id)
	rec, err := c.e.get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return "its body is not there", nil
	case err != nil:
		return "its body cannot be read", c.corruption(err, ofBodies)
	}
	c.want.places[keyBody]++
	if rec, err = unseal(key, rec); err != nil {
		return "its body is corrupt", nil
	}
	if n := int64(len(rec) - 1); n != s.env.Size {
		return fmt.Sprintf("its body has %d octets of %d", n, s.env.Size), nil
	}
	return "", nil
}

// places compares a message's places in the indexes with what it asks for.
func (c *checker) places(s *stored) error {
	c.want.counts.add(total(s.state.destinations(s.id)))
	for _, k := range s.indexKeys() {
		what := indexKinds[k[0]]
		if c.raises(k[0]) {
			continue // the next start puts it there
		}
		c.see(what, 1)
		_, err := c.e.get(k)
		if err == nil {
			c.want.places[k[0]]++
			continue
		}
		if !errors.Is(err, pebble.ErrNotFound) {
			if err = c.corruption(err, what); err != nil {
				return err
			}
			continue
		}
		text := "it has no place where it must: it would wait for ever"
		if k[0] == keyDestination {
			text = "it has no place where it must: it is counted wrong, and a list of its destination lacks it"
		}
		if c.o.Repair {
			c.want.places[k[0]]++
		}
		err = c.repair(Problem{What: what, Where: s.id.String(), Text: text}, "put there", func(b *pebble.Batch) error {
			return b.Set(k, nil, nil)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// older tells whether an older program wrote the queue: this one raises it when it
// starts, or with a repair.
func (c *checker) older() bool { return c.f.Format < formatVersion }

// raises tells whether that makes an index anew, so that it says nothing yet.
func (c *checker) raises(space byte) bool {
	return c.f.Format < 3 && space == keyDestination || c.f.Format < 4 && space == keyLane || c.f.Format < 5 && space == keyDue
}

// indexKeys are all keys by which a message is found.
func (s *stored) indexKeys() (keys [][]byte) {
	if s.state.indexed.at != never {
		keys = append(keys, s.state.indexed.key())
	}
	for _, d := range s.state.lanes {
		keys = append(keys, d.key())
	}
	for _, d := range s.state.destinations(s.id) {
		keys = append(keys, d.key())
	}
	return keys
}

// indexes looks for places that no message asks for. They are counted first: only
// when there are more of them than the messages ask for is each one looked up.
func (c *checker) indexes() error {
	const stray = "a place of no message, or of one that does not belong there"
	for _, x := range []struct {
		space byte
		what  string
		text  string
	}{
		{keyDue, ofDue, stray}, {keyLane, ofLanes, stray}, {keyDestination, ofDestinations, stray}, {keyBody, ofBodies, "a body of no message"},
	} {
		if c.raises(x.space) {
			continue
		}
		c.see(x.what, 0)
		n, err := c.count(x.space)
		if err != nil {
			return err
		}
		if n <= c.want.places[x.space] {
			continue
		}
		if err := c.strays(x.space, x.what, x.text); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) count(space byte) (n int64, err error) {
	it, err := c.e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		n++
	}
	return n, c.corruption(it.Error(), ofRecords)
}

func (c *checker) strays(space byte, what, text string) error {
	it, err := c.e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	ms, err := c.e.messageIter(0)
	if err != nil {
		return err
	}
	defer ms.Close()
	for it.First(); it.Valid(); it.Next() {
		k := bytes.Clone(it.Key())
		i, ok := idOf(k)
		if !ok {
			continue // told with the shapes
		}
		s, err := readMessage(ms, i)
		if err != nil {
			return c.corruption(err, what)
		}
		if s != nil && (s.err != nil || s.owns(k)) {
			continue
		}
		switch {
		case space == keyBody && s == nil:
			err = c.ownerless(Problem{What: what, Where: i.String(), Text: text}, lostBody{id: i, key: k})
		case space == keyBody:
			err = c.repair(Problem{What: what, Where: i.String(), Text: text}, "set aside", func(b *pebble.Batch) error {
				return c.moveAside(b, k)
			})
		default:
			err = c.repair(Problem{What: what, Where: i.String(), Text: text}, "removed", func(b *pebble.Batch) error {
				return b.Delete(k, nil)
			})
		}
		if err != nil {
			return err
		}
	}
	return c.corruption(it.Error(), what)
}

// idOf is the message's that a key of an index or a body is of.
func idOf(k []byte) (id, bool) {
	if k[0] == keyDestination {
		d, ok := parseDestination(k)
		return d.id, ok
	}
	if len(k) < messageKeyLen {
		return 0, false
	}
	return id(binary.BigEndian.Uint64(k[len(k)-8:])), true
}

// owns tells whether a key of an index or a body is the message's.
func (s *stored) owns(k []byte) bool {
	if k[0] == keyBody {
		return !s.state.file.large
	}
	for _, own := range s.indexKeys() {
		if bytes.Equal(own, k) {
			return true
		}
	}
	return false
}

// counts compares the record of the counts with the messages.
func (c *checker) counts() error {
	c.see(ofCounts, 5)
	if c.want.corrupt > 0 && !c.o.Repair || c.raises(keyDestination) {
		return nil // nobody knows what they are to be
	}
	rec, err := c.e.get(metaCounts)
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return c.corruption(err, ofCounts)
	}
	want := c.want.counts.record()
	if bytes.Equal(rec, want) || rec == nil && c.want.counts == (counts{}) {
		return nil
	}
	text := fmt.Sprintf("there are %+v", c.want.counts)
	if have, err := unseal(metaCounts, rec); err != nil || len(have) != countsLen {
		text = "the record is corrupt; " + text
	} else {
		text = fmt.Sprintf("the record says %d messages, %d recipients, %d held, %d octets, %d tried; ",
			be(have[1:]), be(have[9:]), be(have[17:]), be(have[25:]), be(have[33:])) + text
	}
	return c.repair(Problem{What: ofCounts, Where: string(metaCounts), Text: text}, "written anew", func(b *pebble.Batch) error {
		return b.Set(metaCounts, want, nil)
	})
}

func be(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// listAside tells of what was set aside.
func (c *checker) listAside() error {
	it, err := c.e.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyQuarantine}, UpperBound: []byte{keyQuarantine + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if len(c.f.SetAside) >= maxProblems {
			c.f.MoreSetAside++
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return c.corruption(err, "records that were set aside")
		}
		key := it.Key()[1:]
		if len(key) == 0 {
			continue // told with the shapes
		}
		a := SetAside{Key: hex.EncodeToString(key), Record: bytes.Clone(v)}
		if (key[0] == keyMessage || key[0] == keyBody) && len(key) >= messageKeyLen {
			a.ID = id(binary.BigEndian.Uint64(key[1:])).String()
		}
		c.f.SetAside = append(c.f.SetAside, a)
	}
	return c.corruption(it.Error(), "records that were set aside")
}
