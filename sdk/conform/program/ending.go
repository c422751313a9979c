package program

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// ending asks how the process dies, by whoever's hand.
func (s *suite) ending(t conform.T) {
	s.check(t, "", conform.Check{
		Name: "kill: after SIGKILL in mid-call the next process answers the same keys", Contract: "plugin.proto, head, Failure; idempotency_key; storage.proto, DepositRequest, StorageCall.request_key",
		Remedy: "leave nothing behind that stops the next start (locks, sockets, half-written files); keep keys with their answers durably, in one commit with what they did", Do: s.killed,
	})
	if s.describe == nil || s.kind() != v1.Kind_KIND_ACCESS {
		s.check(t, "", conform.Check{
			Name: "drain: what is under way is finished", Contract: "plugin.proto, Plugin.Drain",
			Remedy: "go on answering the calls that you have, on the sessions that there are, and then return", Do: s.drainFinishes,
		})
	}
	s.check(t, "", conform.Check{
		Name: "drain: returns by its deadline", Contract: "plugin.proto, DrainRequest.deadline_ms",
		Remedy: "return when nothing is under way, and at deadline_ms at the latest: then the process is killed", Do: s.drainReturns,
	})
	s.check(t, "", conform.Check{
		Name: "end: by Shutdown, with status 0", Contract: "go-plugin's plugin.GRPCController/Shutdown",
		Remedy: "serve plugin.GRPCController with Shutdown: close what is open and exit with status 0", Do: s.shutdownEnds,
	})
	s.check(t, "", conform.Check{
		Name: "end: by SIGTERM", Contract: "README, The life of an instance: the process ends",
		Remedy: "drain and exit at SIGTERM: that is what an operator and systemd send", Do: s.termEnds,
	})
	s.check(t, "", conform.Check{
		Name: "end: with its parent", Contract: "README, The life of an instance: host death ends plugins",
		Remedy: "look at the parent's pid once a second, and exit when it has changed", Do: s.orphanEnds,
	})
	s.check(t, "", conform.Check{
		Name: "stdout: holds the handshake alone", Contract: "go-plugin's handshake; README, What you owe",
		Remedy: "log to stderr; libraries that print to standard output must be told not to", Do: s.quiet,
	})
}

// killed: calls in flight, SIGKILL, a new process in the same place, the same
// calls again; a few times.
func (s *suite) killed(t conform.T) {
	p := s.fresh(t, nil)
	pl := p.place
	if s.kind() == v1.Kind_KIND_ACCESS {
		if err := s.knock(t.Context(), p); err != nil {
			t.Fatalf("before the kill no client is served: %v", err)
		}
		p.kill()
		if err := s.knock(t.Context(), s.again(t, pl, nil)); err != nil {
			t.Errorf("after SIGKILL and a new process on the same listeners, no client is served: %v", err)
		}
		return
	}
	const calls, rounds = 8, 3
	inbox := s.inbox(t, p)
	for round := range rounds {
		first := make([]*v1.Reply, calls)
		var wg sync.WaitGroup
		answered := make(chan struct{}, calls)
		for i := range calls {
			wg.Go(func() {
				if r, err := p.caller.Call(t.Context(), s.durable(p, round*calls+i, inbox.GetId())); err == nil {
					first[i] = r
				}
				answered <- struct{}{}
			})
		}
		// When one has been answered, others are most likely in the middle.
		select {
		case <-answered:
		case <-t.Context().Done():
		}
		p.kill()
		wg.Wait()
		next, err := s.open(t.Context(), pl, nil)
		if err != nil {
			t.Fatalf("after SIGKILL in mid-call it does not start again: %v", err)
		}
		t.Cleanup(next.kill)
		p = next
		for i := range calls {
			r, err := p.caller.Call(t.Context(), s.durable(p, round*calls+i, inbox.GetId()))
			switch {
			case fail.Is(err, fail.Unavailable), fail.Is(err, fail.Internal), err == nil && !s.ofKind(r):
				t.Fatalf("after SIGKILL and a new start, a repeated call is answered with %v %v; %s", r, err, p.state())
			case err == nil && first[i] != nil && s.essence(first[i]) != s.essence(r):
				t.Errorf("a call was answered with %s, then came SIGKILL, and repeated it was answered with %s", s.essence(first[i]), s.essence(r))
			}
		}
	}
	if s.kind() != v1.Kind_KIND_STORAGE {
		return
	}
	if n := s.inbox(t, p).GetMessages(); n != calls*rounds {
		t.Errorf("%d mails, each stored and repeated over a SIGKILL, left %d in INBOX", calls*rounds, n)
	}
}

