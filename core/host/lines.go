package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Limits on what a plugin may write to its log. A line above maxLine is cut;
// what comes faster than the rates is counted and dropped.
const (
	maxLine      = 64 << 10
	linesPerSec  = 500
	linesBurst   = 2000
	octetsPerSec = 1 << 20
	octetsBurst  = 4 << 20
	noteInterval = 5 * time.Second
)

// lineLog turns what one process writes into log entries. Its pipe and
// go-plugin's stdio stream each write through a lineWriter of their own, under
// one budget.
type lineLog struct {
	log zerolog.Logger
	// ring keeps the lines too; nil: nobody will ask for them.
	ring *logRing
	pid  func() int
	now  func() time.Time
	// lost counts what was not logged; nil: nobody asks.
	lost *troubles

	mu       sync.Mutex
	lines    float64
	octets   float64
	filled   time.Time
	dropped  int
	passed   int // octets of lines that were cut, not reported yet
	noted    time.Time
	panicked bool
	last     string
}

func newLineLog(log zerolog.Logger, ring *logRing, pid func() int) *lineLog {
	l := &lineLog{log: log, ring: ring, pid: pid, now: time.Now, lines: linesBurst, octets: octetsBurst}
	l.filled = l.now()
	return l
}

// lastLine is the last thing the process said, for the report of its end.
func (l *lineLog) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// finish reports lines dropped that nothing else has reported.
func (l *lineLog) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note()
}

func (l *lineLog) note() {
	if l.dropped > 0 {
		text := fmt.Sprintf("plugin logs too fast: %d lines dropped", l.dropped)
		l.log.Warn().Int("lines", l.dropped).Msg(text)
		l.keep(zerolog.WarnLevel, text, nil)
	}
	l.dropped, l.noted = 0, l.now()
}

// pass counts what is left out of a line that was cut. One that has no end would
// be a flood that nobody sees.
func (l *lineLog) pass(octets int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost.dropped(0, uint64(octets))
	l.passed += octets
	if now := l.now(); l.passed >= octetsBurst && now.Sub(l.noted) >= noteInterval {
		text := fmt.Sprintf("plugin logs a line that does not end: %s of it dropped", megabytes(uint64(l.passed)))
		l.log.Warn().Int("octets", l.passed).Msg(text)
		l.keep(zerolog.WarnLevel, text, nil)
		l.passed, l.noted = 0, now
	}
}

// line logs one line without its end.
func (l *lineLog) line(b []byte, cut bool) {
	b = bytes.TrimRight(b, "\r")
	if len(bytes.TrimSpace(b)) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	passed := now.Sub(l.filled).Seconds()
	l.filled = now
	l.lines = min(linesBurst, l.lines+passed*linesPerSec)
	l.octets = min(octetsBurst, l.octets+passed*octetsPerSec)
	if l.lines < 1 || l.octets < float64(len(b)) {
		l.dropped++
		l.lost.dropped(1, uint64(len(b)))
		if now.Sub(l.noted) >= noteInterval {
			l.note()
		}
		return
	}
	l.lines--
	l.octets -= float64(len(b))
	if l.dropped > 0 {
		l.note()
	}
	if !cut && b[0] == '{' && l.structured(b) {
		return
	}
	// The runtime's report of a panic goes on to the end of the process.
	if bytes.HasPrefix(b, []byte("panic: ")) || bytes.HasPrefix(b, []byte("fatal error: ")) {
		l.panicked = true
		l.last = shorten(string(b))
	} else if !l.panicked {
		l.last = shorten(string(b))
	}
	level := zerolog.InfoLevel
	if l.panicked {
		level = zerolog.ErrorLevel
	}
	e := l.log.WithLevel(level)
	if cut {
		e = e.Bool("cut", true)
	}
	e.Msg(string(b))
	l.keep(level, string(b), nil)
}

func (l *lineLog) keep(level zerolog.Level, message string, fields map[string]json.RawMessage) {
	if l.ring != nil {
		l.ring.add(LogLine{Time: l.now(), Level: level.String(), PID: l.pid(), Message: message, Fields: fields})
	}
}

// structured logs a line of JSON in hclog's or zerolog's words; false if it is
// no JSON object. Nothing in it is trusted to have the type that it should.
func (l *lineLog) structured(b []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil {
		return false
	}
	message := take(fields, "@message", "message", "msg")
	level := zerolog.InfoLevel
	switch take(fields, "@level", "level") {
	case "trace":
		level = zerolog.TraceLevel
	case "debug":
		level = zerolog.DebugLevel
	case "warn", "warning":
		level = zerolog.WarnLevel
	case "error", "err", "fatal", "panic":
		// Not zerolog's own fatal: that would end the core.
		level = zerolog.ErrorLevel
	}
	take(fields, "@timestamp", "time", "timestamp")
	if level >= zerolog.InfoLevel && message != "" {
		l.last = shorten(message)
	}
	e := l.log.WithLevel(level)
	for name, value := range fields {
		if name == "plugin" || name == "level" || name == "time" || name == "message" {
			name = "plugin_" + name
		}
		e = e.RawJSON(name, value)
	}
	e.Msg(message)
	l.keep(level, message, fields)
	return true
}

// take removes the named fields and returns the first as text, of whatever type
// it is.
func take(fields map[string]json.RawMessage, names ...string) string {
	text := ""
	for _, name := range names {
		raw, ok := fields[name]
		if !ok {
			continue
		}
		delete(fields, name)
		if text != "" {
			continue
		}
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw)
		}
	}
	return text
}

func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// lineWriter cuts a stream of octets into lines of at most maxLine.
type lineWriter struct {
	log *lineLog
	buf []byte
	// rest is set while the remainder of a line that was cut is passed over.
	rest bool
}

// Write never fails.
func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		part := b
		if end >= 0 {
			part = b[:end]
		}
		if w.rest {
			w.log.pass(len(part))
		} else {
			room := maxLine - len(w.buf)
			w.buf = append(w.buf, part[:min(room, len(part))]...)
			if len(part) > room {
				w.log.line(w.buf, true)
				w.buf, w.rest = w.buf[:0], true
				w.log.pass(len(part) - room)
			}
		}
		if end < 0 {
			break
		}
		if !w.rest {
			w.log.line(w.buf, false)
		}
		w.buf, w.rest = w.buf[:0], false
		b = b[end+1:]
	}
	return n, nil
}

// flush logs a last line without an end.
func (w *lineWriter) flush() {
	if len(w.buf) > 0 {
		w.log.line(w.buf, false)
		w.buf = nil
	}
}
