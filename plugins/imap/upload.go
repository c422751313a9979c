package imap

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// upload is a message that is being put together, in memory while it is small.
type upload struct {
	dir   string
	limit int64
	size  int64
	small []byte
	file  *os.File
	paths []string
}

var _ io.Writer = (*upload)(nil)

// Write implements io.Writer.
func (w *upload) Write(p []byte) (int, error) {
	if w.size += int64(len(p)); w.size > w.limit {
		return 0, no(imap.ResponseCodeTooBig, "The message is larger than "+strconv.FormatInt(w.limit, 10)+" octets")
	}
	if w.file == nil && w.size <= mail.InlineLimit {
		w.small = append(w.small, p...)
		return len(p), nil
	}
	if w.file == nil {
		f, err := os.CreateTemp(w.dir, "append-*")
		if err != nil {
			return 0, fail.Wrap(fail.Unavailable, err, "write an upload")
		}
		w.file = f
		w.paths = append(w.paths, f.Name())
		if _, err := f.Write(w.small); err != nil {
			return 0, fail.Wrap(fail.Unavailable, err, "write an upload")
		}
	}
	return w.file.Write(p)
}

// message ends the upload.
func (w *upload) message() (*mail.Message, error) {
	if w.file == nil {
		return mail.FromBytes(w.small), nil
	}
	f := w.file
	w.file = nil
	if err := f.Close(); err != nil {
		return nil, fail.Wrap(fail.Unavailable, err, "write an upload")
	}
	return mail.FromFile(f.Name(), w.size), nil
}

// discard removes what was written; the storage has its own.
func (w *upload) discard() {
	if w.file != nil {
		w.file.Close()
	}
	for _, p := range w.paths {
		os.Remove(p)
	}
}

// withoutNUL writes the parts that are "binary" in base64: a message with NUL is
// none for other readers of this storage (RFC 3516 section 4.4).
func (w *upload) withoutNUL(m *mail.Message) (*mail.Message, error) {
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if !hasNUL(r) {
		return m, nil
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	rendered, err := mime.Summarize(r)
	if err != nil {
		return nil, err
	}
	next := &upload{dir: w.dir, limit: 2 * w.limit}
	at := int64(0)
	err = eachLeaf(rendered.Structure, func(p *v1.Part) error {
		if !strings.EqualFold(p.GetEncoding(), "binary") {
			return nil
		}
		if _, err := io.Copy(next, io.NewSectionReader(r, at, p.GetHeaderOffset()-at)); err != nil {
			return err
		}
		header := make([]byte, p.GetBodyOffset()-p.GetHeaderOffset())
		if _, err := r.ReadAt(header, p.GetHeaderOffset()); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := next.Write(withEncoding(header, "base64")); err != nil {
			return err
		}
		lines := &base64Lines{to: next}
		encoder := base64.NewEncoder(base64.StdEncoding, lines)
		if _, err := io.Copy(encoder, io.NewSectionReader(r, p.GetBodyOffset(), p.GetSize())); err != nil {
			return err
		}
		if err := errors.Join(encoder.Close(), lines.end()); err != nil {
			return err
		}
		at = p.GetBodyOffset() + p.GetSize()
		return nil
	})
	if err == nil {
		_, err = io.Copy(next, io.NewSectionReader(r, at, m.Size()-at))
	}
	defer func() { w.paths = append(w.paths, next.paths...) }()
	if err != nil {
		return nil, err
	}
	out, err := next.message()
	if err != nil {
		return nil, err
	}
	check, err := out.Open()
	if err != nil {
		return nil, err
	}
	defer check.Close()
	if hasNUL(check) {
		return nil, errUnknownCTE
	}
	return out, nil
}

func hasNUL(r io.Reader) bool {
	b := make([]byte, 16<<10)
	for {
		n, err := r.Read(b)
		if bytes.IndexByte(b[:n], 0) >= 0 {
			return true
		}
		if err != nil {
			return false
		}
	}
}

func eachLeaf(p *v1.Part, do func(*v1.Part) error) error {
	if len(p.GetChildren()) == 0 {
		return do(p)
	}
	for _, c := range p.GetChildren() {
		if err := eachLeaf(c, do); err != nil {
			return err
		}
	}
	return nil
}

// withEncoding gives a header another Content-Transfer-Encoding.
func withEncoding(header []byte, encoding string) []byte {
	rest := pickFields(header, []string{"Content-Transfer-Encoding"}, true)
	return append([]byte("Content-Transfer-Encoding: "+encoding+"\r\n"), rest...)
}

// base64Lines breaks base64 into lines of 76 (RFC 2045 section 6.8).
type base64Lines struct {
	to io.Writer
	n  int
}

func (l *base64Lines) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		k := min(76-l.n, len(p))
		if _, err := l.to.Write(p[:k]); err != nil {
			return 0, err
		}
		p = p[k:]
		if l.n += k; l.n == 76 {
			l.n = 0
			if _, err := io.WriteString(l.to, "\r\n"); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

func (l *base64Lines) end() error {
	if l.n == 0 {
		return nil
	}
	_, err := io.WriteString(l.to, "\r\n")
	return err
}

func (b *blob) copyTo(w io.Writer) error {
	r, err := b.message().Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

// messageURL is an IMAP URL of a section of a message (RFC 5092), as CATENATE has
// it: of this server and this account.
type messageURL struct {
	text     string
	mailbox  string
	validity uint32
	uid      uint32
	section  section
	ok       bool
}

func (u *messageURL) bad() error {
	return no(imap.ResponseCode(`BADURL "`+quotable(u.text)+`"`), "The URL names nothing here")
}

// quotable leaves out of a client's text what would break the reply's line.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' || r == ']' {
			return '?'
		}
		return r
	}, s[:min(len(s), 200)])
}

