package transfer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	mboxExt = ".mbox"
	// mboxList in the folder says which mailboxes are whole, and as of when.
	mboxList = ".stagecoach-export.json"
)

// mboxSink writes one mbox per mailbox into a folder tree.
type mboxSink struct {
	dir   string
	whole map[string]string
}

// NewMbox writes an mbox for each mailbox: Archive/2026 is DIR/Archive/2026.mbox. The
// folder must be new or empty, or have been written by an earlier run.
func NewMbox(dir string) (Sink, error) {
	s := &mboxSink{dir, map[string]string{}}
	b, err := os.ReadFile(filepath.Join(dir, mboxList))
	if err == nil {
		return s, json.Unmarshal(b, &s.whole)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty, and no earlier export wrote it: name a new folder", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return s, s.keep()
}

var _ Sink = (*mboxSink)(nil)

func (s *mboxSink) keep() error {
	b, err := json.MarshalIndent(s.whole, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.dir, mboxList), string(b)+"\n")
}

// file is where a mailbox goes.
func (s *mboxSink) file(name string) string {
	levels := strings.Split(name, "/")
	for n, l := range levels {
		l = strings.ReplaceAll(l, "%", "%25")
		if strings.HasPrefix(l, ".") {
			l = "%2E" + l[1:]
		}
		for _, ext := range []string{mboxExt, ".sbd"} {
			if before, ok := strings.CutSuffix(l, ext); ok {
				l = before + "%2E" + ext[1:]
			}
		}
		levels[n] = l
	}
	return filepath.Join(s.dir, filepath.Join(levels...)+mboxExt)
}

// Open implements Sink.
func (s *mboxSink) Open(m Mailbox, state string) (Box, bool, error) {
	path := s.file(m.Name)
	if _, err := os.Stat(path); err == nil && s.whole[m.Name] == state {
		return nil, true, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, false, err
	}
	f, err := os.Create(path + ".partial")
	if err != nil {
		return nil, false, err
	}
	return &mboxBox{sink: s, name: m.Name, state: state, path: path, file: f, out: bufio.NewWriterSize(f, 256<<10)}, false, nil
}

// Close implements Sink. An mbox knows no subscriptions.
func (s *mboxSink) Close([]string) error { return nil }

type mboxBox struct {
	sink              *mboxSink
	name, state, path string
	file              *os.File
	out               *bufio.Writer
}

var _ Box = (*mboxBox)(nil)

// Has implements Box: a file is written as a whole.
func (*mboxBox) Has(*Outgoing) bool { return false }

// Put implements Box.
func (b *mboxBox) Put(m *Outgoing) error { return writeMbox(b.out, m) }

// Close implements Box.
func (b *mboxBox) Close() error {
	err := b.out.Flush()
	if err == nil {
		err = b.file.Sync()
	}
	if err = errors.Join(err, b.file.Close()); err != nil {
		return err
	}
	if err := os.Rename(b.file.Name(), b.path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(b.path)); err != nil {
		return err
	}
	b.sink.whole[b.name] = b.state
	return b.sink.keep()
}

// Abandon implements Box.
func (b *mboxBox) Abandon() {
	b.file.Close()
	_ = os.Remove(b.file.Name()) // the next run begins it anew
}

// writeMbox writes a message as an mbox has it (mboxrd): a line "From ", fields for
// what is with the message, ">" before lines that could be taken for the former, and
// an empty line.
func writeMbox(w *bufio.Writer, m *Outgoing) error {
	r, err := m.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	ends, err := endsOf(r)
	if err != nil {
		return err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sender, err := returnPath(r)
	if err != nil {
		return err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	fmt.Fprintf(w, "From %s %s\n%s", sender, m.Received.UTC().Format(time.ANSIC), mboxFields(m.Flags))
	var out io.Writer = w
	if ends.plain() {
		out = lfWriter{w}
	}
	return quoteMbox(r, out, w)
}

// mostHeader octets of a header are looked at for a sender.
const mostHeader = 64 << 10

// returnPath is the sender as the line "From " has it.
func returnPath(r io.Reader) (string, error) {
	in := bufio.NewReaderSize(io.LimitReader(r, mostHeader), mostHeader)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return "", err
		}
		name, value, ok := strings.Cut(string(line), ":")
		if ok && strings.EqualFold(name, "Return-Path") {
			if addr := strings.Trim(strings.TrimSpace(value), "<>"); addr != "" && len(addr) <= 320 && !strings.ContainsFunc(addr, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
				return addr, nil
			}
		}
		if err != nil || !ok && line[0] != ' ' && line[0] != '\t' {
			return "MAILER-DAEMON", nil
		}
	}
}

// mboxFields are flags and keywords as mutt, Dovecot and others write them.
func mboxFields(flags []string) string {
	status, more, words := "O", "", []string{}
	for _, f := range flags {
		switch f {
		case `\Seen`:
			status = "RO"
		case `\Answered`:
			more += "A"
		case `\Flagged`:
			more += "F"
		case `\Deleted`:
			more += "D"
		case `\Draft`:
			more += "T"
		default:
			words = append(words, f)
		}
	}
	s := ""
	if len(words) > 0 {
		s = "X-Keywords: " + strings.Join(words, " ") + "\n"
	}
	if more != "" {
		s += "X-Status: " + more + "\n"
	}
	s += "Status: " + status + "\n" // the last one: see unquoteMbox
	return s
}

// quoteMbox copies a message into an mbox, line by line, without fields that the mbox
// has for itself; end gets what ends it.
func quoteMbox(r io.Reader, w io.Writer, end *bufio.Writer) error {
	in := bufio.NewReaderSize(r, 64<<10)
	header, dropped, begun := true, false, true
	h := &mboxHead{}
	last := byte('\n')
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
			default:
				dropped = header && h.take(line)
			}
			if !dropped && (bytes.HasPrefix(line, fromWord) || quoted(line)) {
				if _, err := io.WriteString(w, ">"); err != nil {
					return err
				}
			}
		}
		if len(line) > 0 && !dropped {
			last = line[len(line)-1]
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		begun = err == nil
	}
	if last != '\n' {
		if err := end.WriteByte('\n'); err != nil {
			return err
		}
	}
	return end.WriteByte('\n')
}
