package imap

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// keys takes search keys (RFC 9051 section 6.4.4) and makes the storage's tree of
// them: sequence numbers become UIDs by the view.
type keys struct {
	ss  *session
	cmd *command
	p   *wire.Parser
	now time.Time
	// refused: the grammar is right, and still it cannot be searched for.
	refused error
	// modseq: a key asked for MODSEQ, so the reply has it (RFC 7162 section 3.1.5).
	modseq bool
	// moving: what matches changes as time goes by.
	moving bool
}

var errBadCharset = no(imap.ResponseCode("BADCHARSET (US-ASCII UTF-8)"), "The charset is US-ASCII or UTF-8")

// charset takes a charset's name.
func (k *keys) charset() {
	switch name := strings.ToUpper(k.p.AString()); name {
	case "UTF-8", "US-ASCII":
	default:
		k.refuse(errBadCharset)
	}
}

func (k *keys) refuse(err error) {
	if k.refused == nil {
		k.refused = err
	}
}

// program takes one key after the other to the end.
func (k *keys) program() *v1.Criterion {
	all := []*v1.Criterion{k.key()}
	for k.p.Err() == nil && k.p.Try(' ') {
		all = append(all, k.key())
	}
	return allOf(all)
}

func allOf(all []*v1.Criterion) *v1.Criterion {
	if len(all) == 1 {
		return all[0]
	}
	return &v1.Criterion{Test: &v1.Criterion_AllOf{AllOf: &v1.CriterionList{Criteria: all}}}
}

// key takes one search key. The storage takes trees 100 deep; a client's nest by
// parentheses, NOT and OR.
func (k *keys) key() *v1.Criterion {
	k.p.Enter()
	defer k.p.Leave()
	switch c := k.p.Peek(); {
	case c == '(':
		var all []*v1.Criterion
		k.p.List(func() { all = append(all, k.key()) })
		if len(all) == 0 {
			k.p.Fail("A search key is missing between the parentheses")
			return everything()
		}
		return allOf(all)
	case c >= '0' && c <= '9' || c == '*' || c == '$':
		return k.numbers()
	}
	word := k.p.Word()
	if flag, ok := flagKeys[word]; ok {
		return flagTest(flag)
	}
	if flag, ok := flagKeys[strings.TrimPrefix(word, "UN")]; ok && strings.HasPrefix(word, "UN") {
		return not(flagTest(flag))
	}
	return k.other(word)
}

// flagKeys: keys for a flag; with UN before, for its absence.
var flagKeys = map[string]string{
	"ANSWERED": `\Answered`, "DELETED": `\Deleted`, "DRAFT": `\Draft`, "FLAGGED": `\Flagged`, "SEEN": `\Seen`,
}

func (k *keys) other(word string) *v1.Criterion {
	p := k.p
	switch word {
	case "ALL":
		return everything()
	case "RECENT":
		return k.recent()
	case "NEW":
		return allOf([]*v1.Criterion{k.recent(), not(flagTest(`\Seen`))})
	case "OLD":
		return not(k.recent())
	case "NOT":
		p.SP()
		return not(k.key())
	case "OR":
		p.SP()
		one := k.key()
		p.SP()
		return &v1.Criterion{Test: &v1.Criterion_AnyOf{AnyOf: &v1.CriterionList{Criteria: []*v1.Criterion{one, k.key()}}}}
	case "KEYWORD", "UNKEYWORD":
		p.SP()
		test := flagTest(p.Atom())
		if word == "UNKEYWORD" {
			return not(test)
		}
		return test
	case "BCC", "CC", "FROM", "SUBJECT", "TO":
		return header(word, k.text())
	case "HEADER":
		name := k.text()
		return header(name, k.text())
	case "BODY":
		return &v1.Criterion{Test: &v1.Criterion_Body{Body: k.text()}}
	case "TEXT":
		return &v1.Criterion{Test: &v1.Criterion_Text{Text: k.text()}}
	case "LARGER":
		p.SP()
		return &v1.Criterion{Test: &v1.Criterion_Larger{Larger: int64(p.Number63())}}
	case "SMALLER":
		p.SP()
		return &v1.Criterion{Test: &v1.Criterion_Smaller{Smaller: int64(p.Number63())}}
	case "UID":
		p.SP()
		return k.uids(p.Set())
	case "MODSEQ":
		return k.modseqKey()
	case "EMAILID":
		p.SP()
		return &v1.Criterion{Test: &v1.Criterion_MessageId{MessageId: p.Atom()}}
	case "THREADID":
		p.SP()
		return &v1.Criterion{Test: &v1.Criterion_ThreadId{ThreadId: p.Atom()}}
	case "SAVEDATESUPPORTED":
		return everything()
	case "OLDER", "YOUNGER":
		return k.within(word)
	}
	return k.date(word)
}

// text takes a blank and a string to look for.
func (k *keys) text() string {
	k.p.SP()
	s := k.p.AString()
	if !utf8.ValidString(s) {
		k.refuse(errBadCharset)
		return ""
	}
	return s
}

