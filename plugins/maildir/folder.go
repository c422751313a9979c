package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/maildir"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const inbox = "INBOX"

var defaults = []struct{ name, role string }{
	{inbox, "inbox"}, {"Drafts", "drafts"}, {"Sent", "sent"},
	{"Trash", "trash"}, {"Junk", "junk"}, {"Archive", "archive"},
}

var roles = []string{"", "inbox", "drafts", "sent", "trash", "junk", "archive", "all", "flagged", "important"}

// checkName returns a mailbox name in the form it is kept in.
func checkName(name string) (string, error) {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return "", fail.New(fail.Invalid, "mailbox name %q is not UTF-8 or has a control character", name)
	}
	levels := strings.Split(norm.NFC.String(name), "/")
	if slices.Contains(levels, "") {
		return "", fail.New(fail.Invalid, "mailbox name %q has an empty level", name)
	}
	if strings.EqualFold(levels[0], inbox) {
		levels[0] = inbox
	}
	name = strings.Join(levels, "/")
	if len(maildir.Folder(name)) > 250 {
		return "", fail.New(fail.Invalid, "mailbox name %.40q… is too long for a folder", name)
	}
	return name, nil
}

// nameOf undoes maildir.Folder; ok: it is a mailbox's.
func nameOf(dir string) (name string, ok bool) {
	name, ok = maildir.Name(dir)
	if !ok {
		return "", false
	}
	name, err := checkName(name)
	return name, err == nil && maildir.Folder(name) == dir
}

func (a *account) path(b *box, elem ...string) string {
	return filepath.Join(append([]string{a.dir, maildir.Folder(b.Name)}, elem...)...)
}

// createBox makes a mailbox and its folder.
func (a *account) createBox(name, role string) (*box, error) {
	a.Mailbox++
	a.UIDValidity = max(a.UIDValidity+1, uint64(a.s.opts.Now().Unix()))
	b := &box{Num: uint32(a.Mailbox), Name: name, Role: role, Subscribed: !a.rec.unsubscribed, UIDValidity: uint32(a.UIDValidity),
		UIDNext: 1, Created: a.s.nowMS(), byBase: map[string]*message{}}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(a.path(b, sub), 0o700); err != nil {
			return nil, err
		}
	}
	if name != inbox {
		// By this file other programs know a folder from a Maildir.
		if err := os.WriteFile(a.path(b, "maildirfolder"), nil, 0o600); err != nil {
			return nil, err
		}
		if err := a.s.syncDir(a.path(b)); err != nil {
			return nil, err
		}
	}
	if err := a.s.syncDir(a.dir); err != nil {
		return nil, err
	}
	a.boxes[b.Num] = b
	a.touch(b)
	a.inherit(b)
	a.rec.list = true
	return b, nil
}

func (a *account) byName(name string) *box {
	for _, b := range a.boxes {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// ensure returns the mailbox of that checked name, creating it and its parents.
func (a *account) ensure(name string) (*box, error) {
	if b := a.byName(name); b != nil {
		return b, nil
	}
	if err := a.parents(name); err != nil {
		return nil, err
	}
	return a.createBox(name, "")
}

func (a *account) parents(name string) error {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return nil
	}
	_, err := a.ensure(name[:i])
	return err
}

// stamp tells whether a folder changed since it was read.
type stamp struct {
	new, cur time.Time
	at       time.Time
}

func (a *account) stamp(b *box) (stamp, error) {
	s := stamp{at: time.Now()}
	n, err := os.Stat(a.path(b, "new"))
	if err != nil {
		return s, err
	}
	c, err := os.Stat(a.path(b, "cur"))
	if err != nil {
		return s, err
	}
	s.new, s.cur = n.ModTime(), c.ModTime()
	return s, nil
}

// same: the times are equal, and so old that a later change must show in them.
func (s stamp) same(seen stamp) bool {
	const grain = 50 * time.Millisecond
	return s.new.Equal(seen.new) && s.cur.Equal(seen.cur) && seen.at.Sub(seen.new) > grain && seen.at.Sub(seen.cur) > grain
}

// scanFolders picks up folders and messages that other programs made, renamed or
// removed.
func (a *account) scanFolders() error {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return err
	}
	there := map[string]bool{inbox: true}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		if _, err := os.Stat(filepath.Join(a.dir, e.Name(), "cur")); err != nil {
			continue
		}
		name, ok := nameOf(e.Name())
		if !ok {
			continue
		}
		there[name] = true
		if a.byName(name) == nil {
			if _, err := a.createBox(name, ""); err != nil {
				return err
			}
		}
	}
	for _, b := range a.boxes {
		if !there[b.Name] {
			a.removeBox(b)
			continue
		}
		if err := a.scan(b); err != nil {
			return err
		}
	}
	return nil
}

