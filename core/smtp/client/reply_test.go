package client

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

func parse(s string) (Reply, error) {
	return readReply(bufio.NewReaderSize(strings.NewReader(s), maxReplyLine))
}

func TestReadReply(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Reply
	}{
		{"250 OK\r\n", Reply{250, smtp.EnhancedCode{}, "OK"}},
		{"250\r\n", Reply{250, smtp.EnhancedCode{}, ""}},
		{"250 bare LF\n", Reply{250, smtp.EnhancedCode{}, "bare LF"}},
		{"550 5.1.1 no such user\r\n", Reply{550, smtp.EnhancedCode{5, 1, 1}, "no such user"}},
		{"550-5.7.1 one\r\n550 5.7.1 two\r\n", Reply{550, smtp.EnhancedCode{5, 7, 1}, "one\ntwo"}},
		{"250 5.1.1 another class\r\n", Reply{250, smtp.EnhancedCode{}, "5.1.1 another class"}},
		{"250 1.2.3.4 an address\r\n", Reply{250, smtp.EnhancedCode{}, "1.2.3.4 an address"}},
		{"450 4.2.1\r\n", Reply{450, smtp.EnhancedCode{4, 2, 1}, ""}},
		{"250 a\x00b\x1b[1m\xff\tc\r\n", Reply{250, smtp.EnhancedCode{}, "a?b?[1m? c"}},
		{"250 grüß\r\n", Reply{250, smtp.EnhancedCode{}, "grüß"}},
	} {
		got, err := parse(tc.in)
		if err != nil || got != tc.want {
			t.Errorf("%q: got %+v, %v; want %+v", tc.in, got, err, tc.want)
		}
	}
	for _, bad := range []string{
		"hello\r\n", "\r\n", "25\r\n", "250_OK\r\n", "999 x\r\n", "150 x\r\n", "250-a\r\n251 b\r\n", "250-a\r\nb\r\n",
		"250 " + strings.Repeat("x", maxReplyLine) + "\r\n",
		strings.Repeat("250-x\r\n", maxReplyLines+1),
		strings.Repeat("250-"+strings.Repeat("y", 4000)+"\r\n", 20),
		"250 cut",
	} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%.40q was accepted as %+v", bad, got)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250 OK\r\n", "250-a\r\n250 b\r\n", "550 5.1.1 x\r\n", "421\n", "250-5.0.0\r\n250 \xff\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(in), maxReplyLine))
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || !utf8.ValidString(r.Text) || len(r.Text) > 4*maxReplyText ||
			strings.ContainsAny(r.Text, "\r\x00\x1b\x7f") || strings.Contains(r.String(), "\n") {
			t.Fatalf("%q gave %+v", in, r)
		}
		// What is printed is a reply again, with the same code.
		again, err := readReply(bufio.NewReader(strings.NewReader(r.String() + "\r\n")))
		if err == nil && again.Code != r.Code {
			t.Fatalf("%q: code %d became %d", in, r.Code, again.Code)
		}
	})
}

