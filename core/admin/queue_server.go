package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

// QueueBackend is what the commands about queued mail act on.
type QueueBackend interface {
	Queue() queue.Queue
	// Breakdown is the queue's own.
	Breakdown(ctx context.Context, f queue.Filter, top int, exact bool) (*queue.Breakdown, error)
	// Trace is the queue's own.
	Trace(ctx context.Context, name string, since time.Time, most int) (*queue.Trace, error)
	// Flush makes what matches due now.
	Flush(ctx context.Context, f queue.Filter) (int, error)
	// Operate is queue.Queue's, with notices for queue.Fail.
	Operate(ctx context.Context, id string, op queue.Operation) error
	// Revive forgets which destinations were dead: an operator wants a retry.
	Revive()
}

const (
	// page is how many messages of a selection are read before they are acted on:
	// no view of the queue is held open over the acting.
	page = 1000
	// acting is how many are acted on at the same time, so that they share syncs.
	acting = 64
	// busyTries with busyPause between them wait for deliveries under way; so many
	// messages at most are remembered for that.
	busyTries, busyPause, busyMost = 20, 250 * time.Millisecond, 10000
)

func queueRoutes(m *http.ServeMux, b QueueBackend) {
	m.HandleFunc("GET /queue", func(w http.ResponseWriter, r *http.Request) { list(w, r, b) })
	m.HandleFunc("GET /queue/stats", func(w http.ResponseWriter, r *http.Request) { stats(w, r, b) })
	m.HandleFunc("GET /queue/{id}", func(w http.ResponseWriter, r *http.Request) {
		e, err := b.Queue().Get(r.Context(), r.PathValue("id"))
		if err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, FromEnvelope(e), nil)
	})
	m.HandleFunc("GET /queue/{id}/message", func(w http.ResponseWriter, r *http.Request) { message(w, r, b) })
	m.HandleFunc("POST /queue/flush", func(w http.ResponseWriter, r *http.Request) {
		f, err := filterOf(r)
		if err == nil {
			err = there(r.Context(), b, f.IDs)
		}
		if err != nil {
			answer(w, nil, err)
			return
		}
		n, err := b.Flush(r.Context(), f)
		answer(w, Flushed{n}, err)
	})
	m.HandleFunc("GET /trace", func(w http.ResponseWriter, r *http.Request) { trace(w, r, b) })
	m.HandleFunc("POST /queue/act", func(w http.ResponseWriter, r *http.Request) { act(w, r, b) })
}

