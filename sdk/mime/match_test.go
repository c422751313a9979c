package mime

import (
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// text is a Candidate that has everything at hand.
type text struct {
	*Rendered
	raw string
}

func (t text) Columns() Columns              { return Columns{UID: 1} }
func (t text) Summary() (*v1.Summary, error) { return t.Rendered.Summary, nil }
func (t text) Structure() (*v1.Part, error)  { return t.Rendered.Structure, nil }
func (t text) Header() ([]byte, error)       { return []byte(t.raw[:t.HeaderLen]), nil }
func (t text) Open() (mail.Reader, error)    { return mail.FromBytes([]byte(t.raw)).Open() }

func finds(t *testing.T, message string, c *v1.Criterion) bool {
	t.Helper()
	raw := crlf(message)
	r, err := Summarize(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	found, err := m.Match(text{r, raw})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestMatchAddresses(t *testing.T) {
	const message = "From: <meg (the boss)@ (at home) ryan.example>\n" +
		"To: =?utf-8?q?Fr=C3=BCher?= friends: \"Hanks, Tom\" <tom@\n hanks.example>;\nX-To: <a (b)@c>\nSubject: <a (b)@c>\n\nx"
	for _, c := range []struct {
		field, value string
		want         bool
	}{
		{"From", "meg@ryan.example", true},
		{"From", "EG@RYAN", true},
		{"From", "the boss", true},
		{"From", "meg (the", true},
		{"From", "tom@hanks.example", false},
		{"To", "tom@hanks.example", true},
		{"To", "hanks, tom", true},
		{"To", "früher friends", true},
		{"To", "friendstom", false},
		{"X-To", "a@c", false},
		{"Subject", "a@c", false},
		{"Cc", "", false},
		{"To", "", true},
	} {
		criterion := &v1.Criterion{Test: &v1.Criterion_Header{Header: &v1.HeaderTest{Name: c.field, Value: c.value}}}
		if got := finds(t, message, criterion); got != c.want {
			t.Errorf("%s %q: found %v, want %v", c.field, c.value, got, c.want)
		}
	}
}

func TestMatchSentDay(t *testing.T) {
	day := func(d int) int64 { return time.Date(2007, time.February, d, 0, 0, 0, 0, time.UTC).UnixMilli() }
	for _, c := range []struct {
		date     string
		from, to int64
		want     bool
	}{
		{"Thu, 15 Feb 2007 01:02:03 +0200", day(15), day(16), true}, // the 14th in UTC
		{"Thu, 15 Feb 2007 01:02:03 +0200", day(14), day(15), false},
		{"Thu, 15 Feb 2007 23:59:59 -1100", day(15), day(16), true}, // the 16th in UTC
		{"Thu, 15 Feb 2007 23:59:59 -1100", day(16), 0, false},
		{"Thu, 15 Feb 2007 00:00:00 +0000", day(15), 0, true},
		{"Thu, 15 Feb 2007 00:00:00 +0000", 0, day(15), false},
		{"yesterday", 0, 0, false},
		{"", 0, 0, false},
	} {
		criterion := &v1.Criterion{Test: &v1.Criterion_SentDay{SentDay: &v1.TimeRange{FromMs: c.from, ToMs: c.to}}}
		if got := finds(t, "Date: "+c.date+"\n\nx", criterion); got != c.want {
			t.Errorf("%q from %d to %d: found %v, want %v", c.date, c.from, c.to, got, c.want)
		}
	}
}
