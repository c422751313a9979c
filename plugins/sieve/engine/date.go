package engine

import (
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// dateTests are RFC 5260's.
func dateTests() []*spec {
	zone := &tag{name: "zone", group: "zone", param: &param{"time zone", wantString}, check: func(v *validator, _ *node, t *tagged) bool {
		if s, ok := t.value.constant(); ok {
			if _, good := parseZone(s); !good {
				return v.errorf(t.pos, "'%s' is no time zone: write it as in \"+0100\"", clip(s, 20))
			}
		}
		return true
	}}
	part := param{"date part", wantString}
	keys := param{"key list", wantList}
	check := func(arg int) func(*validator, *node) bool {
		return func(v *validator, n *node) bool {
			if s, ok := n.args[arg].constant(); ok && !slices.Contains(dateParts, strings.ToLower(s)) {
				v.warnf(n.args[arg].pos, "'%s' is no part of a date", clip(s, 20))
			}
			return checkIndex(v, n) && checkMatch(v, n, &n.args[arg+1])
		}
	}
	return []*spec{
		{
			name: "date", exts: []string{"date"}, test: true, args: []param{{"header name", wantString}, part, keys},
			tags:  matchTags(append(indexTags(), zone, &tag{name: "originalzone", group: "zone"})...),
			check: check(1),
			eval: func(m *machine, n *node) (bool, error) {
				fields := selected(n, fieldsNamed(m.msg.Fields, n.text(m, 0)))
				if len(fields) == 0 {
					return m.matchAny(n, nil, n.list(m, 2))
				}
				v := decodeHeader(fields[0].value())
				// The date of a Received field stands behind its last semicolon.
				if i := strings.LastIndexByte(v, ';'); i >= 0 {
					v = v[i+1:]
				}
				t, ok := parseDate(v)
				if !ok {
					return m.matchAny(n, nil, n.list(m, 2))
				}
				return m.matchAny(n, []string{m.datePart(n, t, n.text(m, 1))}, n.list(m, 2))
			},
		},
		{
			name: "currentdate", exts: []string{"date"}, test: true, args: []param{part, keys}, tags: matchTags(zone), check: check(0),
			eval: func(m *machine, n *node) (bool, error) {
				return m.matchAny(n, []string{m.datePart(n, m.in.Now, n.text(m, 0))}, n.list(m, 1))
			},
		},
	}
}

var dateParts = strings.Fields("year month day date julian hour minute second time iso8601 std11 zone weekday")

func parseDate(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	t, err := mail.ParseDate(s)
	if err != nil {
		if i := strings.IndexByte(s, '('); i > 0 {
			t, err = mail.ParseDate(strings.TrimSpace(s[:i]))
		}
	}
	return t, err == nil
}

// parseZone reads "+0100".
func parseZone(s string) (*time.Location, bool) {
	if len(s) != 5 || s[0] != '+' && s[0] != '-' || !isDigits(s[1:]) {
		return nil, false
	}
	at := (int(s[1]-'0')*10+int(s[2]-'0'))*3600 + (int(s[3]-'0')*10+int(s[4]-'0'))*60
	if s[0] == '-' {
		at = -at
	}
	return time.FixedZone("", at), true
}

func (m *machine) datePart(n *node, t time.Time, part string) string {
	switch {
	case n.is("zone", "zone"):
		s, _ := n.tagText(m, "zone")
		if loc, ok := parseZone(s); ok {
			t = t.In(loc)
		}
	case n.is("zone", "originalzone"):
	default:
		t = t.In(m.in.Now.Location())
	}
	switch strings.ToLower(part) {
	case "year":
		return fmt.Sprintf("%04d", t.Year())
	case "month":
		return fmt.Sprintf("%02d", t.Month())
	case "day":
		return fmt.Sprintf("%02d", t.Day())
	case "date":
		return t.Format("2006-01-02")
	case "julian":
		// Days since 1858-11-17, in the zone chosen.
		y, mo, d := t.Date()
		return itoa(int(time.Date(y, mo, d, 0, 0, 0, 0, time.UTC).Unix()/86400) + 40587)
	case "hour":
		return fmt.Sprintf("%02d", t.Hour())
	case "minute":
		return fmt.Sprintf("%02d", t.Minute())
	case "second":
		return fmt.Sprintf("%02d", t.Second())
	case "time":
		return t.Format("15:04:05")
	case "iso8601":
		return t.Format("2006-01-02T15:04:05-07:00")
	case "std11":
		return t.Format("Mon, 02 Jan 2006 15:04:05 -0700")
	case "zone":
		return t.Format("-0700")
	case "weekday":
		return itoa(int(t.Weekday()))
	}
	return ""
}
