package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/route"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// job is one claimed message on its way through route and deliver.
//
// Each group of recipients that goes one way is journalled as soon as it is
// done: a slow next hop does not keep a finished delivery out of the journal.
type job struct {
	*Dispatcher
	plan  *Plan
	claim *queue.Claim
	from  string // the lane that it was claimed with
	body  spool.Body
	log   zerolog.Logger

	// journal is held over a commit: the last one gives the lease back, and must
	// not overtake another's.
	journal sync.Mutex
	open    int // due recipients not yet journalled; under journal
	// parked is what the scheduler is to hear when the lease is given back;
	// under journal.
	parked []schedule.Backlog
	// arrived: the scheduler knows what became of this message's claim.
	arrived bool

	// routed is how the routes were asked, for the mail journal.
	routed map[int32][]queue.Note

	mu sync.Mutex
	// hands is how recipients were delivered, for the notices.
	hands map[int32]deliver.Hand
}

// group is the recipients that go one way.
type group struct {
	transport   deliver.Transport
	ref         string
	route       string
	destination string
	lane        string
	ticket      *ticket // nil when it is finished
	recipients  []*queue.Recipient
	// copies and pending are recipients that come of a recipient beside its
	// outcome: made by routes, and by the filters of this attempt.
	copies, pending map[int32][]*queue.Recipient
	// inject are messages that filters made.
	inject []filter.Injected
	// made names the stages of this attempt whose filters made any of these.
	made []string
	// parked after its filters ran: what they made is made again next time.
	parked bool
	// notes of what this attempt's filters said, for the mail journal.
	notes []queue.Note
}

// add has recipients come of the one with that index.
func add(to *map[int32][]*queue.Recipient, index int32, rs ...*queue.Recipient) {
	if *to == nil {
		*to = make(map[int32][]*queue.Recipient)
	}
	(*to)[index] = append((*to)[index], rs...)
}

// load reads the message, for who needs it: not what is only parked.
func (j *job) load(ctx context.Context) (err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.body != nil {
		return nil
	}
	if j.body, err = j.Queue.Body(ctx, j.claim.ID); err != nil {
		return fmt.Errorf("open the message: %w", err)
	}
	return nil
}

func (j *job) run(ctx context.Context) (err error) {
	due := make(map[int32]bool, len(j.claim.Due))
	for _, i := range j.claim.Due {
		due[i] = true
	}
	j.open = len(due)
	began := time.Now()
	var settled []queue.Change
	groups := make(map[string]*group)
	var order []*group
	for _, r := range j.claim.Recipients {
		if !due[r.Index] || !r.State.Open() {
			continue
		}
		change, g, err := j.place(ctx, r, groups)
		if err != nil {
			change = j.later(r, attempt(err))
		}
		if change != nil {
			settled = append(settled, *change)
		} else if len(g.recipients) == 1 {
			order = append(order, g)
		}
	}
	if j.Routed != nil {
		j.Routed(time.Since(began))
	}
	if len(settled) > 0 {
		if err := j.commit(ctx, settled); err != nil {
			return err
		}
	}
	if len(order) == 0 {
		return nil
	}
	j.arrived = true
	j.enter(schedule.Arrived{From: j.from}, j.claim, j.plan, order)
	return j.deliver(ctx, order)
}

