package dispatch

import (
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// A filter that forwards a mail and discards it here was down at the first
// attempt: what it forwards is made when it answers, once.
func TestWhatAFilterMakesIsNotLostWithItsFirstAnswer(t *testing.T) {
	forwards := func() *v1.FilterReply {
		return &v1.FilterReply{
			Verdict: &v1.Verdict{Action: v1.Verdict_DISCARD},
			Inject: []*v1.Injection{{
				Recipients: []*v1.Recipient{{Address: "annie@reed.example"}},
				Message:    &v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte("Subject: on\r\n\r\n")}},
			}},
		}
	}
	asked := 0
	w := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		if asked++; asked == 1 {
			// No answer: an edit that is not allowed counts as none.
			return &v1.FilterReply{Edits: []*v1.Edit{{Edit: &v1.Edit_AddRecipient_{AddRecipient: &v1.Edit_AddRecipient{Recipient: &v1.Recipient{Address: "nobody"}}}}}}
		}
		return forwards()
	}}
	r := newRig(t, twoRoutes)
	r.filters(nil, w.chain(v1.FilterInterest_EDIT, v1.FilterEvent_PRE_DELIVERY))
	id := r.put("tom@hanks.example", "meg@ryan.example")
	for range 3 {
		r.round()
		r.clock.add(time.Hour)
	}
	r.gone(id)
	if n := r.away.times("annie@reed.example"); n != 1 || asked != 2 {
		t.Errorf("forwarded %d times after %d questions, want once after 2", n, asked)
	}
}

// Each stage's additions are made once, though the stage behind it fails first.
func TestEachStageMakesItsOwnOnce(t *testing.T) {
	to := func(address string) *v1.FilterReply {
		return &v1.FilterReply{Inject: []*v1.Injection{{
			Recipients: []*v1.Recipient{{Address: address}},
			Message:    &v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte("Subject: seen\r\n\r\n")}},
		}}}
	}
	asked := 0
	first := &witness{answer: func(*v1.FilterCall) *v1.FilterReply { return to("annie@reed.example") }}
	second := &witness{answer: func(*v1.FilterCall) *v1.FilterReply {
		if asked++; asked == 1 {
			return &v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_DEFER}}
		}
		return to("george@reed.example")
	}}
	r := newRig(t, twoRoutes)
	tries := 0
	r.here.answer = func(string) deliver.Outcome {
		if tries++; tries < 3 {
			return deliver.Outcome{Attempt: queue.Attempt{Code: 451, Text: "busy"}}
		}
		return deliver.Outcome{Attempt: queue.Attempt{Code: 250, Text: "kept"}}
	}
	r.filters(first.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_ROUTE), second.chain(v1.FilterInterest_JUDGE, v1.FilterEvent_PRE_DELIVERY))
	id := r.put("tom@hanks.example", "meg@ryan.example")
	for range 4 {
		r.round()
		r.clock.add(time.Hour)
	}
	r.gone(id)
	if a, g := r.away.times("annie@reed.example"), r.away.times("george@reed.example"); a != 1 || g != 1 {
		t.Errorf("the first stage's mail was sent %d times, the second's %d times, want once each", a, g)
	}
}
