package message

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestAdopt(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	write := func(path, text string) *v1.MessageRef {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return mail.FromFile(path, int64(len(text))).Ref()
	}
	write(secret, "secret\r\n")
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(secret), filepath.Join(dir, "up")); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a line\n", 5000)
	spooled := filepath.Join(t.TempDir(), "spool")
	d, err := spool.OpenDir(vfs.Default, spooled)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ref  *v1.MessageRef
		want string // "": refused
	}{
		"inline":        {mail.FromBytes([]byte("a\nb\r\n")).Ref(), "a\r\nb\r\n"},
		"file":          {write(filepath.Join(dir, "body"), long), strings.ReplaceAll(long, "\n", "\r\n")},
		"bare CR":       {mail.FromBytes([]byte("a\rb")).Ref(), ""},
		"CR at the end": {mail.FromBytes([]byte("a\r")).Ref(), ""},
		"NUL":           {mail.FromBytes([]byte("a\x00b")).Ref(), ""},
		"elsewhere":     {mail.FromFile(secret, 8).Ref(), ""},
		"dots":          {mail.FromFile(dir+"/../"+filepath.Base(filepath.Dir(secret))+"/secret", 8).Ref(), ""},
		"link":          {mail.FromFile(filepath.Join(dir, "link"), 8).Ref(), ""},
		"linked folder": {mail.FromFile(filepath.Join(dir, "up", "secret"), 8).Ref(), ""},
		"folder":        {mail.FromFile(dir, 8).Ref(), ""},
		"missing":       {mail.FromFile(filepath.Join(dir, "missing"), 8).Ref(), ""},
	} {
		b, err := (Editor{d}).Adopt(c.ref, []string{dir})
		if c.want == "" {
			if !errors.Is(err, ErrEdit) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := b.Message().Bytes(0)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %d octets (%v), want %d", name, len(got), err, len(c.want))
		}
		b.Discard()
	}
	if left, err := os.ReadDir(spooled); err != nil || len(left) != 0 {
		t.Errorf("%d files are left in the spool (%v)", len(left), err)
	}
}

func TestKeepOutlivesTheBody(t *testing.T) {
	fs := vfs.NewMem()
	d, err := spool.OpenDir(fs, "spool")
	if err != nil {
		t.Fatal(err)
	}
	w := d.NewWriter(1 << 20)
	if _, err := w.Write([]byte("body")); err != nil {
		t.Fatal(err)
	}
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := (Editor{d}).Keep(b)
	if err != nil {
		t.Fatal(err)
	}
	b.Discard()
	r, err := kept.Open()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := r.Read(got); err != nil || string(got) != "body" {
		t.Errorf("%q %v", got, err)
	}
	r.Close()
	kept.Discard()
	if left, _ := fs.List("spool"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
