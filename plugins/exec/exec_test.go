package exec

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const letter = "From: Tom <tom@hanks.example>\nSubject: Hello\n\nDon't you love New York in the fall? $(touch evil)\n"

// block runs a shell script as the program.
func block(script string, attributes ...string) string {
	return fmt.Sprintf("command = [\"/bin/sh\", \"-c\", %q, \"sh\", \"{sender}\", \"{client}\"]\n%s\n", script, strings.Join(attributes, "\n"))
}

// ask runs the script once, on a letter.
func ask(t *testing.T, config string) (*v1.FilterReply, error) {
	t.Helper()
	return sdktest.Filter(t, Plugin(), config)(sdktest.Message(t, letter))
}

// edits in words.
func edits(r *v1.FilterReply) (out []string) {
	for _, e := range r.GetEdits() {
		switch e := e.GetEdit().(type) {
		case *v1.Edit_InsertHeader_:
			f := e.InsertHeader.GetField()
			out = append(out, fmt.Sprintf("insert %d %s:%s", e.InsertHeader.GetPosition(), f.GetName(), f.GetValue()))
		case *v1.Edit_DeleteHeader_:
			out = append(out, fmt.Sprintf("delete %s %d", e.DeleteHeader.GetName(), e.DeleteHeader.GetIndex()))
		case *v1.Edit_ReplaceBody_:
			ref := e.ReplaceBody.GetBody()
			body := ref.GetInline()
			if ref.GetPath() != "" {
				body, _ = os.ReadFile(ref.GetPath())
			}
			if int64(len(body)) != ref.GetSize() {
				out = append(out, fmt.Sprintf("size %d of %d", ref.GetSize(), len(body)))
			}
			out = append(out, "body "+string(body[:min(40, len(body))]))
		default:
			out = append(out, fmt.Sprintf("%T", e))
		}
	}
	return out
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheProgramGetsMailAndEnvelope(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	call := sdktest.Message(t, letter)
	call.Envelope.QueueId = "q1"
	call.Envelope.Client = &v1.Client{Ip: "192.0.2.1", Hello: "mx.hanks.example", User: "tom"}
	call.Envelope.Recipients = append(call.Envelope.Recipients, &v1.Recipient{Address: "kate@ryan.example", Index: 1})
	call.Envelope.Tags = map[string]*v1.Tag{
		"score": {Value: &v1.Tag_Number{Number: 2.5}}, "no-name": {Value: &v1.Tag_Flag{}},
		"kinds": {Value: &v1.Tag_List{List: &v1.TagList{Values: []string{"a", "b"}}}},
	}
	call.IdempotencyKey = "key"
	reply, err := sdktest.Filter(t, Plugin(), block(`{ echo "$1 $2"; env; cat; } > `+out, `env = { "RULES" = "/etc/rules", "HOSTNAME" = "mine" }`))(call)
	if err != nil || reply.GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		t.Fatalf("%v %v", reply, err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"tom@hanks.example 192.0.2.1\n", "\nSENDER=tom@hanks.example\n", "\nEVENT=MESSAGE\n", "\nQUEUE_ID=q1\n", "\nIDEMPOTENCY_KEY=key\n",
		"\nCLIENT_IP=192.0.2.1\n", "\nCLIENT_HELLO=mx.hanks.example\n", "\nCLIENT_USER=tom\n",
		"\nRECIPIENTS=meg@ryan.example\nkate@ryan.example\n", "\nRECIPIENT_COUNT=2\n",
		"\nTAG_score=2.5\n", "\nTAG_kinds=a\nb\n", "\nRULES=/etc/rules\n", "\nHOSTNAME=mine\n",
		"\nSIZE=" + strconv.Itoa(len(strings.ReplaceAll(letter, "\n", "\r\n"))) + "\n", strings.ReplaceAll(letter, "\n", "\r\n"),
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is missing in\n%s", want, b)
		}
	}
	for _, secret := range []string{"STAGECOACH_PLUGIN", "HOME=", "TAG_no"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("the program sees %s:\n%s", secret, b)
		}
	}
	if _, err := os.Stat("evil"); err == nil {
		t.Error("a shell ran what stands in the mail")
	}
}

// A large message is a file, and a program need not read it.
func TestLargeMessage(t *testing.T) {
	large := sdktest.Message(t, letter+strings.Repeat("A line of a longer story.\n", 200_000))
	for script, want := range map[string]v1.Verdict_Action{
		fmt.Sprintf(`[ "$(wc -c)" = %d ]`, large.GetMessage().GetSize()): v1.Verdict_ACCEPT,
		`head -c 1 > /dev/null; exit 77`:                                 v1.Verdict_REJECT,
		`exit 77`:                                                        v1.Verdict_REJECT,
	} {
		reply, err := sdktest.Filter(t, Plugin(), block(script))(large)
		if err != nil || reply.GetVerdict().GetAction() != want {
			t.Errorf("%s: %v %v", script, reply.GetVerdict(), err)
		}
	}
}

