package mime

import (
	"cmp"
	"math"
	"slices"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Ranges is a set of UIDs: disjoint ranges by growing UID, last never 0.
type Ranges []Range

// Range from First to Last, both included.
type Range struct{ First, Last uint32 }

// NewRanges sorts and merges; no ranges at all mean every UID.
func NewRanges(ranges []*v1.UIDRange) Ranges {
	if len(ranges) == 0 {
		return Ranges{{1, math.MaxUint32}}
	}
	out := make(Ranges, 0, len(ranges))
	for _, r := range ranges {
		first, last := max(r.GetFirst(), 1), r.GetLast()
		if last == 0 {
			last = math.MaxUint32
		}
		if first <= last {
			out = append(out, Range{first, last})
		}
	}
	return out.merge()
}

func (r Ranges) merge() Ranges {
	slices.SortFunc(r, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	n := 0
	for _, x := range r {
		if n > 0 && uint64(x.First) <= uint64(r[n-1].Last)+1 {
			r[n-1].Last = max(r[n-1].Last, x.Last)
			continue
		}
		r[n] = x
		n++
	}
	return r[:n]
}

// Contains tells whether uid is in the set.
func (r Ranges) Contains(uid uint32) bool {
	i, ok := slices.BinarySearchFunc(r, uid, func(x Range, uid uint32) int { return cmp.Compare(x.First, uid) })
	return ok || i > 0 && r[i-1].Last >= uid
}

// Cut returns what of first…last is in the set.
func (r Ranges) Cut(first, last uint32) Ranges {
	var out Ranges
	for _, x := range r {
		if a, b := max(x.First, first), min(x.Last, last); a <= b {
			out = append(out, Range{a, b})
		}
	}
	return out
}

// Add appends uid, which must be larger than any in the set.
func (r Ranges) Add(uid uint32) Ranges {
	if n := len(r); n > 0 && r[n-1].Last+1 == uid {
		r[n-1].Last = uid
		return r
	}
	return append(r, Range{uid, uid})
}

// Merge returns the union.
func (r Ranges) Merge(other Ranges) Ranges { return append(slices.Clone(r), other...).merge() }

// Proto is the contract's form.
func (r Ranges) Proto() []*v1.UIDRange {
	var out []*v1.UIDRange
	for _, x := range r {
		out = append(out, &v1.UIDRange{First: x.First, Last: x.Last})
	}
	return out
}
