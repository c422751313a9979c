package message_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
)

func TestRead(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tc := range []struct{ text, fields, body string }{
		{"A: 1\r\nB :\t2\r\n 3\r\n\r\nbody\r\n", "A= 1|B=\t2\r\n 3", "body\r\n"},
		{"A: 1\r\n\r\n", "A= 1", ""},
		{"A: 1\r\n", "A= 1", ""},
		{"A: 1", "A= 1", ""},
		{"\r\nbody", "", "body"},
		{"", "", ""},
		{" first line folded\r\nA: 1\r\n\r\n", "A= 1", ""},
		{"no field\r\nA: 1\r\n and: more\r\n: empty\r\na b: c\r\nB:\r\n\r\nx", "A= 1\r\n and: more|B=", "x"},
		{"A: " + long + "\r\n " + long + "\r\nB: 2\r\n\r\n" + long, "A= " + long + "\r\n " + long + "|B= 2", long},
	} {
		m, err := message.Read(iotest.HalfReader(strings.NewReader(tc.text)))
		if err != nil {
			t.Errorf("%.40q: %v", tc.text, err)
			continue
		}
		var got []string
		for _, f := range m.Header {
			got = append(got, f.Name+"="+string(f.Value()))
		}
		body, err := io.ReadAll(m.Body)
		if s := strings.Join(got, "|"); s != tc.fields || string(body) != tc.body || err != nil {
			t.Errorf("%.40q: %.80q and %.40q, %v", tc.text, s, body, err)
		}
	}
	m, err := message.Read(strings.NewReader("X: 1\r\nx: a\r\n\tb \r\nY: 2\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if all := m.Header.All("X"); len(all) != 2 || all[1].Unfolded() != "a\tb" {
		t.Errorf("%v", all)
	}
}

func TestReadIsBounded(t *testing.T) {
	for _, endless := range []string{"A: x\r\n", "A", " folded\r\n"} {
		if _, err := message.Read(io.MultiReader(strings.NewReader("A: 1\r\n"), &repeat{text: endless})); err == nil {
			t.Errorf("an endless header of %q was taken", endless)
		}
	}
	if _, err := message.Read(iotest.ErrReader(errors.New("disk"))); err == nil || err.Error() != "disk" {
		t.Errorf("a read error: %v", err)
	}
}

type repeat struct {
	text string
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at%len(r.text)]
		r.at++
	}
	return len(p), nil
}

// FuzzRead: the fields and the body are pieces of the message, in its order.
func FuzzRead(f *testing.F) {
	f.Add([]byte("A: 1\r\nB :\t2\r\n 3\r\nrubbish\r\n\r\nbody\r\n"))
	f.Add([]byte(" x\r\n:\r\nA:\r\n\r\r\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := message.Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		body, err := io.ReadAll(m.Body)
		if err != nil || !bytes.HasSuffix(text, body) {
			t.Fatalf("body %q of %q: %v", body, text, err)
		}
		rest := append(bytes.TrimSuffix(text, body), "\r\n"...)
		for _, f := range m.Header {
			i := bytes.Index(rest, bytes.TrimSuffix(f.Raw, []byte("\r\n")))
			if i < 0 || f.Name == "" {
				t.Fatalf("field %q is not in order in %q", f.Raw, text)
			}
			rest = rest[i+len(f.Raw)-2:]
			_, _ = f.Value(), f.Unfolded()
		}
	})
}
