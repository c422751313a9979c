package queue

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
)

// way is where recipients go: a domain, and the deliver block of the last decision,
// "" before the first.
type way struct{ domain, deliver string }

// destination is a message's place in the index by destination: what of it goes one
// way. A message with open recipients has one for each of their ways.
//
// All that is counted stands in the key, so a place is set once and removed once, as
// in the other indexes; another count is another place. Whoever reads the index alone
// knows what Stats and Breakdown tell.
//
// Rejected: records of sums, kept by the database's merge operator. Each change of a
// sum would be a record, and a check could not say which message is counted wrong.
type destination struct {
	way
	id id
	// first of the message's, by way: the one that counts it as a message.
	first bool
	// Open recipients: all, held ones, and those that wait after an attempt.
	recipients, held, tried int64
	size                    int64 // of the message, in octets
}

// wayLimit is how much of a domain or of a deliver block's name stands in a key, in
// octets. What shares a place for that is told apart by the message.
const wayLimit = 255

// wayText makes a text fit for a key, which has no NUL.
func wayText(s string) string {
	if len(s) > wayLimit {
		s = s[:wayLimit]
	}
	return strings.ReplaceAll(s, "\x00", "?")
}

// foldDomain is the same for all domains that strings.EqualFold takes for one.
func foldDomain(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return wayText(strings.ToLower(strings.ToUpper(s)))
		}
	}
	return wayText(strings.ToLower(s))
}

func (r *Recipient) way() way { return way{foldDomain(domainOf(r.Address)), wayText(r.Deliver)} }

// appendPrefix leads all keys of a way.
func (w way) appendPrefix(k []byte) []byte {
	k = append(k, keyDestination)
	k = append(k, w.domain...)
	k = append(k, 0)
	k = append(k, w.deliver...)
	return append(k, 0)
}

func (d *destination) appendKey(k []byte) []byte {
	k = d.appendPrefix(k)
	k = binary.BigEndian.AppendUint64(k, uint64(d.id))
	n := uint64(d.recipients) << 1
	if d.first {
		n |= 1
	}
	k = binary.AppendUvarint(k, n)
	k = binary.AppendUvarint(k, uint64(d.held))
	k = binary.AppendUvarint(k, uint64(d.tried))
	return binary.AppendUvarint(k, uint64(d.size))
}

func (d *destination) key() []byte { return d.appendKey(nil) }

// parseWay cuts the way off a key; rest begins with the id.
func parseWay(k []byte) (w way, rest []byte, ok bool) {
	if len(k) == 0 || k[0] != keyDestination {
		return w, nil, false
	}
	domain, rest, ok := bytes.Cut(k[1:], []byte{0})
	if !ok {
		return w, nil, false
	}
	deliver, rest, ok := bytes.Cut(rest, []byte{0})
	if !ok || len(rest) < 8 {
		return w, nil, false
	}
	return way{string(domain), string(deliver)}, rest, true
}

func parseDestination(k []byte) (d destination, ok bool) {
	var rest []byte
	if d.way, rest, ok = parseWay(k); !ok {
		return d, false
	}
	return d, d.parseRest(rest)
}

// parseRest reads what follows the way.
func (d *destination) parseRest(rest []byte) bool {
	d.id = id(binary.BigEndian.Uint64(rest))
	rest = rest[8:]
	var n [4]uint64
	for i := range n {
		v, size := binary.Uvarint(rest)
		if size <= 0 || v>>62 != 0 {
			return false
		}
		n[i], rest = v, rest[size:]
	}
	d.first, d.recipients = n[0]&1 == 1, int64(n[0]>>1)
	d.held, d.tried, d.size = int64(n[1]), int64(n[2]), int64(n[3])
	return len(rest) == 0 && d.recipients > 0
}

func (w way) compare(o way) int {
	return cmp.Or(strings.Compare(w.domain, o.domain), strings.Compare(w.deliver, o.deliver))
}

// destinations are the places where the message belongs, by way.
func (s *state) destinations(i id) (ds []destination) {
	for n := range s.rs {
		r := &s.rs[n]
		if !r.state.Open() {
			continue
		}
		at, found := slices.BinarySearchFunc(ds, r.way, func(d destination, w way) int { return d.compare(w) })
		if !found {
			ds = slices.Insert(ds, at, destination{way: r.way, id: i, size: s.size})
		}
		d := &ds[at]
		d.recipients++
		switch {
		case r.state == Held:
			d.held++
		case r.tried:
			d.tried++
		}
	}
	if len(ds) > 0 {
		ds[0].first = true
	}
	return ds
}

// total is what the places of one or many messages count.
func total(ds []destination) (c counts) {
	for i := range ds {
		c.add(ds[i].counts())
	}
	return c
}

func (d *destination) counts() counts {
	c := counts{recipients: d.recipients, held: d.held, tried: d.tried}
	if d.first {
		c.messages, c.bytes = 1, d.size
	}
	return c
}

// moved is a place that was gained or lost.
type moved struct {
	destination
	lost bool
}

// moveDestinations has a message's places brought up to date with g.
func (g *group) moveDestinations(before, after []destination) error {
	for len(before)+len(after) > 0 {
		var err error
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].compare(after[0].way) < 0:
			err = g.leave(&before[0], false)
			before = before[1:]
		case len(before) == 0 || before[0].compare(after[0].way) > 0:
			err = g.enter(&after[0])
			after = after[1:]
		default:
			if before[0] != after[0] {
				if err = g.leave(&before[0], false); err == nil {
					err = g.enter(&after[0])
				}
			}
			before, after = before[1:], after[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *group) enter(d *destination) error {
	g.key = d.appendKey(g.key[:0])
	g.places = append(g.places, moved{destination: *d})
	g.delta.add(d.counts())
	return g.batch.Set(g.key, nil, nil)
}

// leave removes a place; unsure: it may have been set more than once.
func (g *group) leave(d *destination, unsure bool) error {
	g.key = d.appendKey(g.key[:0])
	g.places = append(g.places, moved{*d, true})
	g.delta.add(counts{}.minus(d.counts()))
	if unsure {
		return g.batch.Delete(g.key, nil)
	}
	return g.batch.SingleDelete(g.key, nil)
}

// eachDestination calls each for all places in the index.
func eachDestination(db pebble.Reader, each func(d *destination) bool) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyDestination}, UpperBound: []byte{keyDestination + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	var d destination
	var prefix []byte // of d's way
	for valid := it.First(); valid; valid = it.Next() {
		k := it.Key()
		if len(prefix) > 0 && len(k) >= len(prefix)+8 && bytes.HasPrefix(k, prefix) {
			if !d.parseRest(k[len(prefix):]) {
				continue
			}
		} else {
			var ok bool
			if d, ok = parseDestination(k); !ok {
				continue // a check tells of it
			}
			prefix = d.appendPrefix(prefix[:0])
		}
		if !each(&d) {
			break
		}
	}
	return it.Error()
}

// destinationsOf finds a message's places without the message, whose record is
// corrupt: by a look at all of them.
func (e *Engine) destinationsOf(i id) (ds []destination, err error) {
	err = eachDestination(e.db, func(d *destination) bool {
		if d.id == i {
			ds = append(ds, *d)
		}
		return true
	})
	return ds, err
}
