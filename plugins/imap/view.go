package imap

import (
	"slices"
	"sort"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// view is what one session believes of its selected mailbox: which message has
// which sequence number, and its flags. Only apply and expunge change it, so a
// session decides at which moments its client sees changes.
//
// Invariants: uids grow; len(uids) == len(flags) (== len(modseqs), if there are
// any); gone holds UIDs that the storage has removed but that still have a
// sequence number here.
type view struct {
	mailbox *v1.Mailbox
	uids    []uint32
	flags   []uint8
	// modseqs are kept for clients that use CONDSTORE.
	modseqs  []uint64
	keywords map[uint32][]string
	// since is the MODSEQ up to which the view knows the mailbox.
	since uint64
	gone  map[uint32]bool
	// recent for this session: growing.
	recent []recentRange
	// dirty messages changed since the results that are kept up to date were; they
	// are noted if track is set.
	dirty map[uint32]bool
	track bool
	// known keywords of the mailbox, as FLAGS has told them.
	known []string
}

func newView(s *v1.SnapshotResponse, modseqs bool) *view {
	v := &view{
		mailbox:  s.GetMailbox(),
		uids:     slices.Clone(s.GetUids()),
		flags:    make([]uint8, len(s.GetFlags())),
		keywords: map[uint32][]string{},
		since:    s.GetModseq(),
		gone:     map[uint32]bool{},
	}
	for i, bits := range s.GetFlags() {
		v.flags[i] = uint8(bits)
	}
	if modseqs {
		// Not nil, in an empty mailbox too.
		v.modseqs = append([]uint64{}, s.GetModseqs()...)
	}
	for _, k := range s.GetKeywords() {
		v.keywords[k.GetUid()] = k.GetKeywords()
		v.learn(k.GetKeywords())
	}
	return v
}

// change is what a client must be told after apply.
type change struct {
	// flags: sequence numbers whose flags changed.
	flags []uint32
	// grown: how many messages are new.
	grown int
	// keywords: a keyword appeared that the mailbox did not have.
	keywords bool
}

// apply takes in what changed. Messages that vanished are only noted: their
// sequence numbers stay until expunge.
func (v *view) apply(s *v1.SnapshotResponse) change {
	words := make(map[uint32][]string, len(s.GetKeywords()))
	for _, k := range s.GetKeywords() {
		words[k.GetUid()] = k.GetKeywords()
	}
	var c change
	for i, uid := range s.GetUids() {
		bits := uint8(s.GetFlags()[i])
		seq, ok := v.seq(uid)
		if ok && v.modseqs != nil && i < len(s.GetModseqs()) {
			v.modseqs[seq-1] = max(v.modseqs[seq-1], s.GetModseqs()[i])
		}
		switch {
		case ok && (v.flags[seq-1] != bits || !slices.Equal(v.keywords[uid], words[uid])):
			v.flags[seq-1] = bits
			c.flags = append(c.flags, seq)
		case !ok && (len(v.uids) == 0 || uid > v.uids[len(v.uids)-1]):
			v.uids = append(v.uids, uid)
			v.flags = append(v.flags, bits)
			if v.modseqs != nil {
				v.modseqs = append(v.modseqs, s.GetModseqs()[i])
			}
			c.grown++
			v.touch(uid)
			if len(words[uid]) == 0 {
				continue
			}
		default:
			continue
		}
		v.touch(uid)
		delete(v.keywords, uid)
		if len(words[uid]) > 0 {
			v.keywords[uid] = words[uid]
			c.keywords = v.learn(words[uid]) || c.keywords
		}
	}
	for _, r := range s.GetVanished() {
		v.vanish(r)
	}
	return c
}

func (v *view) touch(uid uint32) {
	if v.track {
		if v.dirty == nil {
			v.dirty = map[uint32]bool{}
		}
		v.dirty[uid] = true
	}
}

// vanish notes the messages of a range as gone.
func (v *view) vanish(r *v1.UIDRange) {
	i := sort.Search(len(v.uids), func(i int) bool { return v.uids[i] >= r.GetFirst() })
	for ; i < len(v.uids) && (r.GetLast() == 0 || v.uids[i] <= r.GetLast()); i++ {
		v.gone[v.uids[i]] = true
	}
}

// expunge takes the gone messages out of the view and returns their sequence
// numbers (as they were before) and their UIDs, growing.
func (v *view) expunge() (seqs, gone []uint32) {
	if len(v.gone) == 0 {
		return nil, nil
	}
	kept := 0
	for i, uid := range v.uids {
		if v.gone[uid] {
			seqs, gone = append(seqs, uint32(i)+1), append(gone, uid)
			delete(v.keywords, uid)
			continue
		}
		v.uids[kept], v.flags[kept] = uid, v.flags[i]
		if v.modseqs != nil {
			v.modseqs[kept] = v.modseqs[i]
		}
		kept++
	}
	v.uids, v.flags, v.gone = v.uids[:kept], v.flags[:kept], map[uint32]bool{}
	if v.modseqs != nil {
		v.modseqs = v.modseqs[:kept]
	}
	return seqs, gone
}

// learnModseqs fills in the MODSEQs of a view that was made without.
func (v *view) learnModseqs(s *v1.SnapshotResponse) {
	v.modseqs = make([]uint64, len(v.uids))
	for i, uid := range s.GetUids() {
		// What is newer than the view is told with the next look for changes.
		if seq, ok := v.seq(uid); ok {
			v.modseqs[seq-1] = min(s.GetModseqs()[i], v.since)
		}
	}
}

// seq of a UID; false if the view does not have it.
func (v *view) seq(uid uint32) (uint32, bool) {
	i, ok := slices.BinarySearch(v.uids, uid)
	return uint32(i) + 1, ok
}

// pickSeqs returns the sequence numbers that the spans name; false if one names
// a message that is not there (RFC 9051 section 9, seq-number).
func (v *view) pickSeqs(spans []wire.Range) ([]uint32, bool) {
	n := uint32(len(v.uids))
	var out []uint32
	for _, s := range spans {
		first, last := ordered(s, n)
		if n == 0 || last > n || first == 0 {
			return nil, false
		}
		for seq := first; seq <= last; seq++ {
			out = append(out, seq)
		}
	}
	return unique(out), true
}

// pickUIDs returns the sequence numbers of the UIDs in the spans; UIDs that are
// not there are no error (RFC 9051 section 6.4.9).
func (v *view) pickUIDs(spans []wire.Range) []uint32 {
	if len(v.uids) == 0 {
		return nil
	}
	var out []uint32
	for _, s := range spans {
		first, last := ordered(s, v.uids[len(v.uids)-1])
		i := sort.Search(len(v.uids), func(i int) bool { return v.uids[i] >= first })
		for ; i < len(v.uids) && v.uids[i] <= last; i++ {
			out = append(out, uint32(i)+1)
		}
	}
	return unique(out)
}

// ordered gives a span its real ends; "*" is the highest number in use, and
// "9:3" means "3:9".
func ordered(s wire.Range, highest uint32) (first, last uint32) {
	first, last = s.First, s.Last
	if first == 0 {
		first = highest
	}
	if last == 0 {
		last = highest
	}
	if first > last {
		first, last = last, first
	}
	return first, last
}

func unique(seqs []uint32) []uint32 {
	slices.Sort(seqs)
	return slices.Compact(seqs)
}

// ranges are the UIDs of sequence numbers as the storage wants them. Numbers
// that follow each other in the view make one range even where UIDs between are
// no longer used: the storage leaves those out.
func (v *view) ranges(seqs []uint32) []*v1.UIDRange {
	var out []*v1.UIDRange
	for i, seq := range seqs {
		uid := v.uids[seq-1]
		if i > 0 && seqs[i-1]+1 == seq {
			out[len(out)-1].Last = uid
			continue
		}
		out = append(out, &v1.UIDRange{First: uid, Last: uid})
	}
	return out
}

// learn notes keywords; true if one is new.
func (v *view) learn(words []string) bool {
	fresh := false
	for _, w := range words {
		if !slices.Contains(v.known, w) {
			v.known = append(v.known, w)
			fresh = true
		}
	}
	return fresh
}
