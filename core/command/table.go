package command

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table aligns rows that come one after the other, as many as there may be: the
// widths are those of the rows so far, looked at tableBlock rows at a time.
type table struct {
	w      io.Writer
	colour bool
	head   []string
	widths []int
	rows   [][]cell
	begun  bool
}

const tableBlock = 256

// cell is a text and how it looks at a terminal.
type cell struct {
	text, style string
}

// Styles are ANSI's.
const (
	bold   = "\x1b[1m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

func newTable(w io.Writer, head ...string) *table {
	return &table{w: w, colour: terminal(w), head: head, widths: make([]int, len(head))}
}

// row adds cells: strings or cells.
func (t *table) row(values ...any) error {
	r := make([]cell, len(values))
	for n, v := range values {
		if c, ok := v.(cell); ok {
			r[n] = c
		} else {
			r[n] = cell{text: fmt.Sprint(v)}
		}
		r[n].text = printable(strings.ReplaceAll(r[n].text, "\t", " "))
	}
	t.rows = append(t.rows, r)
	if len(t.rows) >= tableBlock {
		return t.flush()
	}
	return nil
}

// flush prints what is there; a table without rows prints nothing.
func (t *table) flush() error {
	if len(t.rows) == 0 {
		return nil
	}
	if !t.begun {
		t.begun = true
		var head []cell
		for _, h := range t.head {
			head = append(head, cell{h, bold})
		}
		t.rows = append([][]cell{head}, t.rows...)
	}
	for _, r := range t.rows {
		for n, c := range r {
			t.widths[n] = max(t.widths[n], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, r := range t.rows {
		b.Reset()
		for n, c := range r {
			pad := ""
			if n < len(r)-1 {
				pad = strings.Repeat(" ", t.widths[n]-utf8.RuneCountInString(c.text)+2)
			}
			b.WriteString(styled(t.colour, c.style, c.text) + pad)
		}
		if _, err := fmt.Fprintln(t.w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	t.rows = t.rows[:0]
	return nil
}

func styled(colour bool, style, text string) string {
	if !colour || style == "" || text == "" {
		return text
	}
	return style + text + plain
}
