package imap

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

// Limits of what one command may be.
const (
	// maxContinuation is a line that answers "+", or a literal before the login.
	maxContinuation = 12 << 10
	maxTag          = 64
	// maxBlobs is how many messages and pieces of messages one command may
	// bring, and inMemory how much of them is kept in memory.
	maxBlobs = 500
	inMemory = 1 << 20
)

// command is one command, whole. done removes what was put aside for it.
type command struct {
	tag string
	// name in capitals; of "UID FETCH" the whole.
	name  string
	p     *wire.Parser
	blobs map[int]wire.Blob
}

func (cmd *command) done() {
	for _, b := range cmd.blobs {
		b.(*blob).remove()
	}
}

// byUID: the command names messages by UID.
func (cmd *command) byUID() bool { return strings.HasPrefix(cmd.name, "UID ") }

// framing is a command that is still being read.
//
// Invariant: whatever becomes of a command, its literals are read off the
// connection or the connection ends. Nothing that a client sends as a literal is
// ever read as a command.
type framing struct {
	c        *conn
	cmd      *command
	text     []byte
	refused  *imap.Error
	drained  int64
	uploaded int64
	memory   int64
}

// readCommand reads the next command; nil if there was none to run.
func (c *conn) readCommand() (*command, error) {
	line, err := c.firstLine(c.maxCommand())
	if err != nil {
		return nil, err
	}
	f := &framing{c: c, cmd: &command{}}
	if !f.head(line) {
		return nil, nil
	}
	var scratch []byte
	for {
		f.keep(line)
		l, ok := literalAt(line)
		if !ok {
			break
		}
		more, err := f.literal(l)
		if err == nil && more {
			scratch, err = c.readLine(scratch[:0], c.maxCommand())
			line = scratch
		}
		if err != nil || !more {
			f.cmd.done()
			return nil, err
		}
	}
	if f.refused != nil {
		if f.cmd.tag != "*" {
			c.answer(f.cmd.tag, f.refused)
		}
		f.cmd.done()
		return nil, nil
	}
	f.cmd.p = wire.NewParser(string(f.text), f.cmd.blobs)
	f.cmd.skipHead()
	return f.cmd, nil
}

// maxCommand is a command's text with all literals but messages.
func (c *conn) maxCommand() int { return int(c.server.config.MaxCommand) }

// keep adds a line to the text.
func (f *framing) keep(line []byte) {
	switch {
	case f.refused != nil:
	case len(f.text)+len(line) > f.c.maxCommand():
		f.refuse(imap.ResponseCodeTooBig, "The command is longer than %d octets", f.c.maxCommand())
	default:
		f.text = append(f.text, line...)
	}
}

func (f *framing) refuse(code imap.ResponseCode, format string, args ...any) {
	f.refused = &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: fmt.Sprintf(format, args...)}
}

