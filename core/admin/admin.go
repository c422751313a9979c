// Package admin is the operator's line to a running server: HTTP and JSON over a
// unix socket in the data directory. Who may open the socket may do everything, but
// for the processes that a Guard refuses; it is never a network listener.
package admin

import (
	"encoding/json"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// Status of the running server.
type Status struct {
	Version  string      `json:"version"`
	PID      int         `json:"pid"`
	Hostname string      `json:"hostname"`
	Since    time.Time   `json:"since"`
	Config   []string    `json:"config"`
	DataDir  string      `json:"data_dir"`
	Queue    queue.Stats `json:"queue"`
}

// Plugin is one instance as `stagecoach plugin list` shows it.
type Plugin struct {
	Instance string        `json:"instance"`
	Kind     string        `json:"kind"`
	Plugin   string        `json:"plugin"`
	Version  string        `json:"version"`
	State    string        `json:"state"`
	PID      int           `json:"pid"`
	Restarts int           `json:"restarts"`
	Since    time.Time     `json:"since"`
	Calls    int64         `json:"calls"`
	Errors   int64         `json:"errors"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	// RSS counts memory that processes share for each of them, PSS its share.
	RSS int64 `json:"rss_bytes"`
	PSS int64 `json:"pss_bytes"`
	// LastError is why the last process ended, LastFault how the last call failed
	// that failed by the plugin's fault, Health what the plugin says itself.
	LastError string `json:"last_error,omitempty"`
	LastFault string `json:"last_fault,omitempty"`
	Health    string `json:"health,omitempty"`
	// Troubles are what the server has seen of it that is not as it should be, the
	// worst first, for as long as that is news.
	Troubles []Trouble `json:"troubles,omitempty"`
	// Processes that run: itself and those that it has started.
	Processes int `json:"processes"`
	// LogLinesDropped came too fast to be logged; LogBytesDropped are also those
	// of lines that were cut.
	LogLinesDropped uint64 `json:"log_lines_dropped"`
	LogBytesDropped uint64 `json:"log_bytes_dropped"`
	// Sandboxed: it runs in a sandbox; Unenforced are the limits of it that this
	// system cannot enforce, with the reason.
	Sandboxed  bool     `json:"sandboxed"`
	Unenforced []string `json:"unenforced,omitempty"`
	Listening  []string `json:"listening,omitempty"`
}

// Trouble is one way in which an instance does not behave, now or not long ago.
type Trouble struct {
	// Kind: unresponsive, memory, processes, bad_session, stuck, crash,
	// fell_back, not_started, bad_answers, late_answers, trespass, log_flood, left_behind.
	Kind string `json:"kind"`
	// Count of endings in the last hour (also of processes left behind), or of
	// calls or lines in the last ten minutes; left out if it is so just now.
	Count uint64    `json:"count,omitempty"`
	Bytes uint64    `json:"bytes,omitempty"`
	Last  time.Time `json:"last"`
	// Text says it in words.
	Text string `json:"text"`
}

// LogLine is a line of an instance's log.
type LogLine struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	// PID of the plugin's process that wrote it; 0: the server said it.
	PID     int                        `json:"pid,omitempty"`
	Message string                     `json:"message"`
	Fields  map[string]json.RawMessage `json:"fields,omitempty"`
}

// Problem is an answer that is no success.
type Problem struct {
	Error string `json:"error"`
}
