package dispatch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// mailbox is a rig whose first deliver block is a storage.
func newMailbox(t *testing.T) *rig {
	r := newRig(t, twoRoutes)
	r.d.Plan().Storages = map[string]bool{"deliver.smtp.here": true}
	if err := r.q.SetHistory(time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	return r
}

func justReceived(r *rig, to ...string) *queue.Envelope {
	env := &queue.Envelope{Received: r.clock.Now(), Sender: "tom@hanks.example", Parameters: &v1.MailParameters{}, Client: &v1.Client{}}
	for i, a := range to {
		env.Recipients = append(env.Recipients, &queue.Recipient{Index: int32(i), Address: a, Account: a, Parent: -1})
	}
	return env
}

var small = spool.FromBytes([]byte("Subject: hi\r\n\r\nhello\r\n"))

func (r *rig) queued() int64 {
	r.t.Helper()
	s, err := r.q.Stats(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Messages
}

// A mail for mailboxes alone never is in the queue, and the mail journal has its
// whole life.
func TestAtOnce(t *testing.T) {
	r := newMailbox(t)
	env := justReceived(r, "meg@ryan.example", "joe@ryan.example")
	if !r.d.AtOnce(context.Background(), env, small) {
		t.Fatal("it was not delivered at once")
	}
	if r.here.times("meg@ryan.example") != 1 || r.here.times("joe@ryan.example") != 1 || len(r.here.jobs) != 1 || r.queued() != 0 {
		t.Errorf("delivered %v in %d jobs, %d are in the queue", r.here.got, len(r.here.jobs), r.queued())
	}
	told, err := r.q.Trace(context.Background(), env.ID, time.Time{}, 10)
	if err != nil || len(told.Mails) != 1 {
		t.Fatalf("%v %+v", err, told)
	}
	s := told.Mails[0]
	if s.Sender != "tom@hanks.example" || len(s.Recipients) != 2 || s.Recipients[1].State != "delivered" || len(s.Events) != 2 ||
		s.Events[0].Route != "here" || s.Events[0].Deliver != "deliver.smtp.here" || len(s.Events[0].Notes) != 1 {
		t.Errorf("its trace is %+v", s)
	}
	by, err := r.q.Trace(context.Background(), "joe@ryan.example", time.Time{}, 10)
	if err != nil || len(by.Mails) != 1 {
		t.Errorf("it is not found by a recipient: %v %+v", err, by)
	}
}

// What the storage does not take at once is queued by the id that the storage was
// given: it is how the storage knows what it has.
func TestAtOnceFallsBack(t *testing.T) {
	r := newMailbox(t)
	full := true
	r.here.answer = func(a string) deliver.Outcome {
		if full && a == "joe@ryan.example" {
			return deliver.Outcome{Attempt: queue.Attempt{Code: 452, Enhanced: "4.2.2", Text: "over quota"}}
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250, Enhanced: "2.1.5", Text: "stored"}}
	}
	env := justReceived(r, "meg@ryan.example", "joe@ryan.example")
	if r.d.AtOnce(context.Background(), env, small) {
		t.Fatal("what one recipient did not get is called delivered")
	}
	given := r.here.jobs[0].Envelope.ID
	if err := r.q.Put(context.Background(), env, small); err != nil {
		t.Fatal(err)
	}
	if given == "" || env.ID != given {
		t.Errorf("the storage was given %q, the queue has %q", given, env.ID)
	}
	full = false
	r.round()
	r.gone(env.ID)
	if last := r.here.jobs[len(r.here.jobs)-1]; last.Envelope.ID != given || len(last.Recipients) != 2 {
		t.Errorf("delivered again by %q to %d", last.Envelope.ID, len(last.Recipients))
	}
	again := justReceived(r, "meg@ryan.example")
	*again = *env
	if err := r.q.Put(context.Background(), again, small); err != nil || again.ID == given {
		t.Errorf("another Put has the id %q too: %v", again.ID, err)
	}
}

// waits is a storage that answers when the context ends, and not before.
type waits struct{ *transport }

func (w waits) Deliver(ctx context.Context, job *deliver.Job) []deliver.Outcome {
	<-ctx.Done()
	return []deliver.Outcome{{Index: job.Recipients[0].Index, Attempt: queue.Attempt{Code: 451, Text: "too late"}}}
}

// A storage that hangs costs one client its patience, and others nothing.
func TestAtOnceShunsASlowStorage(t *testing.T) {
	r := newMailbox(t)
	r.d.Plan().Transports["deliver.smtp.here"] = waits{r.here}
	r.d.patience = time.Millisecond
	if r.d.AtOnce(context.Background(), justReceived(r, "meg@ryan.example"), small) {
		t.Fatal("delivered by a storage that does not answer")
	}
	r.d.Plan().Transports["deliver.smtp.here"] = r.here
	env := justReceived(r, "meg@ryan.example")
	if r.d.AtOnce(context.Background(), env, small) || env.ID != "" {
		t.Error("the next mail tried it too")
	}
	r.clock.add(shunTime)
	r.d.patience = time.Minute
	if !r.d.AtOnce(context.Background(), env, small) {
		t.Error("it is shunned for ever")
	}
}

// Whatever the queue would do something else with is left to it, and nothing is
// delivered before.
func TestAtOnceLeavesToTheQueue(t *testing.T) {
	for name, change := range map[string]func(*rig, *queue.Envelope){
		"no mailbox":            func(r *rig, e *queue.Envelope) { e.Recipients[0].Account = "" },
		"goes away":             func(r *rig, e *queue.Envelope) { e.Recipients[0].Address = "annie@reed.example" },
		"one of two goes away":  func(r *rig, e *queue.Envelope) { *e = *justReceived(r, "meg@ryan.example", "annie@reed.example") },
		"an alias":              func(r *rig, e *queue.Envelope) { e.Recipients[0].Address = "all@ryan.example" },
		"a directory is down":   func(r *rig, e *queue.Envelope) { e.Recipients[0].Address = "down@ryan.example" },
		"held":                  func(r *rig, e *queue.Envelope) { e.Recipients[0].State = queue.Held },
		"asks to be told":       func(r *rig, e *queue.Envelope) { e.Recipients[0].Notify = []string{"Success"} },
		"for later":             func(r *rig, e *queue.Envelope) { e.NotBefore = r.clock.Now().Add(time.Hour) },
		"expires":               func(r *rig, e *queue.Envelope) { e.Expires = r.clock.Now().Add(time.Hour) },
		"BY":                    func(r *rig, e *queue.Envelope) { e.Parameters.DeliverByMs = 1 },
		"hints":                 func(r *rig, e *queue.Envelope) { e.Hints = &v1.RouteHints{Queue: "slow"} },
		"a filter of the route": func(r *rig, e *queue.Envelope) { r.d.Plan().RouteFilters = map[string]filter.Chain{"here": {{}}} },
		"a filter of deliver": func(r *rig, e *queue.Envelope) {
			r.d.Plan().DeliverFilters = map[string]filter.Chain{"deliver.smtp.here": {{}}}
		},
		"no storage":             func(r *rig, e *queue.Envelope) { r.d.Plan().Storages = nil },
		"observers are to hear":  func(r *rig, e *queue.Envelope) { r.watch() },
		"the queue was shut":     func(r *rig, e *queue.Envelope) { r.q.Close() },
		"its body is in a file":  nil,
		"a route copies it also": nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newMailbox(t)
			env, body := justReceived(r, "meg@ryan.example"), small
			switch {
			case change != nil:
				change(r, env)
			case strings.Contains(name, "file"):
				body = inFile{small}
			default:
				r = newRig(t, "route \"copies\" { copy = [\"joe@ryan.example\"] }\n"+twoRoutes)
				r.d.Plan().Storages = map[string]bool{"deliver.smtp.here": true}
			}
			if r.d.AtOnce(context.Background(), env, body) || len(r.here.jobs) > 0 {
				t.Errorf("delivered at once: %v", r.here.got)
			}
		})
	}
}

type inFile struct{ spool.Body }

func (inFile) Path() string { return "/nonexistent" }

func (r *rig) watch() {
	if err := r.q.SetFeed(true); err != nil {
		r.t.Fatal(err)
	}
}

// broken answers for nobody.
type broken struct{ *transport }

func (broken) Deliver(context.Context, *deliver.Job) []deliver.Outcome { return nil }

func TestAtOnceWantsAnAnswerForEach(t *testing.T) {
	r := newMailbox(t)
	r.d.Plan().Transports["deliver.smtp.here"] = broken{r.here}
	env := justReceived(r, "meg@ryan.example")
	if r.d.AtOnce(context.Background(), env, small) {
		t.Fatal("nothing was said of the recipient, and the mail is called delivered")
	}
	if _, err := r.q.Get(context.Background(), env.ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("a reserved id is in the queue: %v", err)
	}
}