func TestExitStatus(t *testing.T) {
	const custom = `exit = { "1" = "reject 552 5.3.4", "2" = "defer", "3" = "hold", "4" = "discard", "5" = "accept", "77" = "fail" }`
	for _, c := range []struct {
		script string
		action v1.Verdict_Action
		reply  string
		failed string
	}{
		{script: "exit 0"},
		{script: "echo seen >&2; exit 5"},
		{script: "exit 65", action: v1.Verdict_REJECT, reply: "550 5.6.0 The message was refused"},
		{script: "echo first >&2; printf 'We\\001 do not like it\\n\\n' >&2; exit 67", action: v1.Verdict_REJECT, reply: "550 5.1.1 We  do not like it"},
		{script: "exit 75", action: v1.Verdict_DEFER, reply: "451 4.7.1 Try again later"},
		{script: "echo too large >&2; exit 1", action: v1.Verdict_REJECT, reply: "552 5.3.4 too large"},
		{script: "exit 2", action: v1.Verdict_DEFER, reply: "451 4.7.1 Try again later"},
		{script: "echo look >&2; exit 3", action: v1.Verdict_HOLD, reply: "0  "},
		{script: "exit 4", action: v1.Verdict_DISCARD, reply: "0  "},
		{script: "exit 77", failed: "status 77, which is no verdict: it said nothing"},
		{script: "echo no such option >&2; exit 64", failed: "status 64, which is no verdict: no such option"},
		{script: "/no/such/program", failed: "status 127, which is no verdict"},
		{script: "kill -9 $$", failed: "signal: killed"},
	} {
		reply, err := ask(t, block(c.script, custom))
		if c.failed != "" {
			if err == nil || !strings.Contains(err.Error(), c.failed) {
				t.Errorf("%s: %v, want %s", c.script, err, c.failed)
			}
			continue
		}
		v := reply.GetVerdict()
		said := strings.TrimPrefix(fmt.Sprintf("%d %s %s", v.GetReply().GetCode(), v.GetReply().GetEnhanced(), v.GetReply().GetText()), "0  ")
		if err != nil || v.GetAction() != c.action || said != strings.TrimPrefix(c.reply, "0  ") {
			t.Errorf("%s: %s %q %v, want %s %q", c.script, v.GetAction(), said, err, c.action, c.reply)
		}
	}
	reply, err := ask(t, block("echo look >&2; exit 3", custom))
	if err != nil || reply.GetVerdict().GetReason() != "look" {
		t.Errorf("held because of %q, %v", reply.GetVerdict().GetReason(), err)
	}
	reply, err = ask(t, block("echo seen >&2; exit 5", custom))
	if err != nil || reply.GetNote() != "seen" {
		t.Errorf("noted %q, %v", reply.GetNote(), err)
	}
}