func TestCheckAddress(t *testing.T) {
	for _, ok := range []string{"meg@ryan.example", "postmaster", `"a b>c"@ryan.example`, `"a\"b"@ryan.example`,
		"a+b=c/d@ryan.example", "meg@[192.0.2.1]", "meg@[IPv6:2001:db8::1]", "büro@bücher.example"} {
		if err := checkAddress(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "a>b@ryan.example", "a@b> SIZE=1", "a@b\r\nDATA", "a@b\nDATA", "a\x00@b", "a@b\x7f", "a b@c.example",
		`"a@b.example`, `"a"b@c.example`, `"a\"@b.example`, "a@", "@b.example", "a@b@c", "a@[1.2.3.4", "a@[x]>y]", "a@\xff",
		"<a@b>", "a@b c", "x, y@z", "\"a\x01\"@b.example", strings.Repeat("a", maxAddress) + "@b"} {
		if err := checkAddress(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// For a server without SMTPUTF8 only a domain changes, and never into something
// that ends the path.
func TestASCIIAddress(t *testing.T) {
	for in, want := range map[string]string{
		"meg@ryan.example": "meg@ryan.example", "meg@bücher.example": "meg@xn--bcher-kva.example", "meg": "meg",
		"mégane@ryan.example": "", "meg@ryan.example＞": "", "meg@ryan\u3000.example": "", "m\u00e9g": "", "meg@[127．0．0．1]": "",
	} {
		if got, ok := asciiAddress(in); ok != (want != "") || ok && got != want {
			t.Errorf("%q became %q, %v; want %q", in, got, ok, want)
		}
	}
}

func FuzzCheckAddress(f *testing.F) {
	f.Add(`"a> b"@c.example`)
	f.Add("a@b")
	f.Add("a@b＞\u3000NOTIFY=NEVER")
	f.Add("a@bücher.example")
	f.Fuzz(func(t *testing.T, s string) {
		if checkAddress(s) != nil {
			return
		}
		if ascii, ok := asciiAddress(s); ok && (!isASCII(ascii) || checkAddress(ascii) != nil) {
			t.Fatalf("%q became %q", s, ascii)
		}
		// Read as a server would: the first > outside of quotes ends it.
		line := "<" + s + "> X"
		quoted, end := false, -1
		for i := 1; i < len(line) && end < 0; i++ {
			switch c := line[i]; {
			case c < ' ' || c == 0x7f:
				t.Fatalf("control in %q", s)
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case c == '>' && !quoted:
				end = i
			}
		}
		if end != len(s)+1 {
			t.Fatalf("%q ends early, at %d", s, end)
		}
	})
}

func TestXtext(t *testing.T) {
	if got := xtext("a+b=c d\r"); got != "a+2Bb+3Dc+20d+0D" {
		t.Errorf("xtext: %q", got)
	}
	if got := utf8xtext(`ü\+x`); got != `\x{FC}\x{5C}\x{2B}x` {
		t.Errorf("utf-8-addr-xtext: %q", got)
	}
}

// pieces gives the reader's octets in pieces that cut CRLF and dots.
type pieces struct {
	s string
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.s == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(p.n, len(b))], p.s)
	p.s = p.s[n:]
	return n, nil
}

// FuzzBody compares the block scanners with the plain definition, at every cut.
func FuzzBody(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n", ".\r\n.", "a\r\n..b\r\n.c", "\r\n\r\n", "a\nb", "a\rb", "\r", "\n", "x\r\r\n"} {
		f.Add(s, uint8(1))
	}
	f.Fuzz(func(t *testing.T, s string, cut uint8) {
		bare := strings.ContainsAny(strings.ReplaceAll(s, "\r\n", ""), "\r\n")
		var l lineCheck
		var st stuffer
		ok := true
		var out []byte
		for rest := s; rest != "" && ok; {
			n := min(int(cut%7)+1, len(rest))
			ok = l.ok([]byte(rest[:n]))
			out = st.append(out, []byte(rest[:n]))
			rest = rest[n:]
		}
		ok = ok && !l.cr
		if ok == bare {
			t.Fatalf("%q: ok=%v", s, ok)
		}
		if !ok {
			return
		}
		want := s
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		want = strings.ReplaceAll("\r\n"+want, "\r\n.", "\r\n..") + ".\r\n"
		if got := "\r\n" + string(st.end(out)); got != want {
			t.Fatalf("%q: %q, want %q", s, got, want)
		}
		var sent bytes.Buffer
		if err := sendDotted(&sent, &pieces{s, int(cut%7) + 1}, func() {}); err != nil || "\r\n"+sent.String() != want {
			t.Fatalf("%q: sent %q, %v", s, sent.String(), err)
		}
	})
}

func TestSurvey(t *testing.T) {
	for _, tc := range []struct {
		in           string
		header, body bool
	}{
		{"A: b\r\n\r\nc", false, false},
		{"A: ü\r\n\r\nc", true, false},
		{"A: b\r\n\r\nü", false, true},
		{"A: b\r\nü", true, false},
		{"\r\nü", false, true},
	} {
		h, b, err := survey(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(tc.in)), nil })
		if err != nil || h != tc.header || b != tc.body {
			t.Errorf("%q: %v %v %v", tc.in, h, b, err)
		}
	}
}
