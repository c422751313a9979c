package imap

import (
	"time"

	"github.com/emersion/go-imap/v2"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// criterion translates what the client asks into the storage's tree. Sequence
// numbers become UIDs by the view; saved is what "$" stands for.
func (v *view) criterion(c *imap.SearchCriteria, saved []uint32) (*v1.Criterion, error) {
	var all []*v1.Criterion
	add := func(x *v1.Criterion) { all = append(all, x) }
	for _, set := range c.SeqNum {
		seqs, ok := v.pickSeqs(seqSpans(set))
		if !ok {
			return nil, errNoSuchMessage
		}
		add(v.uidTest(seqs))
	}
	for _, set := range c.UID {
		if imap.IsSearchRes(set) {
			add(v.uidTest(v.pickUIDs(points(saved))))
			continue
		}
		add(v.uidTest(v.pickUIDs(uidSpans(set))))
	}
	if !c.Since.IsZero() || !c.Before.IsZero() {
		add(&v1.Criterion{Test: &v1.Criterion_Received{Received: days(c.Since, c.Before)}})
	}
	if !c.SentSince.IsZero() || !c.SentBefore.IsZero() {
		add(&v1.Criterion{Test: &v1.Criterion_Sent{Sent: days(c.SentSince, c.SentBefore)}})
	}
	for _, h := range c.Header {
		add(&v1.Criterion{Test: &v1.Criterion_Header{Header: &v1.HeaderTest{Name: h.Key, Value: h.Value}}})
	}
	for _, s := range c.Body {
		add(&v1.Criterion{Test: &v1.Criterion_Body{Body: s}})
	}
	for _, s := range c.Text {
		add(&v1.Criterion{Test: &v1.Criterion_Text{Text: s}})
	}
	for _, f := range c.Flag {
		add(flagTest(f))
	}
	for _, f := range c.NotFlag {
		add(not(flagTest(f)))
	}
	if c.Larger > 0 {
		add(&v1.Criterion{Test: &v1.Criterion_Larger{Larger: c.Larger}})
	}
	if c.Smaller > 0 {
		add(&v1.Criterion{Test: &v1.Criterion_Smaller{Smaller: c.Smaller}})
	}
	for i := range c.Not {
		x, err := v.criterion(&c.Not[i], saved)
		if err != nil {
			return nil, err
		}
		add(not(x))
	}
	for i := range c.Or {
		var two []*v1.Criterion
		for j := range c.Or[i] {
			x, err := v.criterion(&c.Or[i][j], saved)
			if err != nil {
				return nil, err
			}
			two = append(two, x)
		}
		add(&v1.Criterion{Test: &v1.Criterion_AnyOf{AnyOf: &v1.CriterionList{Criteria: two}}})
	}
	switch len(all) {
	case 0:
		return everything(), nil
	case 1:
		return all[0], nil
	}
	return &v1.Criterion{Test: &v1.Criterion_AllOf{AllOf: &v1.CriterionList{Criteria: all}}}, nil
}

func everything() *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Everything{Everything: true}}
}

func not(c *v1.Criterion) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Not{Not: c}}
}

// flagTest: nothing is ever \Recent here (RFC 9051 dropped the flag).
func flagTest(f imap.Flag) *v1.Criterion {
	if f == `\Recent` {
		return not(everything())
	}
	return &v1.Criterion{Test: &v1.Criterion_Flag{Flag: string(f)}}
}

func (v *view) uidTest(seqs []uint32) *v1.Criterion {
	if len(seqs) == 0 {
		return not(everything())
	}
	return &v1.Criterion{Test: &v1.Criterion_Uids{Uids: &v1.UIDRanges{Ranges: v.ranges(seqs)}}}
}

// days: IMAP compares dates without time and zone (RFC 9051 section 6.4.4);
// the zone is the server's.
func days(from, to time.Time) *v1.TimeRange {
	r := &v1.TimeRange{}
	if !from.IsZero() {
		r.FromMs = midnight(from)
	}
	if !to.IsZero() {
		r.ToMs = midnight(to)
	}
	return r
}

func midnight(t time.Time) int64 {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.Local).UnixMilli()
}

func seqSpans(set imap.SeqSet) []span {
	out := make([]span, len(set))
	for i, r := range set {
		out[i] = span{r.Start, r.Stop}
	}
	return out
}

func uidSpans(set imap.UIDSet) []span {
	out := make([]span, len(set))
	for i, r := range set {
		out[i] = span{uint32(r.Start), uint32(r.Stop)}
	}
	return out
}

func points(uids []uint32) []span {
	out := make([]span, len(uids))
	for i, u := range uids {
		out[i] = span{u, u}
	}
	return out
}
