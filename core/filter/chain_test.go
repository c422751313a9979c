package filter

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// scripted is a filter that answers from a function and counts its calls.
type scripted struct {
	answer func(ctx context.Context, c *v1.FilterCall) (*v1.FilterReply, error)
	calls  atomic.Int32
}

func (s *scripted) Call(ctx context.Context, c *v1.Call) (*v1.Reply, error) {
	s.calls.Add(1)
	r, err := s.answer(ctx, c.GetFilter())
	if err != nil {
		return nil, err
	}
	return &v1.Reply{Response: &v1.Reply_Filter{Filter: r}}, nil
}

func (s *scripted) Stream(context.Context, *v1.Call, func(*v1.Reply) error) error {
	return errors.New("filters do not stream")
}

func member(name string, effect v1.FilterInterest_Effect, answer func(context.Context, *v1.FilterCall) (*v1.FilterReply, error)) (Member, *scripted) {
	s := &scripted{answer: answer}
	in := &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: effect, Body: v1.FilterInterest_FULL}
	return Member{Name: name, Caller: s, Interest: func() *v1.FilterInterest { return in }, Timeout: time.Second}, s
}

func says(r *v1.FilterReply) func(context.Context, *v1.FilterCall) (*v1.FilterReply, error) {
	return func(context.Context, *v1.FilterCall) (*v1.FilterReply, error) { return r, nil }
}

func reject(text string) *v1.FilterReply {
	return &v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_REJECT, Reply: &v1.SMTPReply{Code: 550, Enhanced: "5.7.1", Text: text}}}
}

func note(s string) *v1.FilterReply { return &v1.FilterReply{Note: s} }

// marking edits by putting the field's name in front of the body.
type marking struct{}

func (marking) Fields(spool.Body, []string) (mail.Header, error) { return nil, nil }
func (marking) Apply(b spool.Body, edits []*v1.Edit) (spool.Body, error) {
	for _, e := range edits {
		b = spool.FromBytes(append([]byte(e.GetInsertHeader().GetField().GetName()+": x\r\n"), b.Bytes()...))
	}
	return b, nil
}

func (marking) Adopt(ref *v1.MessageRef, _ []string) (spool.Body, error) {
	return spool.FromBytes(ref.GetInline()), nil
}
func (marking) Keep(b spool.Body) (spool.Body, error) { return b, nil }

