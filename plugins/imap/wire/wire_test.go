package wire

import (
	"strings"
	"testing"
	"time"
)

func TestStrings(t *testing.T) {
	for _, d := range []struct {
		text, want string
		bad        bool
	}{
		{`atom`, "atom", false}, {`"quo\"ted\\"`, `quo"ted\`, false}, {"{3}\r\na\r\n", "a\r\n", false}, {"{3+}\r\nabc", "abc", false},
		{`"open`, "", true}, {"\"a\r\nb\"", "", true}, {`"\x"`, "", true}, {"{5}\r\nabc", "", true}, {"", "", true}, {"(", "", true},
		{"\"\xff\"", "", true}, {"{1}\r\n\x00", "", true}, {"a]b", "a]b", false}, {"{99999999999}\r\n", "", true},
	} {
		p := NewParser(d.text, nil)
		got := p.AString()
		p.End()
		if got != d.want && !d.bad || (p.Err() != nil) != d.bad {
			t.Errorf("%q: %q %v", d.text, got, p.Err())
		}
	}
}

func TestSets(t *testing.T) {
	for text, ok := range map[string]bool{"1": true, "1:*,5": true, "*:3": true, "$": true, "0": false, "1,": false, "1:": false, "a": false, "4294967296": false} {
		p := NewParser(text, nil)
		p.Set()
		p.End()
		if (p.Err() == nil) != ok {
			t.Errorf("%q: %v", text, p.Err())
		}
	}
	if got := string(AppendSet(nil, []uint32{1, 2, 3, 5, 9, 10})); got != "1:3,5,9:10" {
		t.Error(got)
	}
}

func TestNesting(t *testing.T) {
	p := NewParser(strings.Repeat("(", 10000), nil)
	var nest func()
	nest = func() { p.List(nest) }
	nest()
	if p.Err() == nil {
		t.Error("no end of parentheses is taken")
	}
}

func TestReplies(t *testing.T) {
	for _, d := range []struct{ got, want string }{
		{string(AppendString(nil, `a"b\`, false)), `"a\"b\\"`},
		{string(AppendString(nil, "a\r\nb", false)), "{4}\r\na\r\nb"},
		{string(AppendString(nil, "ä", false)), "{2}\r\nä"},
		{string(AppendString(nil, "ä", true)), `"ä"`},
		{string(AppendNString(nil, "", true)), "NIL"},
		{string(AppendAString(nil, "nil", true)), `"nil"`},
		{string(AppendAString(nil, "X-None", true)), "X-None"},
		{string(AppendDateTime(nil, time.Date(2025, 2, 1, 10, 0, 0, 0, time.UTC))), `"01-Feb-2025 10:00:00 +0000"`},
	} {
		if d.got != d.want {
			t.Errorf("%q, want %q", d.got, d.want)
		}
	}
}

func TestUTF7(t *testing.T) {
	for name, want := range map[string]string{"INBOX": "INBOX", "Ärger": "&AMQ-rger", "a&b": "a&-b", "日本語": "&ZeVnLIqe-", "😀": "&2D3eAA-"} {
		if got := EncodeUTF7(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
		if back, ok := DecodeUTF7(want); !ok || back != name {
			t.Errorf("%q is read as %q %v", want, back, ok)
		}
	}
	for _, bad := range []string{"&", "&AMQ", "&AM-", "ä", "&AGE-", "&*-"} {
		if got, ok := DecodeUTF7(bad); ok {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

// FuzzParser: every piece of the grammar ends, and after a mistake nothing comes.
func FuzzParser(f *testing.F) {
	for _, s := range []string{"a", `"a\"b"`, "{3}\r\nabc", "(a (b c))", "1:*,3", " 1-Feb-2025", `"01-Feb-2025 10:00:00 +0100"`, "\\Seen", "NIL", "&AOQ-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for i, take := range []func(*Parser){
			func(p *Parser) { p.AString() }, func(p *Parser) { p.NString() }, func(p *Parser) { p.Set() }, func(p *Parser) { p.Date() },
			func(p *Parser) { p.DateTime() }, func(p *Parser) { p.Flag() }, func(p *Parser) { p.Pattern() },
			func(p *Parser) { p.List(func() { p.AString() }) },
		} {
			p := NewParser(text, nil)
			take(p)
			if p.Err() != nil && (!p.AtEnd() || p.Try(' ')) {
				t.Errorf("%d, %q: goes on after %v", i, text, p.Err())
			}
		}
		if name, ok := DecodeUTF7(text); ok {
			if again, ok := DecodeUTF7(EncodeUTF7(name)); !ok || again != name {
				t.Errorf("%q, %q: %q", text, name, again)
			}
		}
		for _, takes := range []bool{false, true} {
			p := NewParser(string(AppendString(nil, text, takes)), nil)
			if got := p.String(); strings.IndexByte(text, 0) < 0 && got != text {
				t.Errorf("%q comes back as %q", text, got)
			}
		}
	})
}
