package metrics

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/dsn"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// However many destinations there are, and whatever their names, a page tells some
// apart and adds up the others.
func TestDestinationsAreBounded(t *testing.T) {
	p := newPage()
	long := strings.Repeat("x", 300)
	collectDestinations(p, func(top int) ([]queue.Destination, queue.Destination, bool) {
		ds := []queue.Destination{{Domain: long + "1", Recipients: 9}, {Domain: long + "2", Recipients: 8}, {Domain: "bad\xff\"name", Recipients: 7}}
		return ds[:min(len(ds), top)], queue.Destination{Recipients: 1000, Tried: 10}, true
	})
	now := time.Now()
	collectLanes(p, func(each func(schedule.Lane)) {
		for n := range 5000 {
			l := schedule.Lane{Name: fmt.Sprintf("deliver.smtp.internet d%d.example", n), Running: n % 7, Waiting: n % 3, Allowed: 20}
			if n%2 == 0 {
				l.Blocked = now.Add(time.Duration(n) * time.Second)
			}
			each(l)
		}
		each(schedule.Lane{Name: "deliver.smtp.internet busy.example", Running: 100, Waiting: 1, Allowed: 100})
	}, now)
	if len(p.faults) > 0 {
		t.Error(p.faults)
	}
	got := text(t, p)
	for _, want := range []string{
		`stagecoach_destination_recipients{deliver="",destination="other"} 1000`,
		`stagecoach_destination_recipients{deliver="",destination="` + long[:nameLimit] + `"} 9`,
		`stagecoach_destination_recipients{deliver="",destination="bad?\"name"} 7`,
		`stagecoach_lanes{state="open"} 2501`, `stagecoach_lanes{state="blocked"} 2500`,
		`stagecoach_lane_running{deliver="deliver.smtp.internet",destination="busy.example"} 100`,
		`stagecoach_lane_blocked_seconds{deliver="deliver.smtp.internet",destination="d4998.example"} 4998`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	running := 0
	for _, s := range p.families["stagecoach_lane_running"].samples {
		running += int(s.value)
	}
	if want := 100 + 5000/7*21 + 5000%7*(5000%7-1)/2; running != want {
		t.Errorf("%d under way in all, want %d", running, want)
	}
	for name, f := range p.families {
		if len(f.samples) > topDestinations+1 {
			t.Errorf("%s has %d series", name, len(f.samples))
		}
	}
}

// A family of ours does not grow without end, whatever its labels are told.
func TestSeriesAreBounded(t *testing.T) {
	v := newVec(counter, "x_total", "", "a", "b")
	for n := range maxOwn + 500 {
		v.with(fmt.Sprint(n), "y").add(1)
	}
	p := newPage()
	v.collect(p)
	if got := text(t, p); len(v.series) != maxOwn+1 || !strings.Contains(got, `x_total{a="other",b="other"} 500`) {
		t.Errorf("%d series", len(v.series))
	}
}

// ending is a queue whose mails end when the test says so.
type ending struct {
	journal
	told  func(queue.Outcome, time.Duration)
	acted func(queue.Operated)
}

func (e *ending) OnEnd(f func(queue.Outcome, time.Duration)) { e.told = f }
func (e *ending) OnOperate(f func(queue.Operated))           { e.acted = f }

func TestMailAndNoticesAreCountedByOutcome(t *testing.T) {
	m, e := New(), &ending{}
	q := m.Queue(e)
	e.told(queue.EndedDelivered, time.Millisecond)
	e.told(queue.EndedDelivered, time.Hour)
	e.told(queue.EndedPartly, time.Hour)
	lines(t, m, "stagecoach_mail_", `
ended_total delivered 2
ended_total partly 1
ended_total failed 0
ended_total discarded 0
seconds_count delivered 2
seconds_count partly 1
seconds_count failed 0
seconds_count discarded 0
`)
	for _, action := range []dsn.Action{dsn.Failed, dsn.Delayed, dsn.Failed} {
		notice, err := dsn.Build(dsn.Report{
			Hostname: "mx.ryan.example", Action: action, Envelope: &queue.Envelope{Sender: "tom@hanks.example"}, Body: spool.FromBytes([]byte("Subject: x\r\n\r\n")),
			Recipients: []dsn.Recipient{{Recipient: &queue.Recipient{Address: "meg@ryan.example"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Commit(context.Background(), nil, []queue.Change{{State: queue.Failed, Enqueue: []*queue.NewMessage{notice}}}, false); err != nil {
			t.Fatal(err)
		}
	}
	bounce, err := dsn.Build(dsn.Report{
		Hostname: "mx.ryan.example", Action: dsn.Failed, Envelope: &queue.Envelope{Sender: "tom@hanks.example"},
		Recipients: []dsn.Recipient{{Recipient: &queue.Recipient{Address: "meg@ryan.example"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.acted(queue.Operated{Kind: queue.Fail, Recipients: 3, Notices: []*queue.Envelope{bounce.Envelope}})
	e.acted(queue.Operated{Kind: queue.Remove, Recipients: 2})
	lines(t, m, "stagecoach_operator_", `
recipients_total bounce 3
recipients_total delete 2
recipients_total hold 0
recipients_total redirect 0
recipients_total release 0
recipients_total retry 0
`)
	// Whoever writes the same subject is no notice.
	if err := q.Put(context.Background(), &queue.Envelope{Origin: "receive.smtp.mx", Subject: "Your message is delayed"}, nil); err != nil {
		t.Fatal(err)
	}
	lines(t, m, "stagecoach_dsn_", `
total failed 3
total delayed 1
total delivered 0
total relayed 0
total expanded 0
`)
}

// counting is a mail as the meters see it: through a listener, a filter and the queue.
func counting(m *Meters) func() {
	ctx := context.Background()
	s := &said{replies: []server.Reply{server.NewReply(250, smtp.EnhancedCode{}, "")}}
	sess, _ := m.Backend("receive.smtp.mx", s).NewSession(ctx, nil)
	q := m.Queue(&journal{})
	f := m.Filter("filter.x.y", &asked{reply: &v1.Reply{Response: &v1.Reply_Filter{Filter: &v1.FilterReply{}}}})
	call := &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{Event: v1.FilterEvent_MESSAGE}}}
	env := &queue.Envelope{Origin: "receive.smtp.mx", Size: 100}
	changes := []queue.Change{{State: queue.Delivered, Deliver: "deliver.storage.mail"}}
	routed := m.Routed()
	body := []byte("mail")
	return func() {
		_ = sess.Mail(ctx, server.Path{}, nil)
		_ = sess.Rcpt(ctx, server.Path{}, nil)
		w, _ := sess.Body(ctx)
		_, _ = w.Write(body)
		_, _ = f.Call(ctx, call)
		_ = q.Put(ctx, env, nil)
		sess.Done(ctx)
		sess.Reset()
		routed(time.Millisecond)
		_ = q.Commit(ctx, nil, changes, false)
	}
}

var _ io.Writer = (*bodyWriter)(nil)

func TestCountingAllocatesNothing(t *testing.T) {
	mail := counting(New())
	mail() // which makes the series
	if n := testing.AllocsPerRun(200, mail); n != 0 {
		t.Errorf("%v allocations for a mail", n)
	}
}

func BenchmarkCounting(b *testing.B) {
	mail := counting(New())
	b.ReportAllocs()
	for b.Loop() {
		mail()
	}
}
