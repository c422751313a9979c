package host

import (
	"testing"
	"time"
)

// What ends a plugin because of the time does not end one that a debugger holds.
func TestPatient(t *testing.T) {
	h, err := New(Options{RunDir: t.TempDir(), Patient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	for name, d := range map[string]time.Duration{
		"start": h.timing.start, "ready": h.timing.ready, "health": h.timing.health, "stuck": h.timing.stuck,
	} {
		if d < time.Hour {
			t.Errorf("%s ends it after %s", name, d)
		}
	}
}
