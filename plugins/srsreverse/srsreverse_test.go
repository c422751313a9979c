package srsreverse_test

import (
	"strings"
	"testing"

	rewrite "github.com/stagecoach-mta/stagecoach/plugins/mailauth/srs"
	"github.com/stagecoach-mta/stagecoach/plugins/srsreverse"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestResolve(t *testing.T) {
	in := sdktest.Start(t, srsreverse.Plugin(), `domain = "ryan.example"
secrets = ["another secret of length", "sleepless in seattle\n"]`)
	made, err := (&rewrite.Rewriter{Domain: "ryan.example", Secrets: []string{"sleepless in seattle"}}).Forward("tom@hanks.example")
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]*v1.ResolveResponse{
		made:               {Result: v1.ResolveResponse_ALIAS, Targets: []string{"tom@hanks.example"}},
		"x" + made:         {Result: v1.ResolveResponse_NOT_MINE},
		"meg@ryan.example": {Result: v1.ResolveResponse_NOT_MINE},
		strings.Replace(made, "=tom@", "=joe@", 1): {Result: v1.ResolveResponse_NO_SUCH_USER},
	} {
		r, err := in.Caller.Call(sdktest.Context(t), &v1.Call{Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{
			Op: &v1.DirectoryCall_Resolve{Resolve: &v1.ResolveRequest{Address: address}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.GetDirectory().GetResolve(); got.GetResult() != want.Result || strings.Join(got.GetTargets(), " ") != strings.Join(want.Targets, " ") {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	diags := sdktest.Diagnostics(t, srsreverse.Plugin(), `domain = "ryan.example"
secrets = ["sleepless in seattle"]
max_age = "1h"`)
	if len(diags) != 1 || !strings.HasPrefix(diags[0], "max_age: an address lives from a day to 512 days") {
		t.Errorf("%q", diags)
	}
}