// scan reads one folder, if it changed.
func (a *account) scan(b *box) error {
	st, err := a.stamp(b)
	if err != nil {
		return err
	}
	if st.same(b.seen) {
		return nil
	}
	files, err := a.files(b)
	if err != nil {
		return err
	}
	missing := 0
	for name := range b.byBase {
		if _, ok := files[name]; !ok {
			missing++
		}
	}
	if missing > 0 {
		// A file that was renamed while the directory was read may have been
		// passed over: only what is missing twice is gone.
		again, err := a.files(b)
		if err != nil {
			return err
		}
		for k, v := range again {
			files[k] = v
		}
		var gone []uint32
		for _, m := range b.msgs {
			if _, ok := files[base(m.File)]; !ok {
				gone = append(gone, m.UID)
			}
		}
		a.bury(b, gone)
	}
	var fresh []string
	for name, file := range files {
		m := b.byBase[name]
		if m == nil {
			fresh = append(fresh, name)
			continue
		}
		if m.File != file {
			flags := flagsOf(file)
			changed := *m
			changed.File = file
			if flags != m.Flags {
				a.touch(b)
				changed.Flags, changed.Modseq = flags, a.Modseq
			}
			b.put(&changed)
			a.rec.set(b.Num, &changed)
		}
	}
	slices.Sort(fresh)
	for _, name := range fresh {
		m, err := a.adopt(b, files[name])
		if errors.Is(err, os.ErrNotExist) {
			continue // gone again
		}
		if err != nil {
			return err
		}
		a.index(b, m)
	}
	b.seen = st
	return nil
}

// files lists a folder's messages by the constant part of their names.
func (a *account) files(b *box) (map[string]string, error) {
	out := map[string]string{}
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(a.path(b, sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
				out[base(e.Name())] = sub + "/" + e.Name()
			}
		}
	}
	return out, nil
}

// adopt makes the record of a file that another program put there.
func (a *account) adopt(b *box, file string) (*message, error) {
	f, err := os.Open(a.path(b, file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := mime.Summarize(f)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m := a.newMessage(r, info.Size(), info.ModTime().UnixMilli())
	m.File, m.Flags = file, flagsOf(file)
	if key := base(file); strings.HasPrefix(key, depositPrefix) {
		// A crash came between the delivery's file and its record.
		a.remember(key, b, b.UIDNext, m.ID)
	}
	return m, nil
}

// newMessage numbers a message and finds its thread.
func (a *account) newMessage(r *mime.Rendered, size, received int64) *message {
	a.Message++
	m := &message{ID: a.Message, Thread: a.Message, Size: size, Received: received, Saved: a.s.nowMS()}
	own := mime.MessageIDs(r.Summary.GetMessageId())
	refs := mime.MessageIDs(r.Summary.GetReferences())
	slices.Reverse(refs)
	for _, id := range slices.Concat(own, mime.MessageIDs(r.Summary.GetInReplyTo()), refs[:min(len(refs), 20)]) {
		if t := a.threads[hash(id)]; t != 0 {
			m.Thread = t
			break
		}
	}
	if len(own) > 0 {
		m.Hash = hash(own[0])
	}
	return m
}

func hash(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	n, _ := strconv.ParseUint(hex.EncodeToString(sum[:8]), 16, 64)
	return n | 1
}

func flagsOf(file string) uint32 {
	flags, _ := maildir.Info(filepath.Base(file))
	return flags
}

// withFlags is the name in cur for these flags.
func withFlags(file string, flags uint32) string {
	return "cur/" + maildir.WithFlags(filepath.Base(file), flags)
}

// place puts a message into the folder, durable with its name: tmp, fsync, link
// into new (or cur, if it has flags), fsync of the directory.
func (a *account) place(b *box, name string, flags uint32, prefix []byte, r io.Reader) (file string, err error) {
	tmp := a.path(b, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp)
	if _, err = f.Write(prefix); err == nil {
		_, err = io.Copy(f, r)
	}
	if err != nil {
		f.Close()
		return "", err
	}
	a.s.sync(f)
	if err := f.Close(); err != nil {
		return "", err
	}
	file = "new/" + name
	if flags != 0 {
		file = withFlags(file, flags)
	}
	dst := a.path(b, file)
	if err := os.Link(tmp, dst); err != nil {
		return "", err
	}
	a.rec.undo = append(a.rec.undo, dst)
	return file, a.s.syncDir(filepath.Dir(dst))
}

// unique is a name no other file has.
func (a *account) unique() string {
	a.Message++ // a number of its own, whether the message gets stored or not
	return fmt.Sprintf("%d.M%dN%d.stagecoach", a.s.opts.Now().Unix(), a.s.opts.Now().Nanosecond()/1000, a.Message)
}

// source is a message on its way in.
type source struct {
	mail.Reader
	*mime.Rendered
}

// take opens and renders a message.
func take(ref *v1.MessageRef) (*source, error) {
	r, err := mail.FromRef(ref).Open()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil, fail.Wrap(fail.Invalid, err, "the message cannot be read")
	}
	if err != nil {
		return nil, wrap(err)
	}
	sum, err := mime.Summarize(r)
	if err == nil && sum.Size != ref.GetSize() {
		err = fail.New(fail.Invalid, "the message has %d octets, its reference says %d", sum.Size, ref.GetSize())
	}
	if err != nil {
		r.Close()
		return nil, wrap(err)
	}
	return &source{r, sum}, nil
}

// body reads the message from its beginning.
func (s *source) body() io.Reader { return io.NewSectionReader(s.Reader, 0, s.Size) }
