package subaddress_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/subaddress"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func edits(t *testing.T, config string, to ...*v1.Recipient) (said string, r *v1.FilterReply) {
	t.Helper()
	call := sdktest.Message(t, "From: tom@hanks.example\r\n\r\nHi\r\n")
	call.Envelope.Recipients = to
	r, err := sdktest.Filter(t, subaddress.Plugin(), config)(call)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range r.GetEdits() {
		switch e := e.GetEdit().(type) {
		case *v1.Edit_DeleteRecipient_:
			out = append(out, fmt.Sprint("-", e.DeleteRecipient.GetIndex()))
		case *v1.Edit_AddRecipient_:
			a := e.AddRecipient.GetRecipient()
			out = append(out, fmt.Sprint("+", a.GetAddress(), a.GetNotify(), a.GetOriginalRecipient()))
		case *v1.Edit_InsertHeader_:
			out = append(out, e.InsertHeader.GetField().GetName()+":"+string(e.InsertHeader.GetField().GetValue()))
		}
	}
	return strings.Join(out, " "), r
}

func TestStrip(t *testing.T) {
	to := []*v1.Recipient{
		{Address: "meg+lists@ryan.example", Index: 4, Notify: []string{"NEVER"}},
		{Address: "meg@ryan.example", Index: 5},
		{Address: "sam-baldwin+x@reed.example", Index: 7, OriginalRecipient: "rfc822;list@hanks.example"},
		{Address: "\"a+b\"@ryan.example", Index: 8}, {Address: "+x@ryan.example", Index: 9}, {Address: "annie+@ryan.example", Index: 10},
	}
	got, r := edits(t, "", to...)
	if want := "-4 +meg@ryan.example[NEVER]rfc822;meg+lists@ryan.example -7 +sam-baldwin@reed.example[]rfc822;list@hanks.example"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if l := r.GetTags()["subaddress"].GetList().GetValues(); fmt.Sprint(l) != "[lists x]" {
		t.Errorf("tags %v", l)
	}
	if got, _ := edits(t, `separators = "-+"`+"\n"+`domains = ["Reed.example"]`, to...); got != "-7 +sam@reed.example[]rfc822;list@hanks.example" {
		t.Error(got)
	}
	if got, r := edits(t, `strip = false`, to...); got != "" || len(r.GetTags()["subaddress"].GetList().GetValues()) != 2 {
		t.Error(got)
	}
	if got, _ := edits(t, "strip = false\nheader = \"X-Original-To\"", to[0]); got != "X-Original-To: meg+lists@ryan.example" {
		t.Error(got)
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`separators = ""`: "separators", `separators = "@"`: "separators", `domains = ["a@b"]`: "domains[0]", `header = "a b"`: "header",
	} {
		if diags := sdktest.Diagnostics(t, subaddress.Plugin(), config); len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q", config, diags)
		}
	}
}