// there complains of ids that are not: a mistyped one is no success.
func there(ctx context.Context, b QueueBackend, ids []string) error {
	for _, id := range ids {
		if _, err := b.Queue().Get(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// filterOf reads the selection, a queue.Filter in JSON.
func filterOf(r *http.Request) (f queue.Filter, err error) {
	return f, decode(r, "select", &f)
}

func decode(r *http.Request, name string, v any) error {
	text := r.URL.Query().Get(name)
	if text == "" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields() // a selection that is not understood must not be a wider one
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// list streams one message a line: the queue may be longer than memory.
func list(w http.ResponseWriter, r *http.Request, b QueueBackend) {
	f, err := filterOf(r)
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	err = b.Queue().List(r.Context(), f, func(e *queue.Envelope) bool {
		m := FromEnvelope(e)
		for n, q := range e.Recipients {
			m.Recipients[n].Selected = f.Matches(q)
		}
		return enc.Encode(m) == nil
	})
	if err != nil {
		_ = enc.Encode(Problem{err.Error()})
	}
}

func stats(w http.ResponseWriter, r *http.Request, b QueueBackend) {
	f, err := filterOf(r)
	top := 0
	if s := r.URL.Query().Get("top"); err == nil && s != "" {
		top, err = strconv.Atoi(s)
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	d, err := b.Breakdown(r.Context(), f, top, r.URL.Query().Get("exact") != "")
	answer(w, d, err)
}

// message streams a message's octets.
func message(w http.ResponseWriter, r *http.Request, b QueueBackend) {
	body, err := b.Queue().Body(r.Context(), r.PathValue("id"))
	if err != nil {
		answer(w, nil, err)
		return
	}
	in, err := body.Open()
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer in.Close()
	w.Header().Set("Content-Type", "message/rfc822")
	w.Header().Set("Content-Length", fmt.Sprint(body.Size()))
	_, _ = io.Copy(w, in) // what is missing shows by the length
}

// operation of an action, without a message.
func (a *Action) operation() (op queue.Operation, err error) {
	op = queue.Operation{Reason: a.Reason, At: a.At, To: a.To, NextHop: a.NextHop}
	switch a.Do {
	case "hold":
		op.Kind = queue.Hold
		if op.Reason == "" {
			op.Reason = "held by the operator"
		}
	case "release":
		op.Kind = queue.ReleaseHold
	case "retry":
		op.Kind = queue.Retry
	case "delete":
		op.Kind = queue.Remove
		op.Reason = "deleted by the operator"
	case "bounce":
		op.Kind = queue.Fail
		if op.Reason == "" {
			op.Reason = "Returned by the postmaster"
		}
	case "redirect":
		op.Kind = queue.Redirect
		op.Reason = "redirected by the operator"
		if (len(op.To) == 0) == (op.NextHop == "") {
			return op, errors.New("a redirect wants addresses or a next hop")
		}
		for n, to := range op.To {
			at, err := address.Parse(to, true)
			if err != nil {
				return op, fmt.Errorf("redirect to %q: %w", to, err)
			}
			op.To[n] = at.String()
		}
	default:
		return op, fmt.Errorf("there is no action %q", a.Do)
	}
	return op, nil
}

// act streams what became of each message of a selection.
func act(w http.ResponseWriter, r *http.Request, b QueueBackend) {
	f, err := filterOf(r)
	var a Action
	if err == nil {
		err = decode(r, "action", &a)
	}
	var op queue.Operation
	if err == nil {
		op, err = a.operation()
	}
	if err == nil {
		err = there(r.Context(), b, f.IDs)
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	if op.Kind == queue.Retry && !a.DryRun {
		b.Revive()
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &actor{ctx: r.Context(), b: b, filter: f, op: op, dry: a.DryRun, enc: json.NewEncoder(w), flush: http.NewResponseController(w).Flush}
	if err := out.run(); err != nil && r.Context().Err() == nil {
		_ = out.enc.Encode(Problem{err.Error()})
	}
}

// actor does one action with a selection.
type actor struct {
	ctx    context.Context
	b      QueueBackend
	filter queue.Filter
	op     queue.Operation
	dry    bool
	enc    *json.Encoder
	flush  func() error
	busy   []target
}

// target is a message of the selection and those of its recipients that are meant.
type target struct {
	id         string
	size       int64
	recipients []int32
	result     Acted
}

func (a *actor) run() error {
	left := a.filter.Limit
	for {
		f := a.filter
		f.Limit = page
		if left > 0 {
			f.Limit = min(page, left)
		}
		var ts []target
		if err := a.b.Queue().List(a.ctx, f, func(e *queue.Envelope) bool {
			ts = append(ts, a.target(e))
			return true
		}); err != nil {
			return err
		}
		if err := a.page(ts, true); err != nil {
			return err
		}
		if left -= len(ts); len(ts) < f.Limit || a.filter.Limit > 0 && left <= 0 {
			break
		}
		a.filter.After = ts[len(ts)-1].id
	}
	for try := 0; len(a.busy) > 0; try++ {
		pause := time.NewTimer(busyPause)
		select {
		case <-pause.C:
		case <-a.ctx.Done():
			pause.Stop()
			return a.ctx.Err()
		}
		again := a.busy
		a.busy = nil
		if err := a.page(again, try < busyTries); err != nil {
			return err
		}
	}
	return nil
}

// target finds the recipients that the action would change.
func (a *actor) target(e *queue.Envelope) target {
	t := target{id: e.ID, size: e.Size}
	all := true
	for _, r := range e.Recipients {
		switch {
		case !a.op.Kind.Applies(r.State):
		case a.filter.Matches(r):
			t.recipients = append(t.recipients, r.Index)
		default:
			all = false
		}
	}
	t.result = Acted{ID: e.ID, Recipients: len(t.recipients), Bytes: e.Size}
	if a.op.NextHop != "" && len(t.recipients) > 0 && !all {
		t.result.Result, t.result.Problem = Failed, "a next hop holds for all recipients of a message, and some of them are not selected"
	}
	return t
}

// page acts on messages and tells of them in their order. Those that are being
// delivered are tried again later, if patient.
func (a *actor) page(ts []target, patient bool) error {
	var wg sync.WaitGroup
	places := make(chan struct{}, acting)
	for n := range ts {
		if ts[n].result.Result == Failed {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			a.one(&ts[n])
			<-places
		})
	}
	wg.Wait()
	for n := range ts {
		t := &ts[n]
		if t.result.Result == Busy && patient && len(a.busy) < busyMost {
			t.result.Result, t.result.Problem = "", ""
			a.busy = append(a.busy, *t)
			continue
		}
		if err := a.enc.Encode(t.result); err != nil {
			return err
		}
	}
	_ = a.flush() // the client has gone, if this fails
	return a.ctx.Err()
}

func (a *actor) one(t *target) {
	switch {
	case len(t.recipients) == 0:
		t.result.Result = Nothing
		return
	case a.dry:
		t.result.Result = Would
		return
	}
	op := a.op
	if op.NextHop == "" {
		op.Recipients = t.recipients
	}
	err := a.b.Operate(a.ctx, t.id, op)
	switch {
	case err == nil:
		t.result.Result = Done
	case errors.Is(err, queue.ErrNotFound):
		t.result.Result = Gone
	case errors.Is(err, queue.ErrUnderWay):
		t.result.Result, t.result.Problem = Busy, err.Error()
	default:
		t.result.Result, t.result.Problem = Failed, err.Error()
	}
}
