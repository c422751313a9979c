package main

import (
	"os"
	"reflect"
	"regexp"
	"testing"
)

// TestNormal: what servers are free in is the same afterwards, and what they are
// not free in is not.
func TestNormal(t *testing.T) {
	for _, same := range [][2][]string{
		{{`* 1 FETCH (UID 5 FLAGS (\Seen \Recent))`}, {`* 1 FETCH (FLAGS (\Seen))`, `* 1 FETCH (UID 5)`}},
		{{"* 2 FETCH (BODY[] {5}\r\na\"b)( UID 7)"}, {`* 2 FETCH (UID 7 BODY[] "a\"b)(")`}},
		{{"* 2 FETCH (BINARY[2] ~{0}\r\n)"}, {"* 2 FETCH (BINARY[2] {0}\r\n)"}},
		{{`* SEARCH 3 1 2`}, {`* SEARCH 1 2 3`}},
		{{`* 3 EXPUNGE`, `* 2 EXPUNGE`}, {`* 2 EXPUNGE`, `* 2 EXPUNGE`}},
		{{`* LIST (\HasNoChildren) "/" d1a`}, {`* LIST () "/" "d1a"`}},
		{{`* OK [UIDVALIDITY 7] x`}, {`* OK [HIGHESTMODSEQ 9] y`}},
		{{`* 1 FETCH (INTERNALDATE "01-Dec-1998 10:00:00 -0500")`}, {`* 1 FETCH (INTERNALDATE " 1-Dec-1998 15:00:00 +0000")`}},
		{{`* 1 FETCH (BODYSTRUCTURE ("text" "plain" ("format" "flowed" "charset" "utf-8") NIL NIL "7bit" 3 1))`},
			{`* 1 FETCH (BODYSTRUCTURE ("TEXT" "PLAIN" ("CHARSET" "utf-8" "FORMAT" "flowed") nil NIL "7BIT" 3 1))`}},
	} {
		if a, b := normalOf(same[0]), normalOf(same[1]); !reflect.DeepEqual(a, b) {
			t.Errorf("%q is %q, and %q is %q", same[0], a, same[1], b)
		}
	}
	for _, other := range [][2][]string{
		{{`* 1 FETCH (FLAGS (\Seen))`}, {`* 1 FETCH (FLAGS (\Flagged))`}},
		{{`* 1 FETCH (FLAGS ())`}, {`* 2 FETCH (FLAGS ())`}},
		{{`* 3 EXPUNGE`}, {`* 2 EXPUNGE`}},
		{{`* SORT 3 1 2`}, {`* SORT 1 2 3`}},
		{{`* 1 FETCH (ENVELOPE (NIL "mail"))`}, {`* 1 FETCH (ENVELOPE (NIL "Mail"))`}},
		{{`* STATUS d1a (MESSAGES 1)`}, {`* STATUS d1a (MESSAGES 2)`}},
	} {
		if a := normalOf(other[0]); reflect.DeepEqual(a, normalOf(other[1])) {
			t.Errorf("%q and %q are the same: %q", other[0], other[1], a)
		}
	}
}

func normalOf(untagged []string) []string {
	c := &conn{uids: []string{"11", "12", "13", "14"}}
	out, _ := c.normal(untagged, "OK [READ-WRITE] done")
	return out
}

// TestSequences: a seed makes the same commands again, and another others.
func TestSequences(t *testing.T) {
	made := func(seed int64) (list []command) {
		s := newSequence(seed)
		list = s.prepare()
		for range 100 {
			list = append(list, s.next())
		}
		return list
	}
	if !reflect.DeepEqual(made(7), made(7)) || reflect.DeepEqual(made(7)[10:], made(8)[10:]) {
		t.Error("a seed does not say which commands are made")
	}
}

// TestDifferences: docs/imap-differences.md has what explanations has, in its order.
func TestDifferences(t *testing.T) {
	text, err := os.ReadFile("../../docs/imap-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want [][2]string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		got = append(got, [2]string{m[1], m[2]})
	}
	for _, e := range explanations {
		want = append(want, [2]string{e.name, e.why})
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the table has\n%q\nand explained.go has\n%q", got, want)
	}
}

// TestExplanations do not explain what they are not about.
func TestExplanations(t *testing.T) {
	for _, d := range []difference{
		{"FETCH 1 FLAGS", []string{`* 1 FETCH FLAGS (\Seen)`, "OK"}, []string{"OK"}},
		{"NOOP", []string{"BAD"}, []string{"OK"}},
		{"STORE 1 FLAGS (work)", []string{"OK"}, []string{`* 1 FETCH FLAGS (work)`, "OK"}},
		{"SEARCH SEEN", []string{"* SEARCH 1", "OK"}, []string{"* SEARCH 1 2", "OK"}},
		{"COPY 1 d1b", []string{"OK [COPYUID 1 2]"}, []string{"OK [COPYUID 1 3]"}},
		{"FETCH 1 ENVELOPE", []string{`* 1 FETCH ENVELOPE (NIL "a")`, "OK"}, []string{`* 1 FETCH ENVELOPE (NIL "b")`, "OK"}},
	} {
		mine, other := without(d.ours, d.theirs), without(d.theirs, d.ours)
		for _, e := range explanations {
			if a, b := e.explain(d, mine, other); len(a) != len(mine) || len(b) != len(other) {
				t.Errorf("%s explains %+v", e.name, d)
			}
		}
	}
}
