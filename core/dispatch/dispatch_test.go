package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/route"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is moved by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// transport answers as the test says and remembers what it was given.
type transport struct {
	byDomain bool
	answer   func(address string) deliver.Outcome

	mu   sync.Mutex
	got  []string
	seen map[string]int
	jobs []*deliver.Job
}

func (t *transport) Deliver(_ context.Context, job *deliver.Job) []deliver.Outcome {
	t.mu.Lock()
	t.jobs = append(t.jobs, job)
	t.mu.Unlock()
	var out []deliver.Outcome
	for _, r := range job.Recipients {
		o := deliver.Outcome{Attempt: queue.Attempt{Code: 250, Enhanced: "2.0.0", Text: "ok"}}
		if t.answer != nil {
			o = t.answer(r.Address)
		}
		o.Index = r.Index
		out = append(out, o)
		t.mu.Lock()
		if t.seen == nil {
			t.seen = map[string]int{}
		}
		t.seen[r.Address]++
		t.got = append(t.got, fmt.Sprintf("%s=%s", r.Address, r.Account))
		t.mu.Unlock()
	}
	return out
}

func (t *transport) times(address string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen[address]
}

func (t *transport) Destination(addr string) string {
	if t.byDomain {
		return Domain(addr)
	}
	return ""
}

func (t *transport) Close() error { return nil }

// people is a directory for ryan.example.
type people struct{}

func (people) Resolve(_ context.Context, r *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	switch a := r.GetAddress(); a {
	case "meg@ryan.example", "joe@ryan.example":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_MAILBOX, Account: a}, nil
	case "all@ryan.example":
		return &v1.ResolveResponse{Result: v1.ResolveResponse_ALIAS, Targets: []string{"meg@ryan.example", "joe@ryan.example"}}, nil
	case "down@ryan.example":
		return nil, fail.New(fail.Unavailable, "the source is down")
	default:
		if strings.HasSuffix(a, "@ryan.example") {
			return &v1.ResolveResponse{Result: v1.ResolveResponse_NO_SUCH_USER}, nil
		}
		return &v1.ResolveResponse{}, nil
	}
}

func (people) Authenticate(context.Context, *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	return nil, fail.New(fail.Denied, "no")
}

func (people) Credentials(context.Context, *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	return nil, fail.New(fail.Unsupported, "no")
}

func (people) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{Domains: []string{"ryan.example"}}, nil
}

// notes remembers what senders were told.
type notes struct {
	mu  sync.Mutex
	got []string
}

func (n *notes) Report(env *queue.Envelope, _ spool.Body, about []Reported) (*queue.NewMessage, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range about {
		enhanced := ""
		if a.Attempt != nil {
			enhanced = a.Attempt.Enhanced
		}
		n.got = append(n.got, fmt.Sprintf("%s %s %s", a.State, a.Recipient.Address, enhanced))
	}
	if env.Sender == "" {
		return nil, nil
	}
	return &queue.NewMessage{
		Envelope: &queue.Envelope{
			Received: env.Received, Origin: "dsn", Parameters: &v1.MailParameters{}, Client: &v1.Client{},
			Recipients: []*queue.Recipient{{Address: env.Sender, Parent: -1}},
		},
		Body: spool.FromBytes([]byte("Subject: returned\r\n\r\n")),
	}, nil
}

func (n *notes) list() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.got, "; ")
}

// rig is a dispatcher over a queue in memory.
type rig struct {
	t     testing.TB
	q     *queue.Engine
	d     *Dispatcher
	clock *clock
	here  *transport
	away  *transport
	notes *notes
}

const baseConfig = `
hostname = "mx.ryan.example"
data_dir = "/nonexistent"
receive "smtp" "mx" { listen = ["127.0.0.1:2525"] }
deliver "smtp" "here" { hosts = ["127.0.0.1:1"] }
deliver "smtp" "away" {}
`

