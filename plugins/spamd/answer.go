package spamd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/foreign"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

const (
	// longestAnswer of spamd: a whole header and what it adds.
	longestAnswer = 4 << 20
	// mostSymbols become tags; a mail has some dozens.
	mostSymbols = 500
	// mostMarks and longestMark bound what is put into a header.
	mostMarks   = 100
	longestMark = 32 << 10
)

var errBrokeOff = errors.New("it broke off before it had answered")

// answer is what spamd says about a mail.
type answer struct {
	spam            bool
	score, required float64
	symbols         []string
	marks           []mark // as they stand, from the top
}

type mark struct{ name, value string }

// isMark tells whether SpamAssassin takes a field for its own.
func isMark(name string) bool {
	const prefix = "x-spam-"
	return len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// parse reads an answer to HEADERS or SYMBOLS: a status, fields, and after an empty
// line the new header or the symbols.
func parse(conn io.Reader) (*answer, error) {
	limited := &io.LimitedReader{R: conn, N: longestAnswer}
	r := bufio.NewReader(limited)
	short := func(err error) error {
		if limited.N == 0 {
			return fmt.Errorf("its answer has more than %d octets", longestAnswer)
		}
		return fmt.Errorf("%w: %w", errBrokeOff, err)
	}
	line, err := r.ReadString('\n')
	if err != nil && line == "" {
		return nil, short(err)
	}
	if err := status(strings.TrimSpace(line)); err != nil {
		return nil, err
	}
	a, length, judged := &answer{}, int64(-1), false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, short(err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.ParseInt(value, 10, 64); err != nil || length < 0 || length > longestAnswer {
				return nil, fmt.Errorf("its answer's length is %q: it must be at most %d", foreign.Text(value), longestAnswer)
			}
		case "spam":
			if err := a.judge(value); err != nil {
				return nil, err
			}
			judged = true
		}
	}
	if !judged {
		return nil, errors.New("its answer says nothing about spam: is it spamd that listens there?")
	}
	if length >= 0 {
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, short(err)
		}
		return a, a.read(string(body))
	}
	body, err := io.ReadAll(r)
	if err != nil || limited.N == 0 {
		return nil, short(err)
	}
	return a, a.read(string(body))
}

// status is "SPAMD/1.1 0 EX_OK", or why not.
func status(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	code, text, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "SPAMD/") || err != nil {
		return fmt.Errorf("it answers %q: is it spamd that listens there?", foreign.Text(line))
	}
	if n != 0 {
		return fmt.Errorf("it could not look at the message: %d %s", n, foreign.Text(text))
	}
	return nil
}

// judge reads "True ; 15.0 / 5.0".
func (a *answer) judge(value string) error {
	verdict, scores, _ := strings.Cut(value, ";")
	score, required, _ := strings.Cut(scores, "/")
	switch strings.ToLower(strings.TrimSpace(verdict)) {
	case "true", "yes":
		a.spam = true
	case "false", "no":
		a.spam = false
	default:
		return fmt.Errorf("its verdict is %q, neither True nor False", foreign.Text(value))
	}
	for of, text := range map[*float64]string{&a.score: score, &a.required: required} {
		n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return fmt.Errorf("its verdict is %q, without two numbers", foreign.Text(value))
		}
		*of = n
	}
	return nil
}

// read takes what follows the verdict: a line of symbols, or a header.
func (a *answer) read(body string) error {
	if !strings.Contains(body, ":") {
		a.name(body)
		return nil
	}
	var open bool // whether the field so far is one of SpamAssassin's
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if open {
				a.marks[len(a.marks)-1].value += "\n" + line
			}
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		name = strings.TrimRight(name, " \t")
		if open = isMark(name) && foreign.FieldName(name); open {
			a.marks = append(a.marks, mark{name, strings.TrimLeft(value, " \t")})
		}
		if len(a.marks) > mostMarks {
			return fmt.Errorf("it wrote more than %d fields", mostMarks)
		}
	}
	for _, m := range a.marks {
		if len(m.value) > longestMark {
			return fmt.Errorf("its field %s has %d octets: at most %d are taken", m.name, len(m.value), longestMark)
		}
		if _, tests, ok := strings.Cut(m.value, "tests="); ok && strings.EqualFold(m.name, "X-Spam-Status") {
			a.name(tests)
		}
	}
	return nil
}

// name reads the symbols up to what else X-Spam-Status has.
func (a *answer) name(symbols string) {
	for word := range strings.FieldsFuncSeq(symbols, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		if strings.Contains(word, "=") || len(a.symbols) == mostSymbols {
			return
		}
		if word != "none" {
			a.symbols = append(a.symbols, foreign.Text(word))
		}
	}
}

func (a *answer) tags() map[string]any {
	symbols := a.symbols
	if symbols == nil {
		symbols = []string{}
	}
	return map[string]any{"score": a.score, "required": a.required, "spam": a.spam, "skipped": false, "symbols": symbols}
}

// mark puts spamd's fields on top, in their order.
func (a *answer) mark(v *filter.Verdict) {
	for i := len(a.marks) - 1; i >= 0; i-- {
		v.AddHeader(a.marks[i].name, foreign.FieldValue(a.marks[i].value))
	}
}
