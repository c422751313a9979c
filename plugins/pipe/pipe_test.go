package pipe

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func deliverTo(t *testing.T, c Config, recipients ...string) []*v1.DeliverOutcome {
	t.Helper()
	if c.MaxTime == 0 {
		c.MaxTime = time.Minute
	}
	if c.MaxSays == 0 {
		c.MaxSays = 512
	}
	env := &v1.Envelope{QueueId: "q1", Sender: "tom@hanks.example"}
	for i, r := range recipients {
		env.Recipients = append(env.Recipients, &v1.Recipient{Index: int32(i), Address: r, Detail: "lists"})
	}
	got, err := (&Deliverer{c}).Deliver(context.Background(), &v1.DeliverCall{
		Envelope: env, Message: mail.FromBytes([]byte("Subject: hi\r\n\r\nHello; $(touch evil)\r\n")).Ref(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetOutcomes()
}

func TestTheProgramGetsMailAndEnvelope(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	o := deliverTo(t, Config{Command: []string{"/bin/sh", "-c", `{ echo "$SENDER $RECIPIENT $QUEUE_ID $1"; cat; } >> ` + out, "sh", "{detail}/{sender}"}},
		"meg@ryan.example", "joe@ryan.example")
	for _, x := range o {
		if x.GetReply().GetCode() != 250 {
			t.Fatalf("outcome %v", x)
		}
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"tom@hanks.example meg@ryan.example q1 lists/tom@hanks.example\n",
		"Return-Path: <tom@hanks.example>\r\nDelivered-To: meg@ryan.example\r\nSubject: hi\r\n\r\nHello; $(touch evil)\r\n",
		"Delivered-To: joe@ryan.example\r\n",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is missing in\n%s", want, b)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for status, want := range map[string]int32{"0": 250, "67": 550, "65": 550, "75": 451, "1": 451} {
		o := deliverTo(t, Config{Command: []string{"/bin/sh", "-c", "echo no such person; exit " + status}}, "meg@ryan.example")
		if r := o[0].GetReply(); r.GetCode() != want || r.GetText() != "no such person" {
			t.Errorf("exit %s: %v, want %d and the program's words", status, r, want)
		}
	}
}

// What a program prints may be anything, and an answer that cannot be sent would
// end the session with all its deliveries.
func TestWhatIsPrintedFitsAReply(t *testing.T) {
	o := deliverTo(t, Config{MaxSays: 512, Command: []string{"/bin/sh", "-c", `printf 'gr\374\337e \000 and\033 \r\n more'`}}, "meg@ryan.example")
	if got, want := o[0].GetReply().GetText(), "gr?e ? and? more"; got != want {
		t.Errorf("the reply's text is %q, want %q", got, want)
	}
}

func TestALateProgramIsKilledWithItsChildren(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "pid")
	o := deliverTo(t, Config{MaxTime: 300 * time.Millisecond, Command: []string{"/bin/sh", "-c", "sleep 60 & echo $! > " + marker + "; wait"}}, "meg@ryan.example")
	if o[0].GetReply().GetCode() != 451 {
		t.Fatalf("outcome %v, want 451", o[0])
	}
	b, err := os.ReadFile(marker)
	if err != nil {
		t.Fatal(err)
	}
	stat := filepath.Join("/proc", strings.TrimSpace(string(b)), "stat")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(s), ") Z ") {
			return // gone, or a zombie that its new parent has not collected yet
		}
		if time.Now().After(end) {
			t.Fatalf("the child lives on: %s", s)
		}
	}
}

func TestMissingProgramIsTriedAgain(t *testing.T) {
	o := deliverTo(t, Config{Command: []string{"/nonexistent/program"}}, "meg@ryan.example")
	if o[0].GetReply().GetCode() != 451 {
		t.Fatalf("outcome %v", o[0])
	}
	if err := (&Config{Command: []string{"cat"}}).Validate(); err == nil {
		t.Error("a relative program was accepted")
	}
}
