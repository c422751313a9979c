package sieve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
)

// Offline checks and tries scripts without a server, for the command line. It is
// the Host of its runs: every mailbox is there, and nothing was seen before.
type Offline struct {
	Scripts scripts.Store // nil: there is nothing to include
	Account string
}

var _ engine.Host = Offline{}

// Script implements engine.Host.
func (o Offline) Script(ctx context.Context, global bool, name string) ([]byte, error) {
	switch {
	case o.Scripts == nil:
		return nil, nil
	case global:
		return o.Scripts.Global(name)
	case o.Account == "":
		return nil, nil
	}
	text, err := o.Scripts.Account(o.Account).Get(ctx, name)
	if errors.Is(err, scripts.ErrNotFound) {
		return nil, nil
	}
	return text, err
}

// Mailbox implements engine.Host.
func (Offline) Mailbox(context.Context, string) (bool, error) { return true, nil }

// SpecialUse implements engine.Host.
func (Offline) SpecialUse(context.Context, string) (string, error) { return "", nil }

// Seen implements engine.Host.
func (Offline) Seen(context.Context, string) (bool, error) { return false, nil }

// Check tells what is wrong with a script.
func (o Offline) Check(ctx context.Context, text []byte) []script.Diagnostic {
	_, diags := engine.New(engine.DefaultConfig(), o).Compile(ctx, "", text)
	return diags
}

// Try runs a script on a message and tells what it would do, a line for each.
func (o Offline) Try(ctx context.Context, text, message []byte, from, to string) ([]string, error) {
	c := engine.New(engine.DefaultConfig(), o)
	s, diags := c.Compile(ctx, "", text)
	if s == nil {
		return nil, diags[0]
	}
	in := &engine.Input{Message: engine.NewMessage(message), Now: time.Now(), Envelope: engine.Envelope{From: from, To: to, Account: o.Account}}
	if strings.Contains(o.Account, "@") {
		in.Envelope.Address = o.Account
	}
	result, err := c.Run(ctx, s, in)
	var lines []string
	for _, w := range result.Warnings {
		lines = append(lines, "warning: "+w.Error())
	}
	if err != nil {
		return append(lines, "it fails: "+err.Error(), "keep in INBOX, as it came"), nil
	}
	out, err := c.Outgoing(ctx, in, result)
	if err != nil {
		return nil, err
	}
	for _, a := range result.Actions {
		switch a.Kind {
		case engine.Keep:
			lines = append(lines, "keep in INBOX"+how(a))
		case engine.FileInto:
			lines = append(lines, fmt.Sprintf("store into %q", a.Mailbox)+how(a))
		case engine.Ereject:
			lines = append(lines, "refuse: "+oneLine(a.Reason))
		}
	}
	for _, o := range out {
		lines = append(lines, fmt.Sprintf("send a %s from <%s> to <%s>", o.Action.Kind, o.From, strings.Join(o.To, ">, <")))
	}
	if len(lines) == 0 {
		lines = append(lines, "discard")
	}
	return lines, nil
}

func how(a *engine.Action) string {
	s := ""
	if a.SpecialUse != "" {
		s += " or where " + a.SpecialUse + " is"
	}
	if len(a.Flags) > 0 {
		s += " with " + strings.Join(a.Flags, " ")
	}
	if a.Message.Edited {
		s += ", edited"
	}
	return s
}
