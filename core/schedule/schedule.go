// Package schedule decides when which delivery starts. It is a pure step: an
// event and the time go in, actions come out. It has no goroutine, no clock, no
// lock and no disk, and its randomness is handed in: the same events give the
// same actions.
//
// It knows lanes, sources and tickets, and neither mail nor SMTP. A lane is what
// shares one fate: a destination of one deliver block, or a hint's named queue.
// A source is who sends: the fairness within a lane and a source's limits are
// by it. A ticket is one mail's way through one lane.
//
// It is not the queue: what it cannot start soon it has parked there, and it
// asks for it again when there is room. So its memory is bounded by
// Config.Waiting and Config.Lanes, whatever the backlog.
package schedule

import (
	"math/rand/v2"
	"time"
)

// Classes of priority, 0 is first.
const Classes = 19

// Fresh is the name of what the queue has for no lane yet: new mail, and mail
// that must be routed again.
const Fresh = ""

// Config is what the operator may say; it may change while mail is under way.
type Config struct {
	// Workers is how many attempts run at once; default 64. Up to four times as
	// many more wait for peers that are slow to answer: they cost a connection,
	// and nobody's turn.
	Workers int
	// Waiting is how many tickets wait in memory; default 4096.
	Waiting int
	// Lanes is how many lanes are remembered; default 50000.
	Lanes int
	// Limits of a lane; nil: none.
	Limits func(lane string) Limits
	// Source gives a source's limits; nil: none.
	Source func(source string) SourceLimits
	// Slow is an attempt that takes longer; default 5 s.
	Slow time.Duration

	faults faults
}

// faults are bugs that a test plants to see that its checker finds them.
type faults struct {
	sameMoment, deaf, stubborn, neverShut, onePool, coldStart, mapOrder bool
}

// Limits of one lane.
type Limits struct {
	// AtOnce is the greatest number of attempts at once; 0: as many as Workers.
	AtOnce int
	// Start is how many at once a lane begins with; default 2.
	Start int
	Rate  Rate
	// Local lanes lead to this machine: they begin with AtOnce, a restart does not
	// make them wait for each other, and one that fails is tried again within
	// seconds.
	Local bool
}

// SourceLimits bound one source over all lanes.
type SourceLimits struct {
	AtOnce int // 0: no bound
	Rate   Rate
}

// Rate is N starts in Per; the zero value is no limit.
type Rate struct {
	N   int
	Per time.Duration
}

func (r Rate) limited() bool { return r.N > 0 && r.Per > 0 }

// every is the time from one start to the next.
func (r Rate) every() time.Duration { return max(r.Per/time.Duration(r.N), 1) }

// Job is a ticket and what decides about its turn.
type Job struct {
	// Ticket is the caller's; no two at a time are the same.
	Ticket uint64
	Lane   string
	Source string
	// Class of priority, from 0 to Classes-1.
	Class int
	// Cost is the ticket's share of its lane's turn, from 1 to MaxCost.
	Cost int
}

// MaxCost keeps a large mail from costing its lane many turns.
const MaxCost = 32

// Event is what happened. It is one of the types below.
type Event interface{ event() }

// Arrived: a message that was fetched from From is routed, and these are its
// tickets; there may be none. Each gets a Start or a Park, now or later.
type Arrived struct {
	From string
	Jobs []Job
	// More: the message has arrived before; a ticket of it changes its lane.
	More bool
}

// Finished: a started ticket's attempt is over.
type Finished struct {
	Ticket uint64
	Result Result
	// Wait is how long the peer asked to be left alone; 0: it did not say.
	Wait time.Duration
	// Reason is for people: it comes back with what is parked because of it.
	Reason string
}

// Backlog: the queue has something of the lane.
type Backlog struct {
	Lane string
	// Next is when the first of it is due; zero: the lane is empty.
	Next time.Time
	// Class is the best of what is due.
	Class int
	// Answer: it comes with the end of a Fetch that brought Fetched messages,
	// and is all that is known. Otherwise it is an addition.
	Answer  bool
	Fetched int
}

// Ticked: time went by.
type Ticked struct{}

// Configured: the operator changed something.
type Configured struct{ Config Config }

// Revived: an operator wants everything tried now.
type Revived struct{}

func (Arrived) event()    {}
func (Finished) event()   {}
func (Backlog) event()    {}
func (Ticked) event()     {}
func (Configured) event() {}
func (Revived) event()    {}

// Result of an attempt, as far as the lane is concerned.
type Result uint8

const (
	// Untried: it did not come to an attempt, for reasons of our own.
	Untried Result = iota
	// Answered: the peer took the mail, or refused it for good.
	Answered
	// Deferred: the peer answered, but not for these recipients now.
	Deferred
	// Throttled: the peer wants less of us (421, or 451 for load or rate).
	Throttled
	// Lost: the connection broke.
	Lost
	// Unreachable: nobody there answered.
	Unreachable
)

