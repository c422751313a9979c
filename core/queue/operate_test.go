package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// paper is a notice as a test makes it.
func paper(env *Envelope, _ spool.Body, changes []Change) ([]*NewMessage, error) {
	var names []string
	for i := range changes {
		names = append(names, env.recipient(changes[i].Index).Address)
	}
	return []*NewMessage{{
		Envelope: &Envelope{Origin: "dsn", Subject: strings.Join(names, " "), Recipients: []*Recipient{{Address: env.Sender, Parent: -1}}},
		Body:     spool.FromBytes([]byte("notice")),
	}}, nil
}

// all of the queue, as "ORIGIN SUBJECT: ADDRESS STATE …".
func all(t *testing.T, e *Engine) (out []string) {
	t.Helper()
	if err := e.List(context.Background(), Filter{}, func(env *Envelope) bool {
		s := env.Origin + " " + env.Subject + ":"
		for _, r := range env.Recipients {
			s += fmt.Sprintf(" %s %s", r.Address, r.State)
		}
		out = append(out, s)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFailTells: an operator's bounce and its notice are there together, also
// after a restart; what is being delivered is not bounced.
func TestFailTells(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	clock := &fakeClock{start}
	e := open(t, Options{FS: fs, Clock: clock.Now})
	a := put(t, e, mailTo("meg@ryan.example", "bill@other.example"), spool.FromBytes([]byte("x")))
	c := claim(t, e, start, 1)[0]
	op := Operation{Kind: Fail, Reason: "no more", Recipients: []int32{1}, Notice: paper}
	if err := e.Operate(ctx, a, op); !errors.Is(err, ErrUnderWay) {
		t.Fatalf("a bounce while a delivery runs: %v", err)
	}
	if got := all(t, e); len(got) != 1 {
		t.Fatalf("a notice of nothing: %q", got)
	}
	if err := e.Release(ctx, c); err != nil {
		t.Fatal(err)
	}
	if err := e.Operate(ctx, a, op); err != nil {
		t.Fatal(err)
	}
	want := "[receive.smtp.mx hello: meg@ryan.example waiting bill@other.example failed dsn bill@other.example: tom@hanks.example waiting]"
	if got := fmt.Sprint(all(t, e)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	env, err := e.Get(ctx, a)
	if err != nil || env.Recipients[1].Last == nil || env.Recipients[1].Last.Text != "no more" || env.Recipients[1].Last.Code != 554 {
		t.Errorf("%+v %v", env, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, Options{FS: fs, Clock: clock.Now})
	if got := fmt.Sprint(all(t, e)); got != want {
		t.Errorf("after a restart %s, want %s", got, want)
	}
	// The whole message: it is gone, its notice is not.
	if err := e.Operate(ctx, a, Operation{Kind: Fail, Reason: "no more", Notice: paper}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(all(t, e)); got != "[dsn bill@other.example: tom@hanks.example waiting dsn meg@ryan.example: tom@hanks.example waiting]" {
		t.Error(got)
	}
	if s, err := e.Stats(ctx); err != nil || s.Messages != 2 || s.Recipients != 2 {
		t.Errorf("%+v %v", s, err)
	}
	// A notice that cannot be made changes nothing.
	b := put(t, e, mailTo("meg@ryan.example"), spool.FromBytes([]byte("x")))
	broken := errors.New("no paper")
	if err := e.Operate(ctx, b, Operation{Kind: Fail, Notice: func(*Envelope, spool.Body, []Change) ([]*NewMessage, error) { return nil, broken }}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if got := len(all(t, e)); got != 3 {
		t.Errorf("%d messages", got)
	}
}

// TestFailTellsOfDamagedMail: a sender is told also if nobody can read the mail any
// more, and what was done is told on.
func TestFailTellsOfDamagedMail(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	e := open(t, Options{FS: fs, Clock: (&fakeClock{start}).Now})
	var told []Operated
	e.OnOperate(func(o Operated) { told = append(told, o) })
	gone := put(t, e, mailTo("gone@ryan.example"), large(t, fs, "a file"))
	corrupt := put(t, e, mailTo("corrupt@ryan.example"), spool.FromBytes([]byte("x")))
	if err := fs.Remove(e.bodyPath(mustID(t, gone))); err != nil {
		t.Fatal(err)
	}
	spoil(t, e, bodyKey(mustID(t, corrupt)))
	for _, id := range []string{gone, corrupt} {
		if _, err := e.Body(ctx, id); !errors.Is(err, ErrCorrupt) { // which holds it
			t.Fatal(err)
		}
		err := e.Operate(ctx, id, Operation{Kind: Fail, Reason: "no more", Notice: func(env *Envelope, body spool.Body, changes []Change) ([]*NewMessage, error) {
			if body != nil {
				t.Errorf("a body of what has none: %v", body)
			}
			return paper(env, body, changes)
		}})
		if err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(all(t, e)); got != "[dsn gone@ryan.example: tom@hanks.example waiting dsn corrupt@ryan.example: tom@hanks.example waiting]" {
		t.Error(got)
	}
	if len(told) != 2 || told[0].Kind != Fail || told[0].Recipients != 1 || len(told[1].Notices) != 1 || told[1].Notices[0].Origin != "dsn" {
		t.Errorf("told %+v", told)
	}
}

// TestARedirectToSeveralTells: that it was expanded is the success of who asked for that,
// and the new ones do not tell of theirs.
func TestARedirectToSeveralTells(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	env := mailTo("meg@ryan.example")
	env.Recipients[0].Notify = []string{"SUCCESS", "FAILURE"}
	id := put(t, e, env, spool.FromBytes([]byte("x")))
	op := Operation{Kind: Redirect, To: []string{"joe@fox.example", "annie@reed.example"}, Notice: paper}
	if err := e.Operate(ctx, id, op); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(all(t, e)); got != "[receive.smtp.mx hello: meg@ryan.example expanded joe@fox.example waiting annie@reed.example waiting dsn meg@ryan.example: tom@hanks.example waiting]" {
		t.Error(got)
	}
	got, err := e.Get(ctx, id)
	if err != nil || fmt.Sprint(got.Recipients[1].Notify, got.Recipients[2].Notify) != "[FAILURE] [FAILURE]" {
		t.Errorf("%+v %v", got, err)
	}
}

// TestRedirect: to other addresses, which know where they came from, or to
// another next hop; held mail goes on by it, and nothing holds it again.
func TestRedirect(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	clock := &fakeClock{start}
	e := open(t, Options{FS: fs, Clock: clock.Now})
	id := put(t, e, mailTo("meg@ryan.example", "bill@other.example"), spool.FromBytes([]byte("x")))
	if err := e.Operate(ctx, id, Operation{Kind: Hold, Reason: "look"}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Operation{
		{Kind: Redirect}, {Kind: Redirect, To: []string{"a@b.example"}, NextHop: "c:25"}, {Kind: Redirect, NextHop: "c:25", Recipients: []int32{0}},
	} {
		if err := e.Operate(ctx, id, bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := e.Operate(ctx, id, Operation{Kind: Redirect, To: []string{"joe@reed.example", "ann@reed.example"}, Recipients: []int32{0}}); err != nil {
		t.Fatal(err)
	}
	if err := e.Operate(ctx, id, Operation{Kind: Redirect, NextHop: "gate.ryan.example:2525"}); err != nil {
		t.Fatal(err)
	}
	check := func(hop string) {
		t.Helper()
		env, err := e.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		got := env.Hints.GetNextHop()
		for _, r := range env.Recipients {
			got += fmt.Sprintf(" %s/%s/%s/%d/%s", r.Address, r.State, r.Original, r.Parent, r.Reason)
		}
		want := hop + " meg@ryan.example/expanded//-1/ bill@other.example/waiting//-1/" + Released +
			" joe@reed.example/waiting/rfc822;meg@ryan.example/0/" + Released + " ann@reed.example/waiting/rfc822;meg@ryan.example/0/" + Released
		if got != want {
			t.Errorf("\n%s, want\n%s", got, want)
		}
	}
	check("gate.ryan.example:2525")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, Options{FS: fs, Clock: clock.Now})
	check("gate.ryan.example:2525")
	if got := claim(t, e, start, 1)[0].Due; len(got) != 3 {
		t.Errorf("due are %v", got)
	}
	clock.set(clock.now.Add(2 * time.Hour)) // the lease is over
	if got := claim(t, e, clock.now, 1); len(got) != 1 {
		t.Fatal("not claimed again")
	} else if err := e.Release(ctx, got[0]); err != nil {
		t.Fatal(err)
	}
	if err := e.Operate(ctx, id, Operation{Kind: Redirect, NextHop: NoNextHop}); err != nil {
		t.Fatal(err)
	}
	check("")
	// A retry keeps the mark.
	if err := e.Operate(ctx, id, Operation{Kind: Retry}); err != nil {
		t.Fatal(err)
	}
	check("")
}

func TestFilter(t *testing.T) {
	ctx := context.Background()
	e := open(t, Options{FS: vfs.NewMem(), Clock: (&fakeClock{start}).Now})
	one := mailTo("meg@ryan.example", "bill@other.example")
	one.Subject, one.MessageID = "You have got mail", "<abc@hanks.example>"
	one.Client = &v1.Client{Ip: "192.0.2.7", Hello: "pc.hanks.example", User: "tom@hanks.example"}
	one.Tags = map[string]*v1.Tag{
		"dmarc": {Value: &v1.Tag_Text{Text: "fail"}}, "score": {Value: &v1.Tag_Number{Number: 7}},
		"seen": {Value: &v1.Tag_Flag{Flag: true}}, "auth": {Value: &v1.Tag_Map{Map: &v1.TagMap{Entries: map[string]*v1.Tag{"policy": {Value: &v1.Tag_Text{Text: "reject"}}}}}}, "lists": {Value: &v1.Tag_List{List: &v1.TagList{Values: []string{"dbl", "zen"}}}},
	}
	a := put(t, e, one, spool.FromBytes([]byte("0123456789")))
	two := mailTo("joe@ryan.example")
	two.Sender, two.Origin = "", "dsn"
	b := put(t, e, two, spool.FromBytes([]byte("0")))
	c := claim(t, e, start, 1)[0]
	if err := e.Commit(ctx, c, []Change{
		{Index: 0, State: Waiting, Next: start.Add(time.Hour), Deliver: "deliver.smtp.internet", Route: "out",
			Attempt: &Attempt{Code: 451, Enhanced: "4.7.1", Text: "Greylisted, come again", RemoteMTA: "mx1.ryan.example"}},
		{Index: 1, State: Delivered, Deliver: "deliver.smtp.internet", Attempt: &Attempt{Code: 250}},
	}, false); err != nil {
		t.Fatal(err)
	}
	held := Held
	for text, f := range map[string]Filter{
		a + b: {}, a: {Subject: "GOT"}, "": {Subject: "lost"}, b: {Sender: "<>"},
		a + " ": {Sender: "<Tom@hanks.example>"}, " ": {Sender: "<tom>"}, a + "  ": {Destination: "ryan.example", Attempts: &Span{1, -1}},
		b + " ": {Origin: "dsn"}, b + "  ": {Attempts: &Span{0, 0}}, a + "   ": {Attempts: &Span{1, 3}},
		"   ": {Attempts: &Span{2, -1}}, a + "4": {Reason: "greylisted"}, a + "5": {Reason: "451 4.7.1"}, "6": {Reason: "5.7.1"},
		a + "7": {Destination: "deliver.smtp.internet"}, a + "8": {Destination: "deliver.smtp.internet RYAN.example"},
		"9": {Destination: "deliver.smtp.other ryan.example"}, "10": {Recipient: "bill"}, // delivered: no longer in the queue
		a + "11": {Remote: "mx1"}, a + "12": {User: "tom"}, a + "13": {Client: "192.0.2."}, a + "14": {Client: "pc.hanks"},
		a + "15": {MessageID: "abc@"}, a + "16": {MessageID: "<abc@hanks.example>"},
		a + "17": {Tags: []TagFilter{{Name: "dmarc"}}}, a + "18": {Tags: []TagFilter{{"dmarc", "FAIL", true}, {"score", "7.0", true}}},
		"19": {Tags: []TagFilter{{"dmarc", "pass", true}}}, a + "20": {Tags: []TagFilter{{"seen", "true", true}, {"lists", "zen", true}}},
		a + "21": {MinSize: 10}, b + "22": {MaxSize: 9}, a + "23": {Words: []string{"greylisted", "meg"}}, "24": {Words: []string{"greylisted", "joe"}},
		b + "25": {After: a}, a + "26": {Limit: 1}, "27": {State: &held}, b + "28": {IDs: []string{b, a}, After: a},
		a + b + "29": {NewerThan: start.Add(-1)}, "30": {NewerThan: start},
		a + "31": {Tags: []TagFilter{{"auth.policy", "REJECT", true}}}, "32": {Tags: []TagFilter{{Name: "auth.other"}}},
	} {
		want := strings.TrimRight(text, " 0123456789")
		switch {
		case strings.HasPrefix(text, a+b):
			want = a + b
		case strings.HasPrefix(text, a):
			want = a
		case strings.HasPrefix(text, b):
			want = b
		}
		got := ""
		if err := e.List(ctx, f, func(env *Envelope) bool { got += env.ID; return true }); err != nil || got != want {
			t.Errorf("%+v: %q %v, want %q", f, got, err, want)
		}
	}
	if err := e.List(ctx, Filter{After: "nonsense"}, func(*Envelope) bool { return true }); err == nil {
		t.Error("a page after nothing")
	}
}

// TestBreakdown: of a part, of all, and estimated.
func TestBreakdown(t *testing.T) {
	ctx := context.Background()
	clock := &fakeClock{start}
	e := open(t, Options{FS: vfs.NewMem(), Clock: clock.Now})
	for n := range 300 {
		env := mailTo(fmt.Sprintf("u%d@d%d.example", n, n%3))
		if env.Sender = "tom@hanks.example"; n%4 == 0 {
			env.Sender = "meg@ryan.example"
		}
		put(t, e, env, spool.FromBytes([]byte("0123456789")))
	}
	clock.set(start.Add(2 * time.Hour))
	b, err := e.Breakdown(ctx, Filter{}, 2, false)
	if err != nil {
		t.Fatal(err)
	}
	if b.Messages != 300 || b.Bytes != 3000 || b.Recipients != 300 || b.Waiting != 300 || b.Held+b.Tried+b.Sample != 0 {
		t.Errorf("%+v", b)
	}
	if len(b.Destinations) != 2 || b.Destinations[0] != (Share{"d0.example", 100, 100, 1000, start}) {
		t.Errorf("%+v", b.Destinations)
	}
	if len(b.Senders) != 2 || b.Senders[1] != (Share{"meg@ryan.example", 75, 75, 750, start}) {
		t.Errorf("%+v", b.Senders)
	}
	if b.Ages[2].Messages != 300 || b.Ages[2].Below != 4*time.Hour {
		t.Errorf("%+v", b.Ages)
	}
	if b, err = e.Breakdown(ctx, Filter{Domain: "d1.example"}, 0, false); err != nil || b.Recipients != 100 || len(b.Destinations) != 1 {
		t.Errorf("%+v %v", b, err)
	}
	// The estimate, had it been so many messages: which is of all of them here.
	est := newTally(clock.Now())
	if err := e.sample(ctx, est, 300); err != nil {
		t.Fatal(err)
	}
	if b := est.breakdown(0); b.Sample != 300 || b.Recipients != 300 || len(b.Destinations) != 3 || b.Destinations[2].Recipients != 100 {
		t.Errorf("%+v", b)
	}
}
