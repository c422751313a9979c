package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/maildir"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	keywordsFile      = "dovecot-keywords"
	subscriptionsFile = "subscriptions"
)

// maildirSource is a Maildir++, or a folder of Maildirs.
type maildirSource struct {
	dir, spool string
}

// OpenMaildir takes mail from a Maildir with its folders, or from a folder of
// Maildirs; spool is where large messages lie on their way.
func OpenMaildir(dir, spool string) (Source, error) {
	fi, err := os.Stat(dir)
	if err == nil && !fi.IsDir() {
		err = fmt.Errorf("%s is no folder", dir)
	}
	return &maildirSource{dir, spool}, err
}

var _ Source = (*maildirSource)(nil)

// Close implements Source.
func (*maildirSource) Close() error { return nil }

// Mailboxes implements Source.
func (s *maildirSource) Mailboxes(ctx context.Context) (list []Mailbox, err error) {
	subscribed, err := readSubscriptions(filepath.Join(s.dir, subscriptionsFile))
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if !e.IsDir() {
			return nil
		}
		switch e.Name() {
		case "cur", "new", "tmp":
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "cur")); err != nil {
			return nil
		}
		m, err := s.mailbox(path)
		if err != nil {
			return err
		}
		m.Subscribed = subscribed == nil || subscribed[m.Name]
		list = append(list, m)
		return nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s is no Maildir: neither it nor a folder in it has a folder named cur", s.dir)
	}
	return list, err
}

func (s *maildirSource) mailbox(path string) (m Mailbox, err error) {
	m.place = path
	if m.Name, err = s.name(path); err != nil {
		return m, err
	}
	_, err = s.files(path, func(e fs.DirEntry, _ string) error {
		fi, err := e.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		m.Messages, m.Octets = m.Messages+1, m.Octets+fi.Size()
		return nil
	})
	return m, err
}

// name of the mailbox that a folder is: ".A.B" beside a Maildir, A/B within a folder.
func (s *maildirSource) name(path string) (string, error) {
	rel, err := filepath.Rel(s.dir, path)
	if err != nil {
		return "", err
	}
	if rel == "." {
		return inbox, nil
	}
	var levels []string
	for _, part := range strings.Split(rel, "/") {
		name, ok := maildir.Name("." + strings.ReplaceAll(part, ".", "%2E"))
		if strings.HasPrefix(part, ".") {
			name, ok = maildir.Name(part)
		}
		if !ok {
			return "", fmt.Errorf("%s: its name cannot be read as a mailbox's", path)
		}
		levels = append(levels, strings.Split(name, "/")...)
	}
	name, err := cleanName(levels)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return name, nil
}

// files calls each for the messages of a folder by their names, each once, and says
// how many there are.
func (s *maildirSource) files(dir string, each func(e fs.DirEntry, path string) error) (n int, err error) {
	seen := map[string]bool{}
	var all []fs.DirEntry
	place := map[string]string{}
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, err
		}
		for _, e := range entries {
			base := maildir.Base(e.Name())
			if strings.HasPrefix(e.Name(), ".") || e.IsDir() || seen[base] {
				continue
			}
			seen[base] = true
			place[e.Name()] = filepath.Join(dir, sub, e.Name())
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return compareNames(a.Name(), b.Name()) })
	for _, e := range all {
		if err := each(e, place[e.Name()]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// compareNames puts files into the order of their delivery: names begin with a time.
func compareNames(a, b string) int {
	ta, _, _ := strings.Cut(a, ".")
	tb, _, _ := strings.Cut(b, ".")
	na, errA := strconv.ParseInt(ta, 10, 64)
	nb, errB := strconv.ParseInt(tb, 10, 64)
	if errA == nil && errB == nil && na != nb {
		if na < nb {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

// Messages implements Source.
func (s *maildirSource) Messages(ctx context.Context, m Mailbox, want func(string, int64) bool, each func(*Message) error) error {
	keywords, err := readKeywords(filepath.Join(m.place, keywordsFile))
	if err != nil {
		return err
	}
	_, err = s.files(m.place, func(e fs.DirEntry, path string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		msg := &Message{ID: maildir.Base(e.Name()), Flags: flagsOf(e.Name(), keywords)}
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil // another program renamed or removed it: the next run sees
		}
		if err == nil {
			if !want(msg.ID, fi.Size()) {
				return nil
			}
			msg.Received = fi.ModTime()
			msg.Body, err = s.read(path)
		}
		var broken *fs.PathError
		if errors.As(err, &broken) || errors.Is(err, errTooLarge) {
			msg.Problem = err
		} else if err != nil {
			return err
		}
		return each(msg)
	})
	return err
}

func (s *maildirSource) read(path string) (*Body, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ends, err := endsOf(f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	fill := newFilling(s.spool)
	var w io.Writer = fill
	if ends.local() {
		w = crlfWriter{fill}
	}
	_, err = io.Copy(w, f)
	return fill.end(err)
}

// system are the flags of the storage contract's bits.
var system = []struct {
	bit  v1.Flag
	name string
}{
	{v1.Flag_FLAG_SEEN, `\Seen`}, {v1.Flag_FLAG_ANSWERED, `\Answered`}, {v1.Flag_FLAG_FLAGGED, `\Flagged`},
	{v1.Flag_FLAG_DELETED, `\Deleted`}, {v1.Flag_FLAG_DRAFT, `\Draft`},
}

// flagsOf a file's name and the keywords of its folder.
func flagsOf(file string, keywords map[int]string) (list []string) {
	bits, numbers := maildir.Info(file)
	for _, f := range system {
		if bits&uint32(f.bit) != 0 {
			list = append(list, f.name)
		}
	}
	for _, n := range numbers {
		if word := keywords[n]; word != "" {
			list = append(list, word)
		}
	}
	return list
}

// mostListed octets of a list beside the mail are read.
const mostListed = 1 << 20

// readKeywords reads Dovecot's list: a number and a keyword on each line.
func readKeywords(path string) (map[int]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseKeywords(f)
}

func parseKeywords(r io.Reader) (map[int]string, error) {
	words := map[int]string{}
	in := bufio.NewScanner(io.LimitReader(r, mostListed))
	for in.Scan() {
		number, word, _ := strings.Cut(in.Text(), " ")
		if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < 26 && word != "" {
			words[n] = word
		}
	}
	return words, in.Err()
}

// readSubscriptions reads the names that are subscribed; nil: nobody says.
func readSubscriptions(path string) (map[string]bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseSubscriptions(f)
}

// parseSubscriptions reads Dovecot's list: a folder's name on each line, or, after a
// line that says version 2, a name's levels with tabs between them.
func parseSubscriptions(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{inbox: true}
	in := bufio.NewScanner(io.LimitReader(r, mostListed))
	second := false
	for n := 0; in.Scan(); n++ {
		line := in.Text()
		if n == 0 && line == "V\t2" {
			second = true
			continue
		}
		if second {
			line = strings.ReplaceAll(strings.ReplaceAll(line, ".", "%2E"), "\t", ".")
		}
		if name, ok := maildir.Name("." + line); ok && line != "" {
			names[name] = true
		}
	}
	return names, in.Err()
}
