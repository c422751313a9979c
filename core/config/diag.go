package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// Severity of a diagnostic.
type Severity string

const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Place is a position in a file. Lines and columns count from 1, columns in
// characters.
type Place struct {
	File      string `json:"file"`
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	EndLine   int    `json:"end_line"`
	EndColumn int    `json:"end_column"`
}

// Diagnostic is one mistake: where, what, and what to write instead.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Place is nil where no line is to blame (no files at all).
	Place *Place `json:"place,omitempty"`
	// Source is the text of Place's first line, without its line end.
	Source string `json:"source,omitempty"`
	// Text is what is wrong, Remedy what to write instead.
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
	// Also is the other place of a duplicate.
	Also *Place `json:"also,omitempty"`
}

// Diagnostics are sorted by position.
type Diagnostics []Diagnostic

// HasErrors reports whether one is more than a warning.
func (d Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(d, func(x Diagnostic) bool { return x.Severity == Error })
}

// Error joins the diagnostics, a line each, for a log.
func (d Diagnostics) Error() string {
	lines := make([]string, len(d))
	for i, x := range d {
		lines[i] = x.line()
	}
	return strings.Join(lines, "\n")
}

func (x Diagnostic) line() string {
	s := x.Text
	if x.Place != nil {
		s = fmt.Sprintf("%s:%d:%d: %s", x.Place.File, x.Place.Line, x.Place.Column, s)
	}
	if x.Remedy != "" {
		s += " (" + x.Remedy + ")"
	}
	return s
}

// JSON is the list for machines; "[]" when there is nothing to say.
func (d Diagnostics) JSON() []byte {
	if d == nil {
		d = Diagnostics{}
	}
	out, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return append(out, '\n')
}

const (
	red    = "\x1b[1;31m"
	yellow = "\x1b[1;33m"
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

// WriteText writes the diagnostics for a terminal: what is wrong, where, the
// source line with a marker below, and the remedy.
func (d Diagnostics) WriteText(w io.Writer, color bool) error {
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return code + s + plain
	}
	var b strings.Builder
	for i, x := range d {
		if i > 0 {
			b.WriteByte('\n')
		}
		word := paint(red, "Error")
		if x.Severity == Warning {
			word = paint(yellow, "Warning")
		}
		fmt.Fprintf(&b, "%s: %s\n", word, paint(bold, x.Text))
		if p := x.Place; p != nil {
			fmt.Fprintf(&b, "  %s:%d:%d\n", p.File, p.Line, p.Column)
			if strings.TrimSpace(x.Source) != "" {
				before, mark := x.marker()
				fmt.Fprintf(&b, "  %s\n", paint(dim, fmt.Sprintf("%4d | ", p.Line))+printable(x.Source))
				fmt.Fprintf(&b, "  %s\n", paint(dim, "     | ")+before+paint(red, mark))
			}
		}
		if x.Remedy != "" {
			fmt.Fprintf(&b, "  %s\n", x.Remedy)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable keeps a file's control characters from the operator's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// marker returns the blanks before the marker (tabs kept, so that it stands
// where the eye expects it) and the marker.
func (x Diagnostic) marker() (before, mark string) {
	var b strings.Builder
	column := 1
	for _, r := range x.Source {
		if column >= x.Place.Column {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
		column++
	}
	width := utf8.RuneCountInString(x.Source) - x.Place.Column + 1
	if x.Place.EndLine == x.Place.Line {
		width = min(width, x.Place.EndColumn-x.Place.Column)
	}
	return b.String(), strings.Repeat("^", max(width, 1))
}

// sources are the files' bytes by name, for the diagnostics' source lines.
type sources map[string][]byte

// line returns one line, its line end cut off.
func (s sources) line(file string, n int) string {
	rest := string(s[file])
	for ; n > 1; n-- {
		_, after, found := strings.Cut(rest, "\n")
		if !found {
			return ""
		}
		rest = after
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSuffix(line, "\r")
}

func place(r hcl.Range) *Place {
	if r.Filename == "" {
		return nil
	}
	return &Place{r.Filename, r.Start.Line, r.Start.Column, r.End.Line, r.End.Column}
}

// complaints collects the diagnostics of one Load.
type complaints struct {
	src  sources
	list Diagnostics
	// secrets are expressions whose values no text may show, covered those that
	// no source line may show either: env("X") tells nothing, "sleepless" does.
	secrets, covered []hcl.Range
	// stumbled is the line of each file from which on the parser may have skipped
	// things: what else would be said of them may only follow from that. half:
	// what such a file lacks may be in it.
	stumbled map[string]int
	half     bool
}

func (c *complaints) add(s Severity, r hcl.Range, text, remedy string) *Diagnostic {
	if n := c.stumbled[r.Filename]; n > 0 && r.Start.Line >= n {
		return &Diagnostic{}
	}
	c.list = append(c.list, Diagnostic{Severity: s, Place: place(r), Text: text, Remedy: remedy})
	return &c.list[len(c.list)-1]
}

func (c *complaints) err(r hcl.Range, text, remedy string) *Diagnostic {
	return c.add(Error, r, text, remedy)
}

func (c *complaints) warn(r hcl.Range, text, remedy string) *Diagnostic {
	return c.add(Warning, r, text, remedy)
}

// lacks is a complaint of something missing: none of a file that was half read.
func (c *complaints) lacks(r hcl.Range, text, remedy string) {
	if !c.half {
		c.err(r, text, remedy)
	}
}

// sorted returns what was collected by position, each once, with source lines.
func (c *complaints) sorted() Diagnostics {
	slices.SortStableFunc(c.list, func(a, b Diagnostic) int {
		if a.Place == nil || b.Place == nil {
			return cmp.Compare(b2i(a.Place != nil), b2i(b.Place != nil))
		}
		return cmp.Or(cmp.Compare(a.Place.File, b.Place.File), cmp.Compare(a.Place.Line, b.Place.Line),
			cmp.Compare(a.Place.Column, b.Place.Column))
	})
	out := slices.CompactFunc(c.list, func(a, b Diagnostic) bool {
		same := a.Place == b.Place || a.Place != nil && b.Place != nil && *a.Place == *b.Place
		return same && a.Severity == b.Severity && a.Text == b.Text
	})
	for i := range out {
		if p := out[i].Place; p != nil {
			out[i].Source = c.source(p)
		}
	}
	return out
}

// source is the line of p with secret values covered.
func (c *complaints) source(p *Place) string {
	line := c.src.line(p.File, p.Line)
	for _, s := range c.covered {
		if s.Filename != p.File || p.Line < s.Start.Line || p.Line > s.End.Line {
			continue
		}
		from := 0
		if p.Line == s.Start.Line {
			from = s.Start.Column - 1
		}
		if runes := []rune(line); from < len(runes) {
			line = string(runes[:from]) + "(hidden)"
		}
	}
	return line
}

// shown is a value for a text: in quotes, or hidden if it is a secret.
func (c *complaints) shown(s string, at hcl.Range) string {
	if slices.Contains(c.secrets, at) {
		return "(hidden)"
	}
	return fmt.Sprintf("%q", s)
}

// complainedOn reports an error on r's first line.
func (c *complaints) complainedOn(r hcl.Range) bool {
	return slices.ContainsFunc(c.list, func(x Diagnostic) bool {
		return x.Place != nil && x.Place.File == r.Filename && x.Place.Line == r.Start.Line
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