// inbox of a storage.
func (s *suite) inbox(t conform.T, p *process) *v1.Mailbox {
	if s.kind() != v1.Kind_KIND_STORAGE {
		return nil
	}
	r, err := p.caller.Call(t.Context(), &v1.Call{Request: &v1.Call_Storage{Storage: &v1.StorageCall{
		Account: "meg@ryan.example", Op: &v1.StorageCall_ListMailboxes{ListMailboxes: &v1.ListMailboxesRequest{Name: "INBOX"}},
	}}})
	boxes := r.GetStorage().GetListMailboxes().GetMailboxes()
	if err != nil || len(boxes) != 1 {
		t.Fatalf("ListMailboxes with the name INBOX is answered with %v %v; %s", boxes, err, p.state())
	}
	return boxes[0]
}

// durable is a probe that changes something, where the kind has such calls.
func (s *suite) durable(p *process, n int, inbox string) *v1.Call {
	if s.kind() != v1.Kind_KIND_STORAGE {
		return s.probe(p, 3000+n)
	}
	letter := conform.Ordinary()
	if n%2 == 1 && s.keepsKeys() {
		return &v1.Call{Request: &v1.Call_Storage{Storage: &v1.StorageCall{
			Account: "meg@ryan.example", RequestKey: fmt.Sprintf("kill-%d", n),
			Op: &v1.StorageCall_Append{Append: &v1.AppendRequest{
				MailboxId: inbox, Messages: []*v1.AppendRequest_Message{{Message: inline(letter.Text)}},
			}},
		}}}
	}
	return &v1.Call{Request: &v1.Call_Storage{Storage: &v1.StorageCall{Op: &v1.StorageCall_Deposit{Deposit: &v1.DepositRequest{
		QueueId: fmt.Sprintf("kill-%d", n), Message: inline(letter.Text), ReturnPath: "tom@hanks.example", ReceivedMs: 1171494123000,
		Targets: []*v1.DepositRequest_Target{{Key: 1, Account: "meg@ryan.example", Recipient: "meg@ryan.example"}},
	}}}}}
}

// essence is what of a reply must be the same when its call is repeated.
func (s *suite) essence(r *v1.Reply) string {
	switch s.kind() {
	case v1.Kind_KIND_FILTER:
		return fmt.Sprintf("%s %d", r.GetFilter().GetVerdict().GetAction(), r.GetFilter().GetVerdict().GetReply().GetCode())
	case v1.Kind_KIND_DELIVER:
		out := ""
		for _, o := range r.GetDeliver().GetOutcomes() {
			out += fmt.Sprintf("%d: %dxx ", o.GetRecipient(), o.GetReply().GetCode()/100)
		}
		return out
	case v1.Kind_KIND_STORAGE:
		out := ""
		for _, d := range r.GetStorage().GetDeposit().GetResults() {
			out += fmt.Sprintf("UID %d in %s as %s %s", d.GetUid(), d.GetMailboxId(), d.GetMessageId(), d.GetProblem().GetText())
		}
		return out + fmt.Sprint(r.GetStorage().GetAppend().GetUids())
	}
	return r.GetDirectory().GetResolve().GetResult().String()
}

// drainFinishes writes frames by itself: the calls are on their way before Drain
// is, over the same connection.
func (s *suite) drainFinishes(t conform.T) {
	p := s.fresh(t, nil)
	st, err := p.api.Session(t.Context())
	if err != nil {
		t.Fatalf("Session: %v; %s", err, p.state())
	}
	n := min(8, s.credits())
	for id := 1; id <= n; id++ {
		if err := st.Send(&v1.Frame{Id: uint64(id), Body: &v1.Frame_Call{Call: s.probe(p, 4000+id)}}); err != nil {
			t.Fatalf("send: %v; %s", err, p.state())
		}
	}
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Drain+s.opts.Grace)
	defer cancel()
	for open := n; open > 0; {
		f, err := st.Recv()
		if err != nil {
			t.Errorf("%d of %d calls that were under way when Drain came were not finished: %v; %s", open, n, err, p.state())
			break
		}
		if f.GetReply() == nil || f.GetReply().GetMore() {
			continue
		}
		if k := f.GetReply().GetProblem(); k.GetKind() == fail.Unavailable && k != nil {
			t.Errorf("a call that was under way when Drain came was refused: %s", k.GetText())
		}
		if open == n { // the others are being worked on, or about to be
			go func() {
				_, err := p.api.Drain(ctx, &v1.DrainRequest{DeadlineMs: s.opts.Drain.Milliseconds()})
				drained <- err
			}()
		}
		open--
	}
	if t.Failed() {
		return
	}
	// One that is late is drainReturns's; the plugin's clock may say so before ours.
	if err := <-drained; err != nil && ctx.Err() == nil && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("Drain: %v; %s", err, p.state())
	}
}

