package sdktest

import (
	"encoding/json"
	"sync"

	"github.com/rs/zerolog"
)

// Entry is a line of the plugin's log.
type Entry struct {
	// Level is "debug", "info", "warn" or "error".
	Level string
	// Message without the fields.
	Message string
	// Fields as JSON has them: numbers are float64.
	Fields map[string]any
}

// Log is what the plugin wrote to Instance.Log so far.
func (in *Instance) Log() []Entry { return in.log.list() }

// journal keeps what is logged.
type journal struct {
	mu      sync.Mutex
	entries []Entry
}

// Write takes one line of JSON from a logger.
func (j *journal) Write(b []byte) (int, error) {
	e := Entry{}
	if err := json.Unmarshal(b, &e.Fields); err != nil {
		return 0, err
	}
	e.Level, _ = e.Fields[zerolog.LevelFieldName].(string)
	e.Message, _ = e.Fields[zerolog.MessageFieldName].(string)
	delete(e.Fields, zerolog.LevelFieldName)
	delete(e.Fields, zerolog.MessageFieldName)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
	return len(b), nil
}

func (j *journal) list() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Entry(nil), j.entries...)
}
