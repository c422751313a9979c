package queue

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// BenchmarkJournal is the life of most mails, with and without the mail journal,
// over a disk that costs nothing and over a real one.
func BenchmarkJournal(b *testing.B) {
	for _, c := range []struct {
		name string
		fs   vfs.FS
		keep time.Duration
	}{{"memory/off", vfs.NewMem(), 0}, {"memory/on", vfs.NewMem(), time.Hour}, {"disk/off", vfs.Default, 0}, {"disk/on", vfs.Default, time.Hour}} {
		b.Run(c.name, func(b *testing.B) {
			e, err := Open(Options{Dir: b.TempDir(), FS: c.fs})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			if err := e.SetHistory(c.keep, 0); err != nil {
				b.Fatal(err)
			}
			body := spool.FromBytes(make([]byte, 2048))
			ctx := context.Background()
			client := &v1.Client{Ip: "192.0.2.7", Hello: "pc.hanks.example", Protocol: "ESMTPS", Tls: true, TlsVersion: "TLS1.3", TlsCipher: "TLS_AES_128_GCM_SHA256"}
			b.ReportAllocs()
			cpu := cpuTime()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					env := mailTo("meg@ryan.example")
					env.Client, env.MessageID, env.From = client, "<20261126.1@hanks.example>", "Tom <tom@hanks.example>"
					env.Transaction = "0DvUy2ENEvA.1"
					if err := e.Put(ctx, env, body); err != nil {
						b.Error(err)
						return
					}
					cs, err := e.Claim(ctx, time.Now(), 1, time.Minute)
					if err != nil {
						b.Error(err)
						return
					}
					for _, c := range cs {
						if err := e.Commit(ctx, c, []Change{{
							Index: 0, State: Delivered, Route: "here", Deliver: "deliver.storage.mail",
							Attempt: &Attempt{At: time.Now(), Code: 250, Enhanced: "2.0.0", Text: "Delivered to INBOX"},
							Notes:   []Note{{What: "route", By: "here", Verdict: "taken", Text: "has(directory.file.people, recipient)"}},
						}}, false); err != nil {
							b.Error(err)
							return
						}
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(e.db.Metrics().WAL.BytesIn)/float64(b.N), "log-B/op")
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what this process has used; other processes do not count.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestTrace: a mail's life is told by its id, its Message-ID and its addresses,
// after its end, after a restart, after a kill that left the last records without
// their names; and no longer than it is kept.
func TestTrace(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	clock := &fakeClock{start}
	e := open(t, Options{FS: fs, Clock: clock.Now})
	if err := e.SetHistory(24*time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	env := mailTo("meg@ryan.example", "all@ryan.example")
	env.MessageID, env.Transaction = "<abc@hanks.example>", "S1.1"
	env.Client = &v1.Client{Ip: "192.0.2.7", Hello: "pc.hanks.example", User: "tom@hanks.example", Protocol: "ESMTPSA", Tls: true, TlsVersion: "TLS1.3"}
	env.Notes = []Note{{What: "MESSAGE", By: "filter.spam.x", Verdict: "ACCEPT", Score: -1.5, Edits: []string{"insert X-Spam"}, Took: time.Millisecond}}
	i := put(t, e, env, spool.FromBytes([]byte("x")))
	put(t, e, mailTo("joe@reed.example"), spool.FromBytes([]byte("y")))
	clock.set(clock.now.Add(time.Minute))
	var c *Claim
	for _, c = range claim(t, e, clock.now, 2) {
		if c.ID == i {
			break
		}
	}
	if err := e.Commit(ctx, c, []Change{
		{Index: 0, State: Waiting, Next: clock.now.Add(time.Hour), Route: "out", Deliver: "deliver.smtp.internet",
			Attempt: &Attempt{Code: 451, Enhanced: "4.7.1", Text: "Greylisted", RemoteMTA: "mx1.ryan.example"},
			Notes:   []Note{{What: "route", By: "out", Verdict: "taken"}}},
		{Index: 1, State: Expanded, Reason: "alias", Add: []*Recipient{{Address: "ann@ryan.example"}}},
	}, false); err != nil {
		t.Fatal(err)
	}
	e.Refused(Refusal{Sender: "spam@reed.example", Recipients: []string{"meg@ryan.example"}, Code: 550, Text: "No", By: "receive.smtp.mx"})
	clock.set(clock.now.Add(time.Minute))
	if err := e.Operate(ctx, i, Operation{Kind: Fail, Reason: "enough", Notice: paper}); err != nil {
		t.Fatal(err)
	}
	check := func(e *Engine, name string, mails, refusals int) *Trace {
		t.Helper()
		tr, err := e.Trace(ctx, name, time.Time{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(tr.Mails) != mails || len(tr.Refusals) != refusals {
			t.Fatalf("%s: %d mails and %d refusals, want %d and %d", name, len(tr.Mails), len(tr.Refusals), mails, refusals)
		}
		return tr
	}
	whole := func(e *Engine) {
		t.Helper()
		check(e, "nobody@ryan.example", 0, 0)
		check(e, "S1.1", 1, 0)
		check(e, "<ABC@hanks.example>", 1, 0)
		check(e, "ann@ryan.example", 1, 0)
		check(e, "MEG@ryan.example", 1, 1)
		check(e, "joe@reed.example", 1, 0)
		tr := check(e, i, 1, 0)
		m := tr.Mails[0]
		if m.User != "tom@hanks.example" || m.TLS != "TLS1.3" || !m.Received.Equal(start) || len(m.Notes) != 1 || m.Notes[0].Score != -1.5 || m.Notes[0].Edits[0] != "insert X-Spam" {
			t.Errorf("%+v", m)
		}
		said := ""
		for _, ev := range m.Events {
			said += fmt.Sprintf("%s %s %s %d %v op=%v;", ev.Recipient, ev.State, ev.Text, len(ev.Notes), ev.Becomes, ev.Operator)
		}
		if want := "meg@ryan.example deferred Greylisted 1 [] op=false;all@ryan.example expanded  0 [ann@ryan.example] op=false;" +
			"meg@ryan.example failed enough 0 [] op=true;ann@ryan.example failed enough 0 [] op=true;"; said != want {
			t.Errorf("%s, want %s", said, want)
		}
		if len(tr.Others) != 1 || tr.Others[0].Parent != i || m.Events[2].Made[0] != tr.Others[0].ID {
			t.Errorf("the notice: %+v", tr.Others)
		}
	}
	whole(e)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	// As a kill leaves it: the names were not written.
	names, err := fs.List("queue/history")
	if err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, namesSuffix) {
			f, err := fs.Create("queue/history/"+name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	e = open(t, Options{FS: fs, Clock: clock.Now})
	if err := e.SetHistory(24*time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	whole(e)

	// It is forgotten by whole files, in time and size.
	clock.set(clock.now.Add(25*time.Hour + chapterTime))
	put(t, e, mailTo("late@ryan.example"), spool.FromBytes(nil))
	clock.set(clock.now.Add(chapterTime))
	put(t, e, mailTo("late@ryan.example"), spool.FromBytes(nil))
	check(e, i, 0, 0)
	check(e, "late@ryan.example", 2, 0)
	if err := e.SetHistory(24*time.Hour, 1); err != nil {
		t.Fatal(err)
	}
	clock.set(clock.now.Add(time.Minute))
	put(t, e, mailTo("last@ryan.example"), spool.FromBytes(nil))
	if names, err := fs.List("queue/history"); err != nil || len(names) != 2 {
		t.Errorf("%v %v", names, err)
	}
	// Off: nothing is left, and what is in the queue is told all the same.
	if err := e.SetHistory(0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat("queue/history"); err == nil {
		t.Error("the files are still there")
	}
	if tr := check(e, "last@ryan.example", 1, 0); tr.Kept {
		t.Error("it says that it is kept")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRefusalsAreBounded: a stranger does not fill the disk.
func TestRefusalsAreBounded(t *testing.T) {
	clock := &fakeClock{start}
	e := open(t, Options{FS: vfs.NewMem(), Clock: clock.Now})
	e.Refused(Refusal{Sender: "off@reed.example"})
	if err := e.SetHistory(time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		t.Helper()
		put(t, e, mailTo("meg@ryan.example"), spool.FromBytes(nil)) // what was told before is written
		tr, err := e.Trace(context.Background(), "spam@reed.example", time.Time{}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return len(tr.Refusals)
	}
	for range refusalsPerHour + 10 {
		e.Refused(Refusal{Sender: "spam@reed.example", Code: 550})
	}
	if n := count(); n != refusalsPerHour {
		t.Errorf("%d refusals are kept", n)
	}
	clock.set(clock.now.Add(time.Hour))
	e.Refused(Refusal{Sender: "spam@reed.example", Code: 550})
	if n := count(); n != refusalsPerHour+1 {
		t.Errorf("%d refusals are kept in two hours", n)
	}
}

// TestJournalIsNoObstacle: a disk that takes no journal takes mail.
func TestJournalIsNoObstacle(t *testing.T) {
	clock := &fakeClock{start}
	fs := vfs.NewMem()
	e := open(t, Options{FS: errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.Contains(op.Path, "history") && op.Kind == errorfs.OpFileWrite {
			return syscall.ENOSPC
		}
		return nil
	})), Clock: clock.Now})
	if err := e.SetHistory(time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	put(t, e, mailTo("meg@ryan.example"), spool.FromBytes(nil))
	put(t, e, mailTo("meg@ryan.example"), spool.FromBytes(nil))
	if s, err := e.Stats(context.Background()); err != nil || s.Messages != 2 {
		t.Errorf("%+v %v", s, err)
	}
}
