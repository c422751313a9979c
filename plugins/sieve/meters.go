package sieve

import "github.com/stagecoach-mta/stagecoach/sdk"

// meters count what scripts do.
type meters struct{ runs, failures, stored, redirected, refused, discarded, replied, notified *sdk.Value }

func newMeters(m *sdk.Metrics) meters {
	action := func(name string) *sdk.Value {
		return m.Counter("sieve_actions_total", "What scripts did with mail, by action.", "action", name)
	}
	return meters{
		runs:     m.Counter("sieve_runs_total", "Scripts run, one per recipient who has one."),
		failures: m.Counter("sieve_failures_total", "Runs that failed: the mail was kept."),
		stored:   action("store"), redirected: action("redirect"), refused: action("reject"), discarded: action("discard"),
		replied: action("vacation"), notified: action("notify"),
	}
}
