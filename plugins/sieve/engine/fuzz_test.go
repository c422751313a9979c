package engine

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nobody is a Host that knows nothing.
type nobody struct{ scripts map[string]string }

var _ Host = nobody{}

func (n nobody) Script(_ context.Context, _ bool, name string) ([]byte, error) {
	if s, ok := n.scripts[name]; ok {
		return []byte(s), nil
	}
	return nil, nil
}
func (nobody) Mailbox(context.Context, string) (bool, error)      { return true, nil }
func (nobody) SpecialUse(context.Context, string) (string, error) { return "Junk", nil }
func (nobody) Seen(context.Context, string) (bool, error)         { return false, nil }

// FuzzScript compiles and runs any script on any message: it ends, within its
// limits, and its result can be carried out.
func FuzzScript(f *testing.F) {
	mail := "From: Tom <tom@hanks.example>\r\nTo: meg+film@ryan.example\r\nSubject: =?utf-8?q?Sleepless?=\r\nMessage-ID: <1@hanks.example>\r\n" +
		"Date: Mon, 20 Jul 2009 21:44:43 +0300\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nIn Seattle\r\n--x\r\nContent-Type: text/html\r\n\r\n<b>hi</b>\r\n--x--\r\n"
	_ = filepath.WalkDir("testdata/scripts", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".sieve") {
			if b, err := os.ReadFile(path); err == nil {
				f.Add(string(b), mail)
			}
		}
		return nil
	})
	config := DefaultConfig()
	config.MaxSteps = 50_000
	c := New(config, nobody{})
	f.Fuzz(func(t *testing.T, text, message string) {
		s, diags := c.Compile(t.Context(), "fuzz", []byte(text))
		for _, d := range diags {
			if d.Line < 1 || d.Column < 1 || d.Line > strings.Count(text, "\n")+1 || d.Message == "" {
				t.Fatalf("%+v is no place in the script", d)
			}
		}
		if s == nil {
			if len(diags) == 0 {
				t.Fatal("no script, and nobody says why")
			}
			return
		}
		in := &Input{Message: NewMessage([]byte(message)), Now: time.Unix(1e9, 0).UTC(), Envelope: Envelope{From: "tom@hanks.example", To: "meg@ryan.example"}}
		r, err := c.Run(t.Context(), s, in)
		if err != nil && !r.ImplicitKeep {
			t.Fatalf("the script failed (%v), and the mail is not kept", err)
		}
		out, err := c.Outgoing(t.Context(), in, r)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Actions) > config.MaxActions+1 {
			t.Fatalf("%d actions", len(r.Actions))
		}
		for _, o := range out {
			var b bytes.Buffer
			if _, err := o.WriteTo(&b); err != nil || int64(b.Len()) != o.Size() {
				t.Fatalf("a mail of %d octets: %d, %v", o.Size(), b.Len(), err)
			}
			if len(o.To) != 1 || o.To[0] == "" {
				t.Fatalf("a mail to %q", o.To)
			}
		}
		for _, a := range r.Actions {
			var b bytes.Buffer
			if _, err := a.Message.WriteTo(&b); err != nil || int64(b.Len()) != a.Message.Size() {
				t.Fatalf("a message of %d octets: %d, %v", a.Message.Size(), b.Len(), err)
			}
		}
	})
}
