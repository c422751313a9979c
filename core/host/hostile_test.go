package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// exitIfThere ends the process if the word's file is there.
func (p *testPlugin) exitIfThere(word string, code int) {
	if _, err := os.Stat(p.words[word]); p.has(word) && err == nil {
		// Not os.Stderr, which is go-plugin's by now: what is in it is lost.
		syscall.Write(2, []byte("I do not like this configuration\n"))
		os.Exit(code)
	}
}

// hostile answers the call "pid" as it should, and the call that names a way to
// misbehave in that way.
func (p *testPlugin) hostile(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	reply := func(id uint64, r *v1.Reply) error {
		return s.Send(&v1.Frame{Id: id, Body: &v1.Frame_Reply{Reply: r}})
	}
	note := func(text string) *v1.Reply {
		return &v1.Reply{Response: &v1.Reply_Filter{Filter: &v1.FilterReply{Note: text}}}
	}
	for {
		f, err := s.Recv()
		if err != nil {
			return nil
		}
		if f.GetCall() == nil {
			continue
		}
		switch f.GetCall().GetFilter().GetIdempotencyKey() {
		case "pid":
			err = reply(f.GetId(), note(fmt.Sprint(os.Getpid())))
		case "nothing":
			err = reply(f.GetId(), &v1.Reply{})
		case "another-kind":
			err = reply(f.GetId(), &v1.Reply{Response: &v1.Reply_Storage{Storage: &v1.StorageReply{}}})
		case "bodiless":
			err = s.Send(&v1.Frame{Id: f.GetId()})
		case "unknown-id":
			for n := range uint64(200) {
				err = reply(f.GetId()+1000+n, note("for whom?"))
			}
		case "twice":
			err = reply(f.GetId(), note("once"))
			if err == nil {
				err = reply(f.GetId(), note("twice"))
			}
		case "huge":
			err = reply(f.GetId(), note(strings.Repeat("x", stream.MaxMessage+1)))
		case "endless":
			more := note(strings.Repeat("x", 1<<16))
			for more.More = true; err == nil; {
				err = reply(f.GetId(), more)
			}
		case "garbage":
			// Octets that are no Frame, in a message that gRPC delivers.
			m := &emptypb.Empty{}
			m.ProtoReflect().SetUnknown([]byte{0x12, 0x7f, 0xff, 0xff})
			err = s.SendMsg(m)
		case "hang-up":
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// steady calls a well-behaved plugin over and over and returns how many calls it
// answered. None may fail, whatever another one does.
func steady(t *testing.T, i *Instance) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	good := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := ask(t, i, "pid"); err != nil {
				t.Errorf("the plugin beside it: %v", err)
				return
			}
			good++
			time.Sleep(time.Millisecond) // a pace, so that it does not take the machine
		}
	})
	return func() int {
		cancel()
		wg.Wait()
		return good
	}
}

// Whatever a plugin sends instead of answers, the plugin beside it serves on, the
// call ends in time, what is wrong stands in the log and in Info under the
// plugin's name, and the instance serves again.
func TestHostileAnswers(t *testing.T) {
	h, log := testHost(t)
	h.timing.stuck = 300 * time.Millisecond
	good := filterSpec("filter.test.good", "")
	specs := []Spec{good}
	cases := []struct {
		how  string
		kind fail.Kind
		// restarted: the process is replaced, and this is its LastError; else it
		// is the LastFault of the one that stays.
		restarted bool
		says      string
	}{
		{"nothing", fail.Internal, false, "a filter's call with nothing"},
		{"another-kind", fail.Internal, false, "a filter's call with a storage's reply"},
		{"bodiless", fail.Deadline, false, "no answer in time"},
		{"endless", fail.Deadline, true, "has not ended 2 calls"},
		{"unknown-id", fail.Unavailable, true, "answers calls that nobody made"},
		{"huge", fail.Unavailable, true, "a message of more than 64 MB"},
		{"garbage", fail.Unavailable, true, "what is no frame"},
		{"hang-up", fail.Unavailable, true, "closed its session"},
	}
	for _, c := range cases {
		s := filterSpec("filter.test."+c.how, "hostile")
		if c.kind == fail.Deadline {
			s.CallTimeout = 2 * time.Second
		}
		if c.how == "endless" {
			s.MaxConcurrent = 2
		}
		specs = append(specs, s)
	}
	if _, err := provision(h, specs...); err != nil {
		t.Fatal(err)
	}
	stop := steady(t, h.Instance(good.Instance))
	for _, c := range cases {
		i := h.Instance("filter.test." + c.how)
		first := mustAsk(t, i, "pid")
		began := time.Now()
		if _, err := i.Call(t.Context(), callNamed(c.how)); !fail.Is(err, c.kind) {
			t.Errorf("%s: %v, want %v", c.how, err, c.kind)
		}
		if d := time.Since(began); d > patience/2 {
			t.Errorf("%s: the call ended after %v", c.how, d)
		}
		var second string
		eventually(t, c.how+": it serves again", func() bool {
			var err error
			second, err = ask(t, i, "pid")
			return err == nil && (second != first) == c.restarted
		})
		info := i.Info()
		said := info.LastFault
		if c.restarted {
			said = info.LastError
		}
		if !strings.Contains(said, c.says) || (info.Restarts != 0) != c.restarted {
			t.Errorf("%s: %d restarts, error %q, fault %q; want it to say %q", c.how, info.Restarts, info.LastError, info.LastFault, c.says)
		}
		named := false
		for line := range strings.Lines(log.String()) {
			named = named || strings.Contains(line, `"plugin":"filter.test.`+c.how+`"`) && strings.Contains(line, c.says)
		}
		if !named {
			t.Errorf("%s: no line of the log names it and says %q", c.how, c.says)
		}
	}
	if n := stop(); n < 10 {
		t.Errorf("the plugin beside them answered %d calls", n)
	}
	if info := h.Instance(good.Instance).Info(); info.Restarts != 0 || info.Errors != 0 {
		t.Errorf("the plugin beside them: %+v", info)
	}
}

