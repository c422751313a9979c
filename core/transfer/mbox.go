package transfer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// mboxSource is an mbox, or a folder tree of them.
type mboxSource struct {
	path, spool string
}

// OpenMbox takes mail from an mbox file, which becomes INBOX, or from a folder of
// them; spool is where large messages lie on their way.
func OpenMbox(path, spool string) (Source, error) {
	_, err := os.Stat(path)
	return &mboxSource{path, spool}, err
}

var _ Source = (*mboxSource)(nil)

// Close implements Source.
func (*mboxSource) Close() error { return nil }

// Mailboxes implements Source.
func (s *mboxSource) Mailboxes(ctx context.Context) (list []Mailbox, err error) {
	fi, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		if ok, err := isMbox(s.path); err != nil || !ok {
			return nil, errors.Join(err, notMbox(s.path))
		}
		return []Mailbox{{Name: inbox, Subscribed: true, Messages: -1, Octets: fi.Size(), place: s.path}}, nil
	}
	err = filepath.WalkDir(s.path, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || e.IsDir() || !e.Type().IsRegular() {
			return err
		}
		ok, err := isMbox(path)
		if err != nil || !ok {
			return err
		}
		m := Mailbox{Subscribed: true, Messages: -1, place: path}
		if m.Name, err = s.name(path); err != nil {
			return err
		}
		if fi, err := e.Info(); err == nil {
			m.Octets = fi.Size()
		}
		list = append(list, m)
		return nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s has no mbox: no file in it begins with a line \"From \"", s.path)
	}
	return list, err
}

func notMbox(path string) error {
	return fmt.Errorf("%s is no mbox: it does not begin with a line \"From \", as \"From meg@ryan.example Fri Nov 27 08:00:00 2026\"", path)
}

// name of the mailbox that a file is: A/B.mbox is A/B, and so is Thunderbird's
// A.sbd/B.
func (s *mboxSource) name(path string) (string, error) {
	rel, err := filepath.Rel(s.path, path)
	if err != nil {
		return "", err
	}
	levels := strings.Split(rel, "/")
	for n, l := range levels {
		if n == len(levels)-1 {
			l = strings.TrimSuffix(l, mboxExt)
		} else {
			l = strings.TrimSuffix(l, ".sbd")
		}
		levels[n] = unescape(l)
	}
	name, err := cleanName(levels)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return name, nil
}

// unescape undoes what an export writes in place of what a file's name cannot have.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// isMbox: it begins as one, or is empty and named so.
func isMbox(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(f, mostFromLine).ReadSlice('\n')
	if err == io.EOF && len(line) == 0 {
		return strings.HasSuffix(path, mboxExt), nil
	}
	_, ok := parseFrom(line)
	return ok, nil
}

// Messages implements Source.
func (s *mboxSource) Messages(ctx context.Context, m Mailbox, want func(string, int64) bool, each func(*Message) error) error {
	f, err := os.Open(m.place)
	if err != nil {
		return err
	}
	defer f.Close()
	same := map[string]int{}
	return scanMbox(f, func(p mboxPart) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		msg, internal, err := p.read(f, s.spool)
		if err != nil {
			return err
		}
		if internal {
			msg.Body.drop()
			return nil
		}
		// A message has no name here but its octets; the second of the same is
		// another one.
		if msg.Problem == nil {
			msg.ID = fmt.Sprintf("%s %x", p.from, msg.Body.Sum[:12])
		}
		if same[msg.ID]++; same[msg.ID] > 1 {
			msg.ID += fmt.Sprintf(" %d", same[msg.ID])
		}
		if msg.Problem == nil && !want(msg.ID, msg.Body.Size) {
			msg.Body.drop()
			return nil
		}
		return each(msg)
	})
}

// mostFromLine octets a line "From " has at most; a longer one is text.
const mostFromLine = 1 << 10

// mboxPart is where a message lies: from the line after its "From " line to the empty
// line before the next one.
type mboxPart struct {
	start, end int64
	from       string
	received   time.Time
	local      bool
}

// scanMbox finds the messages, whatever the octets are; it keeps none of them.
func scanMbox(r io.Reader, each func(mboxPart) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var (
		p     mboxPart
		ends  lineEnds
		open  bool
		blank = true // the line before was empty, or there was none
		gap   int64  // the length of that line
		at    int64
		begun = true // a line begins here
	)
	close := func(end int64) error {
		if !open {
			return nil
		}
		p.end, p.local = max(end, p.start), ends.local()
		return each(p)
	}
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return err
		}
		t, isFrom := time.Time{}, false
		if begun && blank && bytes.HasPrefix(line, fromWord) {
			t, isFrom = parseFrom(line)
		}
		switch {
		case isFrom:
			if err := close(at - gap); err != nil {
				return err
			}
			p = mboxPart{start: at + int64(len(line)), received: t, from: strings.TrimSpace(string(line))}
			ends, open = lineEnds{}, true
		case open:
			_, _ = ends.Write(line)
		}
		at += int64(len(line))
		if len(line) > 0 {
			blank = begun && !isFrom && len(bytes.TrimRight(line, "\r\n")) == 0 && err == nil
			if gap = 0; blank {
				gap = int64(len(line))
			}
			begun = err == nil
		}
		if err == io.EOF {
			return close(at - gap)
		}
	}
}

