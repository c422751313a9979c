// Package conform is what the conformance suites of the kinds have in common: a
// check, the T that a check gets, and two ways to run it. Test gives the suites
// to `go test`; a Runner gives them to `stagecoach plugin conform`, where there
// is no testing package. It knows no kind and starts no process: the kinds'
// suites are filtertest, delivertest, directorytest, storagetest and accesstest,
// and package program has what is asked of a process.
package conform

import (
	"context"
	"fmt"
	"time"
)

// T is what a check gets: a *testing.T by way of Test, or a Runner's own. It
// means what the methods of testing.T mean. Fatalf and Skipf are called by the
// check's own goroutine; the others by any, until the check has ended.
type T interface {
	Helper()
	// Context ends at the check's deadline, and before its cleanups.
	Context() context.Context
	Cleanup(f func())
	// TempDir is a new directory, removed after the check.
	TempDir() string
	Logf(format string, args ...any)
	// Errorf says what was seen; the check has failed and goes on.
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	// Skipf ends the check and says why it could not be made.
	Skipf(format string, args ...any)
	Failed() bool
	// Run makes a check. It tells whether nothing failed.
	Run(c Check) bool
}

// Check is one question with the words for somebody who fails it.
type Check struct {
	// Name says what should be so, and selects the check (`--run`, `-run`).
	Name string
	// Contract is where it is written: a file of sdk/proto/v1 with the message
	// or field, or an RFC with its section.
	Contract string
	// Remedy is what to do about a failure.
	Remedy string
	// Timeout of the check; 0: the run's.
	Timeout time.Duration
	Do      func(t T)
}

// testTimeout of a check under `go test`, whose own -timeout comes later. It is
// there to end what waits on the context of a plugin that hangs.
const testTimeout = 5 * time.Minute

// Standard is what *testing.T has, in words that need no import of testing.
type Standard[S any] interface {
	Helper()
	Context() context.Context
	Cleanup(f func())
	TempDir() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Run(name string, f func(S)) bool
}

// Test makes a T of a *testing.T: checks become subtests.
func Test[S Standard[S]](t S) T { return &standard[S]{t, t.Context()} }

type standard[S Standard[S]] struct {
	t   S
	ctx context.Context
}

func (s *standard[S]) Helper()                   { s.t.Helper() }
func (s *standard[S]) Context() context.Context  { return s.ctx }
func (s *standard[S]) Cleanup(f func())          { s.t.Cleanup(f) }
func (s *standard[S]) TempDir() string           { return s.t.TempDir() }
func (s *standard[S]) Logf(f string, a ...any)   { s.t.Helper(); s.t.Logf(f, a...) }
func (s *standard[S]) Errorf(f string, a ...any) { s.t.Helper(); s.t.Errorf(f, a...) }
func (s *standard[S]) Fatalf(f string, a ...any) { s.t.Helper(); s.t.Fatalf(f, a...) }
func (s *standard[S]) Skipf(f string, a ...any)  { s.t.Helper(); s.t.Skipf(f, a...) }
func (s *standard[S]) Failed() bool              { return s.t.Failed() }

// Run implements T.
func (s *standard[S]) Run(c Check) bool {
	return s.t.Run(c.Name, func(t S) {
		timeout := c.Timeout
		if timeout == 0 {
			timeout = testTimeout
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		defer func() {
			if t.Failed() {
				t.Logf("%s", c.advice())
			}
		}()
		c.Do(&standard[S]{t, ctx})
	})
}

func (c *Check) advice() string {
	return fmt.Sprintf("the contract: %s\nwhat to do: %s", c.Contract, c.Remedy)
}
