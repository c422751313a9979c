package managesieve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of what a client sends.
const (
	maxLine     = 16 << 10 // octets of a command without its literals
	maxArgs     = 4
	maxDiscard  = 32 << 20 // of a literal that is too large
	maxPlainArg = 12 << 10 // octets of a literal that is no script
)

// What a client did wrong. After errSyntax the line was read to its end; the
// others end the session.
var (
	errSyntax   = errors.New("the command is malformed")
	errTooLong  = errors.New("the line is too long")
	errTooLarge = errors.New("the literal is too large")
)

// argument is a string or a number.
type argument struct {
	text   string
	number bool
	// over: it was a literal that is too large, and was not kept.
	over bool
}

// command is one line with its literals (RFC 5804 section 4).
type command struct {
	name string
	args []argument
}

// reader reads commands. limit is the largest literal that is kept.
type reader struct {
	in    *bufio.Reader
	limit int64
	left  int
}

func (r *reader) octet() (byte, error) {
	if r.left--; r.left < 0 {
		return 0, errTooLong
	}
	return r.in.ReadByte()
}

// command reads one. Once it has a syntax error, the rest of the line is passed
// over with the literals that it has: none of them is ever run as commands.
func (r *reader) command() (*command, error) {
	r.left = maxLine
	cmd := &command{}
	name, end, err := r.atom()
	if err != nil {
		return nil, err
	}
	cmd.name = strings.ToUpper(name)
	bad := name == ""
	for end == ' ' {
		var a *argument
		if a, end, err = r.argument(); err != nil {
			return nil, err
		}
		if a == nil || len(cmd.args) >= maxArgs {
			bad = true
			continue
		}
		cmd.args = append(cmd.args, *a)
	}
	if end != '\n' {
		return cmd, r.rest()
	}
	if bad {
		return cmd, errSyntax
	}
	return cmd, nil
}

// atom reads up to a space or the line's end, which it returns.
func (r *reader) atom() (string, byte, error) {
	var b strings.Builder
	for {
		c, err := r.octet()
		if err != nil {
			return "", 0, err
		}
		switch {
		case c == ' ' || c == '\n':
			return b.String(), c, nil
		case c == '\r':
			if c, err = r.octet(); err != nil || c == '\n' {
				return b.String(), c, err
			}
			return "", c, nil
		case c <= ' ' || c >= 0x7f || c == '"' || c == '{':
			return "", c, nil
		}
		b.WriteByte(c)
	}
}

// argument reads one and what follows it; nil if it is none.
func (r *reader) argument() (*argument, byte, error) {
	c, err := r.octet()
	if err != nil {
		return nil, 0, err
	}
	a := &argument{}
	switch {
	case c == ' ':
		return nil, ' ', nil
	case c == '"':
		good, err := r.quoted(a)
		if err != nil || !good {
			return nil, 0, err
		}
	case c == '{':
		if err := r.literal(a); err != nil {
			if errors.Is(err, errSyntax) {
				return nil, 0, nil
			}
			return nil, 0, err
		}
	case c >= '0' && c <= '9':
		if err := r.in.UnreadByte(); err != nil {
			return nil, 0, err
		}
		var end byte
		a.text, end, err = r.atom()
		_, bad := strconv.ParseUint(a.text, 10, 63)
		if a.number = true; bad != nil {
			a = nil
		}
		return a, end, err
	default:
		return nil, c, nil
	}
	return r.follows(a)
}

// follows reads what stands behind a string: a space, or the line's end.
func (r *reader) follows(a *argument) (*argument, byte, error) {
	c, err := r.octet()
	if err == nil && c == '\r' {
		c, err = r.octet()
		if c == ' ' {
			c = 0
		}
	}
	return a, c, err
}

func (r *reader) quoted(a *argument) (bool, error) {
	var b strings.Builder
	for {
		c, err := r.octet()
		if err != nil {
			return false, err
		}
		switch c {
		case '"':
			a.text = b.String()
			return utf8.ValidString(a.text), nil
		case '\r', '\n', 0:
			if c == '\n' {
				if err := r.in.UnreadByte(); err != nil {
					return false, err
				}
			}
			return false, nil
		case '\\':
			if c, err = r.octet(); err != nil {
				return false, err
			}
			if c == '\n' {
				return false, r.in.UnreadByte()
			}
		}
		b.WriteByte(c)
	}
}

// literal reads what follows "{": its size, its line end and its octets.
func (r *reader) literal(a *argument) error {
	n, err := r.announced()
	if err != nil {
		return err
	}
	if n > r.limit {
		if n > maxDiscard {
			return errTooLarge
		}
		a.over = true
		_, err = io.CopyN(io.Discard, r.in, n)
		return err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.in, b); err != nil {
		return err
	}
	a.text = string(b)
	return nil
}

// announced is the size of a literal. A wrong one that could be followed by octets
// ends the session: nobody knows where the next command begins.
func (r *reader) announced() (int64, error) {
	var digits strings.Builder
	for {
		c, err := r.octet()
		if err != nil {
			return 0, err
		}
		if c >= '0' && c <= '9' && digits.Len() < 12 {
			digits.WriteByte(c)
			continue
		}
		if c == '+' {
			if c, err = r.octet(); err != nil {
				return 0, err
			}
		}
		if c != '}' || digits.Len() == 0 {
			return 0, errTooLarge
		}
		break
	}
	c, err := r.octet()
	if err == nil && c == '\r' {
		c, err = r.octet()
	}
	if err != nil {
		return 0, err
	}
	if c != '\n' {
		return 0, errTooLarge
	}
	n, err := strconv.ParseInt(digits.String(), 10, 64)
	if err != nil {
		return 0, errTooLarge
	}
	return n, nil
}

// rest passes over a line that could not be read. One that ends in what looks like
// a literal ends the session.
func (r *reader) rest() error {
	last := byte(0)
	for {
		c, err := r.octet()
		if err != nil {
			return err
		}
		switch c {
		case '\r':
			continue
		case '\n':
			if last == '}' {
				return errTooLarge
			}
			return errSyntax
		}
		last = c
	}
}

// quote writes a string: quoted where it can be, else as a literal.
func quote(s string) string {
	if len(s) <= 1024 && !strings.ContainsAny(s, "\r\n\x00") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return fmt.Sprintf("{%d}\r\n%s", len(s), s)
}
