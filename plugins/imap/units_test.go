package imap

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestMatchName(t *testing.T) {
	for _, d := range []struct {
		name, pattern string
		want          bool
	}{
		{"INBOX", "*", true}, {"a/b", "%", false}, {"a/b", "%/%", true}, {"a/b", "a*", true}, {"a", "a%", true},
		{"a/b/c", "a/%/c", true}, {"a/b/d/c", "a/%/c", false}, {"ab", "a", false}, {"", "*", true}, {"a", "", false},
	} {
		if got := matchName(d.name, d.pattern); got != d.want {
			t.Errorf("matchName(%q, %q) = %v", d.name, d.pattern, got)
		}
	}
	begun := time.Now()
	matchName(strings.Repeat("a", 1000), strings.Repeat("*a", 500)+"b")
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("a pattern of many stars took %v", d)
	}
}

func TestView(t *testing.T) {
	v := newView(&v1.SnapshotResponse{Mailbox: &v1.Mailbox{}, Uids: []uint32{2, 5, 9}, Flags: []uint32{0, 1, 0}, Modseq: 3})
	c := v.apply(&v1.SnapshotResponse{
		Uids: []uint32{5, 12}, Flags: []uint32{3, 0},
		Keywords: []*v1.SnapshotResponse_Keywords{{Uid: 12, Keywords: []string{"$Work"}}},
		Vanished: []*v1.UIDRange{{First: 1, Last: 4}, {First: 9, Last: 11}},
	})
	if !slices.Equal(c.flags, []uint32{2}) || !c.grown || !c.keywords {
		t.Errorf("change is %+v", c)
	}
	if seqs := v.pickUIDs([]span{{0, 5}, {5, 9}}); !slices.Equal(seqs, []uint32{2, 3, 4}) {
		t.Errorf("*:5,5:9 are %v before the expunge", seqs)
	}
	var told []uint32
	v.expunge(func(seq uint32) error { told = append(told, seq); return nil })
	if !slices.Equal(told, []uint32{3, 1}) || !slices.Equal(v.uids, []uint32{5, 12}) || !slices.Equal(v.flags, []uint32{3, 0}) {
		t.Errorf("told %v, left with %v %v", told, v.uids, v.flags)
	}
	if _, ok := v.pickSeqs([]span{{1, 3}}); ok {
		t.Error("a number over the last is taken")
	}
	if again := v.apply(&v1.SnapshotResponse{Uids: []uint32{5}, Flags: []uint32{3}}); again.flags != nil || again.grown {
		t.Errorf("what is known already is told again: %+v", again)
	}
}

// FuzzLiteralAt: what stands before a literal is a true part of its line.
func FuzzLiteralAt(f *testing.F) {
	for _, s := range []string{"a APPEND INBOX {5}", "x {5+}", "{", "}", "{}", "{99999999999999999999}", "a ~{1+}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		prefix, n, _, ok := literalAt(line)
		if ok && (n < 0 || len(prefix) >= len(line) || line[len(prefix)] != '{') {
			t.Errorf("%q: %q %d", line, prefix, n)
		}
		if !ok && string(prefix) != string(line) {
			t.Errorf("%q: no literal, but only %q", line, prefix)
		}
	})
}

// TestOutputFollows: an answer in a message is no answer.
func TestOutputFollows(t *testing.T) {
	for _, size := range []int{1, 2, 3, 7, 4096} {
		o := &output{}
		o.expect("a")
		text := "* 1 FETCH (BODY[] {18}\r\na OK not yet\r\n+ x\r\n FLAGS ())\r\n"
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			o.follow(rest[:n])
			rest = rest[n:]
		}
		if answered, invited := o.answer(); answered || invited {
			t.Errorf("pieces of %d: a message's text is an answer", size)
		}
		o.follow([]byte("a OK done\r\n"))
		if answered, _ := o.answer(); !answered {
			t.Errorf("pieces of %d: the answer was missed", size)
		}
	}
}
