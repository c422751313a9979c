package filter

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestScoresAddUp(t *testing.T) {
	a, _ := member("filter.a.a", v1.FilterInterest_JUDGE, says(&v1.FilterReply{Score: 2.5}))
	b, _ := member("filter.b.b", v1.FilterInterest_JUDGE, says(&v1.FilterReply{Score: -1, Tags: map[string]*v1.Tag{"spf": {Value: &v1.Tag_Text{Text: "pass"}}}}))
	c, _ := member("filter.c.c", v1.FilterInterest_EDIT, func(_ context.Context, call *v1.FilterCall) (*v1.FilterReply, error) {
		if got := call.GetEnvelope().GetTags()[ScoreTag].GetNumber(); got != 1.5 {
			t.Errorf("an editor after them sees a score of %v, want 1.5", got)
		}
		return &v1.FilterReply{Score: 1}, nil
	})
	out := ask(t, Chain{a, b, c})
	if got := out.Envelope.GetTags(); got[ScoreTag].GetNumber() != 2.5 || got["spf"].GetText() != "pass" {
		t.Errorf("tags %v", got)
	}
	if out.Trace[0].Score != 2.5 || out.Trace[1].Score != -1 {
		t.Errorf("the trace has %v and %v", out.Trace[0].Score, out.Trace[1].Score)
	}
}

func insert(name string) *v1.Edit {
	return &v1.Edit{Edit: &v1.Edit_InsertHeader_{InsertHeader: &v1.Edit_InsertHeader{Field: &v1.HeaderField{Name: name}}}}
}

func addRecipient(a string) *v1.Edit {
	return &v1.Edit{Edit: &v1.Edit_AddRecipient_{AddRecipient: &v1.Edit_AddRecipient{Recipient: &v1.Recipient{Address: a}}}}
}

func TestTraceKeepsEachEdit(t *testing.T) {
	m, _ := member("filter.a.a", v1.FilterInterest_EDIT, says(&v1.FilterReply{
		Edits: []*v1.Edit{
			addRecipient("joe@ryan.example"), insert("X-Seen"),
			{Edit: &v1.Edit_SetSender_{SetSender: &v1.Edit_SetSender{Address: ""}}},
			{Edit: &v1.Edit_DeleteRecipient_{DeleteRecipient: &v1.Edit_DeleteRecipient{Index: 0}}},
		},
		Inject: []*v1.Injection{{Sender: "", Recipients: []*v1.Recipient{{Address: "tom@hanks.example"}}, Message: &v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte("hello")}}}},
	}))
	out := ask(t, Chain{m})
	want := []string{"add recipient <joe@ryan.example>", "insert X-Seen", "set sender <>", "delete recipient <meg@ryan.example>", "inject a message to 1 recipient(s)"}
	if !slices.Equal(out.Trace[0].Edits, want) {
		t.Errorf("the trace has %q", out.Trace[0].Edits)
	}
	if rs := out.Envelope.GetRecipients(); len(rs) != 1 || rs[0].GetIndex() != 1 {
		t.Errorf("recipients %v", rs)
	}
	if len(out.Inject) != 1 || out.Inject[0].By != "filter.a.a" {
		t.Errorf("injected %v", out.Inject)
	}
}

// What a filter puts into the envelope is sent on in commands: an edit that is
// no address fails the filter, and none of its edits is done.
func TestEditsThatAreNoAddresses(t *testing.T) {
	for name, r := range map[string]*v1.FilterReply{
		"recipient": {Edits: []*v1.Edit{insert("X-Seen"), addRecipient("joe@ryan.example> SIZE=1")}},
		"sender":    {Edits: []*v1.Edit{{Edit: &v1.Edit_SetSender_{SetSender: &v1.Edit_SetSender{Address: "tom@hanks.example\r\nDATA"}}}}},
		"injection": {Inject: []*v1.Injection{{Recipients: []*v1.Recipient{{Address: "nobody"}}}}},
		"to nobody": {Inject: []*v1.Injection{{Sender: "tom@hanks.example"}}},
	} {
		m, _ := member("filter.a.a", v1.FilterInterest_EDIT, says(r))
		out := ask(t, Chain{m})
		if out.Verdict.GetAction() != v1.Verdict_DEFER || !strings.Contains(out.Trace[0].Failed, "edit refused") {
			t.Errorf("%s: %s, %q", name, out.Verdict, out.Trace[0].Failed)
		}
		if strings.Contains(string(out.Body.Bytes()), "X-Seen") || len(out.Envelope.GetRecipients()) != 1 || len(out.Inject) != 0 {
			t.Errorf("%s: some of the edits were done", name)
		}
	}
}

func TestObserverThatIsBehindIsNotAsked(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	m, s := member("filter.a.a", v1.FilterInterest_OBSERVE_ONLY, func(context.Context, *v1.FilterCall) (*v1.FilterReply, error) {
		<-release
		return &v1.FilterReply{}, nil
	})
	m.Observing = new(atomic.Int32)
	for range maxObserving {
		if out := ask(t, Chain{m}); len(out.Trace) != 0 {
			t.Fatalf("trace %v", out.Trace)
		}
	}
	out := ask(t, Chain{m})
	if len(out.Trace) != 1 || !strings.Contains(out.Trace[0].Failed, "behind") || out.Verdict.GetAction() != v1.Verdict_ACCEPT {
		t.Errorf("trace %v", out.Trace)
	}
	if n := s.calls.Load(); n > maxObserving {
		t.Errorf("%d questions at a time", n)
	}
}
