package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Operation is what an operator may do to a queued message.
type Operation struct {
	// Kind: one of the Op constants.
	Kind OpKind
	// Reason for Hold; for Fail what the sender is told.
	Reason string
	// At: for Retry; zero: now.
	At time.Time
	// Recipients: only these indexes; empty: all open ones.
	Recipients []int32
	// To are the addresses that Redirect puts in the place of each recipient.
	To []string
	// NextHop is where Redirect without To sends the message from now on:
	// "host:port"; NoNextHop: where its recipients' domains say.
	NextHop string
	// Notice makes the messages that tell of Fail, or of a Redirect to several,
	// which become durable in the same commit. body is nil when it is gone or
	// corrupt; changes have State and Attempt. nil: nobody is told.
	Notice func(env *Envelope, body spool.Body, changes []Change) ([]*NewMessage, error)
}

// OpKind names an Operation.
type OpKind uint8

// The operations. Remove ends recipients without a DSN.
const (
	Hold OpKind = iota + 1
	ReleaseHold
	Retry
	Remove
	Fail
	Redirect
)

// NoNextHop takes back what an operator or filter said of the next hop.
const NoNextHop = "none"

// Released is the Reason of a waiting recipient that an operator let go on:
// nothing holds it again, or it would come back to where it was held.
const Released = "released by the operator"

// Applies tells whether the operation changes a recipient in that state.
func (k OpKind) Applies(s State) bool {
	switch k {
	case Hold, Retry:
		return s == Waiting
	case ReleaseHold:
		return s == Held
	case Remove, Fail, Redirect:
		return s.Open()
	}
	return false
}

// alone: the operation must not meet a delivery under way. Its outcome would
// come on top: mail that was bounced or sent elsewhere, and delivered.
func (k OpKind) alone() bool { return k == Fail || k == Redirect }

func (op *Operation) check() error {
	switch {
	case op.Kind < Hold || op.Kind > Redirect:
		return fmt.Errorf("unknown operation %d", op.Kind)
	case op.Kind == Redirect && (len(op.To) == 0) == (op.NextHop == ""):
		return errors.New("a redirect wants addresses or a next hop")
	case op.NextHop != "" && len(op.Recipients) > 0:
		return errors.New("a next hop is the message's, not a recipient's")
	}
	return nil
}

// maxAgain bounds how often Operate begins anew because a delivery was quicker.
const maxAgain = 100

var errAgain = errors.New("the message changed meanwhile")

// Operate is part of Queue. What an operator does while a delivery runs holds
// for what comes after that attempt; a message that it ends takes the lease away.
func (e *Engine) Operate(ctx context.Context, text string, op Operation) error {
	done, err := e.operateAgain(ctx, text, &op)
	if f := e.onOperate.Load(); f != nil && done.Recipients > 0 {
		(*f)(done)
	}
	return err
}

func (e *Engine) operateAgain(ctx context.Context, text string, op *Operation) (done Operated, err error) {
	i, err := parseID(text)
	if err == nil {
		err = op.check()
	}
	for range maxAgain {
		if err != nil {
			return done, err
		}
		if err = e.check(ctx); err != nil {
			return done, err
		}
		if done, err = e.operate(ctx, i, op); !errors.Is(err, errAgain) {
			return done, err
		}
		err = nil
	}
	return done, ErrUnderWay
}

