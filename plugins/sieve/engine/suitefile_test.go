package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// suiteFile is a run of one .svtest file: a script whose extra commands set up a
// message, compile and run other scripts, and look at what came of it.
type suiteFile struct {
	t    *testing.T
	path string
	m    *machine
	c    *Compiler
	// options as test_config_set left them.
	options map[string]string

	script *Script
	// errors of the last test_script_compile, test_script_run or result.
	errors []string
	boxes  map[string][]suiteMail
	smtp   []suiteMail
	seen   map[string]bool

	passed, failed int
	// doomed: the file is there to fail, and to do no other harm; faults it had.
	doomed bool
	faults int
}

// suiteMail is stored or sent.
type suiteMail struct {
	data     []byte
	flags    []string
	from, to string
}

var _ Host = (*suiteFile)(nil)

func newSuiteFile(t *testing.T, path string) *suiteFile {
	f := &suiteFile{t: t, path: path, options: map[string]string{}, boxes: map[string][]suiteMail{"INBOX": nil}, seen: map[string]bool{}}
	f.c = New(f.config(), f)
	f.c.extra = f.commands()
	return f
}

// fault is a test's failure.
func (f *suiteFile) fault(format string, args ...any) {
	if f.faults++; !f.doomed {
		f.t.Errorf(format, args...)
	}
}

func (f *suiteFile) config() Config {
	c := DefaultConfig()
	c.Name, c.Hostname, c.MaxVariable = "Pigeonhole Sieve", "mx.ryan.example", 4000
	number := func(name string, to *int) {
		if s, ok := f.options[name]; ok {
			*to, _ = strconv.Atoi(s)
		}
	}
	number("sieve_variables_max_variable_size", &c.MaxVariable)
	number("sieve_variables_max_value_size", &c.MaxVariable)
	number("sieve_include_max_includes", &c.MaxIncludes)
	number("sieve_include_max_nesting_depth", &c.MaxIncludeDepth)
	number("sieve_notify_max_notifications", &c.MaxNotifies)
	number("sieve_editheader_max_header_size", &c.MaxHeader)
	if s, ok := f.options["sieve_max_cpu_time"]; ok {
		d, _ := time.ParseDuration(s)
		c.MaxSteps = int64(d/time.Second) * 10_000_000 // what DefaultConfig reckons a second has
	}
	if s, ok := f.options["recipient_delimiter"]; ok {
		c.Delimiter = s
	}
	if s, ok := f.options["sieve_vacation_min_period"]; ok {
		c.VacationMin, _ = time.ParseDuration(s)
	}
	c.VacationSubject = f.options["sieve_vacation_default_subject"]
	c.VacationTemplate = f.options["sieve_vacation_default_subject_template"]
	c.VacationAnyRecipient = f.options["sieve_vacation_check_recipient"] == "no"
	c.VacationFromRecipient = f.options["sieve_vacation_send_from_recipient"] == "yes"
	c.VacationIgnoreEnvelope = f.options["sieve_vacation_to_header_ignore_envelope"] == "yes"
	c.VacationOriginal = f.options["sieve_vacation_use_original_recipient"] == "yes"
	c.RedirectFrom = f.options["sieve_redirect_envelope_from"]
	c.NotifyFrom = f.options["sieve_notify_mailto_envelope_from"]
	for _, name := range strings.Fields(f.options["sieve_editheader_header"]) {
		if f.options["sieve_editheader_header/"+name+"/forbid_add"] == "yes" {
			c.ForbidAdd = append(c.ForbidAdd, strings.ToLower(name))
		}
		if f.options["sieve_editheader_header/"+name+"/forbid_delete"] == "yes" {
			c.ForbidDelete = append(c.ForbidDelete, strings.ToLower(name))
		}
	}
	return c
}

