package local

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestOrderOfIO holds what each operation does to the disk, and in which order,
// against testdata: a change of it is to be seen.
func TestOrderOfIO(t *testing.T) {
	ctx := context.Background()
	w := &world{t: t, d: simdisk.New(), steady: &simdisk.Steady{}, now: crashStart, gate: simdisk.NewGate()}
	log := w.d.Record()
	g := golden{t: t, log: log}
	large := "Subject: large\r\n\r\n" + strings.Repeat("x\r\n", smallBody)
	put := func(req *v1.DepositRequest) func() error {
		return func() error {
			_, err := deposit(w.s, req)
			return err
		}
	}
	g.step("open a new store", w.open)
	var a storage.Account
	g.step("open a new account", func() (err error) {
		a, err = w.s.Open(ctx, "meg@ryan.example")
		return err
	})
	g.step("deposit a small message", put(toMeg("small", "Subject: small\r\n\r\n")))
	g.step("deposit it again", put(toMeg("small", "Subject: small\r\n\r\n")))
	g.step("deposit a large message", put(toMeg("large", large)))
	ref, err := w.spool(large)
	if err != nil {
		t.Fatal(err)
	}
	w.s.local = true
	g.step("deposit a large message from the spool", put(&v1.DepositRequest{QueueId: "linked", Message: ref, Targets: toMeg("", "").Targets}))
	w.s.local = false
	g.step("append", func() error {
		_, err := a.Append(ctx, &v1.AppendRequest{MailboxId: "F1", Messages: []*v1.AppendRequest_Message{{Message: inlineMessage("Subject: x\r\n\r\n")}}})
		return err
	})
	all := []*v1.UIDRange{{First: 1, Last: 10}}
	g.step("set flags", func() error {
		_, err := a.SetFlags(ctx, &v1.SetFlagsRequest{MailboxId: "F1", Uids: all, Flags: []string{`\Seen`}})
		return err
	})
	g.step("move", func() error {
		_, err := a.Copy(ctx, &v1.CopyRequest{MailboxId: "F1", Uids: all, TargetMailboxId: "F4", Move: true})
		return err
	})
	g.step("expunge", func() error {
		_, err := a.Expunge(ctx, &v1.ExpungeRequest{MailboxId: "F4", Uids: all, Force: true})
		return err
	})
	g.step("remove the bodies that nobody refers to", func() error {
		if n := w.s.collect(); n != 4 {
			return fmt.Errorf("%d are removed", n)
		}
		return nil
	})
	g.step("close", w.s.Close)
	g.step("open it again", w.open)
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	g.compare("io.txt")
}

// golden is the operations on a disk, by what they were for.
type golden struct {
	t    *testing.T
	log  *simdisk.Log
	at   int
	text strings.Builder
}

func (g *golden) step(what string, do func() error) {
	g.t.Helper()
	g.at = g.log.Len()
	if err := do(); err != nil {
		g.t.Fatalf("%s: %v", what, err)
	}
	fmt.Fprintf(&g.text, "%s\n", what)
	for _, op := range g.log.Ops(g.at) {
		fmt.Fprintf(&g.text, "    %s\n", normal(op))
	}
}

// normal is an operation without what changes with the release of the database:
// sizes, and the numbers of its files.
func normal(op simdisk.Op) string {
	s := spooled.ReplaceAllString(op.String(), "SPOOL")
	if op.Kind == simdisk.Write {
		s = s[:strings.LastIndexByte(s, ' ')]
	}
	return numbers.ReplaceAllString(s, "N")
}

// spooled is the file of the machine that the test links.
var spooled = regexp.MustCompile(`\S*/message\b`)

var numbers = regexp.MustCompile(`\d{6,}`)

func (g *golden) compare(name string) {
	g.t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(g.text.String()), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	if got := g.text.String(); got != string(want) {
		g.t.Errorf("the disk saw another order than testdata/%s has (-update writes it anew):\n%s", name, got)
	}
}
