package exec

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
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

// replace makes the edits that turn one message into another.
func (f *Filter) replace(v *filter.Verdict, before, after []byte) error {
	oldHead, oldBody, _ := split(before)
	newHead, newBody, whole := split(after)
	if !whole {
		return fmt.Errorf("it has no empty line after the header")
	}
	fields, err := parseHeader(newHead)
	if err != nil {
		return err
	}
	if len(fields) == 0 {
		return fmt.Errorf("it has no header")
	}
	// A header that cannot be read is replaced too.
	if old, err := parseHeader(oldHead); err != nil || !slices.Equal(old, fields) {
		done := map[string]bool{}
		for _, x := range old {
			if key := strings.ToLower(x.name); !done[key] {
				done[key] = true
				v.DeleteHeader(x.name, 0)
			}
		}
		for _, x := range fields {
			v.InsertHeader(-1, x.name, x.value)
		}
	}
	if bytes.Equal(lines(oldBody), lines(newBody)) {
		return nil
	}
	if len(newBody) <= mail.InlineLimit {
		v.ReplaceBody(newBody)
		return nil
	}
	path, err := f.bodies.keep(newBody)
	if err != nil {
		return err
	}
	v.ReplaceBodyFile(path, int64(len(newBody)))
	return nil
}

// lines have CRLF ends.
func lines(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

// split parts a message at its first empty line, with CRLF or LF line ends.
func split(message []byte) (head, body []byte, whole bool) {
	for rest := message; ; {
		line, after, more := bytes.Cut(rest, []byte("\n"))
		if !more {
			return message, nil, false
		}
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return message[:len(message)-len(rest)], after, true
		}
		rest = after
	}
}

// field is a header field; value is folded with CRLF and has no line end.
type field struct{ name, value string }

// parseHeader reads header fields (RFC 5322 section 2.2), with CRLF or LF line
// ends.
func parseHeader(text []byte) ([]field, error) {
	var out []field
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(out) == 0 {
				return nil, fmt.Errorf("the first line %q begins with a blank", short(line))
			}
			out[len(out)-1].value += "\r\n" + line
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !fieldName(name) {
			return nil, fmt.Errorf("the line %q is not NAME: VALUE", short(line))
		}
		if strings.ContainsAny(value, "\r\x00") {
			return nil, fmt.Errorf("the field %s has a bare CR or a NUL", name)
		}
		out = append(out, field{name, value})
	}
	return out, nil
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

// bodyKept is how long a large body stays: the core copies it while it reads the
// answer, and does not say when it has.
const bodyKept = time.Minute

// bodies are the files of large replaced bodies.
type bodies struct {
	dir string

	mu     sync.Mutex
	timers map[string]*time.Timer
}

// newBodies also removes what an earlier process left behind.
func newBodies(dataDir string) (*bodies, error) {
	b := &bodies{dir: filepath.Join(dataDir, "bodies"), timers: map[string]*time.Timer{}}
	old, err := filepath.Glob(filepath.Join(b.dir, "body-*"))
	if err != nil {
		return nil, err
	}
	for _, path := range old {
		// On a reload the process before this one still answers.
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > bodyKept {
			_ = os.Remove(path)
		}
	}
	return b, os.MkdirAll(b.dir, 0o700)
}

func (b *bodies) keep(body []byte) (string, error) {
	file, err := os.CreateTemp(b.dir, "body-*")
	if err != nil {
		return "", err
	}
	path := file.Name()
	_, err = file.Write(body)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timers[path] = time.AfterFunc(bodyKept, func() { b.drop(path) })
	return path, nil
}

func (b *bodies) drop(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.timers, path)
	_ = os.Remove(path)
}

// close removes all: nobody asks any more.
func (b *bodies) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, t := range b.timers {
		t.Stop()
		_ = os.Remove(path)
	}
	clear(b.timers)
	return nil
}
