package transfer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stagecoach-mta/stagecoach/sdk/maildir"
)

// maildirSink writes a Maildir++.
type maildirSink struct {
	dir  string
	note func(mailbox, message, why string)
}

// NewMaildir writes a Maildir with its folders; what an earlier run wrote stays. note
// hears of what a Maildir cannot say.
func NewMaildir(dir string, note func(mailbox, message, why string)) (Sink, error) {
	return &maildirSink{dir, note}, makeMaildir(dir)
}

var _ Sink = (*maildirSink)(nil)

func makeMaildir(dir string) error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// Open implements Sink.
func (s *maildirSink) Open(m Mailbox, _ string) (Box, bool, error) {
	b := &maildirBox{sink: s, name: m.Name, dir: filepath.Join(s.dir, maildir.Folder(m.Name)), have: map[string]bool{}, numbers: map[string]int{}}
	if len(filepath.Base(b.dir)) > 255 {
		return nil, false, errors.New("its name is too long for a folder")
	}
	if err := makeMaildir(b.dir); err != nil {
		return nil, false, err
	}
	if m.Name != inbox {
		if err := os.WriteFile(filepath.Join(b.dir, "maildirfolder"), nil, 0o600); err != nil {
			return nil, false, err
		}
	}
	words, err := readKeywords(filepath.Join(b.dir, keywordsFile))
	if err != nil {
		return nil, false, err
	}
	for n, w := range words {
		b.numbers[w] = n
	}
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(b.dir, sub))
		if err != nil {
			return nil, false, err
		}
		for _, e := range entries {
			b.have[maildir.Base(e.Name())] = true
		}
	}
	return b, false, nil
}

// Close implements Sink.
func (s *maildirSink) Close(subscribed []string) error {
	var b strings.Builder
	slices.Sort(subscribed)
	for _, name := range subscribed {
		line := inbox
		if name != inbox {
			line = strings.TrimPrefix(maildir.Folder(name), ".")
		}
		fmt.Fprintln(&b, line)
	}
	return replaceFile(filepath.Join(s.dir, subscriptionsFile), b.String())
}

type maildirBox struct {
	sink    *maildirSink
	name    string
	dir     string
	have    map[string]bool
	numbers map[string]int
}

var _ Box = (*maildirBox)(nil)

// base is a name that the message has in every run.
func (b *maildirBox) base(m *Outgoing) string {
	return fmt.Sprintf("%d.V%dU%010d.stagecoach", m.Received.Unix(), m.UIDValidity, m.UID)
}

// Has implements Box.
func (b *maildirBox) Has(m *Outgoing) bool { return b.have[b.base(m)] }

// Put implements Box.
func (b *maildirBox) Put(m *Outgoing) error {
	name := b.base(m)
	tmp := filepath.Join(b.dir, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = writeLocal(f, m)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Chtimes(tmp, m.Received, m.Received)
	}
	var info string
	if err == nil {
		info, err = b.info(m)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(b.dir, "cur", name+info))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// info are the letters of a message's flags and keywords.
func (b *maildirBox) info(m *Outgoing) (string, error) {
	bits := uint32(0)
	var letters []byte
	for _, flag := range m.Flags {
		if bit := bitOf(flag); bit != 0 {
			bits |= bit
			continue
		}
		number, err := b.number(flag)
		if err != nil {
			return "", err
		}
		if number < 0 {
			b.sink.note(b.name, fmt.Sprint("UID ", m.UID), fmt.Sprintf("without the keyword %q: a Maildir's folder has room for 26", flag))
			continue
		}
		letters = append(letters, byte('a'+number))
	}
	slices.Sort(letters)
	return maildir.WithFlags(":2,"+string(letters), bits), nil
}

func bitOf(flag string) uint32 {
	for _, f := range system {
		if f.name == flag {
			return uint32(f.bit)
		}
	}
	return 0
}

// number of a keyword in this folder, which is written down before a message has it.
func (b *maildirBox) number(word string) (int, error) {
	if n, ok := b.numbers[word]; ok {
		return n, nil
	}
	for n := range 26 {
		if !slices.Contains(slices.Collect(maps.Values(b.numbers)), n) {
			b.numbers[word] = n
			return n, b.writeKeywords()
		}
	}
	return -1, nil
}

func (b *maildirBox) writeKeywords() error {
	byNumber := make([]string, 26)
	for w, n := range b.numbers {
		byNumber[n] = w
	}
	var s strings.Builder
	for n, w := range byNumber {
		if w != "" {
			fmt.Fprintf(&s, "%d %s\n", n, w)
		}
	}
	return replaceFile(filepath.Join(b.dir, keywordsFile), s.String())
}

// Close implements Box.
func (b *maildirBox) Close() error { return syncDisk(b.dir) }

// Abandon implements Box.
func (b *maildirBox) Abandon() {}

// writeLocal writes a message with LF, or as it is where that could not be undone.
func writeLocal(w io.Writer, m *Outgoing) error {
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
	if ends.plain() {
		out := bufio.NewWriterSize(w, 64<<10)
		if _, err := io.Copy(lfWriter{out}, r); err != nil {
			return err
		}
		return out.Flush()
	}
	_, err = io.Copy(w, r)
	return err
}

func replaceFile(path, text string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// syncDisk waits until all that was written there is on the disk.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
