package host

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// faults are the calls that failed by the plugin's own fault and did not end it:
// late, or answered with what is no answer. A plugin that does nothing else shall
// have its name in the log, and not fill it.
type faults struct {
	log      zerolog.Logger
	troubles *troubles

	mu     sync.Mutex
	last   string
	unsaid int
	said   time.Time
}

func (f *faults) note(err error) {
	// What is UNAVAILABLE the supervision explains: the process, or its session, ended.
	if err == nil || !fail.Is(err, fail.Internal) && !fail.Is(err, fail.Deadline) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = err.Error()
	f.unsaid++
	var bad *badAnswer
	switch {
	case errors.As(err, &bad):
		f.troubles.note(BadAnswers, 1, 0, bad.Error())
	case fail.Is(err, fail.Deadline):
		f.troubles.note(LateAnswers, 1, 0, "")
	}
	if now := time.Now(); now.Sub(f.said) >= noteInterval {
		f.log.Warn().Int("calls", f.unsaid).Msg("plugin failed a call: " + f.last)
		f.unsaid, f.said = 0, now
	}
}

func (f *faults) lastOne() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// fitting is an error if the reply is not one to such a call. The fields of both
// have the same numbers.
func fitting(call *v1.Call, reply *v1.Reply) error {
	// Every call comes through here, and reflection takes its time.
	if call.GetFilter() != nil && reply.GetFilter() != nil || call.GetStorage() != nil && reply.GetStorage() != nil ||
		call.GetDeliver() != nil && reply.GetDeliver() != nil || call.GetDirectory() != nil && reply.GetDirectory() != nil {
		return nil
	}
	asked, answered := "", "nothing"
	c := call.ProtoReflect()
	if f := c.WhichOneof(c.Descriptor().Oneofs().ByName("request")); f != nil {
		asked = string(f.Name())
	}
	r := reply.ProtoReflect()
	if f := r.WhichOneof(r.Descriptor().Oneofs().ByName("response")); f != nil {
		answered = "a " + string(f.Name()) + "'s reply"
		if string(f.Name()) == asked {
			return nil
		}
	}
	return &badAnswer{fail.New(fail.Internal, "it answered a %s's call with %s", asked, answered)}
}

// badAnswer is one against the contract; a Problem of kind INTERNAL is none.
type badAnswer struct{ as *fail.Error }

func (e *badAnswer) Error() string { return e.as.Error() }
func (e *badAnswer) Unwrap() error { return e.as }

// brokenSession says in words why a process that lives has no session any more.
func brokenSession(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return endedFor(BadSession, "it closed its session, which is to stay open until Drain")
	case status.Code(errors.Unwrap(err)) == codes.ResourceExhausted:
		return endedFor(BadSession, "it sent a message of more than %d MB", stream.MaxMessage>>20)
	case status.Code(errors.Unwrap(err)) == codes.Internal:
		return endedFor(BadSession, "it sent what is no frame: %v", err)
	}
	return endedFor(BadSession, "%v", err)
}
