package dispatch

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// mailed queues a mail to annie@reed.example, changed.
func (r *rig) mailed(change func(*queue.Envelope)) string {
	r.t.Helper()
	env := &queue.Envelope{
		Received: r.clock.Now(), Sender: "tom@hanks.example", Parameters: &v1.MailParameters{}, Client: &v1.Client{},
		Recipients: []*queue.Recipient{{Address: "annie@reed.example", Parent: -1}},
	}
	change(env)
	if err := r.q.Put(context.Background(), env, spool.FromBytes([]byte("Subject: hi\r\n\r\nhello\r\n"))); err != nil {
		r.t.Fatal(err)
	}
	return env.ID
}

func (r *rig) by(in time.Duration, mode string) func(*queue.Envelope) {
	return func(e *queue.Envelope) {
		e.Parameters.DeliverByMs, e.Parameters.DeliverByMode = r.clock.Now().Add(in).UnixMilli(), mode
	}
}

func notNow(string) deliver.Outcome {
	return deliver.Outcome{Attempt: queue.Attempt{Code: 451, Enhanced: "4.7.1", Text: "not now"}}
}

// RFC 2852: with R a mail comes back when its time is over, though the next
// attempt would be later, and is never delivered after it.
func TestDeliverByReturns(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = notNow
	id := r.mailed(r.by(30*time.Minute, "R"))
	for range 29 {
		r.round()
		r.clock.add(time.Minute)
	}
	if n := r.notes.list(); n != "" {
		t.Fatalf("told before the time: %q", n)
	}
	tries := r.away.times("annie@reed.example")
	r.away.answer = nil // from now on it would be taken
	r.clock.add(time.Minute)
	r.round()
	r.gone(id)
	if n := r.notes.list(); !strings.HasPrefix(n, "failed annie@reed.example 5.4.7") || r.away.times("annie@reed.example") != tries {
		t.Fatalf("%q, delivered %d times after %d", n, r.away.times("annie@reed.example"), tries)
	}
}

// Also a mail that was never tried, because its destination is closed.
func TestDeliverByReturnsUntried(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = func(string) deliver.Outcome {
		return deliver.Outcome{Unreachable: true, Attempt: queue.Attempt{Code: 451, Enhanced: "4.4.1", Text: "no answer"}}
	}
	for range 3 {
		r.put("kit@hanks.example", "x@reed.example")
	}
	r.round()
	r.clock.add(3 * time.Second)
	id := r.mailed(r.by(20*time.Second, "R"))
	r.round()
	r.clock.add(20 * time.Second)
	r.round()
	r.gone(id)
	if n := r.notes.list(); !strings.Contains(n, "failed annie@reed.example 5.4.7") || r.away.times("annie@reed.example") != 0 {
		t.Fatalf("%q, tried %d times", n, r.away.times("annie@reed.example"))
	}
}

// With N the sender hears of the delay then, once, in place of the usual notice,
// and delivery goes on.
func TestDeliverByNotifies(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = notNow
	id := r.mailed(r.by(6*time.Hour, "N"))
	for range 359 {
		r.round()
		r.clock.add(time.Minute)
	}
	if n := r.notes.list(); n != "" {
		t.Fatalf("told before the time: %q", n)
	}
	for range 60 {
		r.clock.add(time.Minute)
		r.round()
	}
	if n := r.notes.list(); strings.Count(n, "waiting annie@reed.example") != 1 || strings.Contains(n, "failed") {
		t.Fatalf("told %q", n)
	}
	r.away.answer = nil
	r.clock.add(time.Hour)
	r.round()
	r.gone(id)
}

// RFC 4865: nothing is tried before; retry times and expiry count from then on.
func TestHeldForLater(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = notNow
	id := r.mailed(func(e *queue.Envelope) {
		e.NotBefore = r.clock.Now().Add(48 * time.Hour) // longer than mail is kept
		e.Recipients[0].Next = e.NotBefore
	})
	for range 47 {
		r.round()
		r.clock.add(time.Hour)
	}
	if n := r.away.times("annie@reed.example"); n != 0 {
		t.Fatalf("tried %d times before its time", n)
	}
	r.clock.add(time.Hour)
	r.round()
	if n := r.away.times("annie@reed.example"); n != 1 || r.get(id).Recipients[0].State != queue.Waiting || r.notes.list() != "" {
		t.Fatalf("tried %d times, then %+v, told %q", n, r.get(id).Recipients[0], r.notes.list())
	}
	for range 200 {
		r.round()
		r.clock.add(10 * time.Minute)
	}
	r.gone(id)
	n := r.notes.list()
	if strings.Count(n, "waiting annie@reed.example") != 1 || strings.Count(n, "failed annie@reed.example 4.4.7") != 1 {
		t.Fatalf("one delay and one failure were due: %q", n)
	}
}

// RFC 3461 section 5.2.7.3: of an alias with several targets the sender hears
// that it was expanded, and of each target only what goes wrong.
func TestExpandedIsTold(t *testing.T) {
	r := newRig(t, `
route "one" {
  when     = recipient.local == "one"
  redirect = ["meg@ryan.example"]
}
route "two" {
  when     = recipient.local == "two"
  redirect = ["meg@ryan.example", "joe@ryan.example"]
}
`+twoRoutes)
	for _, c := range []struct {
		to     string
		notify []string
		notes  string
		passed string
	}{
		{"all@ryan.example", []string{"SUCCESS"}, "expanded all@ryan.example", "NEVER"},
		{"all@ryan.example", []string{"SUCCESS", "FAILURE"}, "expanded all@ryan.example", "FAILURE"},
		{"all@ryan.example", []string{"FAILURE"}, "", "FAILURE"},
		{"all@ryan.example", nil, "", ""},
		{"two@reed.example", []string{"SUCCESS", "DELAY"}, "expanded two@reed.example", "DELAY"},
		{"one@reed.example", []string{"SUCCESS"}, "", "SUCCESS"},
	} {
		r.notes.got, r.here.jobs = nil, nil
		r.mailed(func(e *queue.Envelope) {
			e.Recipients[0].Address, e.Recipients[0].Notify = c.to, c.notify
		})
		r.round()
		// What this reporter writes down does not depend on NOTIFY.
		got := strings.Join(strings.Fields(strings.ReplaceAll(r.notes.list(), ";", " ")), " ")
		if c.notes == "" && strings.Contains(got, "expanded") || !strings.Contains(got, c.notes) {
			t.Errorf("%s %v: told %q", c.to, c.notify, got)
		}
		for _, job := range r.here.jobs {
			for _, to := range job.Recipients {
				if passed := strings.Join(to.Notify, ","); passed != c.passed || to.Original != "rfc822;"+c.to {
					t.Errorf("%s %v: %s gets %q, %q", c.to, c.notify, to.Address, passed, to.Original)
				}
			}
		}
	}
}
