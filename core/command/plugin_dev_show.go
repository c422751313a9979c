package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/stagecoach-mta/stagecoach/core/tryout"
)

// devShow prints what happens in `plugin dev`, for people or as a JSON object a
// line. It is the host's log, too: what the plugin writes comes by Write.
type devShow struct {
	w     io.Writer
	json  bool
	paint bool

	mu sync.Mutex
	// gathering: lines of the log wait for the answer that they belong to.
	gathering bool
	kept      []devLine
	wrote     time.Time
	mute      bool
}

// devLine is a line of the plugin's log.
type devLine struct {
	level, message string
	fields         map[string]json.RawMessage
	raw            []byte
}

func newDevShow(w io.Writer, asJSON bool) *devShow {
	return &devShow{w: w, json: asJSON, paint: terminal(w) && !asJSON}
}

// object writes a line for machines.
func (s *devShow) object(event string, fields map[string]any) {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["event"] = event
	e := json.NewEncoder(s.w)
	e.SetEscapeHTML(false)
	_ = e.Encode(fields)
}

func (s *devShow) bold(text string) string {
	if !s.paint {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// row is a word and what belongs to it; further lines stand below.
func (s *devShow) row(word, text string) {
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i > 0 {
			word = ""
		}
		fmt.Fprintf(s.w, "  %-8s%s\n", word, strings.TrimRight(printable(line), " "))
	}
}

// Write takes a line of the host's log.
func (s *devShow) Write(b []byte) (int, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil {
		return len(b), nil
	}
	text := func(name string) (v string) {
		_ = json.Unmarshal(fields[name], &v)
		delete(fields, name)
		return v
	}
	l := devLine{level: text("level"), message: text("message"), fields: fields, raw: bytes.Clone(b)}
	text("plugin")
	if l.message == "plugin is ready" && l.level == "info" {
		return len(b), nil // the core's own word; started says it with the time
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote = time.Now()
	if s.mute {
		return len(b), nil
	}
	if s.gathering {
		s.kept = append(s.kept, l)
		return len(b), nil
	}
	s.line(l)
	return len(b), nil
}

func (s *devShow) line(l devLine) {
	if s.json {
		o := map[string]any{"level": l.level, "message": l.message}
		if len(l.fields) > 0 {
			o["fields"] = l.fields
		}
		s.object("log", o)
		return
	}
	text := l.message
	if l.level != "info" && l.level != "" {
		text = l.level + ": " + text
	}
	below := ""
	for _, name := range slices.Sorted(maps.Keys(l.fields)) {
		value := string(l.fields[name])
		var plain string
		if json.Unmarshal(l.fields[name], &plain) == nil {
			if strings.Contains(plain, "\n") { // a stack, mostly
				below += "\n" + name + ":\n" + plain
				continue
			}
			if !strings.ContainsAny(plain, " \"=") {
				value = plain
			}
		}
		text += " " + name + "=" + value
	}
	s.row("log", text+below)
}

// gather keeps the log's lines until settle.
func (s *devShow) gather() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering = true
}

// A line that the plugin wrote before its answer comes by another way, and a
// moment after it.
const (
	quietAfter = 30 * time.Millisecond
	quietAtAll = 250 * time.Millisecond
)

// settle prints what the log has, once nothing more comes.
func (s *devShow) settle(ctx context.Context) {
	begin := time.Now()
	for ctx.Err() == nil && time.Since(begin) < quietAtAll {
		s.mu.Lock()
		last := s.wrote
		s.mu.Unlock()
		if last.Before(begin) {
			last = begin
		}
		if time.Since(last) >= quietAfter {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
	s.gathering = false
}

func (s *devShow) flush() {
	for _, l := range s.kept {
		s.line(l)
	}
	s.kept = nil
}

// end prints what is left. A debugger does not end with its program, and what the
// host says of that is of no use: mute.
func (s *devShow) end(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
	s.mute = mute
}

func (s *devShow) started(p *tryout.Project, r *tryout.Running, built time.Duration) {
	s.settle(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	d := r.Describe
	kind := kindWord(d.GetKind())
	if s.json {
		o := map[string]any{
			"kind": kind, "name": d.GetName(), "version": d.GetVersion(), "ready_ms": ms(r.Ready), "pid": r.Instance.Info().PID, "config": r.ConfigFile,
		}
		if p.Built() {
			o["build_ms"] = ms(built)
		}
		if len(r.Warnings) > 0 {
			o["warnings"] = r.Warnings
		}
		s.object("started", o)
		return
	}
	fmt.Fprintf(s.w, "%s\n", s.bold(fmt.Sprintf("%s %q %s: %s", kind, d.GetName(), d.GetVersion(), d.GetSummary())))
	if p.Built() {
		s.row("built", "in "+took(ms(built)))
	}
	config := r.ConfigFile
	if config == "" {
		config = "none: all attributes have their defaults"
	}
	s.row("config", config)
	s.row("ready", "in "+took(ms(r.Ready)))
	if len(r.Warnings) > 0 {
		_ = r.Warnings.WriteText(s.w, s.paint)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// exact is a call's time, which is often below a millisecond.
func exact(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", ms(d))
	}
	return took(ms(d))
}

func (s *devShow) exchange(ctx context.Context, x *tryout.Exchange) {
	if !s.json {
		s.mu.Lock()
		fmt.Fprintf(s.w, "\n%s\n", s.bold(x.Name))
		for _, l := range asked(x) {
			s.row(l.word, l.text)
		}
		s.mu.Unlock()
	}
	s.settle(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering = true
	if s.json {
		s.object("call", callObject(x))
		return
	}
	for _, l := range answered(x) {
		s.row(l.word, l.text)
	}
	s.row("took", exact(x.Took))
}

func callObject(x *tryout.Exchange) map[string]any {
	o := map[string]any{"name": x.Name, "took_ms": ms(x.Took)}
	if x.Call != nil {
		if b, err := protojson.Marshal(x.Call); err == nil {
			o["call"] = json.RawMessage(b)
		}
	}
	replies := []json.RawMessage{}
	for _, r := range x.Replies {
		if b, err := protojson.Marshal(r); err == nil {
			replies = append(replies, b)
		}
	}
	o["replies"] = replies
	if x.Err != nil {
		o["error"] = x.Err.Error()
	}
	for name, text := range map[string]string{"ignored": x.Ignored, "said": x.Said} {
		if text != "" {
			o[name] = text
		}
	}
	for name, list := range map[string][]string{"edits": x.Edits, "header_changes": x.Changes} {
		if len(list) > 0 {
			o[name] = list
		}
	}
	return o
}

func (s *devShow) outcome(o *tryout.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering = false
	if s.json {
		s.object("outcome", map[string]any{"failed": o.Failed, "lines": append([]string{}, o.Lines...)})
		return
	}
	fmt.Fprintln(s.w)
	for _, l := range o.Lines {
		fmt.Fprintln(s.w, printable(l))
	}
}

func (s *devShow) problem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering = false
	var (
		build *tryout.BuildError
		wrong *tryout.ConfigError
	)
	what := "problem"
	switch {
	case errors.As(err, &build):
		what = "build"
	case errors.As(err, &wrong):
		what = "configuration"
	}
	switch {
	case s.json && wrong != nil:
		s.object("failed", map[string]any{"what": what, "text": err.Error(), "diagnostics": wrong.Diagnostics})
	case s.json:
		s.object("failed", map[string]any{"what": what, "text": err.Error()})
	case build != nil:
		fmt.Fprintf(s.w, "%s\n%s\n", s.bold("It does not build:"), build.Output)
	case wrong != nil:
		_ = wrong.Diagnostics.WriteText(s.w, s.paint)
	default:
		fmt.Fprintf(s.w, "%s %s\n", s.bold("It does not run:"), printable(err.Error()))
	}
}

func (s *devShow) waiting(p *tryout.Project, files int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.json {
		s.object("waiting", nil)
		return
	}
	if files == 0 {
		fmt.Fprintf(s.w, "\n%s runs. Ctrl-C ends.\n", p.Name)
		return
	}
	fmt.Fprintf(s.w, "\nWaiting for a change of %s. Ctrl-C ends.\n", p.Name)
}

func (s *devShow) changed(file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.json {
		s.object("changed", map[string]any{"file": file})
		return
	}
	fmt.Fprintf(s.w, "\n%s %s has changed.\n\n", s.bold(time.Now().Format("15:04:05")), file)
}

// debugger says how to get hold of the program; pid 0: it is not started yet.
func (s *devShow) debugger(b *tryout.Debugger, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var say []string
	for _, l := range b.Say {
		if strings.Contains(l, "%d") {
			l = fmt.Sprintf(l, pid)
		}
		say = append(say, l)
	}
	if s.json {
		o := map[string]any{"debugger": b.Name, "say": say}
		if pid > 0 {
			o["pid"] = pid
		}
		s.object("debug", o)
		return
	}
	head := "It starts stopped, under " + b.Name + ". No call will be late. Connect:"
	if pid > 0 {
		head = fmt.Sprintf("It runs as process %d. No call will be late. Attach, or press Enter to hand over the mail:", pid)
	}
	fmt.Fprintln(s.w, head)
	for _, l := range say {
		fmt.Fprintln(s.w, "  "+l)
	}
}
