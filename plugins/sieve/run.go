package sieve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/memory"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// run is one script on one mail for one recipient. It is the script's Host.
type run struct {
	*Filter
	ctx       context.Context
	ev        *filter.Event
	recipient *v1.Recipient
	user      string
	account   scripts.Account
	did       []string
	names     map[string]*v1.Mailbox
}

var _ engine.Host = (*run)(nil)

// compiled is a checked script that includes no other one.
type compiled struct{ script *engine.Script }

// maxCompiled scripts are kept checked.
const maxCompiled = 1000

func (r *run) compile(c *engine.Compiler, name string, text []byte) (*engine.Script, error) {
	sum := sha256.Sum256(text)
	r.mu.Lock()
	have := r.cache[sum]
	r.mu.Unlock()
	if have != nil {
		return have.script, nil
	}
	s, diags := c.Compile(r.ctx, name, text)
	if s == nil {
		return nil, fmt.Errorf("the script %q has mistakes: %w", name, diags[0])
	}
	if !s.Includes() {
		r.mu.Lock()
		if len(r.cache) >= maxCompiled {
			clear(r.cache)
		}
		r.cache[sum] = &compiled{s}
		r.mu.Unlock()
	}
	return s, nil
}

// script runs it and puts what it decided into v. With an error v says nothing of
// this recipient: the mail is kept as if there were no script.
func (r *run) script(name string, text []byte, v *filter.Verdict) error {
	c := engine.New(r.engineConfig(), r)
	s, err := r.compile(c, name, text)
	if err != nil {
		return err
	}
	src, err := r.ev.Message.Open()
	if err != nil {
		return &unavailable{err}
	}
	defer src.Close()
	msg, err := engine.ReadMessage(src, r.ev.Message.Size())
	if err != nil {
		return &unavailable{err}
	}
	in := r.input(msg)
	result, err := c.Run(r.ctx, s, in)
	if err != nil {
		return err
	}
	for _, w := range result.Warnings {
		r.report(r.ctx, r.account, w.Error())
	}
	out, err := c.Outgoing(r.ctx, in, result)
	if err != nil {
		return err
	}
	return r.answer(result, out, v)
}

func (r *run) input(msg *engine.Message) *engine.Input {
	e := r.ev.Envelope
	original := r.recipient.GetOriginalRecipient()
	if _, addr, ok := strings.Cut(original, ";"); ok {
		original = addr
	}
	in := &engine.Input{
		Message: msg, Now: r.now(),
		Envelope: engine.Envelope{
			From: e.GetSender(), To: r.recipient.GetAddress(), Original: original, Auth: e.GetClient().GetUser(), Account: r.user,
		},
		Environment: map[string]string{},
	}
	if strings.Contains(r.user, "@") {
		in.Envelope.Address = r.user
	}
	if ip := e.GetClient().GetIp(); ip != "" {
		in.Environment["remote-ip"] = ip
		in.Environment["remote-host"] = e.GetClient().GetRdns()
	}
	return in
}

// delivery names this mail for this recipient: the same at every attempt.
func (r *run) delivery() string {
	return fmt.Sprintf("%s/%d", r.ev.Envelope.GetQueueId(), r.recipient.GetIndex())
}

// answer makes a verdict of a result. What must be remembered is so before.
func (r *run) answer(result *engine.Result, out []*engine.Outgoing, v *filter.Verdict) error {
	var copies []filter.Copy
	var refusal *engine.Action
	plain := true
	for _, a := range result.Actions {
		switch a.Kind {
		case engine.Keep, engine.FileInto:
			c, err := r.copy(a)
			if err != nil {
				return err
			}
			plain = plain && a.Kind == engine.Keep && len(c.Flags) == 0 && c.Message == nil
			copies = append(copies, c)
		case engine.Ereject:
			refusal = a
		}
	}
	var mails []*mail.Message
	for _, o := range out {
		m, err := r.message(o.Size(), o)
		if err != nil {
			return &unavailable{err}
		}
		mails = append(mails, m)
	}
	if err := r.remember(result.Remember); err != nil {
		return &unavailable{err}
	}
	// Nothing fails from here on: the verdict has all of it or nothing.
	for i, o := range out {
		v.Inject(o.From, o.To, mails[i])
		r.sent(o)
	}
	index := r.recipient.GetIndex()
	switch {
	case refusal != nil:
		r.meters.refused.Add(1)
		r.did = append(r.did, "refused")
		v.For(index, filter.Reject(550, "5.7.1", oneLine(refusal.Reason)))
	case len(copies) == 0:
		if len(out) == 0 {
			r.meters.discarded.Add(1)
			r.did = append(r.did, "discarded")
		}
		v.For(index, filter.Discard())
	case plain && len(copies) == 1:
		// The deliver block says where.
		r.meters.stored.Add(1)
	default:
		for _, c := range copies {
			r.meters.stored.Add(1)
			box := c.Mailbox
			if box == "" {
				box = "INBOX"
			}
			r.did = append(r.did, "into "+box)
		}
		v.Place(index, copies...)
	}
	return nil
}

