package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// witness is a filter that notes what it is asked and answers as told.
type witness struct {
	mu     sync.Mutex
	calls  []*v1.FilterCall
	answer func(c *v1.FilterCall) *v1.FilterReply
}

func (w *witness) Call(_ context.Context, call *v1.Call) (*v1.Reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, call.GetFilter())
	r := &v1.FilterReply{}
	if w.answer != nil {
		if a := w.answer(call.GetFilter()); a != nil {
			r = a
		}
	}
	return &v1.Reply{Response: &v1.Reply_Filter{Filter: r}}, nil
}

func (w *witness) Stream(context.Context, *v1.Call, func(*v1.Reply) error) error {
	return errors.New("filters do not stream")
}

func (w *witness) chain(effect v1.FilterInterest_Effect, events ...v1.FilterEvent) filter.Chain {
	in := &v1.FilterInterest{Events: events, Effect: effect}
	return filter.Chain{{Name: "filter.test.witness", Caller: w, Interest: func() *v1.FilterInterest { return in }}}
}

func (r *rig) filters(route, deliver filter.Chain) {
	plan := *r.d.Plan()
	plan.RouteFilters = map[string]filter.Chain{"here": route}
	plan.DeliverFilters = map[string]filter.Chain{"deliver.smtp.here": deliver}
	r.d.Plan = func() *Plan { return &plan }
}

func TestResultsAreTold(t *testing.T) {
	w := &witness{}
	r := newRig(t, twoRoutes)
	r.here.answer = func(a string) deliver.Outcome {
		if a == "joe@ryan.example" {
			return deliver.Outcome{Attempt: queue.Attempt{Code: 451, Enhanced: "4.2.2", Text: "full", RemoteMTA: "mx.ryan.example"}}
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250, Enhanced: "2.0.0", Text: "kept"}}
	}
	r.filters(nil, w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_RESULT))
	r.put("tom@hanks.example", "meg@ryan.example", "joe@ryan.example")
	r.round()
	var got []string
	for _, c := range w.calls {
		for _, res := range c.GetResults() {
			for _, to := range c.GetEnvelope().GetRecipients() {
				if to.GetIndex() == res.GetRecipient() {
					got = append(got, fmt.Sprintf("%s %s %d %s %s", to.GetAddress(), res.GetState(), res.GetReply().GetCode(), res.GetReply().GetText(), res.GetRemoteMta()))
				}
			}
		}
	}
	slices.Sort(got)
	if s := strings.Join(got, "\n"); s != "joe@ryan.example deferred 451 full mx.ryan.example\nmeg@ryan.example delivered 250 kept " {
		t.Errorf("told\n%s", s)
	}
}

// What a filter adds after the queue comes once, however often the delivery is
// tried and though the added recipient takes the same route.
func TestAddedAfterTheQueue(t *testing.T) {
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{
			Edits: []*v1.Edit{{Edit: &v1.Edit_AddRecipient_{AddRecipient: &v1.Edit_AddRecipient{Recipient: &v1.Recipient{Address: "joe@ryan.example"}}}}},
			Inject: []*v1.Injection{{
				Recipients: []*v1.Recipient{{Address: "annie@reed.example"}},
				Message:    &v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte("Subject: seen\r\n\r\n")}},
			}},
		}
	}}
	r := newRig(t, twoRoutes)
	tries := 0
	r.here.answer = func(a string) deliver.Outcome {
		if a == "meg@ryan.example" {
			if tries++; tries < 3 {
				return deliver.Outcome{Attempt: queue.Attempt{Code: 451, Text: "busy"}}
			}
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250, Text: "kept"}}
	}
	chain := w.chain(v1.FilterInterest_EDIT, v1.FilterEvent_PRE_DELIVERY)
	r.filters(nil, chain)
	id := r.put("tom@hanks.example", "meg@ryan.example")
	for range 3 {
		r.round()
		r.clock.add(time.Hour)
	}
	r.gone(id)
	if r.here.times("meg@ryan.example") != 3 || r.here.times("joe@ryan.example") != 1 {
		t.Errorf("meg %d, joe %d", r.here.times("meg@ryan.example"), r.here.times("joe@ryan.example"))
	}
	// Once for meg's mail and once for joe's, a recipient of its own.
	if n := r.away.times("annie@reed.example"); n != 2 {
		t.Errorf("%d messages of the filter were delivered, want 2", n)
	}
}

