package filter

import (
	"context"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestVerdictSaysAllOfIt(t *testing.T) {
	r := Reject(550, "5.7.1", "No").Reason("list").Delay(2*time.Second).SkipRest().
		For(1, Defer(451, "", "Later")).
		Tag("a", "x").TagNumber("b", 1.5).TagBool("c", true).TagList("d", "p", "q").
		TagMap("m", map[string]any{"x.y": "z", "n": 2.5, "b": true, "l": []string{"p"}, "other": 1}).
		AddHeader("X-A", "one").InsertHeader(-1, "X-B", " two").ReplaceHeader("Subject", 1, "new").DeleteHeader("X-C", 0).
		AddRecipient("meg@ryan.example").DeleteRecipient(2).SetSender("", nil).ReplaceBody([]byte("body\r\n")).
		Hints(&v1.RouteHints{NextHop: "192.0.2.1:25"}).Score(2).Score(-0.5).Note("seen").Reply()
	v := r.GetVerdict()
	if v.GetAction() != v1.Verdict_REJECT || v.GetReply().GetCode() != 550 || v.GetReason() != "list" || v.GetDelayMs() != 2000 || !v.GetSkipRest() {
		t.Errorf("verdict %v", v)
	}
	if p := r.GetPerRecipient()[1]; p.GetAction() != v1.Verdict_DEFER || p.GetReply().GetText() != "Later" {
		t.Errorf("recipient's verdict %v", p)
	}
	tags := r.GetTags()
	if tags["a"].GetText() != "x" || tags["b"].GetNumber() != 1.5 || !tags["c"].GetFlag() || len(tags["d"].GetList().GetValues()) != 2 {
		t.Errorf("tags %v", tags)
	}
	if m := tags["m"].GetMap().GetEntries(); len(m) != 4 || m["x.y"].GetText() != "z" || m["n"].GetNumber() != 2.5 || !m["b"].GetFlag() || len(m["l"].GetList().GetValues()) != 1 {
		t.Errorf("map %v", m)
	}
	e := r.GetEdits()
	if len(e) != 8 || string(e[0].GetInsertHeader().GetField().GetValue()) != " one" || string(e[1].GetInsertHeader().GetField().GetValue()) != " two" ||
		e[1].GetInsertHeader().GetPosition() != -1 || e[2].GetReplaceHeader().GetIndex() != 1 || e[3].GetDeleteHeader().GetName() != "X-C" ||
		e[4].GetAddRecipient().GetRecipient().GetAddress() != "meg@ryan.example" || e[5].GetDeleteRecipient().GetIndex() != 2 ||
		e[6].GetSetSender() == nil || e[7].GetReplaceBody().GetBody().GetSize() != 6 {
		t.Errorf("edits %v", e)
	}
	if r.GetScore() != 1.5 {
		t.Errorf("score %v", r.GetScore())
	}
	if r.GetHints().GetNextHop() == "" || r.GetNote() != "seen" {
		t.Errorf("hints %v, note %q", r.GetHints(), r.GetNote())
	}
	var zero Verdict
	if zero.Reply().GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		t.Error("the zero verdict does not accept")
	}
}

func TestEventNamesItsRecipient(t *testing.T) {
	var got *Event
	h := Handler(Func(func(_ context.Context, ev *Event) (*Verdict, error) { got = ev; return nil, nil }))
	r, err := h(context.Background(), &v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{
		Event: v1.FilterEvent_RCPT, Recipient: 7,
		Envelope: &v1.Envelope{Recipients: []*v1.Recipient{{Address: "tom@hanks.example", Index: 3}, {Address: "meg@ryan.example", Index: 7}}},
	}}}, nil)
	if err != nil || r.GetFilter().GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		t.Errorf("nil verdict: %v, %v", r, err)
	}
	if got.Recipient.GetAddress() != "meg@ryan.example" || got.Message != nil {
		t.Errorf("event %+v", got)
	}
}