// parseURL takes "/INBOX;UIDVALIDITY=1/;UID=2/;SECTION=1.TEXT/;PARTIAL=0.100".
func parseURL(text string) *messageURL {
	u := &messageURL{text: text}
	rest, ok := strings.CutPrefix(text, "/")
	mailbox, rest, found := strings.Cut(rest, "/;")
	if !ok || !found {
		return u
	}
	if name, validity, has := strings.Cut(mailbox, ";"); has {
		key, value, _ := strings.Cut(validity, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || !strings.EqualFold(key, "UIDVALIDITY") {
			return u
		}
		mailbox, u.validity = name, uint32(n)
	}
	var err error
	if u.mailbox, err = url.PathUnescape(mailbox); err != nil {
		return u
	}
	u.section.want = wantAll
	for _, part := range strings.Split(rest, "/;") {
		key, value, _ := strings.Cut(part, "=")
		if value, err = url.PathUnescape(value); err != nil || !u.set(strings.ToUpper(key), value) {
			return u
		}
	}
	u.ok = u.uid > 0
	return u
}

func (u *messageURL) set(key, value string) bool {
	switch key {
	case "UID":
		n, err := strconv.ParseUint(value, 10, 32)
		u.uid = uint32(n)
		return err == nil
	case "SECTION":
		p := wire.NewParser(value+"]", nil)
		u.section.spec(p)
		p.Expect(']')
		p.End()
		return p.Err() == nil
	case "PARTIAL":
		from, size, has := strings.Cut(value, ".")
		offset, err := strconv.ParseInt(from, 10, 62)
		n := int64(1<<62 - 1)
		if has && err == nil {
			n, err = strconv.ParseInt(size, 10, 62)
		}
		u.section.partial, u.section.offset, u.section.size = true, offset, n
		return err == nil && offset >= 0 && n > 0
	}
	return false
}

// copyURL writes what a URL names.
func (ss *session) copyURL(ctx context.Context, u *messageURL, w io.Writer) error {
	if !u.ok {
		return u.bad()
	}
	m, err := ss.find(ctx, u.mailbox)
	if err == errNoMailbox || err == nil && u.validity != 0 && u.validity != m.GetUidValidity() {
		return u.bad()
	}
	if err != nil {
		return err
	}
	found := false
	var failed error
	err = ss.store.Fetch(ctx, &v1.FetchRequest{
		MailboxId: m.GetId(), Uids: []*v1.UIDRange{{First: u.uid, Last: u.uid}}, Structure: true, Message: true,
	}, func(item *v1.FetchResponse_Item) error {
		found = true
		b, err := openBody(item)
		if err != nil {
			failed = err
			return err
		}
		defer b.close()
		r, _, err := b.section(&u.section)
		if err == nil {
			_, err = io.Copy(w, r)
		}
		failed = err
		return err
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return err
	case !found:
		return u.bad()
	}
	return nil
}
