package foreign

import (
	"strings"
	"testing"
)

func TestFieldValue(t *testing.T) {
	for in, want := range map[string]string{
		"Yes":                          "Yes",
		"a\nBcc: tom@hanks.example":    "a\r\n\tBcc: tom@hanks.example",
		"a\r\n\r\nHello\r\n":           "a\r\n\tHello",
		"a\r\n b\rc":                   "a\r\n b\r\n\tc",
		"a\x00b\x7f":                   "a?b?",
		"":                             "",
		"\n\n":                         "",
		strings.Repeat("word ", 300):   strings.Repeat("word ", 179) + "word\r\n\t" + strings.TrimRight(strings.Repeat("word ", 120), " "),
		strings.Repeat("x", 1000):      strings.Repeat("x", 900) + "\r\n\t" + strings.Repeat("x", 100),
		"x" + strings.Repeat("é", 500): "x" + strings.Repeat("é", 449) + "\r\n\t" + strings.Repeat("é", 51),
	} {
		if got := FieldValue(in); got != want {
			t.Errorf("%.60q: %q, want %q", in, got, want)
		}
	}
}

// FuzzFieldValue: no line of it is empty, a field of its own, or too long.
func FuzzFieldValue(f *testing.F) {
	for _, s := range []string{"Yes", "a\nBcc: b", "a\r\n\r\nbody", "\r\r\n\t", strings.Repeat("y ", 2000), strings.Repeat("é", 2000), "\xff\xfe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i, line := range strings.Split(FieldValue(s), "\r\n") {
			if strings.ContainsAny(line, "\r\n\x00") || len(line) > 998 {
				t.Errorf("%q has the line %q", s, line)
			}
			if i > 0 && (strings.Trim(line, " \t") == "" || line[0] != ' ' && line[0] != '\t') {
				t.Errorf("%q ends or continues a field: %q", s, line)
			}
		}
	})
}