func (f *suiteFile) run(text string) {
	text = strings.ReplaceAll(text, "#UTF8#", "")
	s, diags := f.c.Compile(f.t.Context(), "", []byte(text))
	if s == nil {
		f.fault("%v", diags)
		f.failed++
		return
	}
	f.m = f.c.machine(f.t.Context(), &Input{Message: NewMessage(nil), Now: time.Now()})
	f.setMessage(NewMessage(nil))
	if err := f.m.block(s.block); err != nil && !errors.Is(err, errStop) {
		f.failed++
		f.fault("%v", err)
	}
}

// Host.

func (f *suiteFile) Script(_ context.Context, global bool, name string) ([]byte, error) {
	dir := "included"
	if global {
		dir = "included-global"
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(f.path), dir, name+".sieve"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (f *suiteFile) Mailbox(_ context.Context, name string) (bool, error) {
	_, ok := f.boxes[boxName(name)]
	return ok, nil
}

func (f *suiteFile) SpecialUse(context.Context, string) (string, error) { return "", nil }

func (f *suiteFile) Seen(_ context.Context, key string) (bool, error) { return f.seen[key], nil }

func boxName(s string) string {
	if strings.EqualFold(s, "INBOX") {
		return "INBOX"
	}
	// The suite's mailboxes have names below INBOX in any case.
	if len(s) > 6 && strings.EqualFold(s[:6], "INBOX.") {
		return "INBOX" + s[5:]
	}
	return s
}

// commands of the extension vnd.dovecot.testsuite.
func (f *suiteFile) commands() map[string]*spec {
	str, list, number := param{"value", wantString}, param{"keys", wantList}, param{"number", wantNumber}
	index := &tag{name: "index", param: &number}
	does := func(name string, args []param, run func(n *node) error, tags ...*tag) *spec {
		return &spec{name: name, args: args, tags: tags, run: func(_ *machine, n *node) error { return run(n) }}
	}
	asks := func(name string, args []param, eval func(n *node) (bool, error), tags ...*tag) *spec {
		return &spec{
			name: name, args: args, tags: tags,
			eval: func(_ *machine, n *node) (bool, error) { return eval(n) },
			run: func(_ *machine, n *node) error {
				ok, err := eval(n)
				if err == nil && !ok {
					f.fault("line %d: %s failed", n.pos.Line, name)
					err = errTest
				}
				return err
			},
		}
	}
	matches := func(name string, values func() []string) *spec {
		return &spec{
			name: name, test: true, args: []param{list}, tags: matchTags(index),
			check: func(v *validator, n *node) bool { return checkMatch(v, n, &n.args[0]) },
			eval: func(m *machine, n *node) (bool, error) {
				all := values()
				if i, ok := n.tagNumber("index"); ok {
					if i < 1 || i > uint64(len(all)) {
						return false, nil
					}
					all = all[i-1 : i]
				}
				return m.matchAny(n, all, n.list(m, 0))
			},
		}
	}
	none := func(*node) error { return nil }
	specs := []*spec{
		{name: "vnd.dovecot.testsuite"}, {name: "vnd.dovecot.debug"},
		{name: "test", args: []param{str}, block: true, run: f.test},
		does("test_fail", []param{str}, func(n *node) error {
			f.fault("line %d: %s", n.pos.Line, n.text(f.m, 0))
			return errTest
		}),
		does("test_set", []param{str, str}, f.set),
		asks("test_script_compile", []param{str}, f.compile),
		asks("test_script_run", nil, f.runScript, &tag{name: "append_result"}),
		asks("test_multiscript", []param{list}, f.multiscript),
		matches("test_error", func() []string { return f.errors }),
		matches("test_result_action", f.actions),
		asks("test_result_execute", nil, func(*node) (bool, error) { return f.execute() }),
		does("test_result_reset", nil, func(*node) error { f.reset(); return nil }),
		does("test_result_print", nil, none),
		does("test_mailbox_create", []param{str}, func(n *node) error { f.boxes[boxName(n.text(f.m, 0))] = nil; return nil }),
		asks("test_message", []param{number}, f.message, &tag{name: "smtp", group: "where"}, &tag{name: "folder", group: "where", param: &str}),
		does("test_binary_save", []param{str}, none), does("test_binary_load", []param{str}, none),
		does("test_config_set", []param{str, str}, func(n *node) error {
			f.options[n.text(f.m, 0)] = strings.TrimSpace(n.text(f.m, 1))
			return nil
		}),
		does("test_config_unset", []param{str}, func(n *node) error { delete(f.options, n.text(f.m, 0)); return nil }),
		does("test_config_reload", nil, func(*node) error { f.c.Config = f.config(); return nil }, &tag{name: "extension", param: &str}),
	}
	out := map[string]*spec{}
	for _, s := range specs {
		out[s.name] = s
	}
	return out
}

func (f *suiteFile) test(m *machine, n *node) error {
	var stop error
	good := f.t.Run(n.text(m, 0), func(t *testing.T) {
		outer := f.t
		f.t = t
		defer func() { f.t = outer }()
		f.errors = nil
		switch err := m.block(n.block); {
		case err == nil || errors.Is(err, errTest):
		case errors.Is(err, errStop):
			stop = err
		default:
			f.fault("%v", err)
		}
		m.steps, m.parts = m.c.MaxSteps, nil
	})
	if good {
		f.passed++
	} else {
		f.failed++
	}
	return stop
}

func (f *suiteFile) setMessage(msg *Message) {
	f.m.msg, f.m.original, f.m.in.Message, f.m.parts, f.m.flags = msg, msg, msg, nil, nil
	f.m.in.Envelope = Envelope{From: "sender@example.com", To: "recipient@example.com", Address: f.options["sieve_user_email"]}
	for name, to := range map[string]*string{"from": &f.m.in.Envelope.From, "to": &f.m.in.Envelope.To} {
		if fields := fieldsNamed(msg.Fields, name); len(fields) > 0 {
			if a := parseAddresses(fields[0].value()); len(a) > 0 && a[0].valid {
				*to = a[0].String()
			}
		}
	}
}

func (f *suiteFile) set(n *node) error {
	value := n.text(f.m, 1)
	e := &f.m.in.Envelope
	switch name := n.text(f.m, 0); name {
	case "message":
		f.setMessage(NewMessage([]byte(value)))
	case "envelope.from":
		e.From = value
	case "envelope.to":
		e.To = value
	case "envelope.orig_to":
		e.Original = value
	case "envelope.auth":
		e.Auth = value
	default:
		return fmt.Errorf("there is no %q to set", name)
	}
	return nil
}

func (f *suiteFile) compile(n *node) (bool, error) { return f.compileFile(n.text(f.m, 0)) }

func (f *suiteFile) compileFile(name string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(f.path), name))
	if err != nil {
		return false, err
	}
	s, diags := f.c.Compile(f.m.ctx, "", text)
	f.errors, f.script = nil, s
	for _, d := range diags {
		if !d.Warning {
			f.errors = append(f.errors, d.Message)
		}
	}
	if s == nil {
		// The suite counts its own last line too.
		f.errors = append(f.errors, "validation failed")
	}
	return s != nil, nil
}