func (e *Engine) operate(ctx context.Context, i id, op *Operation) (done Operated, err error) {
	var env *Envelope // as it was a moment ago, for those who need more than its state
	if e.feeding.Load() || op.Kind.alone() {
		if env, err = e.Get(ctx, i.String()); err != nil {
			return done, err
		}
	}
	told, fresh, err := e.notices(ctx, i, env, op)
	if err != nil {
		return done, err
	}
	taken := false
	defer func() {
		if !taken {
			for _, p := range fresh {
				e.undo(p)
			}
		}
	}()
	e.mu.Lock()
	defer e.mu.Unlock()
	l, own, err := e.takeOver(i)
	if err != nil {
		return done, err
	}
	giveBack := func() {
		if own {
			delete(e.leases, i)
			e.again(l)
			e.changed.Broadcast()
		}
	}
	if !own && op.Kind.alone() {
		return done, ErrUnderWay
	}
	var hop []byte // the message's record with another next hop
	if op.NextHop != "" {
		if hop, err = e.withNextHop(l, op.NextHop); err != nil {
			giveBack()
			return done, err
		}
	}
	// The group comes last: nothing may wait between it and its filling.
	g, err := e.join()
	if err == nil && !own && (e.leases[i] != l || l.busy) {
		return done, errAgain // the holder was quicker
	}
	var changes []Change
	var feed toldChanges
	if err == nil {
		changes = op.changes(l.state, env, e.o.Clock())
		if env != nil && !env.has(changes) || !sameRecipients(told, changes) {
			err = errAgain
		} else {
			feed, err = e.observeChanges(env, changes)
		}
	}
	if err != nil || len(changes) == 0 {
		giveBack()
		return done, err
	}
	taken = true
	l.busy = true
	records := feed.of(l.state)
	if hop != nil {
		if err := e.rewrite(g, l, hop); err != nil {
			return done, err
		}
	}
	if err := e.change(g, l, changes); err != nil {
		return done, err
	}
	if err := e.addAll(g, fresh); err != nil {
		return done, err
	}
	if err := e.feed(g, records); err != nil {
		return done, err
	}
	e.tellChanges(g, i, changes, fresh)
	ends := own || !l.state.open()
	if ends {
		g.ended = append(g.ended, l)
	}
	e.filled(g)
	e.mu.Unlock()
	err = e.wait(g)
	e.mu.Lock()
	if err != nil {
		return done, err
	}
	if !ends {
		e.ready(l)
	}
	done.Kind, done.Recipients = op.Kind, len(changes)
	for _, p := range fresh {
		done.Notices = append(done.Notices, p.told.env)
	}
	return done, nil
}

// notices makes what tells of the operation, and says for which changes it was made.
// A sender is told also of a mail whose octets nobody can read any more.
func (e *Engine) notices(ctx context.Context, i id, env *Envelope, op *Operation) (told []Change, fresh []*prepared, err error) {
	if !op.Kind.alone() || op.NextHop != "" || op.Notice == nil {
		return nil, nil, nil
	}
	told = op.changes(stateOf(env), env, e.o.Clock())
	if len(told) == 0 {
		return nil, nil, nil
	}
	body, err := e.body(ctx, i)
	if errors.Is(err, ErrCorrupt) {
		e.log.Warn().Str("id", i.String()).Err(err).Msg("queue: a notice goes without the header of its mail")
		body, err = nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a notice: %w", err)
	}
	ms, err := op.Notice(env, body, told)
	if err != nil {
		return nil, nil, fmt.Errorf("make a notice: %w", err)
	}
	fresh, err = e.prepareAll(i.String(), []Change{{Enqueue: ms}})
	return told, fresh, err
}

// sameRecipients tells whether the notices were made for just those changes.
func sameRecipients(told, changes []Change) bool {
	return told == nil || slices.EqualFunc(told, changes, func(a, b Change) bool { return a.Index == b.Index })
}

// withNextHop encodes the message anew; mu is held, and given up meanwhile: the
// lease is our own, so nobody else changes the message.
func (e *Engine) withNextHop(l *lease, hop string) ([]byte, error) {
	e.mu.Unlock()
	defer e.mu.Lock()
	it, err := e.messageIter(l.id)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	s, err := readMessage(it, l.id)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, ErrNotFound
	case s.err != nil:
		return nil, s.err
	}
	hints := &v1.RouteHints{}
	if s.env.Hints != nil {
		hints = proto.CloneOf(s.env.Hints)
	}
	if hints.NextHop = hop; hop == NoNextHop {
		hints.NextHop = ""
	}
	s.env.Hints = hints
	return encodeEnvelope(messageKey(l.id), s.env, s.state.file)
}