// deliver runs the groups next to each other.
func (j *job) deliver(ctx context.Context, groups []*group) error {
	if len(groups) == 1 {
		return j.deliverGroup(ctx, groups[0])
	}
	errs := make([]error, len(groups))
	var wg sync.WaitGroup
	for i, g := range groups {
		wg.Go(func() { errs[i] = j.deliverGroup(ctx, g) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *job) deliverGroup(ctx context.Context, g *group) error {
	defer func() { filter.Discard(g.inject) }()
	park, err := j.await(ctx, g.ticket)
	if park != nil || err != nil {
		g.ticket = nil
	}
	if err != nil {
		return err
	}
	if park != nil {
		return j.park(ctx, g, park)
	}
	defer j.finish(g, schedule.Finished{Result: schedule.Untried})
	if err := j.load(ctx); err != nil {
		return err
	}
	changes := j.hand(ctx, g)
	if err := j.commit(ctx, changes); err != nil {
		return err
	}
	j.results(ctx, g, changes)
	return nil
}

// place routes one recipient: into a group, or to a change if it needs no
// delivery.
func (j *job) place(ctx context.Context, r *queue.Recipient, groups map[string]*group) (*queue.Change, *group, error) {
	if late := j.late(r.Last); late != nil {
		return j.fails(r, late), nil, nil
	}
	if j.depth(r) > maxDepth {
		return j.fails(r, reply(554, "5.4.6", "Routing loop: redirected too often")), nil, nil
	}
	if change, err := j.resolve(ctx, r); change != nil || err != nil {
		return change, nil, err
	}
	d, err := j.decide(ctx, r)
	if err != nil {
		return nil, nil, fail.Wrap(fail.Unavailable, err, "route")
	}
	copies := j.copies(r, d)
	switch {
	case d.Deliver != nil:
		return nil, j.join(r, d, groups, copies), nil
	case d.Redirect != nil:
		c := j.ends(r, queue.Expanded, d.Route, redirected)
		c.Add = copies
		for _, a := range d.Redirect {
			c.Add = append(c.Add, &queue.Recipient{Address: a, Original: original(r), Notify: r.PassedOn(len(d.Redirect))})
		}
		return c, nil, nil
	case d.Held:
		c := j.ends(r, queue.Held, d.Route, d.Reason)
		c.Add = copies
		return c, nil, nil
	case d.Discard:
		c := j.ends(r, queue.Discarded, d.Route, "discarded by route "+d.Route)
		c.Add = copies
		return c, nil, nil
	case d.Reject != nil:
		c := j.settle(r, reply(d.Reject.Code, d.Reject.Enhanced, d.Reject.Text))
		c.Route, c.Add = d.Route, copies
		return c, nil, nil
	}
	return j.fails(r, reply(550, "5.4.4", "No route to this recipient")), nil, nil
}

// resolve asks the directories: an alias becomes its targets, an address of
// ours that does not exist fails, and a mailbox gets its account.
func (j *job) resolve(ctx context.Context, r *queue.Recipient) (*queue.Change, error) {
	step, err := j.plan.Directories.Step(ctx, r.Address)
	if err != nil {
		return nil, err
	}
	switch step.GetResult() {
	case v1.ResolveResponse_MAILBOX:
		r.Account, r.Detail = step.GetAccount(), step.GetDetail()
	case v1.ResolveResponse_NO_SUCH_USER:
		return j.fails(r, reply(550, "5.1.1", "No such user here")), nil
	case v1.ResolveResponse_DISABLED:
		said := step.GetReply()
		if said == nil {
			said = &v1.SMTPReply{Code: 550, Enhanced: "5.2.1", Text: "Mailbox disabled"}
		}
		return j.settle(r, reply(int(said.GetCode()), said.GetEnhanced(), said.GetText())), nil
	case v1.ResolveResponse_ALIAS:
		targets, _, err := j.plan.Directories.Expand(ctx, r.Address)
		if fail.Is(err, fail.Invalid) {
			return j.fails(r, reply(550, "5.1.1", err.Error())), nil
		}
		if err != nil {
			return nil, err
		}
		c := j.ends(r, queue.Expanded, "", aliased)
		for _, t := range targets {
			c.Add = append(c.Add, &queue.Recipient{
				Address: t.Address, Account: t.Account, Detail: t.Detail, Original: original(r),
				Notify: r.PassedOn(len(targets)),
			})
		}
		return c, nil
	}
	return nil, nil
}

func (j *job) decide(ctx context.Context, r *queue.Recipient) (*route.Decision, error) {
	env := Env(ctx, j.claim.Envelope, r, j.plan)
	if j.plan.Routes.NeedsHeader() {
		if err := j.load(ctx); err != nil {
			return nil, err
		}
		fields, err := j.plan.Editing.Fields(j.body, nil)
		if err != nil {
			return nil, err
		}
		env.Message.Headers = HeaderMap(fields)
	}
	ask := j.plan.Routes.Decide
	if r.Reason == queue.Released {
		ask = j.plan.Routes.DecideReleased
	}
	d, err := ask(env)
	if err == nil && d.Route != r.Route {
		j.note(r.Index, d)
	}
	return d, err
}

// note keeps for the mail journal which routes were tried, and why one was taken.
func (j *job) note(index int32, d *route.Decision) {
	notes := make([]queue.Note, 0, len(d.Tried))
	for _, t := range d.Tried {
		n := queue.Note{What: "route", By: t.Route, Verdict: "no", Text: t.When}
		if t.Taken {
			n.Verdict = "taken"
		}
		notes = append(notes, n)
	}
	if j.routed == nil {
		j.routed = make(map[int32][]queue.Note)
	}
	j.routed[index] = notes
}

// copies are made once: at the first decision, and never of what is itself a
// copy by the same route.
func (j *job) copies(r *queue.Recipient, d *route.Decision) []*queue.Recipient {
	if r.Route != "" {
		return nil
	}
	var out []*queue.Recipient
	for _, c := range d.Copy {
		if j.descends(r, copyOf+c.Route) {
			continue
		}
		out = append(out, &queue.Recipient{Address: c.Address, Notify: []string{"NEVER"}, Reason: copyOf + c.Route})
	}
	return out
}

// copyOf marks a recipient that a route's copy made.
const copyOf = "copy by "

// descends tells whether r, or what it came from, was made with that mark.
func (j *job) descends(r *queue.Recipient, mark string) bool {
	for range maxDepth {
		if r == nil {
			return false
		}
		if r.Reason == mark {
			return true
		}
		r = j.parent(r)
	}
	return true
}

func (j *job) parent(r *queue.Recipient) *queue.Recipient {
	if r.Parent < 0 || r.Parent == r.Index {
		return nil
	}
	for _, p := range j.claim.Recipients {
		if p.Index == r.Parent {
			return p
		}
	}
	return nil
}

func (j *job) depth(r *queue.Recipient) (n int) {
	for ; r != nil && n <= maxDepth; r = j.parent(r) {
		n++
	}
	return n
}

func (j *job) join(r *queue.Recipient, d *route.Decision, groups map[string]*group, copies []*queue.Recipient) *group {
	t := j.plan.Transports[d.Deliver.Ref]
	g := &group{transport: t, ref: d.Deliver.Ref, route: d.Route, destination: t.Destination(r.Address)}
	key := d.Route + "\x00" + g.ref + "\x00" + g.destination
	if have, ok := groups[key]; ok {
		g = have
	} else {
		g.lane = laneOf(g.ref, g.destination, j.claim.Hints.GetQueue())
		groups[key] = g
	}
	g.recipients = append(g.recipients, r)
	if len(copies) > 0 {
		add(&g.copies, r.Index, copies...)
	}
	return g
}

// hand filters and delivers one group, and says what changed.
func (j *job) hand(ctx context.Context, g *group) []queue.Change {
	changes, err := j.try(ctx, g)
	if err != nil {
		settled := make(map[int32]bool, len(changes))
		for i := range changes {
			settled[changes[i].Index] = true
		}
		for _, r := range g.recipients {
			if !settled[r.Index] {
				changes = append(changes, *j.later(r, attempt(err)))
			}
		}
	}
	if len(changes) > 0 && !g.parked {
		changes[0].Enqueue = append(changes[0].Enqueue, j.injected(g.inject)...)
	}
	for i := range changes {
		if changes[i].State == queue.Waiting && changes[i].Lane == "" && changes[i].Attempt != nil {
			changes[i].Lane = g.lane
		}
	}
	return j.complete(g, changes)
}

// complete adds what is the same for all changes of a group.
func (j *job) complete(g *group, changes []queue.Change) []queue.Change {
	j.mark(g, changes)
	if len(changes) > 0 && !g.parked {
		changes[0].Notes, g.notes = g.notes, nil
	}
	for i := range changes {
		c := &changes[i]
		c.Route, c.Deliver = g.route, g.ref
		c.Add = append(c.Add, g.copies[c.Index]...)
		if !g.parked {
			c.Add = append(c.Add, g.pending[c.Index]...)
		}
	}
	return changes
}

func (j *job) try(ctx context.Context, g *group) (changes []queue.Change, err error) {
	if j.late(nil) != nil {
		for _, r := range g.recipients {
			changes = append(changes, *j.fails(r, j.late(r.Last)))
		}
		return changes, nil
	}
	work := &deliver.Job{Envelope: j.claim.Envelope, Recipients: g.recipients, Body: j.body, Key: j.claim.ID + "/" + g.ref}
	defer func() {
		work.Release()
		if work.Body != j.body {
			work.Body.Discard()
		}
	}()
	for _, stage := range []struct {
		event v1.FilterEvent
		chain filter.Chain
	}{
		{v1.FilterEvent_ROUTE, j.plan.RouteFilters[g.route]},
		{v1.FilterEvent_PRE_DELIVERY, j.plan.DeliverFilters[g.ref]},
	} {
		var settled []queue.Change
		if settled, err = j.filter(ctx, g, work, stage.event, stage.chain); err != nil {
			return changes, err
		}
		changes = append(changes, settled...)
		if len(work.Recipients) == 0 {
			return changes, nil
		}
	}
	outcomes, park, err := j.attempt(ctx, g, work)
	if err != nil {
		return changes, err
	}
	if park != nil {
		for _, r := range work.Recipients {
			changes = append(changes, *j.parks(r, g, park))
		}
		return changes, nil
	}
	byIndex := make(map[int32]*queue.Recipient)
	for _, r := range work.Recipients {
		byIndex[r.Index] = r
	}
	for _, o := range outcomes {
		if r := byIndex[o.Index]; r != nil {
			changes = append(changes, *j.outcome(r, o))
		}
	}
	return changes, nil
}

// attempt delivers. A filter's hint may have named a queue: then it waits for its
// turn there first, and may be parked after all.
func (j *job) attempt(ctx context.Context, g *group, work *deliver.Job) ([]deliver.Outcome, *schedule.Park, error) {
	if lane := laneOf(g.ref, g.destination, work.Envelope.Hints.GetQueue()); lane != g.lane {
		j.finish(g, schedule.Finished{Result: schedule.Untried})
		g.lane = lane
		j.enter(schedule.Arrived{More: true}, j.claim, j.plan, []*group{g})
		park, err := j.await(ctx, g.ticket)
		if park != nil || err != nil {
			g.ticket, g.parked = nil, park != nil
			return nil, park, err
		}
	}
	// What breaks off half-way says nothing good of the lane.
	result := schedule.Finished{Result: schedule.Lost, Reason: "the delivery broke off"}
	defer func() { j.finish(g, result) }()
	outcomes := g.transport.Deliver(ctx, work)
	result.Result, result.Wait, result.Reason = judge(outcomes)
	if g.destination == "" && result.Result == schedule.Unreachable {
		// A storage or a plugin of this machine: it is restarted in seconds.
		result.Result = schedule.Deferred
	}
	return outcomes, nil, nil
}

// finish gives the group's place in its lane back, once.
func (j *job) finish(g *group, e schedule.Finished) {
	if g.ticket == nil {
		return
	}
	e.Ticket, g.ticket = g.ticket.id, nil
	j.event(e)
}

// jitter spreads retry times by a quarter, so that what failed together does not
// come back together.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d/4)+1))
}

// Env is what a route's condition sees of one recipient.
func Env(ctx context.Context, e *queue.Envelope, r *queue.Recipient, plan *Plan) *config.Env {
	return &config.Env{
		Sender: e.Sender, Recipient: r.Address, Account: r.Account, Detail: r.Detail,
		Client: e.Client, Tags: e.Tags,
		Message: config.Message{Size: e.Size, Subject: e.Subject, From: e.From, MessageID: e.MessageID},
		Has: func(ref, addr string) (bool, error) {
			dir, ok := plan.Directories.Ref(ref)
			if !ok {
				return false, fmt.Errorf("there is no %s", ref)
			}
			got, err := dir.Resolve(ctx, &v1.ResolveRequest{Address: addr})
			if err != nil {
				return false, err
			}
			switch got.GetResult() {
			case v1.ResolveResponse_MAILBOX, v1.ResolveResponse_ALIAS, v1.ResolveResponse_DISABLED:
				return true, nil
			}
			return false, nil
		},
	}
}

// Domain of an address, lower case; "" if it has none.
func Domain(addr string) string {
	a, err := address.Parse(addr, true)
	if err != nil {
		return ""
	}
	return a.Domain
}
