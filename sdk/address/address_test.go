package address

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 100)
	for _, c := range []struct {
		in   string
		want Address
	}{
		{"tom@hanks.example", Address{"tom", "hanks.example"}},
		{"Tom@HANKS.Example", Address{"Tom", "hanks.example"}},
		{`"a@b"@c.d`, Address{"a@b", "c.d"}},
		{`"x> y"@c.d`, Address{"x> y", "c.d"}},
		{`"tom"@hanks.example`, Address{"tom", "hanks.example"}},
		{`"q\"b\\s\ "@c.d`, Address{`q"b\s `, "c.d"}},
		{`""@c.d`, Address{"", "c.d"}},
		{"meg+list=a@ryan.example", Address{"meg+list=a", "ryan.example"}},
		{"a@[192.0.2.1]", Address{"a", "[192.0.2.1]"}},
		{"a@[IPv6:2001:db8::1]", Address{"a", "[IPv6:2001:db8::1]"}},
		{"a@host_1", Address{"a", "host_1"}},
		{"δοκιμή@παράδειγμα.δοκιμή", Address{"δοκιμή", "παράδειγμα.δοκιμή"}},
		{`"δ δ"@x.y`, Address{"δ δ", "x.y"}},
		{long + "@c.d", Address{long, "c.d"}}, // VERP and SRS go past 64 octets
	} {
		got, err := Parse(c.in, true)
		if err != nil || got != c.want {
			t.Errorf("Parse(%q) = %#v, %v; want %#v", c.in, got, err, c.want)
			continue
		}
		if again, err := Parse(got.String(), true); err != nil || again != got {
			t.Errorf("Parse(%q), from %q: %#v, %v", got.String(), c.in, again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		in   string
		utf8 bool
		want error
	}{
		{"", true, ErrSyntax},
		{"tom", true, ErrSyntax},
		{"postmaster", true, ErrSyntax},
		{"@c.d", true, ErrSyntax},
		{"a@", true, ErrSyntax},
		{".a@c.d", true, ErrSyntax},
		{"a.@c.d", true, ErrSyntax},
		{"a..b@c.d", true, ErrSyntax},
		{"a b@c.d", true, ErrSyntax},
		{"a@c d", true, ErrSyntax},
		{"a@c.d>", true, ErrSyntax},
		{"a@b@c.d", true, ErrSyntax},
		{"a@c..d", true, ErrSyntax},
		{"a@c.d.", true, ErrSyntax},
		{"a@-c.d", true, ErrSyntax},
		{"a@c-.d", true, ErrSyntax},
		{"a@" + strings.Repeat("x", 64) + ".d", true, ErrSyntax},
		{"a\x00b@c.d", true, ErrSyntax},
		{"a\rb@c.d", true, ErrSyntax},
		{"\"a\x07b\"@c.d", true, ErrSyntax},
		{"\"a\\\x07b\"@c.d", true, ErrSyntax},
		{"\"a\x7fb\"@c.d", true, ErrSyntax},
		{`"a@c.d`, true, ErrSyntax},
		{`"a\`, true, ErrSyntax},
		{`"a"b@c.d`, true, ErrSyntax},
		{"a\xff@c.d", true, ErrSyntax},
		{"a\xff@c.d", false, ErrSyntax},
		{"a\u0085b@c.d", true, ErrSyntax},
		{"a@x\u3002y", true, ErrSyntax},
		{"a@[192.0.2.256]", true, ErrSyntax},
		{"a@[2001:db8::1]", true, ErrSyntax},
		{"a@[IPv6:192.0.2.1]", true, ErrSyntax},
		{"a@[IPv6:fe80::1%lo]", true, ErrSyntax},
		{"a@[x-tag:y]", true, ErrSyntax},
		{"a@[192.0.2.1", true, ErrSyntax},
		{"δ@c.d", false, ErrNonASCII},
		{`"δ"@c.d`, false, ErrNonASCII},
		{"a@δ.d", false, ErrNonASCII},
		{"a@" + strings.Repeat("x.", 127) + "xx", true, ErrTooLong},
	} {
		if got, err := Parse(c.in, c.utf8); !errors.Is(err, c.want) || got != (Address{}) {
			t.Errorf("Parse(%q, %v) = %#v, %v; want %v", c.in, c.utf8, got, err, c.want)
		}
	}
}

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Address
		rest string
	}{
		{"<>", Address{}, ""},
		{"<> SIZE=5", Address{}, " SIZE=5"},
		{"<tom@hanks.example> BODY=7BIT", Address{"tom", "hanks.example"}, " BODY=7BIT"},
		{`<"x> y"@c.d> X`, Address{"x> y", "c.d"}, " X"},
		{"<Postmaster>", Address{"Postmaster", ""}, ""},
		{"<@a.b:x@y>", Address{"x", "y"}, ""},
		{"<@a,@b:x@y>", Address{"x", "y"}, ""},
	} {
		got, n, err := ParsePath(c.in, false)
		if err != nil || got != c.want || c.in[n:] != c.rest {
			t.Errorf("ParsePath(%q) = %#v, rest %q, %v", c.in, got, c.in[n:], err)
		}
	}
	for _, in := range []string{"", "a@b", "<", "<a@b", "<tom>", "<@a,b:x@y>", "<@a@b>", "<@a:>", "<@a", "<<a@b>>", "<a@b c>", `<"a@b>`, "< a@b>", "<>>"[:1]} {
		if a, _, err := ParsePath(in, true); !errors.Is(err, ErrSyntax) {
			t.Errorf("ParsePath(%q) = %#v, %v; want a syntax error", in, a, err)
		}
	}
	if _, _, err := ParsePath("<a@"+strings.Repeat("x.", 126)+"xx>", false); !errors.Is(err, ErrTooLong) {
		t.Errorf("path of 257 octets: %v", err)
	}
}

func TestDetail(t *testing.T) {
	for _, c := range []struct{ local, sep, base, detail string }{
		{"meg+list", "+", "meg", "list"},
		{"meg+a+b", "+", "meg", "a+b"},
		{"meg", "+", "meg", ""},
		{"meg+", "+", "meg", ""},
		{"+meg", "+", "+meg", ""},
		{"meg--x", "--", "meg", "x"},
		{"meg+x", "", "meg+x", ""},
	} {
		a := Address{c.local, "ryan.example"}
		if got := a.Base(c.sep).Local; got != c.base {
			t.Errorf("%q.Base(%q) = %q", c.local, c.sep, got)
		}
		if got := a.Detail(c.sep); got != c.detail {
			t.Errorf("%q.Detail(%q) = %q", c.local, c.sep, got)
		}
	}
}

// A value that no parser made must not be able to add a command or a parameter.
func TestStringCannotInject(t *testing.T) {
	for _, a := range []Address{
		{"a> NOTIFY=NEVER", "c.d"},
		{"a\r\nRCPT TO:<b@c", "c.d"},
		{"a", "c.d> NOTIFY=NEVER"},
		{"a", "c.d\r\nDATA"},
		{"a\xff", "c\xff"},
		{"a", "[192.0.2.1] x"},
		{"", "c.d"},
		{"a@b", ""},
	} {
		s := "<" + a.String() + ">"
		if strings.ContainsAny(s, "\r\n\x00") {
			t.Errorf("%#v.String() = %q holds a control", a, s)
		}
		if unquoted := stripQuoted(s); strings.Contains(unquoted, " ") || strings.Count(unquoted, ">") != 1 {
			t.Errorf("%#v.String() = %q ends its path early", a, s)
		}
	}
	if got := (Address{}).String(); got != "" {
		t.Errorf("null address: %q", got)
	}
}

// stripQuoted removes the quoted strings of s.
func stripQuoted(s string) string {
	var b strings.Builder
	in := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && in:
			i++
		case s[i] == '"':
			in = !in
		case !in:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"<>", "<a@b>", `<"a\"b c"@d>`, "<@a,@b:c@d>", "<postmaster>", "<δ@δ>", "<a@[IPv6:::1]> X=Y", "<a@[192.0.2.1]>"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, smtputf8 bool) {
		a, n, err := ParsePath(s, smtputf8)
		if err != nil {
			if a != (Address{}) || n != 0 {
				t.Fatalf("ParsePath(%q): %#v, %d beside an error", s, a, n)
			}
			return
		}
		if s[0] != '<' || s[n-1] != '>' {
			t.Fatalf("ParsePath(%q) took %q", s, s[:n])
		}
		if !smtputf8 && !a.IsASCII() {
			t.Fatalf("ParsePath(%q): %#v is not ASCII", s, a)
		}
		again, m, err := ParsePath("<"+a.String()+">", smtputf8)
		if err != nil || again != a || m != len(a.String())+2 {
			t.Fatalf("ParsePath(%q) = %#v; its String %q gives %#v, %v", s, a, a.String(), again, err)
		}
	})
}

func FuzzString(f *testing.F) {
	f.Add("a b", "c.d")
	f.Add("a\r\nb", "c> d")
	f.Fuzz(func(t *testing.T, local, domain string) {
		a := Address{local, domain}
		s := "<" + a.String() + ">"
		if u := stripQuoted(s); strings.ContainsAny(s, "\r\n\x00") || strings.ContainsAny(u, " \t") || strings.Count(u, ">") != 1 {
			t.Fatalf("%#v.String() = %q", a, s)
		}
	})
}