func (f *suiteFile) runScript(n *node) (bool, error) {
	return f.runOn(n.has("append_result"), f.m.msg), nil
}

func (f *suiteFile) runOn(appending bool, msg *Message) bool {
	f.errors = nil
	in := *f.m.in
	in.Message, in.Envelope.Address = msg, f.options["sieve_user_email"]
	m := f.c.machine(f.m.ctx, &in)
	if appending {
		m.result = f.m.result
		m.result.ImplicitKeep, m.result.settled = true, false
	}
	r, err := m.run(f.script)
	f.m.result = r
	if err != nil {
		f.errors = append(f.errors, err.Error())
	}
	for _, w := range r.Warnings {
		f.errors = append(f.errors, w.Error())
	}
	return err == nil
}

func (f *suiteFile) multiscript(n *node) (bool, error) {
	f.reset()
	flags := f.m.flags
	for i, name := range n.list(f.m, 0) {
		if ok, err := f.compileFile(name); !ok {
			return false, fmt.Errorf("%s: %v %w", name, f.errors, err)
		}
		in := *f.m.in
		in.Flags = flags
		m := f.c.machine(f.m.ctx, &in)
		m.result = f.m.result
		m.result.ImplicitKeep, m.result.settled = true, false
		m.msg = f.m.msg
		last := i == len(n.list(f.m, 0))-1
		if err := m.block(f.script.block); err != nil && !errors.Is(err, errStop) {
			return false, err
		}
		flags, f.m.msg = m.flags, m.msg
		m.finish()
		// A script whose implicit keep stands hands the message on to the next.
		for _, a := range m.result.Actions {
			if a.Kind == Keep && !last {
				a.Done = true
			}
		}
		m.result.Actions = slices.DeleteFunc(m.result.Actions, func(a *Action) bool { return a.Kind == Keep && a.Done })
	}
	return f.execute()
}