func (r *run) sent(o *engine.Outgoing) {
	switch o.Action.Kind {
	case engine.Redirect:
		r.meters.redirected.Add(1)
	case engine.Reject:
		r.meters.refused.Add(1)
	case engine.Vacation:
		r.meters.replied.Add(1)
	case engine.Notify:
		r.meters.notified.Add(1)
	}
	r.did = append(r.did, o.Action.Kind.String()+" to "+strings.Join(o.To, ", "))
}

func (r *run) note() string { return strings.Join(r.did, ", ") }

// oneLine is a reason as SMTP can say it.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
	if s == "" {
		s = "The recipient does not want this mail"
	}
	return s[:min(len(s), 400)]
}

// copy of the mail for a mailbox that can have it.
func (r *run) copy(a *engine.Action) (filter.Copy, error) {
	c := filter.Copy{Flags: a.Flags}
	if a.Kind == engine.FileInto {
		c.Mailbox = a.Mailbox
		if a.SpecialUse != "" {
			if have, err := r.SpecialUse(r.ctx, a.SpecialUse); err != nil {
				return c, err
			} else if have != "" {
				c.Mailbox = have
			}
		}
		if strings.EqualFold(c.Mailbox, "INBOX") {
			c.Mailbox = ""
		}
		if mistake := mailboxMistake(c.Mailbox); mistake != "" {
			return c, fmt.Errorf("failed to store into mailbox '%s': %s", c.Mailbox, mistake)
		}
	}
	if !a.Message.Edited {
		return c, nil
	}
	m, err := r.message(a.Message.Size(), a.Message)
	if err != nil {
		return c, &unavailable{err}
	}
	c.Message = m
	return c, nil
}

// message is octets for the core: inline, or a file that it copies while it takes
// the answer.
func (r *run) message(size int64, w io.WriterTo) (*mail.Message, error) {
	if size <= mail.InlineLimit {
		b := make([]byte, 0, size)
		buf := &appender{b}
		if _, err := w.WriteTo(buf); err != nil {
			return nil, err
		}
		return mail.FromBytes(buf.b), nil
	}
	path, err := r.files.write(w)
	if err != nil {
		return nil, err
	}
	return mail.FromFile(path, size), nil
}

type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func (r *run) remember(list []engine.Memory) error {
	if r.ev.Envelope.GetQueueId() == "" {
		return nil // nobody's mail: somebody only asks what would happen
	}
	var keys []memory.Key
	for _, m := range list {
		keys = append(keys, memory.Key{Name: m.Key, For: m.Keep})
	}
	return r.memory.Remember(r.user, r.delivery(), keys)
}

// Script implements engine.Host.
func (r *run) Script(_ context.Context, global bool, name string) ([]byte, error) {
	if global {
		return r.scripts.Global(name)
	}
	text, err := r.account.Get(r.ctx, name)
	if errors.Is(err, scripts.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, &unavailable{err}
	}
	return text, nil
}

// Seen implements engine.Host.
func (r *run) Seen(_ context.Context, key string) (bool, error) {
	return r.memory.Seen(r.user, key, r.delivery()), nil
}

// mailboxes of the user, asked for once in a run.
func (r *run) mailboxes() (map[string]*v1.Mailbox, error) {
	if r.names != nil {
		return r.names, nil
	}
	account, err := r.boxes.Open(r.ctx, r.user)
	if err != nil {
		return nil, &unavailable{err}
	}
	resp, err := account.List(r.ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return nil, &unavailable{err}
	}
	r.names = map[string]*v1.Mailbox{}
	for _, m := range resp.GetMailboxes() {
		if !m.GetContainer() {
			r.names[m.GetName()] = m
		}
	}
	return r.names, nil
}

// Mailbox implements engine.Host.
func (r *run) Mailbox(_ context.Context, name string) (bool, error) {
	if r.boxes == nil {
		return mailboxMistake(name) == "", nil
	}
	list, err := r.mailboxes()
	if strings.EqualFold(name, "INBOX") {
		name = "INBOX"
	}
	return list[name] != nil, err
}

// SpecialUse implements engine.Host.
func (r *run) SpecialUse(_ context.Context, use string) (string, error) {
	if r.boxes == nil {
		return "", nil
	}
	list, err := r.mailboxes()
	role := strings.ToLower(strings.TrimPrefix(use, `\`))
	for name, m := range list {
		if m.GetRole() == role {
			return name, err
		}
	}
	return "", err
}

// kept files are as many as answers can be under way, and some.
const keptFiles = 256

// write a file that stays until some hundred further ones were written, or the
// plugin starts anew: by then the core has long taken the answer.
func (t *tempFiles) write(w io.WriterTo) (string, error) {
	t.mu.Lock()
	t.n++
	n := t.n
	t.mu.Unlock()
	path := filepath.Join(t.dir, fmt.Sprintf("mail-%d", n))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = w.WriteTo(f)
	if e := f.Close(); err == nil {
		err = e
	}
	if n > keptFiles {
		_ = os.Remove(filepath.Join(t.dir, fmt.Sprintf("mail-%d", n-keptFiles))) // swept at the next start else
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return path, err
}

// sweep removes the files of an earlier process.
func (t *tempFiles) sweep() error {
	old, err := filepath.Glob(filepath.Join(t.dir, "mail-*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
