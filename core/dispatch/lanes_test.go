package dispatch

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

var noAnswer = deliver.Outcome{Unreachable: true, Attempt: queue.Attempt{Code: 451, Enhanced: "4.4.1", Text: "no answer"}}

// to counts attempts at addresses with that part.
func (t *transport) to(part string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, got := range t.got {
		if strings.Contains(got, part) {
			n++
		}
	}
	return n
}

// lanes are what waits in them.
func (r *rig) lanes() (got []string) {
	r.t.Helper()
	if err := r.q.EachLane(context.Background(), func(l queue.Lane) bool {
		got = append(got, l.Name)
		return true
	}); err != nil {
		r.t.Fatal(err)
	}
	return got
}

// A dead destination costs one attempt per back-off, whatever waits for it; when
// it is there again, all of it goes.
func TestADeadLaneIsProbed(t *testing.T) {
	r := newRig(t, twoRoutes)
	dead := true
	r.away.answer = func(string) deliver.Outcome {
		if dead {
			return noAnswer
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250}}
	}
	const mails = 200
	for n := range mails {
		r.put("tom@hanks.example", fmt.Sprintf("user%d@dead.example", n))
	}
	r.round()
	attempts := func() int { return r.away.to("@dead.example=") }
	if n := attempts(); n != 1 {
		t.Fatalf("%d attempts at a dead destination in the first round, want 1", n)
	}
	if got := r.lanes(); len(got) != 1 || got[0] != "deliver.smtp.away dead.example" {
		t.Fatalf("lanes %v", got)
	}
	claims := &counting{Queue: r.q}
	r.d.Queue = claims
	for range 10 {
		r.clock.add(5 * time.Second)
		r.round()
	}
	if n := attempts(); n != 1 || claims.messages != 0 {
		t.Errorf("%d attempts and %d messages claimed while it is known to be dead", n, claims.messages)
	}
	r.clock.add(2 * time.Minute)
	r.round()
	if n := attempts(); n != 2 || claims.messages > 2 {
		t.Errorf("%d attempts and %d messages claimed after its time, want one more", n, claims.messages)
	}
	dead = false
	r.clock.add(5 * time.Minute)
	r.round()
	for end := 0; len(r.lanes()) > 0 && end < 10; end++ { // the probes have times of their own
		r.clock.add(20 * time.Minute)
		r.round()
	}
	if s, err := r.q.Stats(context.Background()); err != nil || s.Messages != 0 {
		t.Errorf("%d mails are left, %v", s.Messages, err)
	}
}

// counting counts what is claimed.
type counting struct {
	queue.Queue
	messages int
}

func (q *counting) Claim(ctx context.Context, now time.Time, most int, lease time.Duration) ([]*queue.Claim, error) {
	cs, err := q.Queue.Claim(ctx, now, most, lease)
	q.messages += len(cs)
	return cs, err
}

func (q *counting) ClaimLane(ctx context.Context, lane string, now time.Time, most int, term time.Duration) ([]*queue.Claim, queue.Lane, error) {
	cs, rest, err := q.Queue.ClaimLane(ctx, lane, now, most, term)
	q.messages += len(cs)
	return cs, rest, err
}

// A destination that is slow, not dead, and has more mail than fits into memory
// delays nobody else (promise 6).
func TestASlowLaneDelaysNobodyElse(t *testing.T) {
	r := newRig(t, twoRoutes)
	release := make(chan struct{})
	r.away.answer = func(a string) deliver.Outcome {
		if strings.HasSuffix(a, "@slow.example") {
			<-release
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250}}
	}
	plan := r.d.Plan()
	r.d = New(Options{Queue: r.q, Plan: func() *Plan { return plan }, Workers: 4, Waiting: 16, Clock: time.Now, Log: zerolog.Nop()})
	r.clock.add(time.Since(r.clock.Now())) // the queue's clock is the dispatcher's
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.d.Run(ctx) }()
	for range 100 {
		r.put("tom@hanks.example", "x@slow.example")
	}
	var ids []string
	for n := range 20 {
		ids = append(ids, r.put("tom@hanks.example", fmt.Sprintf("user%d@reed.example", n)))
	}
	r.eventually("the others' mail is delivered", func() bool {
		for _, id := range ids {
			if _, err := r.q.Get(context.Background(), id); err == nil {
				return false
			}
		}
		return true
	})
	close(release)
	r.eventually("the slow one's mail is delivered", func() bool {
		s, err := r.q.Stats(context.Background())
		return err == nil && s.Messages == 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within 30 seconds: %s", what)
		}
	}
}

// What waits in a shut lane is told to be late, and returned when its time is
// over, without an attempt of its own.
func TestWhatIsParkedIsReturnedInTime(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = func(string) deliver.Outcome { return noAnswer }
	const mails = 30
	var ids []string
	for n := range mails {
		ids = append(ids, r.put("tom@hanks.example", fmt.Sprintf("user%d@dead.example", n)))
	}
	for range 160 {
		r.round()
		r.clock.add(10 * time.Minute)
	}
	for _, id := range ids {
		r.gone(id)
	}
	n := r.notes.list()
	if late, failed := strings.Count(n, "waiting user"), strings.Count(n, "failed user"); late != mails || failed != mails {
		t.Errorf("%d notices of a delay and %d of a failure for %d mails", late, failed, mails)
	}
	if got := r.away.to("@dead.example="); got > 50 {
		t.Errorf("%d attempts in a day at a dead destination", got)
	}
}