func ask(t *testing.T, c Chain) *Outcome {
	t.Helper()
	out, err := c.Run(context.Background(), marking{}, Question{
		Event:    v1.FilterEvent_MESSAGE,
		Envelope: &v1.Envelope{Sender: "tom@hanks.example", Recipients: []*v1.Recipient{{Address: "meg@ryan.example"}}},
		Body:     spool.FromBytes([]byte("Subject: hello\r\n\r\nhi\r\n")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestJudgesRunAtTheSameTime(t *testing.T) {
	meet := make(chan struct{})
	both := func(ctx context.Context, _ *v1.FilterCall) (*v1.FilterReply, error) {
		select {
		case meet <- struct{}{}:
		case <-meet:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return note("met"), nil
	}
	a, _ := member("a", v1.FilterInterest_JUDGE, both)
	b, _ := member("b", v1.FilterInterest_JUDGE, both)
	out := ask(t, Chain{a, b})
	if len(out.Trace) != 2 || out.Trace[0].Note != "met" || out.Trace[1].Note != "met" {
		t.Fatalf("the judges did not meet: %+v", out.Trace)
	}
}

func TestFirstRejectEndsTheRoundAndTheChain(t *testing.T) {
	slow, _ := member("slow", v1.FilterInterest_JUDGE, func(ctx context.Context, _ *v1.FilterCall) (*v1.FilterReply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	slow.Timeout = time.Minute
	no, _ := member("no", v1.FilterInterest_JUDGE, says(reject("go away")))
	editor, asked := member("editor", v1.FilterInterest_EDIT, says(note("edited")))
	out := ask(t, Chain{slow, no, editor})
	if out.Verdict.GetAction() != v1.Verdict_REJECT || out.By != "no" {
		t.Fatalf("verdict %v by %q, want REJECT by no", out.Verdict, out.By)
	}
	if asked.calls.Load() != 0 {
		t.Fatal("the editor behind the reject was asked")
	}
}

func TestEachEditorSeesTheEditsBeforeIt(t *testing.T) {
	insert := func(name string) *v1.FilterReply {
		return &v1.FilterReply{Edits: []*v1.Edit{{Edit: &v1.Edit_InsertHeader_{InsertHeader: &v1.Edit_InsertHeader{Field: &v1.HeaderField{Name: name}}}}}}
	}
	first, _ := member("first", v1.FilterInterest_EDIT, says(insert("X-First")))
	var seen []byte
	second, _ := member("second", v1.FilterInterest_EDIT, func(_ context.Context, c *v1.FilterCall) (*v1.FilterReply, error) {
		seen = c.GetMessage().GetInline()
		return insert("X-Second"), nil
	})
	out := ask(t, Chain{first, second})
	if !bytes.HasPrefix(seen, []byte("X-First: x\r\n")) {
		t.Fatalf("the second editor saw %q", seen)
	}
	if !bytes.HasPrefix(out.Body.Bytes(), []byte("X-Second: x\r\nX-First: x\r\n")) {
		t.Fatalf("the outcome is %q", out.Body.Bytes())
	}
}

func TestAJudgesEditsAreNotDone(t *testing.T) {
	r := &v1.FilterReply{Edits: []*v1.Edit{{Edit: &v1.Edit_SetSender_{SetSender: &v1.Edit_SetSender{Address: "evil@hanks.example"}}}}}
	j, _ := member("judge", v1.FilterInterest_JUDGE, says(r))
	if out := ask(t, Chain{j}); out.Envelope.GetSender() != "tom@hanks.example" {
		t.Fatalf("a judge changed the sender to %q", out.Envelope.GetSender())
	}
}

func TestOnFailure(t *testing.T) {
	for mode, want := range map[string]v1.Verdict_Action{
		OnFailureDefer: v1.Verdict_DEFER, "": v1.Verdict_DEFER,
		OnFailureAccept: v1.Verdict_ACCEPT, OnFailureHold: v1.Verdict_HOLD,
	} {
		m, _ := member("down", v1.FilterInterest_JUDGE, func(context.Context, *v1.FilterCall) (*v1.FilterReply, error) {
			return nil, errors.New("process died")
		})
		m.OnFailure = mode
		out := ask(t, Chain{m})
		if out.Verdict.GetAction() != want {
			t.Errorf("on_failure %q: %v, want %v", mode, out.Verdict.GetAction(), want)
		}
		if out.Trace[0].Failed == "" {
			t.Errorf("on_failure %q: the trace does not say that it failed", mode)
		}
	}
}

func TestALateFilterIsAFailedOne(t *testing.T) {
	m, _ := member("late", v1.FilterInterest_JUDGE, func(ctx context.Context, _ *v1.FilterCall) (*v1.FilterReply, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	m.Timeout = 5 * time.Millisecond
	if out := ask(t, Chain{m}); out.Verdict.GetAction() != v1.Verdict_DEFER {
		t.Fatalf("verdict %v, want DEFER", out.Verdict)
	}
}

func TestALaterFilterDoesNotSoftenAHold(t *testing.T) {
	hold, _ := member("hold", v1.FilterInterest_EDIT, says(&v1.FilterReply{Verdict: &v1.Verdict{Action: v1.Verdict_HOLD, Reason: "look"}}))
	ok, _ := member("ok", v1.FilterInterest_EDIT, says(&v1.FilterReply{Verdict: &v1.Verdict{}}))
	if out := ask(t, Chain{hold, ok}); out.Verdict.GetAction() != v1.Verdict_HOLD {
		t.Fatalf("verdict %v, want HOLD", out.Verdict)
	}
	no, _ := member("no", v1.FilterInterest_EDIT, says(reject("no")))
	if out := ask(t, Chain{hold, no}); out.Verdict.GetAction() != v1.Verdict_REJECT {
		t.Fatalf("verdict %v, want REJECT", out.Verdict)
	}
}

func TestWhatNobodyWantsIsNotSent(t *testing.T) {
	m, s := member("small", v1.FilterInterest_JUDGE, says(reject("seen")))
	in := &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_JUDGE, MaxSize: 3}
	m.Interest = func() *v1.FilterInterest { return in }
	if out := ask(t, Chain{m}); s.calls.Load() != 0 || out.Verdict.GetAction() != v1.Verdict_ACCEPT {
		t.Fatal("a message over max_size was sent")
	}
	in = &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_CONNECT}}
	if ask(t, Chain{m}); s.calls.Load() != 0 {
		t.Fatal("an event nobody declared was sent")
	}
}

// TestWhoJudgedARecipient: the first to judge a recipient apart is told with it, in the
// trace too; what is said of nobody's recipient is not kept.
func TestWhoJudgedARecipient(t *testing.T) {
	apart := func(index int32, a v1.Verdict_Action) *v1.FilterReply {
		return &v1.FilterReply{PerRecipient: map[int32]*v1.Verdict{index: {Action: a}}}
	}
	one, _ := member("one", v1.FilterInterest_EDIT, says(apart(0, v1.Verdict_REJECT)))
	two, _ := member("two", v1.FilterInterest_EDIT, says(apart(0, v1.Verdict_HOLD)))
	nobody, _ := member("nobody", v1.FilterInterest_EDIT, says(apart(7, v1.Verdict_REJECT)))
	out := ask(t, Chain{one, two, nobody})
	if len(out.PerRecipient) != 1 || out.PerRecipient[0].GetAction() != v1.Verdict_REJECT || out.ByRecipient[0] != "one" {
		t.Errorf("%v by %v", out.PerRecipient, out.ByRecipient)
	}
	if e := out.Trace[0].Edits; len(e) != 1 || e[0] != "reject for meg@ryan.example" {
		t.Errorf("the trace says %q", e)
	}
}
