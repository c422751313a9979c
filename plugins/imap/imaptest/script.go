// Package imaptest runs scripted IMAP dialogues in the format of Dovecot's
// imaptest: commands with the replies that they must, or must not, get, over one
// connection or several. It is a client and knows no server.
package imaptest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Script is one file of the suite, with the mails of its mailbox.
type Script struct {
	Name string
	// Capabilities that the server must announce; without one of them the script
	// does not apply.
	Capabilities []string
	connections  int
	// users: the connections are of several, which only URLAUTH needs.
	users bool
	// messages to append; 0: as many as the mbox has.
	messages int
	state    state
	// strict: every untagged reply must be expected.
	strict   bool
	commands []*command
	mails    []mail
}

type state int

const (
	nonauth state = iota
	auth
	created
	appended
	selected
)

var states = []string{"nonauth", "auth", "created", "appended", "selected"}

// command is one command with what is expected of it.
type command struct {
	line       int
	connection int
	// tag is the script's own, of a pipelined command; else empty.
	tag  string
	text []part
	// status is "OK", "NO", "BAD" or "" for any; prefix is what follows it.
	status  string
	prefix  []part
	replied bool
	expects []*expectation
}

// expectation of an untagged reply.
type expectation struct {
	line int
	// kind is '*' must come, '!' must not, '?' may.
	kind byte
	text []part
}

// part is a piece of a line: text, or a literal.
type part struct {
	text    string
	literal bool
}

type mail struct {
	body     []byte
	received time.Time
}

// Load reads a script; its mails are in NAME.mbox, or else in the folder's
// default.mbox.
func Load(path string) (*Script, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &Script{Name: filepath.Base(path), connections: 1, state: selected}
	box := path + ".mbox"
	if _, err := os.Stat(box); err != nil {
		box = filepath.Join(filepath.Dir(path), "default.mbox")
	}
	if s.mails, err = loadMails(box); err != nil {
		return nil, err
	}
	lines := strings.Split(string(raw), "\n")
	at, err := s.header(lines)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := s.body(lines, at); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// header reads "key: value" lines up to the first empty one, which is left out by
// a script that has no header.
func (s *Script) header(lines []string) (int, error) {
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, ": ")
		if line == "" || !ok {
			return i, nil
		}
		var err error
		switch key {
		case "capabilities":
			s.Capabilities = strings.Fields(strings.ToUpper(value))
		case "connections":
			s.connections, err = strconv.Atoi(value)
		case "messages":
			if value != "all" {
				s.messages, err = strconv.Atoi(value)
			}
		case "state":
			n := slices.Index(states, value)
			if n < 0 {
				return 0, fmt.Errorf("line %d: no state %q", i+1, value)
			}
			s.state = state(n)
		case "ignore_extra_untagged":
			s.strict = value == "no"
		case "user 2", "user 3", "username 2", "username 3":
			s.users = true
		default:
			return 0, fmt.Errorf("line %d: no header %q", i+1, key)
		}
		if err != nil {
			return 0, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return len(lines), nil
}

// body reads the commands. Directives !ifenv and !ifnenv choose among them.
func (s *Script) body(lines []string, at int) error {
	skip := []bool{}
	for at < len(lines) {
		start := at
		line := strings.TrimSuffix(lines[at], "\r")
		at++
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "!ifenv", "!ifnenv":
			skip = append(skip, (os.Getenv(rest) != "") != (word == "!ifenv"))
			continue
		case "!else", "!endif":
			if len(skip) == 0 {
				return fmt.Errorf("line %d: %s without !ifenv", start+1, word)
			}
			if word == "!endif" {
				skip = skip[:len(skip)-1]
			} else {
				skip[len(skip)-1] = !skip[len(skip)-1]
			}
			continue
		}
		var parts []part
		parts, at = literals(line, lines, at)
		if slices.Contains(skip, true) || strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.line(start+1, parts); err != nil {
			return fmt.Errorf("line %d: %w", start+1, err)
		}
	}
	for _, c := range s.commands {
		if !c.replied {
			return fmt.Errorf("line %d: the command's reply is missing", c.line)
		}
	}
	return nil
}

