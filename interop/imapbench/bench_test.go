package main

import (
	"bufio"
	"bytes"
	"net"
	"reflect"
	"strings"
	"testing"
)

// TestMails: the same in every run, and as many with the rare word as a search
// is to find.
func TestMails(t *testing.T) {
	text, subjects := 0, 0
	for n := range 2000 {
		m := mail(n)
		if n%100 == 0 && !bytes.Equal(m, mail(n)) {
			t.Fatalf("mail %d differs from itself", n)
		}
		if len(m) < 1024 || len(m) > 80<<10 {
			t.Errorf("mail %d has %d octets", n, len(m))
		}
		if bytes.Contains(bytes.ReplaceAll(m, []byte("\r\n"), nil), []byte("\n")) {
			t.Errorf("mail %d has a bare LF", n)
		}
		header, _, _ := bytes.Cut(m, []byte("\r\n\r\n"))
		if bytes.Contains(m, []byte(rare)) {
			text++
		}
		if bytes.Contains(header, []byte(rare)) {
			subjects++
		}
	}
	if text != 4 || subjects != 2 {
		t.Errorf("%d mails and %d subjects have the rare word", text, subjects)
	}
}

// TestReplies: literals are skipped, and lines in them are no replies.
func TestReplies(t *testing.T) {
	ours, its := net.Pipe()
	defer ours.Close()
	go func() {
		defer its.Close()
		_, _ = its.Write([]byte("* 1 FETCH (BODY[] {12}\r\na1 OK no\r\n\r\n FLAGS ())\r\n* 2 FETCH (" + strings.Repeat("x", 100) + ")\r\na1 OK done\r\n"))
	}()
	c := &client{conn: ours, in: bufio.NewReaderSize(ours, 64)}
	var seen []string
	n, err := c.replies("a1", func(line []byte) { seen = append(seen, string(line[:9])) })
	if err != nil || n != 2 || !reflect.DeepEqual(seen, []string{"* 1 FETCH", "* 2 FETCH"}) {
		t.Errorf("%d replies, %q, %v", n, seen, err)
	}
}

// TestRow: ours is compared with the best of the others in each round.
func TestRow(t *testing.T) {
	b := &bench{servers: []server{&ours{}, newTheirs("", "sdbox", 0), newTheirs("", "maildir", 0)}, counts: []int{1000}}
	for round, values := range [][3]float64{{10, 30, 20}, {10, 15, 40}, {10, 50, 25}} {
		for i, s := range b.servers {
			b.results = append(b.results, result{figure: "flags", server: s.name(), mails: 1000, round: round, value: values[i]})
		}
	}
	got := b.row(figure{name: "flags", goal: 3, sized: true}, 1000)
	want := row{Figure: "flags", Mails: 1000, Ours: 10, Theirs: 25, Best: "maildir", Ratio: 2, Goal: 3}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	more := b.row(figure{name: "flags", goal: 1, more: true}, 1000)
	if more.Ratio != 0.25 || more.Best != "sdbox" || more.Holds {
		t.Errorf("more is better: %+v", more)
	}
}
