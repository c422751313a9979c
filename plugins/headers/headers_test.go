package headers

import (
	"context"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

func event(fields ...string) *filter.Event {
	ev := &filter.Event{Kind: v1.FilterEvent_MESSAGE, Envelope: &v1.Envelope{}}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		ev.Header = append(ev.Header, &v1.HeaderField{Name: name, Value: []byte(value)})
	}
	return ev
}

func TestRequire(t *testing.T) {
	f := &Filter{Config{Require: []string{"From", "Date"}}}
	v, err := f.Filter(context.Background(), event("from: tom@hanks.example"))
	if err != nil {
		t.Fatal(err)
	}
	r := v.Reply().GetVerdict()
	if r.GetAction() != v1.Verdict_REJECT || r.GetReply().GetCode() != 550 || !strings.Contains(r.GetReply().GetText(), "Date") {
		t.Fatalf("without Date: %v", r)
	}
	if v, err = f.Filter(context.Background(), event("FROM: x", "date: y")); err != nil || v.Reply().GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		t.Fatalf("with both: %v %v", v.Reply(), err)
	}
}

func TestEdits(t *testing.T) {
	f := &Filter{Config{Remove: []string{"X-Note"}, Set: map[string]string{"X-Site": "hanks"}, Add: map[string]string{"X-Seen-By": "mx"}}}
	v, err := f.Filter(context.Background(), event("X-Note: secret"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range v.Reply().GetEdits() {
		switch e := e.GetEdit().(type) {
		case *v1.Edit_DeleteHeader_:
			got = append(got, "-"+e.DeleteHeader.GetName())
		case *v1.Edit_InsertHeader_:
			got = append(got, "+"+e.InsertHeader.GetField().GetName()+"="+mail.Unfold(e.InsertHeader.GetField().GetValue()))
		}
	}
	if s := strings.Join(got, " "); s != "-X-Note -X-Site +X-Site=hanks +X-Seen-By=mx" {
		t.Fatalf("edits %q", s)
	}
}

func TestInterestIsNarrow(t *testing.T) {
	in := (&Config{Require: []string{"From"}}).Interest()
	if in.GetEffect() != v1.FilterInterest_JUDGE || len(in.GetHeaderNames()) != 1 || in.GetHeaderNames()[0] != "from" {
		t.Errorf("a filter that only requires should judge, and see its own fields: %v", in)
	}
	in = (&Config{Add: map[string]string{"X-A": "b"}}).Interest()
	if in.GetEffect() != v1.FilterInterest_EDIT || in.GetBody() != v1.FilterInterest_NONE {
		t.Errorf("a filter that only adds needs to see nothing: %v", in)
	}
}

func TestValidatePointsAtTheAttribute(t *testing.T) {
	for attribute, c := range map[string]*Config{
		"require": {Require: []string{"Bad Name"}},
		"remove":  {Remove: []string{"a:b"}},
		"set":     {Set: map[string]string{"X-A": "one\r\nX-Evil: two"}},
		"add":     {Add: map[string]string{"": "x"}},
	} {
		diags := schema.Diagnostics(c.Validate())
		if len(diags) != 1 || len(diags[0].GetPath()) == 0 || diags[0].GetPath()[0].GetName() != attribute {
			t.Errorf("%s: %v", attribute, diags)
		}
	}
	if err := (&Config{Require: []string{"From"}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestDescribe(t *testing.T) {
	d, err := sdk.Describe(Plugin())
	if err != nil || d.GetKind() != v1.Kind_KIND_FILTER || d.GetName() != "headers" {
		t.Fatalf("%v %v", d, err)
	}
}
