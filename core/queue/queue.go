// Package queue owns every mail between its 250 and its end: delivered, bounced
// or thrown away by an operator. It knows envelopes, results and times; it does
// not know where mail goes (route) or how (deliver).
package queue

import (
	"context"
	"errors"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Queue is the durable queue. All methods are safe for concurrent use.
//
// Duties: a nil error from a method that changes something means that the change
// is on stable storage. A Claim is a lease with a fencing token: when its holder
// dies or is late, the message is claimed anew and the old holder's Commit fails
// with ErrLeaseLost. After a failed sync, or when a block of the database is
// found damaged, every method returns ErrStopped.
type Queue interface {
	// Put makes env and body durable and sets env.ID. It takes body's file
	// over (on success only). ErrFull when the disk is.
	Put(ctx context.Context, env *Envelope, body spool.Body) error
	// Claim leases up to max messages that have a recipient due at now that waits
	// in no lane, or is to be looked at again: the highest priority and the
	// longest due first. It returns none when nothing is due.
	Claim(ctx context.Context, now time.Time, max int, lease time.Duration) ([]*Claim, error)
	// Commit journals what became of recipients, atomically, and releases the
	// lease unless keep. A message without open recipients is gone after it.
	Commit(ctx context.Context, c *Claim, changes []Change, keep bool) error
	// Release gives the lease back without a change.
	Release(ctx context.Context, c *Claim) error
	// NextDue tells when the earliest message is due; ok is false for none.
	NextDue(ctx context.Context) (at time.Time, ok bool, err error)
	// Wake is signalled when something became due earlier than known before.
	Wake() <-chan struct{}

	// Get returns a message as it stands; ErrNotFound.
	Get(ctx context.Context, id string) (*Envelope, error)
	// Body opens a queued message's body; it stays readable until the message
	// is gone.
	Body(ctx context.Context, id string) (spool.Body, error)
	// List calls each for the messages that match, oldest first, until it
	// returns false. It describes one moment and holds nothing up.
	List(ctx context.Context, f Filter, each func(*Envelope) bool) error
	// Stats counts, without reading the messages.
	Stats(ctx context.Context) (Stats, error)
	// Operate applies an operator's action to a message's open recipients, those
	// that it is for. ErrUnderWay when it cannot while a delivery runs.
	Operate(ctx context.Context, id string, op Operation) error
	Close() error

	Lanes
	Passing
}

var (
	// ErrNotFound: no such message (any more).
	ErrNotFound = errors.New("no such message in the queue")
	// ErrLeaseLost: the claim timed out and somebody else has the message.
	ErrLeaseLost = errors.New("the lease on this message was lost")
	// ErrUnderWay: the message is being delivered; nothing was changed.
	ErrUnderWay = errors.New("a delivery of this message is under way")
	// ErrFull: no space on the disk; nothing was kept.
	ErrFull = errors.New("no space left for the queue")
	// ErrStopped: the disk lost or would not take something; the queue takes and
	// changes nothing any more.
	ErrStopped = errors.New("the queue stopped after a failed sync or on a damaged disk")
)

// Envelope is all that the queue knows of a message but its bytes.
type Envelope struct {
	ID       string
	Received time.Time
	// Sender is the reverse-path without brackets; "" is the null one.
	Sender     string
	Parameters *v1.MailParameters
	Recipients []*Recipient
	Client     *v1.Client
	Tags       map[string]*v1.Tag
	Hints      *v1.RouteHints
	// Origin is the block or stage that made it: "receive.smtp.mx", "dsn".
	Origin string
	Size   int64
	// Header fields kept for logs and lists; raw, unfolded, cut at 512 octets.
	MessageID, From, Subject string
	Priority                 int
	// NotBefore and Expires are zero when the queue's own times hold.
	NotBefore, Expires time.Time
	// Transaction that it came by, and Notes of what was done with it before: for
	// the mail journal alone, the queue does not keep them.
	Transaction string
	Notes       []Note
	// Hops is how often this mail was redirected or expanded within here.
	Hops int

	reserved id // by Reserve, for Put
}

// State of a recipient.
type State uint8

// Waiting and Held recipients are open; the others are ended.
const (
	Waiting State = iota
	Held
	Delivered
	Failed
	Expanded  // replaced by other recipients of this message
	Discarded // by a route, a filter or an operator
)

func (s State) String() string {
	return [...]string{"waiting", "held", "delivered", "failed", "expanded", "discarded"}[s]
}

// Open tells whether there is still something to do.
func (s State) Open() bool { return s == Waiting || s == Held }

// Recipient is one forward-path and what became of it so far.
type Recipient struct {
	// Index within the message; never reused.
	Index   int32
	Address string
	// Original is ORCPT, "type;address", decoded; "" if the sender gave none.
	Original string
	Notify   []string
	Account  string
	Detail   string

	State    State
	Attempts int
	// Next attempt; for Waiting.
	Next time.Time
	// Lane that it waits in since it was routed; "": in none. Put ignores it.
	Lane string
	// Recheck is when it is looked at though its lane may be shut; zero: never.
	Recheck time.Time
	// Route and Deliver are the blocks of the last decision.
	Route, Deliver string
	// Reason for Held, Failed, Discarded.
	Reason string
	Last   *Attempt
	// DelayNotified: a delay DSN went out.
	DelayNotified bool
	// Parent is the index of the recipient this one came from; -1: none.
	Parent int32
}

// Attempt is what a peer said.
type Attempt struct {
	At        time.Time
	Code      int
	Enhanced  string
	Text      string
	RemoteMTA string
	TLS       string
}

// Claim is a message under lease: the envelope is the holder's to read.
type Claim struct {
	*Envelope
	// Due are the indexes of the recipients that are due.
	Due   []int32
	Token uint64
	Until time.Time
}

// Change is one recipient's new state; the queue copies it into its journal.
type Change struct {
	Index    int32
	State    State
	Next     time.Time // for Waiting
	Lane     string    // for Waiting: it is claimed with that lane; "": with none
	Recheck  time.Time // in a lane: when Claim gives it out all the same; zero: never
	Attempt  *Attempt  // counts as an attempt, if set
	Route    string
	Deliver  string
	Reason   string
	Account  string
	Detail   string
	Notified bool // a delay DSN went out
	// Notes for the mail journal: how it was routed, what filters said.
	Notes []Note
	// Add are new recipients that come of this one (alias, redirect, copy):
	// the queue gives them their index and sets Parent.
	Add []*Recipient
	// Enqueue are whole new messages (a DSN) that become durable in the same
	// commit as the change: neither without the other.
	Enqueue []*NewMessage

	operator bool // from Operate: it may lift a hold
	released bool // from Operate: it lifts one
}

// NewMessage is a message made by the core itself.
type NewMessage struct {
	Envelope *Envelope
	Body     spool.Body
}

// Stats of the whole queue.
type Stats struct {
	Messages, Recipients, Held, Leased int64
	// Tried are the recipients that wait after an attempt.
	Tried          int64
	Bytes          int64
	OldestReceived time.Time
}