// date takes BEFORE, ON and SINCE, of the date of arrival, of the Date field
// (SENT…) or of the date it was saved here (SAVED…, RFC 8514). IMAP compares days
// without time and zone: of the Date field the day that it says, else the server's.
func (k *keys) date(word string) *v1.Criterion {
	which := strings.TrimPrefix(strings.TrimPrefix(word, "SENT"), "SAVED")
	if which != "BEFORE" && which != "ON" && which != "SINCE" {
		k.p.Fail("SEARCH does not know %s", word)
		return everything()
	}
	k.p.SP()
	day := k.p.Date()
	sent := strings.HasPrefix(word, "SENT")
	zone := time.Local
	if sent {
		zone = time.UTC // as the contract's sent_day has it
	}
	r := &v1.TimeRange{}
	if which != "BEFORE" {
		r.FromMs = midnight(day, zone)
	}
	switch which {
	case "BEFORE":
		r.ToMs = midnight(day, zone)
	case "ON":
		r.ToMs = midnight(day.AddDate(0, 0, 1), zone)
	}
	switch {
	case sent:
		return &v1.Criterion{Test: &v1.Criterion_SentDay{SentDay: r}}
	case strings.HasPrefix(word, "SAVED"):
		return &v1.Criterion{Test: &v1.Criterion_Saved{Saved: r}}
	}
	return &v1.Criterion{Test: &v1.Criterion_Received{Received: r}}
}

// find runs the search that the keys say.
func (k *keys) find(criterion *v1.Criterion) ([]uint32, error) {
	if k.refused != nil {
		return nil, k.refused
	}
	if k.modseq {
		if err := k.ss.useCondstore(); err != nil {
			return nil, err
		}
	}
	return k.ss.matching(k.cmd, criterion)
}

func midnight(t time.Time, zone *time.Location) int64 {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, zone).UnixMilli()
}

// within is RFC 5032: seconds before now.
func (k *keys) within(word string) *v1.Criterion {
	k.p.SP()
	at := k.now.Add(-time.Duration(k.p.NonZero()) * time.Second).UnixMilli()
	k.moving = true
	r := &v1.TimeRange{FromMs: at}
	if word == "OLDER" {
		r = &v1.TimeRange{ToMs: at + 1}
	}
	return &v1.Criterion{Test: &v1.Criterion_Received{Received: r}}
}

// modseqKey takes RFC 7162's key; the entry's name changes nothing, as a message
// has one MODSEQ for all its flags.
func (k *keys) modseqKey() *v1.Criterion {
	k.p.SP()
	if k.p.Peek() == '"' {
		_ = k.p.String()
		k.p.SP()
		switch kind := k.p.Word(); kind {
		case "PRIV", "SHARED", "ALL":
		default:
			k.p.Fail("A MODSEQ entry is PRIV, SHARED or ALL, not %s", kind)
		}
		k.p.SP()
	}
	k.modseq = true
	return &v1.Criterion{Test: &v1.Criterion_ModseqAtLeast{ModseqAtLeast: k.p.Number63()}}
}

func (k *keys) numbers() *v1.Criterion {
	set := k.p.Set()
	k.moving = true
	switch {
	case set.Saved:
		return k.uids(set)
	case k.ss.uidOnly:
		k.refuse(errUIDRequired)
		return everything()
	case len(k.ss.box.uids) == 0:
		return not(everything())
	}
	// A number that no message has is found nowhere, and that is no mistake.
	n := uint32(len(k.ss.box.uids))
	var within []wire.Range
	for _, r := range set.Ranges {
		if first, last := ordered(r, n); first <= n {
			within = append(within, wire.Range{First: first, Last: min(last, n)})
		}
	}
	seqs, _ := k.ss.box.pickSeqs(within)
	return k.ss.box.uidTest(seqs)
}

func (k *keys) uids(set wire.Set) *v1.Criterion {
	if set.Saved || slices.ContainsFunc(set.Ranges, func(r wire.Range) bool { return r.First == 0 || r.Last == 0 }) {
		k.moving = true
	}
	if set.Saved {
		return k.ss.box.uidTest(k.ss.box.pickUIDs(points(k.ss.saved)))
	}
	return k.ss.box.uidTest(k.ss.box.pickUIDs(set.Ranges))
}

func (k *keys) recent() *v1.Criterion {
	k.moving = true
	var seqs []uint32
	if !k.ss.rev2 {
		for i, uid := range k.ss.box.uids {
			if k.ss.box.isRecent(uid) {
				seqs = append(seqs, uint32(i)+1)
			}
		}
	}
	return k.ss.box.uidTest(seqs)
}

func everything() *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Everything{Everything: true}}
}

func not(c *v1.Criterion) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Not{Not: c}}
}

func flagTest(flag string) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Flag{Flag: flag}}
}

func header(name, value string) *v1.Criterion {
	return &v1.Criterion{Test: &v1.Criterion_Header{Header: &v1.HeaderTest{Name: name, Value: value}}}
}

func (v *view) uidTest(seqs []uint32) *v1.Criterion {
	if len(seqs) == 0 {
		return not(everything())
	}
	return &v1.Criterion{Test: &v1.Criterion_Uids{Uids: &v1.UIDRanges{Ranges: v.ranges(seqs)}}}
}

func points(uids []uint32) []wire.Range {
	out := make([]wire.Range, len(uids))
	for i, u := range uids {
		out[i] = wire.Range{First: u, Last: u}
	}
	return out
}