func TestHeaders(t *testing.T) {
	reply, err := ask(t, block(`printf 'X-Spam: no\nX-Report: one\n two\r\n\nignored: yes\n'`, `mode = "headers"`))
	if err != nil {
		t.Fatal(err)
	}
	// The last is put in first: they stand in the order in which they were printed.
	same(t, edits(reply), "insert 0 X-Report: one\r\n two", "insert 0 X-Spam: no")
	for script, want := range map[string]string{
		"echo no field":           `the line "no field" is not NAME: VALUE`,
		"printf ' blank: x\\n'":   `the line " blank: x" is not NAME: VALUE`,
		"printf 'A: b\\rc\\n'":    "the field A has a bare CR",
		"head -c 70000 /dev/zero": "printed more than 65536 octets",
	} {
		if _, err := ask(t, block(script, `mode = "headers"`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
	}
	// What a judge prints does not count, however much it is.
	if reply, err = ask(t, block("echo no field; head -c 70000 /dev/zero; exit 77")); err != nil || reply.GetVerdict().GetAction() != v1.Verdict_REJECT {
		t.Errorf("judge: %v %v", reply, err)
	}
}

func TestRewrite(t *testing.T) {
	const mode = `mode = "rewrite"`
	for script, want := range map[string][]string{
		"cat": nil,
		// Unix line ends are no change.
		"tr -d '\\r'":             nil,
		"sed 's/New York/Rome/'":  {"body Don't you love Rome in the fall? $(touch"},
		"sed '1,3s/Hello/Hi/'":    {"delete Subject 1", "insert -1 Subject: Hi"},
		"sed 's/^From.*/X: y/'":   {"delete From 1", "insert 0 X: y"},
		"sed '1iX: y\\nX: z'":     {"insert 0 X: z", "insert 0 X: y"},
		"printf 'A: b\\n\\nc\\n'": {"delete From 1", "delete Subject 1", "insert -1 A: b", "body c\r\n"},
	} {
		reply, err := ask(t, block(script, mode))
		if err != nil {
			t.Errorf("%s: %v", script, err)
			continue
		}
		same(t, edits(reply), want...)
	}
	for script, want := range map[string]string{
		"cat > /dev/null":                   "no empty line after the header",
		"printf '\\nbody\\n'":               "it has no header",
		"printf 'no\\n\\nb\\n'":             `the line "no" is not NAME: VALUE`,
		"cat; echo; head -c 3000 /dev/zero": "printed more than 2048 octets",
	} {
		if _, err := ask(t, block(script, mode, `max_output = "2KB"`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
	}
	// What is malformed and stays as it was is nobody's fault.
	for text, script := range map[string]string{
		"": "cat", "Subject: no end": "sed '1iX: y'", "\nno header\n": "sed '1iX: y'",
		": no name\nX-Nul: \x00\nno field\n\nbody\n": "sed '1iX: y'",
	} {
		reply, err := sdktest.Filter(t, Plugin(), block(script, mode))(sdktest.Message(t, text))
		if want := min(1, len(text)); err != nil || len(reply.GetEdits()) != want {
			t.Errorf("%q, %s: %v %v", text, script, edits(reply), err)
		}
	}
	// Of fields of the same name the one that was changed goes.
	reply, err := sdktest.Filter(t, Plugin(), block("sed 's/: 2/: two/'", mode))(sdktest.Message(t, "R: 1\nr: 2\nR: 3\nS: 4\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, edits(reply), "delete R 1", "delete r 2", "insert 0 r: two", "insert 0 R: 1")
	// A refusal needs no message.
	if reply, err := ask(t, block("exit 77", mode)); err != nil || reply.GetVerdict().GetAction() != v1.Verdict_REJECT {
		t.Errorf("refusal: %v %v", reply, err)
	}
}

// A large body is a file until the plugin ends.
func TestLargeBody(t *testing.T) {
	in := sdktest.Start(t, Plugin(), block(`cat; yes 'A line of a longer story.' | head -n 10000`, `mode = "rewrite"`))
	reply, err := in.Caller.Call(sdktest.Context(t), &v1.Call{Request: &v1.Call_Filter{Filter: sdktest.Message(t, letter)}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, edits(reply.GetFilter()), "body Don't you love New York in the fall? $(t")
	path := reply.GetFilter().GetEdits()[0].GetReplaceBody().GetBody().GetPath()
	if info, err := os.Stat(path); err != nil || info.Size() < 250_000 {
		t.Fatalf("%v %v", info, err)
	}
}

// waitGone waits until nobody has that number any more.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(stat), ") Z ") {
			return // dead; whoever inherited it has not looked yet
		}
		if time.Now().After(end) {
			t.Fatalf("process %d outlives its run", pid)
		}
	}
}

func pidOf(t *testing.T, file string) int {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return pid
		}
		if time.Now().After(end) {
			t.Fatalf("no process number in %s: %q", file, b)
		}
	}
}

// What a program starts ends with it: when its time is over, when the core's is,
// and when it goes and leaves something behind.
func TestWhatItStartedEnds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	child := "sleep 600 & echo $! > " + file + "; "
	t.Run("max_time", func(t *testing.T) {
		begin := time.Now()
		_, err := ask(t, block(child+"wait", `max_time = "300ms"`))
		if err == nil || !strings.Contains(err.Error(), "did not end in time (max_time is 300ms)") {
			t.Errorf("%v", err)
		}
		if d := time.Since(begin); d > 20*time.Second {
			t.Errorf("it took %s", d)
		}
		waitGone(t, pidOf(t, file))
	})
	t.Run("time-out of the core", func(t *testing.T) {
		os.Remove(file)
		in := sdktest.Start(t, Plugin(), block(child+"wait"))
		ctx, cancel := context.WithCancel(sdktest.Context(t))
		done := make(chan error, 1)
		go func() {
			_, err := in.Caller.Call(ctx, &v1.Call{Request: &v1.Call_Filter{Filter: sdktest.Message(t, letter)}})
			done <- err
		}()
		pid := pidOf(t, file)
		cancel()
		if err := <-done; fail.KindOf(err) != fail.Cancelled {
			t.Errorf("%v", err)
		}
		waitGone(t, pid)
	})
	t.Run("left behind", func(t *testing.T) {
		os.Remove(file)
		reply, err := ask(t, block(child+"exit 77"))
		if err != nil || reply.GetVerdict().GetAction() != v1.Verdict_REJECT {
			t.Errorf("%v %v", reply, err)
		}
		waitGone(t, pidOf(t, file))
	})
}

// A program that floods its standard error is read to the end and kept in bounds.
func TestFloodOfWords(t *testing.T) {
	reply, err := ask(t, block(`yes 'a word too many' | head -c 5000000 >&2; echo; echo the last word >&2; exit 77`))
	if err != nil || reply.GetVerdict().GetReply().GetText() != "the last word" {
		t.Errorf("%v %v", reply, err)
	}
	long, err := ask(t, block(`head -c 10000 /dev/zero | tr '\0' 'x' >&2; exit 77`))
	if err != nil || len(long.GetVerdict().GetReply().GetText()) != longestText {
		t.Errorf("%v %v", long, err)
	}
}

// Recipients above what a variable takes are counted, not listed.
func TestManyRecipients(t *testing.T) {
	call := sdktest.Message(t, letter)
	for i := range 5000 {
		call.Envelope.Recipients = append(call.Envelope.Recipients, &v1.Recipient{Address: strings.Repeat("m", 50) + strconv.Itoa(i) + "@ryan.example"})
	}
	reply, err := sdktest.Filter(t, Plugin(), block(`[ "$RECIPIENT_COUNT" = 5001 ] && echo "$RECIPIENTS" | wc -l >&2`))(call)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(reply.GetNote()); err != nil || n < 1000 || n > 5000 {
		t.Errorf("%q recipients listed", reply.GetNote())
	}
}

func TestDiagnostics(t *testing.T) {
	const sh = "command = [\"/bin/sh\"]\n"
	for config, want := range map[string]string{
		`command = ["sh"]`:                        "command: the first word must be the program's absolute path",
		`command = []`:                            "command: the first word must be the program's absolute path",
		sh + `exit = { "one" = "reject" }`:        `exit: "one" is no exit status: write a number from 0 to 255`,
		sh + `exit = { "1" = "refuse" }`:          `exit: status 1: "refuse" is no verdict: write accept, reject, defer, hold, discard, fail`,
		sh + `exit = { "1" = "reject 451" }`:      `exit: status 1: "reject 451": the code of a reject has three digits, of which 5 is the first`,
		sh + `exit = { "1" = "defer 451 5.1.1" }`: `exit: status 1: "defer 451 5.1.1": the enhanced code of a defer looks like 4.7.1`,
		sh + `exit = { "1" = "hold 451" }`:        `exit: status 1: "hold 451": only reject and defer have codes`,
		sh + `env = { "a b" = "c" }`:              `env: "a b" = "c" is no variable: a name has letters, digits and _, and nothing has a NUL`,
		sh + `max_time = "0s"`:                    "max_time: must be more than nothing",
	} {
		if got := sdktest.Diagnostics(t, Plugin(), config); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

func TestInterestAndMetrics(t *testing.T) {
	in := sdktest.Start(t, Plugin(), block("exit $(grep -c lottery)", `max_size = "1MB"`, `exit = { "1" = "reject" }`))
	if in.Interest.GetEffect() != v1.FilterInterest_JUDGE || in.Interest.GetMaxSize() != 1<<20 {
		t.Errorf("interest %v", in.Interest)
	}
	for _, text := range []string{letter, letter + "lottery\n", letter + "lottery\nlottery\n"} {
		_, _ = in.Caller.Call(sdktest.Context(t), &v1.Call{Request: &v1.Call_Filter{Filter: sdktest.Message(t, text)}})
	}
	got := in.Metrics()
	for _, verdict := range []string{"accept", "reject", "fail"} {
		if name := fmt.Sprintf("runs_total{verdict=%q}", verdict); got[name] != 1 {
			t.Errorf("%s is %v of %v", name, got[name], got)
		}
	}
	if got["run_seconds_count"] != 3 {
		t.Errorf("times: %v", got)
	}
	editor := sdktest.Start(t, Plugin(), block("cat", `mode = "rewrite"`))
	if editor.Interest.GetEffect() != v1.FilterInterest_EDIT {
		t.Errorf("interest %v", editor.Interest)
	}
}

// The script of the README does what is said of it.
func TestReadmeScript(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(b), "```sh\n")
	script, _, _ = strings.Cut(script, "```")
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	check := sdktest.Filter(t, Plugin(), fmt.Sprintf("command = [%q]", path))
	large := strings.Repeat("A line of a longer story.\n", 400_000)
	for text, want := range map[string]v1.Verdict_Action{
		"Subject: The Newsletter\n\nhello\n":              v1.Verdict_ACCEPT,
		"Subject: Hello\n\nSubject: newsletter\n" + large: v1.Verdict_ACCEPT,
		"Subject: The Newsletter\n\n" + large:             v1.Verdict_REJECT,
	} {
		reply, err := check(sdktest.Message(t, text))
		if err != nil || reply.GetVerdict().GetAction() != want {
			t.Errorf("%.40q: %v %v", text, reply, err)
		}
	}
}
