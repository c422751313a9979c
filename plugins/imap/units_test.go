package imap

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
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
	v := newView(&v1.SnapshotResponse{
		Mailbox: &v1.Mailbox{}, Uids: []uint32{2, 5, 9}, Flags: []uint32{0, 1, 0}, Modseqs: []uint64{1, 2, 3}, Modseq: 3,
	}, true)
	c := v.apply(&v1.SnapshotResponse{
		Uids: []uint32{5, 12}, Flags: []uint32{3, 0}, Modseqs: []uint64{4, 5},
		Keywords: []*v1.SnapshotResponse_Keywords{{Uid: 12, Keywords: []string{"$Work"}}},
		Vanished: []*v1.UIDRange{{First: 1, Last: 4}, {First: 9, Last: 11}},
	})
	if !slices.Equal(c.flags, []uint32{2}) || c.grown != 1 || !c.keywords {
		t.Errorf("change is %+v", c)
	}
	if seqs := v.pickUIDs([]wire.Range{{First: 0, Last: 5}, {First: 5, Last: 9}}); !slices.Equal(seqs, []uint32{2, 3, 4}) {
		t.Errorf("*:5,5:9 are %v before the expunge", seqs)
	}
	told, gone := v.expunge()
	if !slices.Equal(told, []uint32{1, 3}) || !slices.Equal(gone, []uint32{2, 9}) || !slices.Equal(v.uids, []uint32{5, 12}) ||
		!slices.Equal(v.flags, []uint8{3, 0}) || !slices.Equal(v.modseqs, []uint64{4, 5}) {
		t.Errorf("told %v %v, left with %v %v %v", told, gone, v.uids, v.flags, v.modseqs)
	}
	if _, ok := v.pickSeqs([]wire.Range{{First: 1, Last: 3}}); ok {
		t.Error("a number over the last is taken")
	}
	if again := v.apply(&v1.SnapshotResponse{Uids: []uint32{5}, Flags: []uint32{3}}); again.flags != nil || again.grown > 0 {
		t.Errorf("what is known already is told again: %+v", again)
	}
}

// FuzzLiteralAt: what stands before a literal is a true part of its line.
func FuzzLiteralAt(f *testing.F) {
	for _, s := range []string{"a APPEND INBOX {5}", "x {5+}", "{", "}", "{}", "{99999999999999999999}", "a ~{1+}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		l, ok := literalAt(line)
		if !ok {
			return
		}
		if l.size < 0 || len(l.prefix) >= len(line) || line[len(l.prefix)] != '{' && line[len(l.prefix)] != '~' {
			t.Errorf("%q: %q %d", line, l.prefix, l.size)
		}
	})
}

// A client that uses CONDSTORE may have selected a mailbox before the first mail came.
func TestViewOfAnEmptyMailboxKeepsModseqs(t *testing.T) {
	v := newView(&v1.SnapshotResponse{Mailbox: &v1.Mailbox{}}, true)
	v.apply(&v1.SnapshotResponse{Mailbox: &v1.Mailbox{}, Uids: []uint32{1}, Flags: []uint32{0}, Modseqs: []uint64{7}})
	if !slices.Equal(v.modseqs, []uint64{7}) {
		t.Errorf("MODSEQs are %v", v.modseqs)
	}
}
