package queue

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestOrderOfIO holds what each operation does to the disk, and in which order,
// against testdata: a change of it is to be seen.
func TestOrderOfIO(t *testing.T) {
	ctx := context.Background()
	d, steady := simdisk.New(), &simdisk.Steady{}
	log := d.Record()
	g := golden{t: t, log: log}
	o := Options{FS: d, Dir: "queue", Clock: (&fakeClock{start}).Now, Tune: steady.Tune}
	dir, err := spool.OpenDir(d, "spool")
	if err != nil {
		t.Fatal(err)
	}
	var e *Engine
	g.step("open a new queue", func() error {
		e, err = Open(o)
		if err == nil {
			<-e.swept
		}
		return err
	})
	g.step("put a small mail", func() error { return e.Put(ctx, mailTo("meg@ryan.example"), spool.FromBytes([]byte("small"))) })
	var body spool.Body
	g.step("spool a large mail", func() error {
		w := dir.NewWriter(20000)
		if _, err := io.WriteString(w, strings.Repeat("large\r\n", 3000)); err != nil {
			return err
		}
		body, err = w.Finish()
		return err
	})
	g.step("put a large mail", func() error { return e.Put(ctx, mailTo("meg@ryan.example"), body) })
	cs := claim(t, e, start, 2)
	g.step("claim", func() error { return nil })
	g.step("commit: later", func() error {
		return e.Commit(ctx, cs[0], []Change{{State: Waiting, Next: start.Add(time.Hour), Attempt: &Attempt{Code: 451}}}, false)
	})
	g.step("operate: hold", func() error { return e.Operate(ctx, cs[0].ID, Operation{Kind: Hold, Reason: "asked"}) })
	g.step("commit: the small mail is thrown away", func() error { return e.Operate(ctx, cs[0].ID, Operation{Kind: Remove}) })
	g.step("commit: the large mail fails, with a notice", func() error {
		notice := &NewMessage{mailTo("tom@hanks.example"), spool.FromBytes([]byte("it failed"))}
		return e.Commit(ctx, cs[1], []Change{{State: Failed, Enqueue: []*NewMessage{notice}}}, false)
	})
	g.step("close", e.Close)
	g.step("open it again", func() error {
		e, err = Open(o)
		if err == nil {
			<-e.swept
		}
		return err
	})
	if err := e.Close(); err != nil {
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
	s := op.String()
	if op.Kind == simdisk.Write {
		s = s[:strings.LastIndexByte(s, ' ')]
	}
	return numbers.ReplaceAllString(s, "N")
}

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