func (f *suiteFile) actions() []string {
	var out []string
	for _, a := range f.m.result.Actions {
		out = append(out, a.Kind.String())
	}
	return out
}

func (f *suiteFile) reset() {
	f.m.result, f.smtp, f.m.flags, f.errors = &Result{ImplicitKeep: true}, nil, nil, nil
}

// execute carries the result out.
func (f *suiteFile) execute() (bool, error) {
	r := f.m.result
	f.errors = nil
	in := *f.m.in
	in.Envelope.Address = f.options["sieve_user_email"]
	if r.final == nil {
		f.m.finish()
	}
	r.settle()
	for _, a := range r.Actions {
		if !a.stores() || a.Done {
			continue
		}
		if mistake := f.store(a); mistake != "" {
			f.errors = append(f.errors, fmt.Sprintf("failed to store into mailbox '%s': %s", a.Mailbox, mistake))
			r.fail(f.m)
			r.settle()
			for _, a := range r.Actions {
				if !a.Done {
					f.store(a)
					a.Done = true
				}
			}
			return false, nil
		}
	}
	sent, err := f.c.Outgoing(f.m.ctx, &in, r)
	if err != nil {
		return false, err
	}
	for _, o := range sent {
		var b bytes.Buffer
		if _, err := o.WriteTo(&b); err != nil {
			return false, err
		}
		if int64(b.Len()) != o.Size() {
			f.t.Errorf("a mail of %d octets is said to have %d", b.Len(), o.Size())
		}
		for _, to := range o.To {
			f.smtp = append(f.smtp, suiteMail{data: b.Bytes(), from: o.From, to: to})
		}
	}
	for _, a := range r.Actions {
		a.Done = true
	}
	return true, nil
}

func (f *suiteFile) store(a *Action) string {
	name := boxName(a.box())
	if strings.Contains(name, "//") {
		return "invalid mailbox name"
	}
	if _, ok := f.boxes[name]; !ok && !a.Create {
		return "the mailbox does not exist"
	}
	var b bytes.Buffer
	if _, err := a.Message.WriteTo(&b); err != nil {
		return err.Error()
	}
	if int64(b.Len()) != a.Message.Size() {
		f.t.Errorf("a message of %d octets is said to have %d", b.Len(), a.Message.Size())
	}
	// As Dovecot's mail store does.
	f.boxes[name] = append(f.boxes[name], suiteMail{data: b.Bytes(), flags: union(a.Flags, []string{"$HasNoAttachment"})})
	return ""
}

// message makes a stored or sent one that at hand.
func (f *suiteFile) message(n *node) (bool, error) {
	at := n.args[0].number
	list := f.smtp
	if n.is("where", "folder") {
		list = f.boxes[boxName(n.tags["where"].value.strs[0].eval(f.m))]
	}
	if at >= uint64(len(list)) {
		return false, nil
	}
	mail := list[at]
	e := f.m.in.Envelope
	msg := NewMessage(mail.data)
	f.setMessage(msg)
	f.m.in.Envelope = e
	f.m.flags = mail.flags
	if n.is("where", "smtp") {
		f.m.in.Envelope.From, f.m.in.Envelope.To = mail.from, mail.to
	}
	return true, nil
}