func newRig(t testing.TB, routes string) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.hcl")
	if err := os.WriteFile(path, []byte(baseConfig+routes), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Load(context.Background(), []string{path}, config.Options{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	r := &rig{t: t, clock: &clock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}, here: &transport{}, away: &transport{byDomain: true}, notes: &notes{}}
	var err error
	if r.q, err = queue.Open(queue.Options{Dir: "queue", FS: vfs.NewMem(), Clock: r.clock.Now, Log: zerolog.Nop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.q.Close() })
	spooled, err := spool.OpenDir(vfs.NewMem(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	plan := &Plan{
		Routes:      route.NewTable(cfg.Routes),
		Directories: directory.NewSet([]directory.Named{{Ref: "directory.file.people", Directory: people{}}}),
		Transports:  map[string]deliver.Transport{"deliver.smtp.here": r.here, "deliver.smtp.away": r.away},
		Editing:     message.Editor{Dir: spooled}, Retry: []time.Duration{time.Minute, 10 * time.Minute}, Expire: 24 * time.Hour,
		DelayNotice: 4 * time.Hour, PerDestination: 2, Reports: r.notes,
	}
	r.d = New(Options{Queue: r.q, Plan: func() *Plan { return plan }, Clock: r.clock.Now, Log: zerolog.Nop()})
	r.clock.add(time.Hour) // its warm start is over
	return r
}

const twoRoutes = `
route "here" {
  when    = recipient.domain == "ryan.example"
  deliver = deliver.smtp.here
}
route "away" { deliver = deliver.smtp.away }
`

func (r *rig) put(sender string, to ...string) string {
	r.t.Helper()
	env := &queue.Envelope{Received: r.clock.Now(), Sender: sender, Parameters: &v1.MailParameters{}, Client: &v1.Client{}}
	for i, a := range to {
		env.Recipients = append(env.Recipients, &queue.Recipient{Index: int32(i), Address: a, Parent: -1})
	}
	if err := r.q.Put(context.Background(), env, spool.FromBytes([]byte("Subject: hi\r\n\r\nhello\r\n"))); err != nil {
		r.t.Fatal(err)
	}
	return env.ID
}

// round works on everything that is due, until nothing is.
func (r *rig) round() {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for range 100 {
		r.d.event(schedule.Backlog{Next: r.clock.Now()})
		n, err := r.d.turn(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		r.d.jobs.Wait()
		if n == 0 {
			return
		}
	}
	r.t.Fatal("there is always something due")
}

func (r *rig) get(id string) *queue.Envelope {
	r.t.Helper()
	e, err := r.q.Get(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func (r *rig) gone(id string) {
	r.t.Helper()
	if e, err := r.q.Get(context.Background(), id); !errors.Is(err, queue.ErrNotFound) {
		r.t.Fatalf("%s is still in the queue: %+v %v", id, e, err)
	}
}

func TestDeliveredMailLeavesTheQueue(t *testing.T) {
	r := newRig(t, twoRoutes)
	id := r.put("tom@hanks.example", "meg@ryan.example", "annie@reed.example")
	r.round()
	r.gone(id)
	if r.here.got[0] != "meg@ryan.example=meg@ryan.example" || r.away.times("annie@reed.example") != 1 {
		t.Fatalf("here %v, away %v", r.here.got, r.away.got)
	}
	if n := r.notes.list(); strings.Contains(n, "failed") {
		t.Fatal(n)
	}
}

func TestDeferredIsTriedAgainAndOnlyWhatIsOpen(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.here.answer = func(a string) deliver.Outcome {
		if a == "joe@ryan.example" && r.here.times(a) < 1 {
			return deliver.Outcome{Attempt: queue.Attempt{Code: 452, Enhanced: "4.2.2", Text: "full"}}
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250}}
	}
	id := r.put("tom@hanks.example", "meg@ryan.example", "joe@ryan.example")
	r.round()
	e := r.get(id)
	joe := e.Recipients[1]
	if e.Recipients[0].State != queue.Delivered || joe.State != queue.Waiting || joe.Attempts != 1 || joe.Last.Text != "full" {
		t.Fatalf("%+v %+v", e.Recipients[0], joe)
	}
	wait := joe.Next.Sub(r.clock.Now())
	if wait < time.Minute || wait > 75*time.Second {
		t.Fatalf("next attempt in %s, want a minute and up to a quarter more", wait)
	}
	r.round()
	if r.here.times("joe@ryan.example") != 1 {
		t.Fatal("it was tried before its time")
	}
	r.clock.add(2 * time.Minute)
	r.round()
	r.gone(id)
	if r.here.times("meg@ryan.example") != 1 || r.here.times("joe@ryan.example") != 2 {
		t.Fatalf("deliveries %v", r.here.got)
	}
}

func TestFailureNotifiesOnceAndWithTheSameCommit(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = func(string) deliver.Outcome {
		return deliver.Outcome{Attempt: queue.Attempt{Code: 550, Enhanced: "5.1.1", Text: "who?"}}
	}
	id := r.put("meg@ryan.example", "annie@reed.example")
	r.round()
	r.gone(id)
	if n := r.notes.list(); n != "failed annie@reed.example 5.1.1; delivered meg@ryan.example " && n != "failed annie@reed.example 5.1.1; delivered meg@ryan.example 2.0.0" {
		t.Fatalf("notes: %q", n)
	}
	if r.here.times("meg@ryan.example") != 1 {
		t.Fatal("the notification did not arrive in the sender's mailbox")
	}
}

func TestUnknownUserFailsAndADownDirectoryWaits(t *testing.T) {
	r := newRig(t, twoRoutes)
	id := r.put("tom@hanks.example", "nobody@ryan.example", "down@ryan.example")
	r.round()
	e := r.get(id)
	if e.Recipients[0].State != queue.Failed || e.Recipients[0].Last.Enhanced != "5.1.1" {
		t.Errorf("unknown user: %+v", e.Recipients[0])
	}
	if e.Recipients[1].State != queue.Waiting {
		t.Errorf("a directory that is down must not bounce: %+v", e.Recipients[1])
	}
}

func TestAliasBecomesItsTargets(t *testing.T) {
	r := newRig(t, twoRoutes)
	id := r.put("tom@hanks.example", "all@ryan.example")
	r.round()
	r.gone(id)
	if r.here.times("meg@ryan.example") != 1 || r.here.times("joe@ryan.example") != 1 {
		t.Fatalf("deliveries %v", r.here.got)
	}
}

func TestExpiryReturnsTheMail(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = func(string) deliver.Outcome {
		return deliver.Outcome{Attempt: queue.Attempt{Code: 451, Enhanced: "4.4.1", Text: "not now"}}
	}
	id := r.put("tom@hanks.example", "annie@reed.example")
	for range 200 {
		r.round()
		r.clock.add(11 * time.Minute)
	}
	r.gone(id)
	n := r.notes.list()
	if strings.Count(n, "waiting annie@reed.example") != 1 || strings.Count(n, "failed annie@reed.example 4.4.7") != 1 {
		t.Fatalf("one delay and one failure were due: %q", n)
	}
}

func TestADeadDestinationDelaysNobodyElse(t *testing.T) {
	r := newRig(t, twoRoutes)
	r.away.answer = func(a string) deliver.Outcome {
		if strings.HasSuffix(a, "@dead.example") {
			return deliver.Outcome{Unreachable: true, Attempt: queue.Attempt{Code: 451, Enhanced: "4.4.1", Text: "no answer"}}
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250}}
	}
	for range 20 {
		r.put("tom@hanks.example", "x@dead.example")
	}
	id := r.put("tom@hanks.example", "annie@reed.example")
	r.round()
	r.gone(id)
	if n := r.away.times("x@dead.example"); n > 2 {
		t.Fatalf("the dead destination was tried %d times in one round; once or twice tells all", n)
	}
}

func TestRouteActions(t *testing.T) {
	r := newRig(t, `
route "archive" {
  when = sender.domain == "hanks.example"
  copy = ["archive@reed.example"]
}
route "quarantine" {
  when = recipient.local == "virus"
  hold = "looks bad"
}
route "moved" {
  when     = recipient.local == "old"
  redirect = ["new@reed.example"]
}
route "no" {
  when = recipient.local == "closed"
  reject = "closed for the season"
}
route "void" {
  when    = recipient.local == "void"
  discard = true
}
route "rest" { deliver = deliver.smtp.away }
`)
	id := r.put("tom@hanks.example", "virus@reed.example", "old@reed.example", "closed@reed.example", "void@reed.example", "plain@reed.example")
	r.round()
	e := r.get(id)
	if h := e.Recipients[0]; h.State != queue.Held || h.Reason != "looks bad" {
		t.Errorf("hold: %+v", h)
	}
	for address, want := range map[string]int{
		"new@reed.example": 1, "old@reed.example": 0, "closed@reed.example": 0, "void@reed.example": 0,
		"plain@reed.example": 1, "virus@reed.example": 0, "archive@reed.example": 6,
	} {
		// Six copies: one for each of the five, and one for the redirect's target,
		// which is a recipient of its own.
		if got := r.away.times(address); got != want {
			t.Errorf("%s: %d deliveries, want %d", address, got, want)
		}
	}
	if n := r.notes.list(); !strings.Contains(n, "failed closed@reed.example 5.7.1") {
		t.Errorf("the rejection was not told: %q", n)
	}
	if strings.Contains(r.notes.list(), "void") {
		t.Errorf("a discard was told: %q", r.notes.list())
	}
}

func TestRedirectLoopEnds(t *testing.T) {
	r := newRig(t, `
route "round" { redirect = ["again@${recipient.domain}"] }
`)
	id := r.put("tom@hanks.example", "again@reed.example")
	r.round()
	r.gone(id)
	if n := r.notes.list(); !strings.Contains(n, "5.4.6") {
		t.Fatalf("the loop was not told: %q", n)
	}
}

func TestRunStopsCleanly(t *testing.T) {
	r := newRig(t, twoRoutes)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.d.Run(ctx) }()
	id := r.put("tom@hanks.example", "meg@ryan.example")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := r.q.Get(context.Background(), id); errors.Is(err, queue.ErrNotFound) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a mail put while it runs is not delivered")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