// After a restart what is parked is found again.
func TestLanesOutliveARestart(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = func(string) deliver.Outcome { return noAnswer }
	for n := range 10 {
		r.put("tom@hanks.example", fmt.Sprintf("user%d@reed.example", n))
	}
	r.round()
	r.away.answer = nil
	plan := r.d.Plan()
	r.clock.add(30 * time.Minute)
	r.d = New(Options{Queue: r.q, Plan: func() *Plan { return plan }, Clock: r.clock.Now, Log: zerolog.Nop()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.d.Run(ctx) }()
	r.eventually("the parked mail is delivered", func() bool {
		r.clock.add(time.Second)
		s, err := r.q.Stats(context.Background())
		return err == nil && s.Messages == 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestASendersLimitHolds(t *testing.T) {
	r := newRig(t, twoRoutes)
	plan := *r.d.Plan()
	plan.SourceLimits = func(source string) schedule.SourceLimits {
		if source == "tom@hanks.example" {
			return schedule.SourceLimits{Rate: schedule.Rate{N: 3, Per: time.Hour}}
		}
		return schedule.SourceLimits{}
	}
	r.d.Plan = func() *Plan { return &plan }
	for n := range 8 {
		r.put("tom@hanks.example", fmt.Sprintf("user%d@reed.example", n))
	}
	meg := r.put("meg@ryan.example", "annie@reed.example")
	r.round()
	r.gone(meg)
	if got := r.away.to("@reed.example="); got != 4 {
		t.Errorf("%d deliveries, want the three of the limit and the other sender's", got)
	}
	for range 12 {
		r.clock.add(10 * time.Minute)
		r.round()
	}
	if got := r.away.to("@reed.example="); got != 9 {
		t.Errorf("%d deliveries after two hours, want all nine", got)
	}
}

func TestJudge(t *testing.T) {
	said := func(code int, enhanced, text string) deliver.Outcome {
		return deliver.Outcome{Attempt: queue.Attempt{Code: code, Enhanced: enhanced, Text: text}}
	}
	nobody := func(enhanced, text string) deliver.Outcome {
		o := said(451, enhanced, text)
		o.Unreachable = true
		return o
	}
	for _, c := range []struct {
		name string
		out  []deliver.Outcome
		want schedule.Result
		wait time.Duration
	}{
		{"taken", []deliver.Outcome{said(250, "2.0.0", "ok")}, schedule.Answered, 0},
		{"refused", []deliver.Outcome{said(550, "5.1.1", "who?")}, schedule.Answered, 0},
		{"a full mailbox", []deliver.Outcome{said(452, "4.2.2", "full")}, schedule.Deferred, 0},
		{"one of two taken", []deliver.Outcome{said(421, "4.7.0", "later"), said(250, "2.0.0", "ok")}, schedule.Answered, 0},
		{"greylisted", []deliver.Outcome{said(451, "4.7.1", "Greylisted, please try again in 300 seconds")}, schedule.Deferred, 0},
		{"greylisted and hung up", []deliver.Outcome{said(421, "4.7.1", "Greylisting in action")}, schedule.Deferred, 0},
		{"service not available", []deliver.Outcome{said(421, "4.3.2", "Service not available, closing")}, schedule.Throttled, 0},
		{"a rate", []deliver.Outcome{said(450, "4.7.28", "Our system has detected an unusual rate of mail")}, schedule.Throttled, 0},
		{"a rate in words", []deliver.Outcome{said(451, "4.7.500", "Server busy. Please try again later")}, schedule.Throttled, 0},
		{"with a time", []deliver.Outcome{said(421, "4.7.0", "Too many connections, try again in 5 minutes")}, schedule.Throttled, 5 * time.Minute},
		{"with a time and more", []deliver.Outcome{said(421, "4.7.0", "wait 90 s"), said(421, "4.7.0", "retry after 2 min")}, schedule.Throttled, 2 * time.Minute},
		{"nobody there", []deliver.Outcome{nobody("4.4.1", "connection refused")}, schedule.Unreachable, 0},
		{"no name server", []deliver.Outcome{nobody("4.4.3", "no answer from the name server")}, schedule.Unreachable, 0},
		{"no TLS", []deliver.Outcome{nobody("4.7.5", "TLS is required, and failed")}, schedule.Unreachable, 0},
		{"broken", []deliver.Outcome{nobody("4.4.2", "The connection broke: EOF")}, schedule.Lost, 0},
		{"broken at the end", []deliver.Outcome{said(451, "4.4.2", "The connection broke after the whole message was sent")}, schedule.Lost, 0},
		{"our own disk", []deliver.Outcome{nobody("4.3.0", "read the message: EIO")}, schedule.Untried, 0},
		{"nothing", nil, schedule.Untried, 0},
	} {
		if got, wait, _ := judge(c.out); got != c.want || wait != c.wait {
			t.Errorf("%s: %d, %s; want %d, %s", c.name, got, wait, c.want, c.wait)
		}
	}
}