// rewrite puts rec in the place of the message's record and journal; mu is held.
func (e *Engine) rewrite(g *group, l *lease, rec []byte) error {
	err := g.batch.Set(messageKey(l.id), rec, nil)
	for seq := l.state.first; seq < l.state.journal && err == nil; seq++ {
		err = g.batch.SingleDelete(journalKey(l.id, seq), nil)
	}
	if err != nil { // the group holds half of it
		e.stop.stop(err)
		return e.stop.err()
	}
	l.state.first = l.state.journal
	return nil
}

// takeOver gives the lease on a message, own or its holder's, with its state
// read; mu is held, and given up meanwhile.
func (e *Engine) takeOver(i id) (l *lease, own bool, err error) {
	for e.leases[i] != nil && e.leases[i].busy {
		if err := e.stop.err(); err != nil {
			return nil, false, err
		}
		e.changed.Wait()
	}
	if l = e.leases[i]; l != nil {
		return l, false, nil
	}
	l = e.take(i, never)
	e.mu.Unlock()
	var s *stored
	it, err := e.messageIter(i)
	if err == nil {
		s, err = readMessage(it, i)
		_ = it.Close()
	}
	e.mu.Lock()
	switch {
	case err != nil:
	case s == nil:
		err = fmt.Errorf("%w: %q", ErrNotFound, i)
	default:
		err = s.err
	}
	if err != nil {
		delete(e.leases, i)
		if s != nil { // corrupt: the next Claim sets it aside
			e.again(&lease{state: s.state})
		}
		e.changed.Broadcast()
		return nil, false, err
	}
	l.state = s.state
	return l, true, nil
}

// changes are what the operation does to the recipients that it is for. env is
// needed for Redirect alone.
func (op *Operation) changes(s *state, env *Envelope, now time.Time) []Change {
	var changes []Change
	for _, r := range s.rs {
		if !op.Kind.Applies(r.state) || len(op.Recipients) > 0 && !slices.Contains(op.Recipients, r.index) {
			continue
		}
		c := Change{Index: r.index, operator: true, Reason: op.Reason}
		switch op.Kind {
		case Hold:
			c.State = Held
		case ReleaseHold:
			c.State, c.Next, c.Reason, c.released = Waiting, now, Released, true
		case Retry:
			c.State, c.Next, c.Reason = Waiting, now, ""
			if !op.At.IsZero() {
				c.Next = op.At
			}
		case Remove:
			c.State = Discarded
		case Fail:
			c.State = Failed
			c.Attempt = &Attempt{At: now, Code: 554, Enhanced: "5.0.0", Text: op.Reason}
		case Redirect:
			if op.NextHop != "" {
				c.State, c.Next, c.Reason, c.released = Waiting, now, Released, r.state == Held
				break
			}
			c.State, c.Add = Expanded, op.redirected(env.recipient(r.index))
		}
		changes = append(changes, c)
	}
	return changes
}

// redirected are the recipients in the place of r; nil if r is not known, which
// ends in another try.
func (op *Operation) redirected(r *Recipient) (rs []*Recipient) {
	if r == nil {
		return nil
	}
	for _, to := range op.To {
		rs = append(rs, &Recipient{Address: to, Original: r.FirstAddress(), Notify: r.PassedOn(len(op.To)), Reason: Released})
	}
	return rs
}

// PassedOn is the NOTIFY of what a recipient becomes. Of several targets only
// failures and delays are told: that the mail was expanded is the success
// (RFC 3461 section 5.2.7.3), and who stands behind an alias is nobody's business.
func (r *Recipient) PassedOn(targets int) []string {
	success := func(word string) bool { return strings.EqualFold(word, "SUCCESS") }
	if targets < 2 || !slices.ContainsFunc(r.Notify, success) {
		return r.Notify
	}
	if left := slices.DeleteFunc(slices.Clone(r.Notify), success); len(left) > 0 {
		return left
	}
	return []string{"NEVER"}
}

// FirstAddress is what the sender had written, as ORCPT has it, through all
// redirects (RFC 3461 section 5.2.7.1).
func (r *Recipient) FirstAddress() string {
	if r.Original != "" {
		return r.Original
	}
	return "rfc822;" + r.Address
}