func (s *suite) drainReturns(t conform.T) {
	p := s.fresh(t, s.slow(t))
	if s.opts.Facts.Slow != "" && p.caller != nil {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _, _ = p.caller.Call(ctx, s.probe(p, 5000)) }()
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Drain+s.opts.Grace)
	defer cancel()
	begin := time.Now()
	_, err := p.api.Drain(ctx, &v1.DrainRequest{DeadlineMs: s.opts.Drain.Milliseconds()})
	// The other side knows of the time too, and may say first that it is over.
	if ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("Drain with a deadline of %s did not return within %s; %s", s.opts.Drain, s.opts.Drain+s.opts.Grace, p.state())
	}
	t.Logf("Drain took %s: %v", time.Since(begin).Round(time.Millisecond), err)
}

func (s *suite) shutdownEnds(t conform.T) {
	p := s.fresh(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Drain)
	defer cancel()
	_, _ = p.api.Drain(ctx, &v1.DrainRequest{DeadlineMs: s.opts.Drain.Milliseconds()})
	if p.caller != nil {
		p.caller.Close()
	}
	stop, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
	defer cancel()
	p.shutdown(stop)
	if !p.ended(s.opts.Grace) {
		t.Fatalf("it had not ended %s after Shutdown", s.opts.Grace)
	}
	if !p.cmd.ProcessState.Success() {
		t.Errorf("after Shutdown it ended with %s; its last words: %s", p.cmd.ProcessState, p.words())
	}
}

func (s *suite) termEnds(t conform.T) {
	p := s.fresh(t, nil)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	// It may drain first.
	if within := s.opts.Drain + s.opts.Grace; !p.ended(within) {
		t.Errorf("it had not ended %s after SIGTERM", within)
	}
}

// orphanEnds starts it by a shell that is then killed.
func (s *suite) orphanEnds(t conform.T) {
	s.alone()
	pl, err := s.newPlace()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(pl.close)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer r.Close()
	// The descriptors of the place come first, then the one for the pid.
	fd := 3 + len(pl.files)
	script := fmt.Sprintf(`"$0" "$@" %d>&- & echo $! >&%d; exec %d>&-; wait`, fd, fd, fd)
	p, err := s.start(t.Context(), launch{files: append(append([]*os.File{}, pl.files...), w), via: []string{"/bin/sh", "-c", script}, leaveGroup: true})
	w.Close()
	if err != nil {
		t.Fatalf("%v", err)
	}
	s.all = append(s.all, p)
	t.Cleanup(func() { _ = syscall.Kill(-p.pid, syscall.SIGKILL); p.kill() })
	line := make([]byte, 32)
	n, err := r.Read(line)
	pid, e := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil || e != nil {
		t.Fatalf("the shell did not tell the plugin's pid: %q %v", line[:n], err)
	}
	if err := s.bring(t.Context(), p, pl, nil); err != nil {
		t.Fatalf("%v", err)
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); !gone(pid); <-tick.C {
		if time.Since(begin) > s.opts.Grace {
			t.Fatalf("%s after its parent was killed, process %d lives", s.opts.Grace, pid)
		}
	}
}

// gone tells whether a process has ended, also if nobody has reaped it.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return os.IsNotExist(err) && exists("/proc/self/stat")
	}
	rest := string(b[strings.LastIndexByte(string(b), ')')+1:])
	return strings.HasPrefix(strings.TrimSpace(rest), "Z")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *suite) quiet(t conform.T) {
	if s.shared != nil {
		s.shared.kill() // reads its pipes to their end
	}
	for _, p := range s.all {
		if text := strings.TrimSpace(p.printed()); text != "" {
			t.Errorf("it printed to its standard output: %q", short(text))
			return
		}
	}
}
