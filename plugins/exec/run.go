package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// pipeGrace is how long a run is over at most after its program is: something
// that it started may hold its output open.
const pipeGrace = time.Second

// stderrKept is how much of the end of what a program says is kept.
const stderrKept = 4 << 10

// longestVariable is less than what Linux takes in one string (MAX_ARG_STRLEN,
// 128 KiB).
const longestVariable = 100 << 10

// ended is a run that came to its end by itself.
type ended struct {
	status  int
	printed []byte
	said    string
}

// run runs the program. An error is none of its verdicts: it was not started, was
// killed, or did not keep to its bounds.
func (f *Filter) run(ctx context.Context, ev *filter.Event) (*ended, error) {
	message, err := ev.Message.Open()
	if err != nil {
		return nil, err
	}
	defer message.Close()
	ctx, cancel := context.WithTimeout(ctx, f.MaxTime)
	defer cancel()

	words := strings.NewReplacer(
		"{sender}", ev.Envelope.GetSender(), "{client}", ev.Envelope.GetClient().GetIp(), "{hello}", ev.Envelope.GetClient().GetHello(),
		"{user}", ev.Envelope.GetClient().GetUser(), "{queue_id}", ev.Envelope.GetQueueId())
	args := make([]string, 0, len(f.Command)-1)
	for _, a := range f.Command[1:] {
		args = append(args, words.Replace(a))
	}
	cmd := osexec.CommandContext(ctx, f.Command[0], args...)
	cmd.Env = f.environment(ev)
	cmd.Stdin = message
	said, printed := &tail{max: stderrKept}, &bounded{max: f.room(), cancel: cancel}
	cmd.Stderr = said
	if f.Mode != judge {
		cmd.Stdout = printed
	}
	// What the program starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeGrace

	err = cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	var exit *osexec.ExitError
	switch {
	case printed.over:
		return nil, fmt.Errorf("the program printed more than %d octets", printed.max)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the program did not end in time (max_time is %s): %w", f.MaxTime, ctx.Err())
	case errors.Is(err, osexec.ErrWaitDelay):
		// It left something behind that held its output: its status counts.
	case err != nil && !errors.As(err, &exit):
		return nil, fmt.Errorf("the program cannot be run: %w", err)
	case exit != nil && !exit.Exited():
		return nil, fmt.Errorf("the program ended with %s: %s", exit.ProcessState, lastLine(said.String(), "it said nothing"))
	}
	return &ended{status: cmd.ProcessState.ExitCode(), printed: printed.buf.Bytes(), said: said.String()}, nil
}

func (f *Filter) room() int {
	if f.Mode == headers {
		return maxFields
	}
	return int(f.MaxOutput)
}

// environment has the envelope and what the operator adds, nothing of ours.
func (f *Filter) environment(ev *filter.Event) []string {
	e, c := ev.Envelope, ev.Envelope.GetClient()
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"EVENT=" + ev.Kind.String(), "QUEUE_ID=" + e.GetQueueId(), "TRANSACTION=" + e.GetTransaction(),
		"IDEMPOTENCY_KEY=" + ev.IdempotencyKey, "HOSTNAME=" + f.hostname,
		"SENDER=" + e.GetSender(), "SIZE=" + strconv.FormatInt(ev.Message.Size(), 10),
		"CLIENT_IP=" + c.GetIp(), "CLIENT_NAME=" + c.GetRdns(), "CLIENT_HELLO=" + c.GetHello(), "CLIENT_USER=" + c.GetUser(),
		"CLIENT_PROTOCOL=" + c.GetProtocol(), "CLIENT_TLS=" + c.GetTlsVersion(), "LISTENER=" + c.GetListener(),
		"RECIPIENT_COUNT=" + strconv.Itoa(len(e.GetRecipients())), "RECIPIENTS=" + recipients(e),
	}
	for name, tag := range e.GetTags() {
		if text := tagText(tag); variable.MatchString(name) && len(text) <= longestVariable {
			env = append(env, "TAG_"+name+"="+text)
		}
	}
	for name, value := range f.Env {
		env = append(env, name+"="+value)
	}
	for i, v := range env {
		env[i] = strings.ReplaceAll(v, "\x00", "")
	}
	return env
}

// recipients are their addresses, one a line, as many as a variable takes.
func recipients(e *v1.Envelope) string {
	var b strings.Builder
	for i, r := range e.GetRecipients() {
		if b.Len()+len(r.GetAddress()) > longestVariable {
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(r.GetAddress())
	}
	return b.String()
}

func tagText(t *v1.Tag) string {
	switch t := t.GetValue().(type) {
	case *v1.Tag_Text:
		return t.Text
	case *v1.Tag_Number:
		return strconv.FormatFloat(t.Number, 'g', -1, 64)
	case *v1.Tag_Flag:
		return strconv.FormatBool(t.Flag)
	case *v1.Tag_List:
		return strings.Join(t.List.GetValues(), "\n")
	}
	return ""
}

// bounded keeps up to max octets; at the next one it ends the run.
type bounded struct {
	buf    bytes.Buffer // not embedded: io.Copy would use its ReadFrom, past the bound
	max    int
	over   bool
	cancel func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > b.max {
		b.over = true
		b.cancel()
		return 0, io.ErrShortWrite
	}
	return b.buf.Write(p)
}

// tail keeps the last max octets and swallows what is before them.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p[max(0, len(p)-t.max):]...)
	if n := len(t.buf); n > t.max {
		t.buf = append(t.buf[:0], t.buf[n-t.max:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.buf) }
