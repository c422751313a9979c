package exec

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

// edit makes edits of what the program printed.
func (f *Filter) edit(v *filter.Verdict, ev *filter.Event, printed []byte) error {
	switch f.Mode {
	case headers:
		fields, err := parseHeader(printed)
		if err != nil {
			return fmt.Errorf("what the program printed is no header: %w", err)
		}
		for _, x := range slices.Backward(fields) {
			v.AddHeader(x.name, x.value)
		}
	case rewrite:
		before, err := ev.Message.Bytes(0)
		if err != nil {
			return err
		}
		if err := f.replace(v, before, printed); err != nil {
			return fmt.Errorf("what the program printed is no message: %w", err)
		}
	}
	return nil
}

// replace makes the edits that turn one message into another. What is equal is
// not touched, however malformed it may be.
func (f *Filter) replace(v *filter.Verdict, before, after []byte) error {
	oldHead, oldBody, oldWhole := split(lines(before))
	newHead, newBody, newWhole := split(lines(after))
	if oldWhole && !newWhole {
		return fmt.Errorf("it has no empty line after the header")
	}
	if !bytes.Equal(oldHead, newHead) {
		if err := replaceHeader(v, units(oldHead), units(newHead)); err != nil {
			return err
		}
	}
	if bytes.Equal(oldBody, newBody) {
		return nil
	}
	return f.bodies.Replace(v, newBody)
}

// replaceHeader leaves the fields below the last change as they are or, if the last
// field is another one, those above the first change.
func replaceHeader(v *filter.Verdict, before, after []field) error {
	if len(after) == 0 {
		return fmt.Errorf("it has no header")
	}
	same, shorter := 0, min(len(before), len(after))
	for same < shorter && before[len(before)-1-same] == after[len(after)-1-same] {
		same++
	}
	first, end, position := 0, len(before)-same, 0
	fresh := slices.Clone(after[:len(after)-same])
	slices.Reverse(fresh) // each goes to the top
	if same == 0 {
		for same < shorter && before[same] == after[same] {
			same++
		}
		first, end, position, fresh = same, len(before), -1, after[same:]
	}
	for i := first; i < end; i++ {
		x := before[i]
		if x.name == "" {
			return fmt.Errorf("the line %q of the message, which is no field, cannot be taken out", short(x.value))
		}
		v.DeleteHeader(x.name, place(before[:i+1]))
	}
	for _, x := range fresh {
		if err := x.check(); err != nil {
			return err
		}
		v.InsertHeader(position, x.name, x.value)
	}
	return nil
}

// place is the last one's index among those of its name.
func place(fields []field) (n int) {
	for _, x := range fields {
		if strings.EqualFold(x.name, fields[len(fields)-1].name) {
			n++
		}
	}
	return n
}

// lines have CRLF ends.
func lines(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

// split parts a message at its first empty line.
func split(message []byte) (head, body []byte, whole bool) {
	for rest := message; ; {
		line, after, more := bytes.Cut(rest, []byte("\r\n"))
		if !more {
			return message, nil, false
		}
		if len(line) == 0 {
			return message[:len(message)-len(rest)], after, true
		}
		rest = after
	}
}

// field is a header field; value is folded with CRLF and has no line end. A line
// that is none has an empty name.
type field struct{ name, value string }

// check says why it is none.
func (x field) check() error {
	if x.name == "" {
		return fmt.Errorf("the line %q is not NAME: VALUE", short(x.value))
	}
	if strings.ContainsAny(strings.ReplaceAll(x.value, "\r\n", ""), "\r\x00") {
		return fmt.Errorf("the field %s has a bare CR or a NUL", x.name)
	}
	return nil
}

// parseHeader reads header fields (RFC 5322 section 2.2) up to the first empty
// line, with CRLF or LF line ends.
func parseHeader(text []byte) ([]field, error) {
	head, _, _ := split(lines(text))
	fields := units(head)
	for _, x := range fields {
		if err := x.check(); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

// units are the fields of a header, and the lines that are none.
func units(head []byte) (out []field) {
	for line := range strings.Lines(string(head)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if len(out) > 0 && line != "" && (line[0] == ' ' || line[0] == '\t') {
			out[len(out)-1].value += "\r\n" + line
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok && fieldName(name) {
			out = append(out, field{name, value})
		} else {
			out = append(out, field{value: line})
		}
	}
	return out
}

// fieldName is RFC 5322's ftext.
func fieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return s != ""
}

func short(s string) string { return s[:min(len(s), 80)] }
