// Package pipe delivers a message into a program's standard input, once per
// recipient, and reads the outcome from its exit status (sysexits.h), as the
// local delivery agents of the field do. It is no shell: arguments are passed as
// they are written.
package pipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a deliver "pipe" block.
type Config struct {
	Command  []string      `hcl:"command" doc:"The program and its arguments. {sender}, {recipient}, {account}, {detail} and {queue_id} stand for the mail's; no shell is involved." example:"[\"/usr/bin/procmail\", \"-a\", \"{detail}\"]"`
	MaxTime  time.Duration `hcl:"max_time,optional" semantic:"duration" doc:"How long one run may take; then its process group is killed and the mail tried again."`
	MaxSays  schema.Size   `hcl:"max_output,optional" semantic:"size" doc:"How much of what the program prints is kept for the reply."`
	Headless bool          `hcl:"without_return_path,optional" doc:"Do not put Return-Path and Delivered-To in front of the message."`
}

// Validate points at what cannot work.
func (c *Config) Validate() error {
	if len(c.Command) == 0 || !strings.HasPrefix(c.Command[0], "/") {
		return schema.Errorf(schema.Path("command"), "the first word must be the program's absolute path")
	}
	return nil
}

// Deliverer is one instance.
type Deliverer struct{ Config }

var _ deliver.Deliverer = (*Deliverer)(nil)

// Deliver runs the program for each recipient, one after the other.
func (d *Deliverer) Deliver(ctx context.Context, req *v1.DeliverCall) (*v1.DeliverReply, error) {
	out := &v1.DeliverReply{}
	for _, r := range req.GetEnvelope().GetRecipients() {
		out.Outcomes = append(out.Outcomes, &v1.DeliverOutcome{Recipient: r.GetIndex(), Reply: d.run(ctx, req, r)})
	}
	return out, nil
}

func (d *Deliverer) run(ctx context.Context, req *v1.DeliverCall, r *v1.Recipient) *v1.SMTPReply {
	body, err := mail.FromRef(req.GetMessage()).Open()
	if err != nil {
		return later(err.Error())
	}
	defer body.Close()
	ctx, cancel := context.WithTimeout(ctx, d.MaxTime)
	defer cancel()
	words := replacer(req.GetEnvelope(), r)
	args := make([]string, 0, len(d.Command)-1)
	for _, a := range d.Command[1:] {
		args = append(args, words.Replace(a))
	}
	said := &capped{max: int(d.MaxSays)}
	cmd := exec.CommandContext(ctx, d.Command[0], args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "SENDER=" + req.GetEnvelope().GetSender(), "RECIPIENT=" + r.GetAddress(),
		"ORIGINAL_RECIPIENT=" + r.GetOriginalRecipient(), "EXTENSION=" + r.GetDetail(), "QUEUE_ID=" + req.GetEnvelope().GetQueueId(),
	}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Stdin = body
	if !d.Headless {
		cmd.Stdin = prefixed(req.GetEnvelope().GetSender(), r.GetAddress(), body)
	}
	// What the program starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return outcome(ctx, cmd.Run(), said.text())
}

// sysexits.h: the statuses that mean "for good"; EX_TEMPFAIL and all that is
// unknown mean "try again", as a mail is easier kept than brought back.
var permanent = map[int]string{
	64: "5.3.5", // EX_USAGE
	65: "5.6.0", // EX_DATAERR
	67: "5.1.1", // EX_NOUSER
	68: "5.1.2", // EX_NOHOST
	70: "5.3.0", // EX_SOFTWARE
	76: "5.5.0", // EX_PROTOCOL
	77: "5.7.1", // EX_NOPERM
}

func outcome(ctx context.Context, err error, said string) *v1.SMTPReply {
	if err == nil {
		return &v1.SMTPReply{Code: 250, Enhanced: "2.0.0", Text: either(said, "the program took it")}
	}
	if ctx.Err() != nil {
		return later("the program did not end in time")
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return later(err.Error())
	}
	text := either(said, fmt.Sprintf("the program ended with %s", exit.ProcessState))
	if e, ok := permanent[exit.ExitCode()]; ok {
		return &v1.SMTPReply{Code: 550, Enhanced: e, Text: text}
	}
	return later(text)
}

func later(text string) *v1.SMTPReply {
	return &v1.SMTPReply{Code: 451, Enhanced: "4.3.0", Text: text}
}

func either(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func replacer(e *v1.Envelope, r *v1.Recipient) *strings.Replacer {
	account := either(r.GetAccount(), r.GetAddress())
	return strings.NewReplacer("{sender}", e.GetSender(), "{recipient}", r.GetAddress(),
		"{account}", account, "{detail}", r.GetDetail(), "{queue_id}", e.GetQueueId())
}

// capped keeps the first max octets and swallows the rest.
type capped struct {
	max int
	buf bytes.Buffer
}

func (c *capped) Write(p []byte) (int, error) {
	if room := c.max - c.buf.Len(); room > 0 {
		c.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// text is what was printed on one line; what a reply cannot hold is a "?".
func (c *capped) text() string {
	said := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(c.buf.String(), "?"))
	return strings.Join(strings.Fields(said), " ")
}

// Plugin describes the pipe delivery.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "pipe", Version: "1.0.0", Summary: "deliver into a program's standard input",
		Config: Config{MaxTime: 5 * time.Minute, MaxSays: 512},
		// What the programs do is theirs and the operator's to say.
		Needs: &v1.Needs{Network: true, Programs: true, ReadPaths: []string{"/"}, WritePaths: []string{"/"}},
		Deliver: func(_ context.Context, in *sdk.Instance) (deliver.Deliverer, error) {
			return &Deliverer{Config: *in.Config.(*Config)}, nil
		},
	}
}