// A second answer to a call goes nowhere.
func TestSecondAnswerIsDropped(t *testing.T) {
	h, _ := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "hostile")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	for range 10 {
		if got := mustAsk(t, i, "twice"); got != "once" {
			t.Fatalf("answered %q", got)
		}
		if got := mustAsk(t, i, "pid"); got == "twice" {
			t.Fatal("the second answer became another call's")
		}
	}
	if info := i.Info(); info.Restarts != 0 {
		t.Errorf("restarted for it: %s", info.LastError)
	}
}

// A plugin that dies in Configure or in Ready whenever it is started ends in
// the breaker, with the step and its last words, and takes nobody along.
func TestDiesWhileItStarts(t *testing.T) {
	for _, c := range []struct{ word, says string }{
		{"exit-in-configure", "Configure: the process ended (exit status 5); its last words: I do not like this configuration"},
		{"exit-in-ready", "Ready: the process ended (exit status 6); its last words: I do not like this configuration"},
	} {
		t.Run(c.word, func(t *testing.T) {
			h, log := testHost(t)
			h.timing.breaker, h.timing.backoff, h.timing.failedRetry = 3, time.Millisecond, time.Hour
			file := filepath.Join(t.TempDir(), "there")
			if _, err := provision(h, filterSpec("filter.test.a", c.word+"="+file), filterSpec("filter.test.b", "")); err != nil {
				t.Fatal(err)
			}
			stop := steady(t, h.Instance("filter.test.b"))
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			i := h.Instance("filter.test.a")
			syscall.Kill(i.Info().PID, syscall.SIGKILL)
			eventually(t, "it is given up", func() bool { return i.Info().State == Failed })
			stop()
			if last := i.Info().LastError; !strings.Contains(last, c.says) {
				t.Errorf("last error %q, want %q", last, c.says)
			}
			if !strings.Contains(log.String(), c.says) {
				t.Errorf("the log does not say %q", c.says)
			}
			// At a reload it is an error, and what runs stays.
			if err := h.Restart(t.Context(), "filter.test.b"); err != nil {
				t.Errorf("the plugin beside it cannot be restarted: %v", err)
			}
			if err := h.Restart(t.Context(), "filter.test.a"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("restart: %v, want %q", err, c.says)
			}
		})
	}
}

// A plugin that is stopped in the middle of many calls fails those, and a plugin
// beside it notices nothing.
func TestStoppedProcessHoldsNobodyElse(t *testing.T) {
	h, log := testHost(t)
	h.timing.healthTimeout = time.Second // both have to answer one of three
	if _, err := provision(h, filterSpec("filter.test.a", ""), filterSpec("filter.test.b", "")); err != nil {
		t.Fatal(err)
	}
	i := h.Instance("filter.test.a")
	stop := steady(t, h.Instance("filter.test.b"))
	syscall.Kill(i.Info().PID, syscall.SIGSTOP)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := ask(t, i, "pid"); err != nil && !fail.Is(err, fail.Unavailable) {
				t.Errorf("%v, want Unavailable", err)
			}
		})
	}
	wg.Wait()
	mustAsk(t, i, "pid")
	if n := stop(); n < 10 {
		t.Errorf("the plugin beside it answered %d calls meanwhile", n)
	}
	const why = "it does not answer health checks (a signal has stopped it, as SIGSTOP does)"
	if info := i.Info(); info.Restarts != 1 || info.LastError != why {
		t.Errorf("%d restarts, last error %q", info.Restarts, info.LastError)
	}
	if !strings.Contains(log.String(), why) {
		t.Error("not in the log")
	}
}