// Action is what the caller is to do. It is one of the types below.
type Action interface{ action() }

// Start the ticket's attempt; Finished is awaited.
type Start struct{ Ticket uint64 }

// Park puts a ticket back into the queue: not before Until. The caller reports
// Backlog when it is there to be fetched.
type Park struct {
	Ticket uint64
	Until  time.Time
	// Fresh: not into its lane, which is not remembered.
	Fresh bool
	// Reason is for people; "" when it only waits for its turn.
	Reason string
}

// Fetch up to N messages of the lane that are due: Backlog with Answer is
// awaited, and an Arrived for each message.
type Fetch struct {
	Lane string
	N    int
}

// List: the queue has something of lanes that there was no room to remember.
// Backlog is awaited for each of the queue's lanes.
type List struct{}

// Sleep: nothing happens before Until without another event; zero: never. It is
// the last of a step's actions.
type Sleep struct{ Until time.Time }

func (Start) action() {}
func (Park) action()  {}
func (Fetch) action() {}
func (List) action()  {}
func (Sleep) action() {}

// Scheduler is the state between steps. It is not safe for concurrent use.
//
// Invariants:
//   - A lane stands in a ring exactly if it could start or fetch something and
//     only a worker or memory is missing; what it waits for otherwise is a
//     timer, a Finished, a Backlog or its sources.
//   - What answers at once waits for no worker that a slow or dead lane holds:
//     those have places of their own, and lanes that nothing is known of get half
//     of the workers.
type Scheduler struct {
	cfg    Config
	random *rand.Rand
	now    time.Time
	out    []Action

	lanes   map[string]*lane
	idle    ring // lanes with nothing to do, the longest idle first
	sources map[string]*source
	flights map[uint64]*flight
	young   flightList // under way, not yet slow
	timers  timers

	ready  [pools][Classes]ring
	offers int  // lanes in them
	last   pool // whose turn it was

	waiting   int // tickets in memory that did not start
	coming    int // messages that a Fetch will bring, or being routed
	startable int // waiting in lanes that answer at once and only lack a worker
	running   int
	// working, of them unknown, and slow are what runs or comes, by pool.
	working, unknown, slow int
	fresh                  backlog
	warm                   warm
	// overlooked is when to ask for the lanes of which a Backlog was passed over.
	overlooked time.Time
}

// New prepares a scheduler: the first moments after now are its warm start.
func New(cfg Config, now time.Time, random *rand.Rand) *Scheduler {
	s := &Scheduler{
		random: random, now: now,
		lanes: make(map[string]*lane), sources: make(map[string]*source), flights: make(map[uint64]*flight),
	}
	if s.warm.begin = now; cfg.faults.coldStart {
		s.warm.begin = now.Add(-warmFor)
	}
	s.configure(cfg)
	return s
}

// Step takes one event in and says what is to be done. The slice is valid until
// the next Step. A time before the last one counts as that.
func (s *Scheduler) Step(now time.Time, e Event) []Action {
	if now.After(s.now) {
		s.now = now
	}
	s.out = s.out[:0]
	switch e := e.(type) {
	case Arrived:
		s.arrived(e)
	case Finished:
		s.finished(e)
	case Backlog:
		s.backlog(e)
	case Configured:
		s.configure(e.Config)
		for _, l := range s.lanes {
			l.limits = s.limits(l.name)
		}
		s.offerAll()
	case Revived:
		for _, l := range s.lanes {
			l.revive()
		}
		s.offerAll()
	case Ticked:
	}
	s.wake()
	s.run()
	s.out = append(s.out, Sleep{s.timers.first()})
	return s.out
}

func (s *Scheduler) configure(cfg Config) {
	def := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	def(&cfg.Workers, 64)
	def(&cfg.Waiting, 4096)
	def(&cfg.Lanes, 50000)
	if cfg.Slow <= 0 {
		cfg.Slow = 5 * time.Second
	}
	s.cfg = cfg
	for _, src := range s.sources {
		src.limits = s.sourceLimits(src.name)
	}
}

// Waiting tells how many tickets are in memory: waiting, and under way.
func (s *Scheduler) Waiting() (waiting, running int) { return s.waiting, s.running }

// Lane is one lane as an operator may see it.
type Lane struct {
	Name             string
	Waiting, Running int
	// Allowed is how many may run at once now.
	Allowed int
	// Blocked is until when nothing starts, and Reason why; zero: it is open.
	Blocked time.Time
	Reason  string
	// Next is when more of it is due in the queue; zero: nothing is.
	Next time.Time
}

// Each calls f for all lanes that are remembered, in no order.
func (s *Scheduler) Each(f func(Lane)) {
	for _, l := range s.lanes {
		v := Lane{Name: l.name, Waiting: l.waiting, Running: l.running, Allowed: l.allowed(s.cfg.Workers), Reason: l.reason, Next: l.store.next}
		if s.now.Before(l.notBefore) {
			v.Blocked = l.notBefore
		}
		f(v)
	}
}