var fromWord = []byte("From ")

// Layouts of the date in a line "From ", of its last words.
var fromDates = []string{
	"Mon Jan 2 15:04:05 2006", "Mon Jan 2 15:04:05 2006 -0700", "Mon Jan 2 15:04:05 -0700 2006",
	"Mon Jan 2 15:04:05 MST 2006", "Mon Jan 2 15:04:05 2006 MST", "Mon Jan 2 15:04 2006",
	"Mon, 2 Jan 2006 15:04:05 -0700",
}

// parseFrom reads a line "From SENDER DATE" (RFC 4155); ok is false for text that only
// begins so. A date without a zone is UTC.
func parseFrom(line []byte) (t time.Time, ok bool) {
	if len(line) >= mostFromLine || !bytes.HasPrefix(line, fromWord) {
		return t, false
	}
	words := strings.Fields(string(line))
	for _, layout := range fromDates {
		n := len(strings.Fields(layout))
		if len(words) < n+1 {
			continue
		}
		if t, err := time.Parse(layout, strings.Join(words[len(words)-n:], " ")); err == nil {
			return t, true
		}
	}
	return t, false
}

// read takes the message out of the file. internal: it is none, but a mail program's
// note to itself.
func (p mboxPart) read(f io.ReaderAt, spool string) (m *Message, internal bool, err error) {
	m = &Message{ID: p.from, Received: p.received}
	fill := newFilling(spool)
	var w io.Writer = fill
	if p.local {
		w = crlfWriter{fill}
	}
	h := &mboxHead{}
	err = unquoteMbox(io.NewSectionReader(f, p.start, p.end-p.start), w, h)
	m.Body, err = fill.end(err)
	if errors.Is(err, errTooLarge) {
		m.Problem, err = err, nil
	}
	m.Flags = h.all()
	return m, h.internal >= 2, err
}

// unquoteMbox copies a message as it was before it came into the mbox: without the
// fields that say what is with it, which h takes, and with one ">" less before "From ".
func unquoteMbox(r io.Reader, w io.Writer, h *mboxHead) error {
	in := bufio.NewReaderSize(r, 64<<10)
	out := bufio.NewWriterSize(w, 32<<10)
	header, dropped, begun := true, false, true
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return err
		}
		if begun && len(line) > 0 {
			switch {
			case header && len(bytes.TrimRight(line, "\r\n")) == 0:
				header, dropped = false, false
			case header && (line[0] == ' ' || line[0] == '\t'):
				// The rest of a field shares its lot. Nobody folds Status: what comes
				// behind it is a message that begins with a blank.
				dropped = dropped && !h.atStatus
			default:
				dropped = header && h.take(line)
			}
			if quoted(line) {
				line = line[1:]
			}
		}
		if len(line) > 0 && !dropped {
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return out.Flush()
		}
		begun = err == nil
	}
}

// quoted: a line ">From ", with as many ">" as there may be.
func quoted(line []byte) bool {
	rest := bytes.TrimLeft(line, ">")
	return len(rest) < len(line) && bytes.HasPrefix(rest, fromWord)
}

// mboxHead is what an mbox says in the header of a message.
type mboxHead struct {
	flags    []string
	internal int
	// mozilla are Thunderbird's flags, which count where no Status says otherwise.
	mozilla []string
	status  bool
	// atStatus: Status is the field that was taken last.
	atStatus bool
}

func (h *mboxHead) all() []string {
	if h.status {
		return h.flags
	}
	return append(h.flags, h.mozilla...)
}

// take reads a field that is the mbox's and not the message's.
func (h *mboxHead) take(line []byte) bool {
	h.atStatus = false
	name, value, ok := strings.Cut(string(line[:min(len(line), 4096)]), ":")
	if !ok {
		return false
	}
	value = strings.TrimSpace(value)
	switch strings.ToLower(name) {
	case "status":
		h.status, h.atStatus = true, true
		h.letters(value, map[rune]string{'R': `\Seen`})
	case "x-status":
		h.letters(value, map[rune]string{'A': `\Answered`, 'F': `\Flagged`, 'D': `\Deleted`, 'T': `\Draft`})
	case "x-keywords":
		h.flags = append(h.flags, strings.Fields(value)...)
	case "x-mozilla-status": // Thunderbird's bits; the field stays
		bits, _ := strconv.ParseUint(value, 16, 32)
		for bit, f := range map[uint64]string{1: `\Seen`, 2: `\Answered`, 4: `\Flagged`, 8: `\Deleted`} {
			if bits&bit != 0 {
				h.mozilla = append(h.mozilla, f)
			}
		}
		return false
	case "x-imapbase", "x-imap":
		h.internal++
	case "x-uid":
	case "subject":
		if strings.Contains(value, "FOLDER INTERNAL DATA") {
			h.internal++
		}
		return false
	default:
		return false
	}
	return true
}

func (h *mboxHead) letters(value string, of map[rune]string) {
	for _, c := range value {
		if f := of[c]; f != "" {
			h.flags = append(h.flags, f)
		}
	}
}
