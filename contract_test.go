package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

const contractPage = "docs/contract.md"

// TestContractExamples: every frame that the page shows is one, and goes the way
// that its first line says.
func TestContractExamples(t *testing.T) {
	n := 0
	for _, s := range snippets(t) {
		if s.page != contractPage || s.language != "textproto" {
			continue
		}
		n++
		t.Run(fmt.Sprintf("%s:%d", s.page, s.line), func(t *testing.T) {
			var f v1.Frame
			if err := prototext.Unmarshal([]byte(s.text), &f); err != nil {
				t.Fatal(err)
			}
			way, _, _ := strings.Cut(s.text, "\n")
			want := "# Frame, core to plugin"
			switch f.GetBody().(type) {
			case *v1.Frame_Reply, *v1.Frame_Credit:
				want = "# Frame, plugin to core"
			case nil:
				t.Fatal("a frame without a body")
			}
			if way != want {
				t.Errorf("it says %q, want %q", way, want)
			}
		})
	}
	if n < 5 {
		t.Errorf("only %d frames found", n)
	}
}

// TestContractFacts: what a plugin without our SDK copies from the page is what
// the SDK has.
func TestContractFacts(t *testing.T) {
	page, err := os.ReadFile(contractPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, fact := range []string{
		fmt.Sprintf("| `%s` | `%s`.", sdk.MagicCookieKey, sdk.MagicCookieValue),
		fmt.Sprintf("\n1|%d|unix|", sdk.ProtocolVersion),
		fmt.Sprintf("`MessageRef` of up to %d octets", mail.InlineLimit),
		fmt.Sprintf("(0: %d)", stream.DefaultCredits),
		fmt.Sprintf("It begins with %d credits", stream.DefaultCredits),
		fmt.Sprintf("metadata `%s: TOKEN`", stream.TokenKey),
		fmt.Sprintf("Accept messages of %d MiB", stream.MaxMessage>>20),
		"`" + stream.CallersEnv + "`",
		"`" + v1.Plugin_ServiceDesc.ServiceName + "`",
		"`" + v1.Peer_ServiceDesc.ServiceName + "/" + v1.Peer_ServiceDesc.Streams[0].StreamName + "`",
	} {
		if !strings.Contains(string(page), fact) {
			t.Errorf("%s does not say %q", contractPage, fact)
		}
	}
	for _, m := range v1.Plugin_ServiceDesc.Methods {
		if !strings.Contains(string(page), "| `"+m.MethodName+"` |") {
			t.Errorf("%s does not tell the life of %s", contractPage, m.MethodName)
		}
	}
}

// TestContractProblems: the table beside Problem is what an SMTP client is told.
func TestContractProblems(t *testing.T) {
	const file = "sdk/proto/v1/common.proto"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	comment := strings.Join(strings.Fields(string(b)), " ")
	for n, name := range v1.Problem_Kind_name {
		r := fail.Reply(fail.New(v1.Problem_Kind(n), "as a test"))
		word := map[int32]string{4: "temporary", 5: "permanent"}[r.GetCode()/100]
		if row := fmt.Sprintf("%s %d %s %s", name, r.GetCode(), r.GetEnhanced(), word); !strings.Contains(comment, row) {
			t.Errorf("%s does not say %q", file, row)
		}
	}
}
