package authres_test

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/authres"
)

func TestFormat(t *testing.T) {
	got := authres.Format("mx.ryan.example", []authres.Result{
		{Method: "spf", Value: "pass", Comment: "by (mx)", Properties: []authres.Property{{"smtp", "mailfrom", "tom@hanks.example"}}},
		{Method: "dkim", Value: "fail", Reason: `the "body" was changed`, Properties: []authres.Property{{"header", "d", "hanks.example"}, {"header", "b", "dB+x/Y=="}, {"header", "i", ""}}},
		{Method: "iprev", Value: "pass", Properties: []authres.Property{{"policy", "iprev", "2001:db8::1"}}},
	})
	want := " mx.ryan.example;\r\n\tspf=pass (by _mx_)\r\n\t smtp.mailfrom=tom@hanks.example;\r\n\tdkim=fail\r\n\t reason=\"the \\\"body\\\" was changed\"" +
		"\r\n\t header.d=hanks.example\r\n\t header.b=\"dB+x/Y==\";\r\n\tiprev=pass\r\n\t policy.iprev=\"2001:db8::1\""
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := authres.Format("mx.ryan.example", nil); got != " mx.ryan.example; none" {
		t.Errorf("%q", got)
	}
}

func TestName(t *testing.T) {
	for value, want := range map[string]string{
		" MX.Ryan.Example; spf=pass":                       "mx.ryan.example",
		"\r\n\t(a (nested\\) one))mx.ryan.example 1; none": "mx.ryan.example",
		` "mx.ryan\.example" ; none`:                       "mx.ryan.example",
		"mx.ryan.example.(x);":                             "mx.ryan.example",
		"mx.ryan.example":                                  "mx.ryan.example",
		"":                                                 "",
		"; spf=pass":                                       "",
		"(open":                                            "",
		`"open`:                                            "",
	} {
		if got, ok := authres.Name(value); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", value, got, ok, want)
		}
	}
}

// FuzzFormat: no value gets out of its place, and the field still bears our name.
func FuzzFormat(f *testing.F) {
	f.Add("tom@hanks.example", "why")
	f.Add("a\"; dkim=pass\r\nX: y", "\\\"\r\n\x00")
	f.Add("a@b@c", strings.Repeat("\xff", 300))
	f.Fuzz(func(t *testing.T, value, reason string) {
		got := authres.Format("mx.ryan.example", []authres.Result{{Method: "spf", Value: "none", Comment: value, Reason: reason, Properties: []authres.Property{{"smtp", "mailfrom", value}}}})
		for i, line := range strings.Split(got, "\r\n") {
			if strings.ContainsAny(line, "\r\n\x00") || i > 0 && line[0] != '\t' {
				t.Fatalf("line %d: %q", i, line)
			}
		}
		// What stands outside of quotes and comments has one result.
		outside, end := 0, byte(0)
		for i := 0; i < len(got); i++ {
			switch c := got[i]; {
			case end == '"' && c == '\\':
				i++
			case end != 0:
				if c == end {
					end = 0
				}
			case c == '"':
				end = '"'
			case c == '(':
				end = ')'
			case c == ';':
				outside++
			}
		}
		if end != 0 || outside != 1 {
			t.Fatalf("%d results in %q", outside, got)
		}
		if name, ok := authres.Name(got); !ok || name != "mx.ryan.example" {
			t.Fatalf("name %q of %q", name, got)
		}
		_, _ = authres.Name(value)
	})
}
