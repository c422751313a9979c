package mime

import (
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxCriteria bounds a search: tests in all, and how deep they nest.
const (
	maxCriteria      = 10000
	maxCriteriaDepth = 100
)

// Columns is what a store knows of a message without opening it: UID, Flags
// (v1.Flag bits), Keywords, ModSeq, Size in octets, ReceivedMS (INTERNALDATE) and
// SavedMS in Unix milliseconds, MessageID and ThreadID (object ids, RFC 8474).
type Columns struct {
	UID        uint32
	Flags      uint32
	Keywords   []string
	ModSeq     uint64
	Size       int64
	ReceivedMS int64
	SavedMS    int64
	MessageID  string
	ThreadID   string
}

// Candidate is a message that a search looks at; each method is called only
// where the cheaper ones do not decide.
type Candidate interface {
	// Columns cost nothing.
	Columns() Columns
	// Summary and Structure as they were rendered when the message was stored.
	Summary() (*v1.Summary, error)
	Structure() (*v1.Part, error)
	// Header is the raw header.
	Header() ([]byte, error)
	// Open reads the whole message; Structure's offsets count in it.
	Open() (mail.Reader, error)
}

// Excluder is a Candidate that has an index of the texts that Texts gives.
type Excluder interface {
	Candidate
	// Excludes tells that folded stands in none of the message's texts; false if it
	// may, or if the index does not know. folded went through Fold and is not empty.
	Excludes(folded string) bool
}

// Matcher is a compiled criterion. It may be used concurrently.
type Matcher struct {
	test test
	cost int
}

// test answers for one message.
type test func(l *look) (bool, error)

// The costs by which the tests of a list are ordered: columns, summary, header,
// whole message.
const (
	costColumns = iota
	costSummary
	costHeader
	costBody
)

// look caches what was read of one message.
type look struct {
	Candidate
	cols   Columns
	fields []field
	read   bool
}

// field of a header, decoded and folded for comparison; raw is its value before.
type field struct{ name, value, raw string }

// Compile prepares a criterion; nil matches everything. INVALID for one that is
// malformed or too large.
func Compile(c *v1.Criterion) (*Matcher, error) {
	n := 0
	return compile(c, 0, &n)
}

// Match evaluates the criterion; the error is the candidate's.
func (m *Matcher) Match(c Candidate) (bool, error) {
	return m.test(&look{Candidate: c, cols: c.Columns()})
}

func compile(c *v1.Criterion, depth int, n *int) (*Matcher, error) {
	if *n++; *n > maxCriteria || depth > maxCriteriaDepth {
		return nil, fail.New(fail.Invalid, "the search has more than %d tests or nests deeper than %d", maxCriteria, maxCriteriaDepth)
	}
	columns := func(f func(c *Columns) bool) (*Matcher, error) {
		return &Matcher{test: func(l *look) (bool, error) { return f(&l.cols), nil }}, nil
	}
	switch t := c.GetTest().(type) {
	case nil:
		if c != nil {
			return nil, fail.New(fail.Invalid, "a search criterion without a test")
		}
		return columns(func(*Columns) bool { return true })
	case *v1.Criterion_Everything:
		return columns(func(*Columns) bool { return t.Everything })
	case *v1.Criterion_AllOf:
		return compileList(t.AllOf.GetCriteria(), false, depth, n)
	case *v1.Criterion_AnyOf:
		return compileList(t.AnyOf.GetCriteria(), true, depth, n)
	case *v1.Criterion_Not:
		if t.Not == nil {
			return nil, fail.New(fail.Invalid, "a search criterion without a test")
		}
		m, err := compile(t.Not, depth+1, n)
		if err != nil {
			return nil, err
		}
		return &Matcher{cost: m.cost, test: func(l *look) (bool, error) {
			ok, err := m.test(l)
			return !ok && err == nil, err
		}}, nil
	case *v1.Criterion_Header:
		return &Matcher{cost: costHeader, test: headerTest(t.Header)}, nil
	case *v1.Criterion_Body:
		return &Matcher{cost: costBody, test: bodyTest(t.Body, false)}, nil
	case *v1.Criterion_Text:
		return &Matcher{cost: costBody, test: bodyTest(t.Text, true)}, nil
	case *v1.Criterion_Larger:
		return columns(func(c *Columns) bool { return c.Size > t.Larger })
	case *v1.Criterion_Smaller:
		return columns(func(c *Columns) bool { return c.Size < t.Smaller })
	case *v1.Criterion_Received:
		return columns(func(c *Columns) bool { return within(t.Received, c.ReceivedMS) })
	case *v1.Criterion_Saved:
		return columns(func(c *Columns) bool { return within(t.Saved, c.SavedMS) })
	case *v1.Criterion_Sent:
		return &Matcher{cost: costSummary, test: func(l *look) (bool, error) {
			s, err := l.Summary()
			// Without a Date that can be read nothing was sent at any time.
			return err == nil && s.GetSentMs() != 0 && within(t.Sent, s.GetSentMs()), err
		}}, nil
	case *v1.Criterion_SentDay:
		return &Matcher{cost: costSummary, test: func(l *look) (bool, error) {
			s, err := l.Summary()
			if err != nil {
				return false, err
			}
			sent, ok := parseDate(string(s.GetDate()))
			year, month, day := sent.Date()
			return ok && within(t.SentDay, time.Date(year, month, day, 0, 0, 0, 0, time.UTC).UnixMilli()), nil
		}}, nil
	case *v1.Criterion_Flag:
		bits, keywords, err := ParseFlags([]string{t.Flag})
		if err != nil {
			return nil, err
		}
		return columns(func(c *Columns) bool {
			return bits != 0 && c.Flags&bits != 0 || len(keywords) > 0 && HasKeyword(c.Keywords, keywords[0])
		})
	case *v1.Criterion_ModseqAtLeast:
		return columns(func(c *Columns) bool { return c.ModSeq >= t.ModseqAtLeast })
	case *v1.Criterion_Uids:
		uids := NewRanges(t.Uids.GetRanges())
		if len(t.Uids.GetRanges()) == 0 {
			uids = nil
		}
		return columns(func(c *Columns) bool { return uids.Contains(c.UID) })
	case *v1.Criterion_MessageId:
		return columns(func(c *Columns) bool { return c.MessageID == t.MessageId })
	case *v1.Criterion_ThreadId:
		return columns(func(c *Columns) bool { return c.ThreadID == t.ThreadId })
	}
	return nil, fail.New(fail.Unsupported, "a search criterion that this storage does not know")
}

// compileList puts the cheap tests first.
func compileList(list []*v1.Criterion, any bool, depth int, n *int) (*Matcher, error) {
	out := &Matcher{}
	var ms []*Matcher
	for _, c := range list {
		if c == nil {
			return nil, fail.New(fail.Invalid, "a search criterion without a test")
		}
		m, err := compile(c, depth+1, n)
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
		out.cost = max(out.cost, m.cost)
	}
	slices.SortStableFunc(ms, func(a, b *Matcher) int { return a.cost - b.cost })
	out.test = func(l *look) (bool, error) {
		for _, m := range ms {
			if ok, err := m.test(l); ok == any || err != nil {
				return ok && err == nil, err
			}
		}
		return !any, nil
	}
	return out, nil
}

func within(r *v1.TimeRange, ms int64) bool {
	return (r.GetFromMs() == 0 || ms >= r.GetFromMs()) && (r.GetToMs() == 0 || ms < r.GetToMs())
}

// header returns the decoded, folded fields.
func (l *look) header() ([]field, error) {
	if l.read {
		return l.fields, nil
	}
	raw, err := l.Header()
	if err != nil {
		return nil, err
	}
	l.fields, l.read = foldHeader(string(raw)), true
	return l.fields, nil
}

// excludes asks the candidate's index, if it has one.
func (l *look) excludes(folded string) bool {
	x, ok := l.Candidate.(Excluder)
	return ok && folded != "" && x.Excludes(folded)
}

// foldHeader unfolds, decodes and folds the case of every field.
func foldHeader(raw string) []field {
	var out []field
	var name, value string
	flush := func() {
		if name != "" {
			raw := strings.TrimSpace(value)
			out = append(out, field{Fold(name), Fold(DecodeHeader(raw)), raw})
		}
	}
	for line := range strings.SplitSeq(raw, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			value += line
			continue
		}
		flush()
		name, value, _ = strings.Cut(line, ":")
		name = strings.TrimRight(name, " \t")
	}
	flush()
	return out
}