func TestRemovedAndPutOffAfterTheQueue(t *testing.T) {
	w := &witness{answer: func(c *v1.FilterCall) *v1.FilterReply {
		if len(c.GetEnvelope().GetRecipients()) == 2 {
			return &v1.FilterReply{Edits: []*v1.Edit{{Edit: &v1.Edit_DeleteRecipient_{DeleteRecipient: &v1.Edit_DeleteRecipient{Index: 1}}}}}
		}
		return nil
	}}
	r := newRig(t, twoRoutes)
	later := &witness{answer: func(c *v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{Hints: &v1.RouteHints{NotBeforeMs: r.clock.Now().Truncate(time.Hour).Add(time.Hour).UnixMilli()}}
	}}
	r.filters(w.chain(v1.FilterInterest_EDIT, v1.FilterEvent_ROUTE), later.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_PRE_DELIVERY))
	id := r.put("tom@hanks.example", "meg@ryan.example", "joe@ryan.example")
	r.round()
	e := r.get(id)
	if e.Recipients[0].State != queue.Waiting || !e.Recipients[0].Next.Equal(r.clock.Now().Add(time.Hour)) || e.Recipients[0].Attempts != 0 {
		t.Errorf("put off: %+v", e.Recipients[0])
	}
	if e.Recipients[1].State != queue.Discarded || r.here.times("joe@ryan.example")+r.here.times("meg@ryan.example") != 0 {
		t.Errorf("removed: %+v", e.Recipients[1])
	}
}

// A stage that fails after another one settled recipients leaves their result.
func TestSecondStageFails(t *testing.T) {
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{PerRecipient: map[int32]*v1.Verdict{0: {Action: v1.Verdict_REJECT}}}
	}}
	r := newRig(t, twoRoutes)
	broken := w.chain(v1.FilterInterest_EDIT, v1.FilterEvent_PRE_DELIVERY)
	broken[0].Caller = &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{Edits: []*v1.Edit{{Edit: &v1.Edit_AddRecipient_{AddRecipient: &v1.Edit_AddRecipient{Recipient: &v1.Recipient{Address: "nobody"}}}}}}
	}}
	r.filters(w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_ROUTE), broken)
	id := r.put("tom@hanks.example", "meg@ryan.example", "joe@ryan.example")
	r.round()
	e := r.get(id)
	if e.Recipients[0].State != queue.Failed || e.Recipients[0].Attempts != 1 || e.Recipients[1].State != queue.Waiting || e.Recipients[1].Attempts != 1 {
		t.Errorf("%+v\n%+v", e.Recipients[0], e.Recipients[1])
	}
}

// Hints reach the transport, and a queue's name is a place in the limits.
func TestHintsReachTheDelivery(t *testing.T) {
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		return &v1.FilterReply{Hints: &v1.RouteHints{Queue: "bulk", NextHop: "192.0.2.1:25", TlsLevel: "verify"}, Tags: map[string]*v1.Tag{"a": {Value: &v1.Tag_Flag{Flag: true}}}}
	}}
	r := newRig(t, twoRoutes)
	r.filters(nil, w.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_PRE_DELIVERY))
	r.put("tom@hanks.example", "meg@ryan.example")
	r.round()
	if len(r.here.jobs) != 1 {
		t.Fatalf("%d deliveries", len(r.here.jobs))
	}
	if e := r.here.jobs[0].Envelope; e.Hints.GetNextHop() != "192.0.2.1:25" || e.Hints.GetTlsLevel() != "verify" || !e.Tags["a"].GetFlag() {
		t.Errorf("hints %v, tags %v", e.Hints, e.Tags)
	}
}
