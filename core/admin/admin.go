// Package admin is the operator's line to a running server: HTTP and JSON over a
// unix socket in the data directory. Who may open the socket may do everything;
// it is never a network listener.
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
	// Sandboxed: it runs in a sandbox; Unenforced are the limits of it that this
	// system cannot enforce, with the reason.
	Sandboxed  bool     `json:"sandboxed"`
	Unenforced []string `json:"unenforced,omitempty"`
	Listening  []string `json:"listening,omitempty"`
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
