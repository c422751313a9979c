package host

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// LogLine is a line of an instance's log.
type LogLine struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	// PID of the process that wrote it; 0: the core said it of the instance.
	PID     int    `json:"pid,omitempty"`
	Message string `json:"message"`
	// Fields of a structured line, each a JSON value.
	Fields map[string]json.RawMessage `json:"fields,omitempty"`
}

// What is kept of each instance's log, and of each line. The whole log goes where
// the core's does.
const (
	keptLines  = 1000
	keptOctets = 512 << 10
	keptOfLine = 8 << 10
)

// logRing keeps the end of one instance's log, over restarts and reloads.
//
// Lines have numbers, and who follows remembers the next one: nobody holds up
// the plugin's output, and one who is too slow knows how many he missed.
type logRing struct {
	mu     sync.Mutex
	lines  []LogLine
	next   uint64 // number of the line to come
	octets int
	closed bool
	// changed is closed, and made anew, with every line.
	changed chan struct{}
}

func newLogRing() *logRing { return &logRing{changed: make(chan struct{})} }

// add keeps a line, whose fields it takes over.
func (r *logRing) add(l LogLine) {
	if len(l.Message) > keptOfLine {
		l.Message = l.Message[:keptOfLine] + "…"
	}
	if fieldOctets(l.Fields) > keptOfLine {
		l.Fields = nil
		l.Message += " (its fields are too long to be kept)"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.lines = append(r.lines, l)
	r.next++
	r.octets += l.size()
	for len(r.lines) > keptLines || r.octets > keptOctets && len(r.lines) > 1 {
		r.octets -= r.lines[0].size()
		r.lines[0] = LogLine{}
		r.lines = r.lines[1:]
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

func (l *LogLine) size() int { return len(l.Message) + fieldOctets(l.Fields) + 64 }

func fieldOctets(fields map[string]json.RawMessage) (n int) {
	for name, v := range fields {
		n += len(name) + len(v)
	}
	return n
}

// Run implements zerolog.Hook: what the core says of the instance. Fields are not
// given to a hook, so what matters stands in the message.
func (r *logRing) Run(_ *zerolog.Event, level zerolog.Level, message string) {
	r.add(LogLine{Time: time.Now(), Level: level.String(), Message: message})
}

// close ends those who follow.
func (r *logRing) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		close(r.changed)
	}
}

// ring of an instance, made when it is first wanted.
func (h *Host) ring(instance string) *logRing {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rings[instance]
	if r == nil {
		r = newLogRing()
		h.rings[instance] = r
	}
	return r
}

// logger speaks of an instance, in the core's log and in the instance's own.
func (h *Host) logger(instance string) zerolog.Logger {
	return h.log.With().Str("plugin", instance).Logger().Hook(h.ring(instance))
}

// forget drops the logs of instances that are not there any more, or never came
// to be. The caller holds mu.
func (h *Host) forget() {
	for name, r := range h.rings {
		if h.instances[name] == nil {
			r.close()
			delete(h.rings, name)
		}
	}
}

// Logs are the last n lines of an instance's log, the oldest first; 0: all that
// are kept.
func (h *Host) Logs(instance string, n int) ([]LogLine, error) {
	f, err := h.Follow(instance, n)
	if err != nil {
		return nil, err
	}
	lines, _, _ := f.take()
	return lines, nil
}

// Follow reads an instance's log from its last n lines on (0: all that are kept;
// negative: only what comes).
func (h *Host) Follow(instance string, n int) (*Follower, error) {
	h.mu.Lock()
	r := h.rings[instance]
	known := h.instances[instance] != nil
	h.mu.Unlock()
	if r == nil || !known {
		return nil, unknownInstance(instance)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	back := len(r.lines)
	if n != 0 {
		back = max(0, min(n, back))
	}
	return &Follower{ring: r, next: r.next - uint64(back)}, nil
}

func unknownInstance(name string) error {
	return fmt.Errorf("no plugin instance is called %q; `stagecoach plugin list` shows their names", name)
}

// Follower is one reader's place in a log. It needs no Close.
type Follower struct {
	ring *logRing
	next uint64
}

// Next waits for lines and returns them all, and how many before them this reader
// was too slow for. It ends with ctx, or without lines and error when the
// instance is gone.
func (f *Follower) Next(ctx context.Context) (lines []LogLine, missed int, err error) {
	for {
		lines, missed, changed := f.take()
		if len(lines) > 0 || changed == nil {
			return lines, missed, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// take returns what there is; a nil channel when there will be no more.
func (f *Follower) take() (lines []LogLine, missed int, changed <-chan struct{}) {
	f.ring.mu.Lock()
	defer f.ring.mu.Unlock()
	first := f.ring.next - uint64(len(f.ring.lines))
	if f.next < first {
		missed = int(first - f.next)
		f.next = first
	}
	lines = slices.Clone(f.ring.lines[f.next-first:])
	f.next = f.ring.next
	if !f.ring.closed {
		changed = f.ring.changed
	}
	return lines, missed, changed
}