func headerTest(t *v1.HeaderTest) test {
	name, value := Fold(t.GetName()), Fold(t.GetValue())
	return func(l *look) (bool, error) {
		if l.excludes(value) {
			return false, nil
		}
		fields, err := l.header()
		if err != nil {
			return false, err
		}
		for _, f := range fields {
			if f.name == name && (strings.Contains(f.value, value) || f.hasAddress(value)) {
				return true, nil
			}
		}
		return false, nil
	}
}

// hasAddress tells whether a name or an address that the field says contains the
// text.
func (f *field) hasAddress(text string) bool {
	return f.eachAddress(func(said string) bool { return strings.Contains(said, text) })
}

// eachAddress calls say with the folded names and addresses of a field that has
// some, until it returns true: comments, folds and blanks within an address are no
// part of it.
func (f *field) eachAddress(say func(said string) (done bool)) (done bool) {
	if !wanted[f.name] {
		return false
	}
	for _, a := range parseAddresses([]byte(f.raw), maxAddresses) {
		if say(Fold(DecodeHeader(string(a.GetName())))) {
			return true
		}
		whole := string(a.GetLocalPart())
		switch {
		case a.GetGroup() != v1.MailAddress_NONE:
			whole = DecodeHeader(whole)
		case len(a.GetDomain()) > 0:
			whole += "@" + string(a.GetDomain())
		}
		if say(Fold(whole)) {
			return true
		}
	}
	return false
}

func bodyTest(text string, header bool) test {
	needle := Fold(text)
	return func(l *look) (bool, error) {
		if needle == "" {
			return true, nil
		}
		if l.excludes(needle) {
			return false, nil
		}
		if header {
			fields, err := l.header()
			if err != nil {
				return false, err
			}
			for _, f := range fields {
				if strings.Contains(f.text(), needle) {
					return true, nil
				}
			}
		}
		part, err := l.Structure()
		if err != nil {
			return false, err
		}
		r, err := l.Open()
		if err != nil {
			return false, err
		}
		defer r.Close()
		return searchPart(part, r, []byte(needle))
	}
}