// head reads tag and name off the first line; false if there is nothing to run.
func (f *framing) head(line []byte) bool {
	if len(bytes.TrimSpace(line)) == 0 {
		return false
	}
	tag, rest, _ := strings.Cut(string(line), " ")
	if tag == "" || len(tag) > maxTag || strings.ContainsFunc(tag, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`+*%(){"\`, r)
	}) {
		f.c.out.line("* BAD Begin a command with a tag: a1 NOOP")
		// What looks like a command's literal is still one.
		f.cmd.tag = "*"
		f.refused = &imap.Error{Type: imap.StatusResponseTypeBad, Text: "No command"}
		_, literal := literalAt(line)
		return literal
	}
	f.cmd.tag = tag
	name, rest, _ := strings.Cut(rest, " ")
	f.cmd.name = strings.ToUpper(name)
	if f.cmd.name == "UID" {
		sub, _, _ := strings.Cut(rest, " ")
		f.cmd.name = "UID " + strings.ToUpper(sub)
	}
	return true
}

// skipHead puts the parser behind tag and name, before the blank of an argument.
func (cmd *command) skipHead() {
	text := cmd.p.Rest()
	n := len(cmd.tag) + 1 + len(cmd.name)
	cmd.p.Return(min(n, len(text)))
}

// announced is a literal at a line's end.
type announced struct {
	size    int64
	nonSync bool
	// prefix is what stands before its "{" (or "~{").
	prefix []byte
}

// literalAt tells whether a line ends with the announcement of a literal
// (RFC 9051 section 4.3), and what stands before it.
func literalAt(line []byte) (announced, bool) {
	if !bytes.HasSuffix(line, []byte("}")) {
		return announced{}, false
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return announced{}, false
	}
	digits, nonSync := strings.CutSuffix(string(line[i+1:len(line)-1]), "+")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return announced{}, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		// A number that long is more than anybody takes, and never an end.
		n = 1<<63 - 1
	}
	return announced{size: n, nonSync: nonSync, prefix: bytes.TrimSuffix(line[:i], []byte("~"))}, true
}

// literal reads a literal, or refuses it; false if the command is over.
func (f *framing) literal(l announced) (more bool, err error) {
	first := len(f.cmd.blobs) == 0 && !bytes.Contains(f.text, []byte("\r\n"))
	aside := f.aside(first, l.prefix)
	f.admit(l, aside)
	if f.refused != nil {
		if !l.nonSync {
			// It was not invited, so it does not come (RFC 9051 section 4.3).
			if f.cmd.tag != "*" {
				f.c.answer(f.cmd.tag, f.refused)
			}
			return false, nil
		}
		return true, f.drain(l.size)
	}
	if !l.nonSync {
		f.c.out.raw("+ Ready for literal data\r\n")
	}
	at := bytes.LastIndexByte(f.text, '{')
	f.text = append(f.text, '\r', '\n')
	if aside {
		return true, f.putAside(at, l.size)
	}
	start := len(f.text)
	f.text = append(f.text, make([]byte, l.size)...)
	_, err = io.ReadFull(f.c.in, f.text[start:])
	return true, err
}

// aside tells whether a literal is a message, or a piece of one: in APPEND and
// REPLACE all are but the mailbox's name.
func (f *framing) aside(first bool, prefix []byte) bool {
	before := map[string]int{"APPEND": 2, "REPLACE": 3, "UID REPLACE": 4}[f.cmd.name]
	return before > 0 && !(first && len(bytes.Fields(prefix)) == before && prefix[len(prefix)-1] == ' ')
}

// admit decides whether a literal may come.
func (f *framing) admit(l announced, aside bool) {
	limit := int64(f.c.server.config.MaxMessage)
	switch {
	case f.refused != nil:
	case !f.c.loggedIn && (aside || l.size > maxContinuation):
		f.refuse("", "Log in first")
	case aside && l.size > limit:
		f.refuse(imap.ResponseCodeTooBig, "Messages are limited to %d octets", limit)
	case aside && (f.uploaded+l.size > 4*limit || len(f.cmd.blobs) >= maxBlobs):
		f.refuse(imap.ResponseCodeTooBig, "One command brings at most %d pieces and %d octets", maxBlobs, 4*limit)
	case f.cmd.name == "SETMETADATA" && l.size > int64(f.c.server.config.MaxAnnotation):
		f.refuse(imap.ResponseCode(fmt.Sprintf("METADATA MAXSIZE %d", f.c.server.config.MaxAnnotation)), "A value is too long")
	case !aside && (l.size > int64(f.c.maxCommand()) || len(f.text)+int(l.size) > f.c.maxCommand()):
		f.refuse(imap.ResponseCodeTooBig, "Literals are limited to %d octets here, with the whole command", f.c.maxCommand())
	}
}

// drain throws a refused literal away that is on its way already (RFC 7888), up
// to what would have been taken.
func (f *framing) drain(size int64) error {
	limit := int64(f.c.maxCommand())
	if f.c.loggedIn {
		limit = max(limit, int64(f.c.server.config.MaxMessage))
	}
	if size > limit-f.drained {
		return errTooLong
	}
	f.drained += size
	_, err := io.CopyN(io.Discard, f.c.in, size)
	return err
}

// putAside reads a message as the storage takes it: a small one into memory, a
// larger one into a file. What cannot be written is read all the same.
func (f *framing) putAside(at int, size int64) error {
	b := &blob{size: size}
	if f.cmd.blobs == nil {
		f.cmd.blobs = map[int]wire.Blob{}
	}
	f.cmd.blobs[at] = b
	f.uploaded += size
	if size <= mail.InlineLimit && f.memory+size <= inMemory {
		f.memory += size
		b.inline = make([]byte, size)
		_, err := io.ReadFull(f.c.in, b.inline)
		return err
	}
	from := &noting{r: f.c.in}
	file, failed := os.CreateTemp(f.c.server.host.UploadDir, "append-*")
	if failed == nil {
		b.path = file.Name()
		var n int64
		n, failed = io.CopyN(file, from, size)
		size -= n
		if closing := file.Close(); failed == nil {
			failed = closing
		}
	}
	if failed == nil || from.err != nil {
		return from.err
	}
	f.c.server.host.Log.Error().Err(failed).Msg("cannot write an upload")
	f.refuse(imap.ResponseCodeUnavailable, "Not available now, try again later")
	return f.drain(size)
}

// noting remembers a reader's error, to tell it from the writer's.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil {
		n.err = err
	}
	return k, err
}

// blob is a message, or a piece of one, that a client brought.
type blob struct {
	size   int64
	inline []byte
	path   string
}

var _ wire.Blob = (*blob)(nil)

// Size implements wire.Blob.
func (b *blob) Size() int64 { return b.size }

// Bytes implements wire.Blob.
func (b *blob) Bytes(limit int64) ([]byte, error) { return b.message().Bytes(limit) }

func (b *blob) message() *mail.Message {
	if b.path != "" {
		return mail.FromFile(b.path, b.size)
	}
	return mail.FromBytes(b.inline)
}

func (b *blob) remove() {
	if b.path != "" {
		os.Remove(b.path)
	}
}

// answer is a tagged reply.
func (c *conn) answer(tag string, e *imap.Error) {
	c.out.raw(tag + " " + string(e.Type) + " ")
	if e.Code != "" {
		c.out.raw("[" + string(e.Code) + "] ")
	}
	c.out.raw(e.Text)
	c.out.end()
}