// literals takes the lines between "{{{" and "}}}" together. The line end before
// "}}}" does not belong to them. Line ends become CR LF, but for "~{{{", whose
// octets stay as they are.
func literals(line string, lines []string, at int) ([]part, int) {
	var out []part
	for {
		before, ok := strings.CutSuffix(line, "{{{")
		if !ok {
			return append(out, part{text: line}), at
		}
		out = append(out, part{text: before})
		binary := strings.HasSuffix(before, "~")
		var text []string
		for at < len(lines) && !strings.HasPrefix(lines[at], "}}}") {
			if binary {
				text = append(text, lines[at])
			} else {
				text = append(text, strings.TrimSuffix(lines[at], "\r"))
			}
			at++
		}
		end := "\r\n"
		if binary {
			end = "\n"
		}
		out = append(out, part{text: strings.Join(text, end), literal: true})
		line = ""
		if at < len(lines) {
			line = strings.TrimSuffix(strings.TrimPrefix(lines[at], "}}}"), "\r")
			at++
		}
	}
}

func isStatus(word string) bool {
	switch strings.ToUpper(word) {
	case "OK", "NO", "BAD", `""`:
		return true
	}
	return false
}

func (s *Script) line(n int, parts []part) error {
	text := strings.TrimRight(parts[0].text, " ")
	if len(parts) > 1 {
		text = parts[0].text
	}
	if c := text[0]; (c == '*' || c == '!' || c == '?') && strings.HasPrefix(text[1:], " ") {
		if len(s.commands) == 0 {
			return fmt.Errorf("a reply before the first command")
		}
		parts[0].text = text[2:]
		last := s.commands[len(s.commands)-1]
		last.expects = append(last.expects, &expectation{line: n, kind: c, text: parts})
		return nil
	}
	connection := 0
	if word, rest, _ := strings.Cut(text, " "); s.connections > 1 {
		k, err := strconv.Atoi(word)
		if err != nil || k < 1 || k > s.connections {
			return fmt.Errorf("begins with no connection's number")
		}
		connection, text = k-1, rest
	}
	word, rest, _ := strings.Cut(text, " ")
	open := s.open(word, rest)
	switch {
	case strings.HasPrefix(word, "tag") && open != nil:
		status, prefix, _ := strings.Cut(rest, " ")
		parts[0].text = prefix
		open.close(status, parts)
	case strings.HasPrefix(word, "tag"):
		parts[0].text = rest
		s.commands = append(s.commands, &command{line: n, connection: connection, tag: word, text: parts})
	case isStatus(word) && open != nil:
		parts[0].text = rest
		open.close(word, parts)
	case isStatus(word):
		parts[0].text = rest
		c := &command{line: n, connection: connection, text: parts}
		c.close(word, nil)
		s.commands = append(s.commands, c)
	default:
		parts[0].text = text
		s.commands = append(s.commands, &command{line: n, connection: connection, text: parts})
	}
	return nil
}

// open is the command whose reply this line is; nil if it is none.
func (s *Script) open(word, rest string) *command {
	for i := len(s.commands) - 1; i >= 0; i-- {
		c := s.commands[i]
		if c.replied {
			continue
		}
		status, _, _ := strings.Cut(rest, " ")
		if c.tag != "" && c.tag == word && isStatus(status) || c.tag == "" && isStatus(word) {
			return c
		}
	}
	return nil
}

func (c *command) close(status string, prefix []part) {
	c.replied = true
	c.status = strings.Trim(strings.ToUpper(status), `"`)
	if len(prefix) > 0 && (len(prefix) > 1 || prefix[0].text != "") {
		c.prefix = prefix
	}
}

// loadMails reads an mbox file. The empty line before a "From " line is the
// mail's: the scripts count it.
func loadMails(path string) ([]mail, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []mail
	r := bufio.NewScanner(bytes.NewReader(raw))
	r.Buffer(nil, len(raw)+1)
	for r.Scan() {
		line := strings.TrimSuffix(r.Text(), "\r")
		if strings.HasPrefix(line, "From ") {
			m := mail{}
			if i := strings.Index(line, "  "); i > 0 {
				for _, layout := range []string{"Mon Jan _2 15:04:05 2006 -0700", "Mon Jan _2 15:04:05 2006"} {
					if t, err := time.Parse(layout, strings.TrimSpace(line[i:])); err == nil {
						m.received = t
						break
					}
				}
			}
			out = append(out, m)
			continue
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("%s does not begin with a From line", path)
		}
		last := &out[len(out)-1]
		last.body = append(append(last.body, line...), "\r\n"...)
	}
	return out, r.Err()
}
