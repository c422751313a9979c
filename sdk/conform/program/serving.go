package program

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stagecoach-mta/stagecoach/sdk/access/accesstest"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver/delivertest"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/directory/directorytest"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/filter/filtertest"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/storagetest"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// manyCalls is the most that are made at once, also of a plugin that allows more.
const manyCalls = 256

// serving asks a process that is ready, and then what its kind owes.
func (s *suite) serving(t conform.T) {
	s.check(t, "", conform.Check{
		Name: "health: Health answers at once", Contract: "plugin.proto, Plugin.Health",
		Remedy: "answer from what is known, without asking anybody; ok is false only for trouble that an operator should see", Do: s.healthCall,
	})
	if s.describe == nil || s.kind() != v1.Kind_KIND_ACCESS {
		s.calling(t)
	}
	if s.blocked != "" {
		t.Run(conform.Check{Name: "what its kind owes", Do: s.need})
	} else {
		s.ofItsKind(t)
	}
	s.check(t, "", conform.Check{
		Name: "metrics: can be shown", Contract: "plugin.proto, Plugin.Metrics, Metric",
		Remedy: "name metrics and labels with letters, digits and _; let no counter be negative", Do: s.metrics,
	})
	s.leaking(t)
}

func (s *suite) calling(t conform.T) {
	s.check(t, "it answers no call", conform.Check{
		Name: "calls: are answered", Contract: "plugin.proto, Plugin.Session, Frame, Reply",
		Remedy: "answer a Call frame with a Reply frame of the same id that has the response of the call's kind", Do: s.answers,
	})
	s.check(t, "", conform.Check{
		Name: "calls: as many at once as it allows", Contract: "plugin.proto, Call, Frame.id, DescribeResponse.max_concurrent",
		Remedy: "serve calls concurrently, one last reply for each id, in any order; lower max_concurrent to what you can", Do: s.manyAtOnce,
	})
	s.check(t, "", conform.Check{
		Name: "calls: of another kind, and unknown ones, are UNSUPPORTED", Contract: "plugin.proto, Call.request; common.proto, Problem.UNSUPPORTED",
		Remedy: "answer what you do not know with Problem UNSUPPORTED, pass over frames you do not know, and go on", Do: s.unknownCalls,
	})
	s.check(t, "", conform.Check{
		Name: "deadline: a call ends soon after it", Contract: "plugin.proto, Call.deadline_ms",
		Remedy: "give up the work when deadline_ms has passed, and send the last reply (Problem DEADLINE)", Do: s.deadline,
	})
	s.check(t, "", conform.Check{
		Name: "deadline: a call ends soon after its cancel", Contract: "plugin.proto, Cancel",
		Remedy: "give up the work when a Cancel frame names the call, and still send the last reply", Do: s.cancel,
	})
	if k := s.describe.GetKind(); k == v1.Kind_KIND_STORAGE || k == v1.Kind_KIND_DIRECTORY {
		s.peers(t)
	}
}

// ofItsKind runs the suite of the kind on the shared process.
func (s *suite) ofItsKind(t conform.T) {
	spool := func(conform.T) string { return s.spool }
	switch s.kind() {
	case v1.Kind_KIND_FILTER:
		filtertest.Run(t, func(t conform.T) *filtertest.Subject {
			p := s.running(t)
			return &filtertest.Subject{Caller: p.caller, Interest: p.interest, Dirs: []string{s.spool, p.place.dataDir}}
		}, filtertest.Options{Facts: s.opts.Facts, LargeBytes: s.opts.LargeBytes, Spool: spool})
	case v1.Kind_KIND_DELIVER:
		delivertest.Run(t, func(t conform.T) deliver.Deliverer { return deliver.NewClient(s.running(t).caller) },
			delivertest.Options{Facts: s.opts.Facts, LargeBytes: s.opts.LargeBytes, Spool: spool})
	case v1.Kind_KIND_DIRECTORY:
		directorytest.Run(t, func(t conform.T) directory.Directory { return directory.NewClient(s.running(t).caller) },
			directorytest.Options{Facts: s.opts.Facts})
	case v1.Kind_KIND_STORAGE:
		s.stores(t)
	case v1.Kind_KIND_ACCESS:
		accesstest.Run(t, func(t conform.T, fresh bool) *accesstest.Subject {
			if fresh {
				s.need(t)
				return s.subject(s.fresh(t, nil))
			}
			return s.subject(s.running(t))
		}, accesstest.Options{Facts: s.opts.Facts, Patience: 4 * s.opts.Grace})
	}
}

// stores runs the storage suite. Each case has a process of its own, and what
// "opens the data again" there is a SIGKILL and a new process: what was answered
// must be durable by then.
func (s *suite) stores(t conform.T) {
	var current *process
	storagetest.Run(t, func(t conform.T) storage.Storage {
		s.need(t)
		current = s.fresh(t, nil)
		return storage.NewClient(current.caller)
	}, storagetest.Options{
		Prefix: "storage: ", LargeBytes: s.opts.LargeBytes, RequestKeys: s.keepsKeys(),
		Reopen: func(t conform.T, _ storage.Storage) storage.Storage {
			current.kill()
			current = s.again(t, current.place, nil)
			return storage.NewClient(current.caller)
		},
	})
}

// keepsKeys tells whether it says that it answers a request again by its key.
func (s *suite) keepsKeys() bool {
	return slices.Contains(s.describe.GetFeatures(), storage.RequestKeys)
}

// probe is a cheap call that changes as little as its kind allows; n tells
// probes apart.
func (s *suite) probe(p *process, n int) *v1.Call {
	key := fmt.Sprintf("probe-%d", n)
	letter := conform.Ordinary()
	switch s.kind() {
	case v1.Kind_KIND_FILTER:
		event := v1.FilterEvent_MESSAGE
		if events := p.interest.GetEvents(); len(events) > 0 {
			event = events[len(events)-1]
		}
		c := &v1.FilterCall{Event: event, Recipient: -1, Envelope: conform.Envelope(letter.Size), IdempotencyKey: key}
		switch c.Event {
		case v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY:
			if p.interest.GetBody() != v1.FilterInterest_NONE {
				c.Header = letter.Header(p.interest.GetHeaderNames())
			}
			if p.interest.GetBody() == v1.FilterInterest_FULL {
				c.Message = inline(letter.Text)
			}
		case v1.FilterEvent_OBSERVE:
			c.Observations = []*v1.Observation{{Sequence: uint64(n + 1), What: v1.Observation_QUEUED, Envelope: c.Envelope, Recipient: -1}}
			c.Envelope = nil
		case v1.FilterEvent_RCPT, v1.FilterEvent_RCPT_REJECTED:
			c.Recipient = 0
		}
		return &v1.Call{Request: &v1.Call_Filter{Filter: c}}
	case v1.Kind_KIND_DELIVER:
		to := s.opts.Facts.Recipient
		if to == "" {
			to = "meg@ryan.example"
		}
		e := conform.Envelope(letter.Size, to)
		e.QueueId = key
		return &v1.Call{Request: &v1.Call_Deliver{Deliver: &v1.DeliverCall{Envelope: e, Message: inline(letter.Text), IdempotencyKey: key}}}
	case v1.Kind_KIND_DIRECTORY:
		return &v1.Call{Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{Op: &v1.DirectoryCall_Resolve{
			Resolve: &v1.ResolveRequest{Address: key + "@stagecoach-conformance.invalid"},
		}}}}
	}
	return &v1.Call{Request: &v1.Call_Storage{Storage: &v1.StorageCall{
		Account: "meg@ryan.example", Op: &v1.StorageCall_ListMailboxes{ListMailboxes: &v1.ListMailboxesRequest{}},
	}}}
}

func inline(text string) *v1.MessageRef {
	return &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: []byte(text)}}
}

// ofKind tells whether a reply is the kind's.
func (s *suite) ofKind(r *v1.Reply) bool {
	switch s.kind() {
	case v1.Kind_KIND_FILTER:
		return r.GetFilter() != nil
	case v1.Kind_KIND_DELIVER:
		return r.GetDeliver() != nil
	case v1.Kind_KIND_DIRECTORY:
		return r.GetDirectory() != nil
	}
	return r.GetStorage() != nil
}

// asked makes a probe and says what is wrong with the answer; "" if nothing is.
func (s *suite) asked(ctx context.Context, p *process, n int) string {
	r, err := p.caller.Call(ctx, s.probe(p, n))
	switch {
	case err == nil && s.ofKind(r):
		return ""
	case err == nil:
		return "the reply has no response of its kind"
	case fail.Is(err, fail.Unavailable), fail.Is(err, fail.Deadline), fail.Is(err, fail.Cancelled), fail.Is(err, fail.Internal), fail.Is(err, fail.Unsupported):
		return fmt.Sprintf("%v (kind %v); %s", err, fail.KindOf(err), p.state())
	}
	return "" // it has its reasons
}

func (s *suite) healthCall(t conform.T) {
	p := s.running(t)
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
	defer cancel()
	r, err := p.api.Health(ctx, &v1.HealthRequest{})
	if err != nil {
		t.Fatalf("Health: %v; %s", err, p.state())
	}
	if !r.GetOk() {
		t.Errorf("Health is not ok: %q", r.GetDetail())
	}
}

func (s *suite) answers(t conform.T) {
	p := s.running(t)
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Start)
	defer cancel()
	if fault := s.asked(ctx, p, 0); fault != "" {
		t.Errorf("%s", fault)
	}
}

// manyAtOnce writes frames by itself, to see each reply with its id.
func (s *suite) manyAtOnce(t conform.T) {
	p := s.running(t)
	n := min(s.credits(), manyCalls)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st, err := p.api.Session(ctx)
	if err != nil {
		t.Fatalf("Session: %v; %s", err, p.state())
	}
	for id := 1; id <= n; id++ {
		if err := st.Send(&v1.Frame{Id: uint64(id), Body: &v1.Frame_Call{Call: s.probe(p, 1000+id)}}); err != nil {
			t.Fatalf("send call %d of %d: %v; %s", id, n, err, p.state())
		}
	}
	last := map[uint64]int{}
	open := n
	// One more call after all of them have been answered: what is told twice has
	// been told by its reply.
	for fence := false; open > 0 || !fence; {
		if open == 0 {
			fence, open = true, 1
			if err := st.Send(&v1.Frame{Id: uint64(n + 1), Body: &v1.Frame_Call{Call: s.probe(p, 999)}}); err != nil {
				t.Fatalf("send one more call: %v; %s", err, p.state())
			}
		}
		f, err := st.Recv()
		if err != nil {
			t.Fatalf("%d of %d calls at once were never answered: %v; %s", open, n, err, p.state())
		}
		r := f.GetReply()
		switch {
		case r == nil || r.GetMore() && r.GetProblem() == nil:
			continue
		case f.GetId() == 0 || f.GetId() > uint64(n+1):
			t.Errorf("a reply to id %d, which no call had", f.GetId())
			continue
		case r.GetProblem().GetKind() == fail.Unavailable && r.GetProblem() != nil:
			t.Errorf("call %d of %d at once was refused: %s", f.GetId(), n, r.GetProblem().GetText())
		}
		if last[f.GetId()]++; last[f.GetId()] > 1 {
			t.Errorf("call %d had %d last replies", f.GetId(), last[f.GetId()])
			continue
		}
		open--
	}
	t.Logf("%d calls at once", n)
}

func (s *suite) unknownCalls(t conform.T) {
	p := s.running(t)
	others := map[string]*v1.Call{
		"an empty call":            {},
		"a filter's call":          {Request: &v1.Call_Filter{Filter: &v1.FilterCall{Event: v1.FilterEvent_MESSAGE, Envelope: conform.Envelope(0)}}},
		"a delivery's call":        {Request: &v1.Call_Deliver{Deliver: &v1.DeliverCall{Envelope: conform.Envelope(0)}}},
		"a directory's call":       {Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{Op: &v1.DirectoryCall_Domains{Domains: &v1.DomainsRequest{}}}}},
		"a storage's call":         {Request: &v1.Call_Storage{Storage: &v1.StorageCall{Account: "meg@ryan.example", Op: &v1.StorageCall_Quota{Quota: &v1.QuotaRequest{}}}}},
		"a directory's empty call": {Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{}}},
		"a storage's empty call":   {Request: &v1.Call_Storage{Storage: &v1.StorageCall{Account: "meg@ryan.example"}}},
	}
	own := map[v1.Kind]string{
		v1.Kind_KIND_FILTER: "a filter's call", v1.Kind_KIND_DELIVER: "a delivery's call",
		v1.Kind_KIND_DIRECTORY: "a directory's call", v1.Kind_KIND_STORAGE: "a storage's call",
	}[s.kind()]
	for name, call := range others {
		if name == own {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
		_, err := p.caller.Call(ctx, call)
		cancel()
		if !fail.Is(err, fail.Unsupported) {
			t.Errorf("%s was answered with %v (kind %v), want UNSUPPORTED; %s", name, err, fail.KindOf(err), p.state())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Start)
	defer cancel()
	st, err := p.api.Session(ctx)
	if err != nil {
		t.Fatalf("Session: %v; %s", err, p.state())
	}
	for _, f := range []*v1.Frame{{}, {Id: 77, Body: &v1.Frame_Cancel{Cancel: &v1.Cancel{}}}, {Id: 1, Body: &v1.Frame_Call{Call: s.probe(p, 1)}}} {
		if err := st.Send(f); err != nil {
			t.Fatalf("send: %v; %s", err, p.state())
		}
	}
	for {
		f, err := st.Recv()
		if err != nil {
			t.Fatalf("after an empty frame and a cancel of an unknown id, a call is not answered: %v; %s", err, p.state())
		}
		if f.GetId() == 1 && f.GetReply() != nil && !f.GetReply().GetMore() {
			return
		}
	}
}

// longCall is a call that takes as long as can be had: with the facts' slow
// configuration for ever, a storage's Watch for ever, else a large mail.
func (s *suite) longCall(t conform.T) (*process, *v1.Call, bool) {
	t.Helper()
	if s.kind() == v1.Kind_KIND_STORAGE {
		p := s.running(t)
		call := s.probe(p, 2000)
		call.GetStorage().Op = &v1.StorageCall_Watch{Watch: &v1.WatchRequest{}}
		return p, call, true
	}
	slow := s.slow(t)
	p := s.running(t)
	if slow != nil {
		p = s.fresh(t, slow)
	}
	call := s.probe(p, 2000)
	letters := conform.Letters(s.opts.LargeBytes)
	large := letters[len(letters)-1]
	if f := call.GetFilter(); f != nil && (f.GetMessage() == nil || p.interest.GetMaxSize() > 0 && large.Size > p.interest.GetMaxSize()) || s.kind() == v1.Kind_KIND_DIRECTORY {
		return p, call, slow != nil
	}
	ref, err := large.Ref(s.spool)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.Remove(ref.GetPath()) })
	if f := call.GetFilter(); f != nil {
		f.Message = ref
	} else {
		call.GetDeliver().Message = ref
	}
	return p, call, slow != nil
}

// settles waits until no call is under way: their last replies have come.
func (s *suite) settles(t conform.T, p *process, after string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for p.caller.InFlight() > 0 {
		if time.Since(begin) > s.opts.Grace {
			t.Fatalf("%d calls had no last reply %s after %s; %s", p.caller.InFlight(), s.opts.Grace, after, p.state())
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("out of time")
		}
	}
	if !p.alive() {
		t.Fatalf("after %s the session broke; %s", after, p.state())
	}
	t.Logf("the last reply came %s after %s", time.Since(begin).Round(time.Millisecond), after)
}

// deadline writes frames by itself: a caller of the SDK's would send a cancel too.
func (s *suite) deadline(t conform.T) {
	p, call, endless := s.longCall(t)
	call.DeadlineMs = 1
	if endless {
		call.DeadlineMs = 300
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(call.DeadlineMs)*time.Millisecond+s.opts.Grace)
	defer cancel()
	st, err := p.api.Session(ctx)
	if err != nil {
		t.Fatalf("Session: %v; %s", err, p.state())
	}
	open := map[uint64]bool{1: true, 2: true, 3: true, 4: true}
	for id := range open {
		if err := st.Send(&v1.Frame{Id: id, Body: &v1.Frame_Call{Call: call}}); err != nil {
			t.Fatalf("send: %v; %s", err, p.state())
		}
	}
	for len(open) > 0 {
		f, err := st.Recv()
		if ctx.Err() != nil {
			t.Fatalf("%d calls with a deadline of %d ms had no last reply %s after it; %s", len(open), call.DeadlineMs, s.opts.Grace, p.state())
		}
		if err != nil {
			t.Fatalf("the session broke: %v; %s", err, p.state())
		}
		if r := f.GetReply(); r != nil && !r.GetMore() {
			delete(open, f.GetId())
		}
	}
	t.Logf("the last reply came %s after calls with a deadline of %d ms", time.Since(begin).Round(time.Millisecond), call.DeadlineMs)
	s.goesOn(t, p, endless)
}

func (s *suite) cancel(t conform.T) {
	p, call, endless := s.longCall(t)
	for range 4 {
		// A minute stands in the call, so that only the cancel can end it.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		stop := time.AfterFunc(20*time.Millisecond, cancel)
		_ = p.caller.Stream(ctx, call, func(*v1.Reply) error { return nil })
		stop.Stop()
		cancel()
	}
	s.settles(t, p, "the cancel")
	s.goesOn(t, p, endless)
}

// goesOn makes a call after those that were given up.
func (s *suite) goesOn(t conform.T, p *process, slow bool) {
	t.Helper()
	if slow && s.kind() != v1.Kind_KIND_STORAGE {
		return // no call of this process ends by itself
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Start)
	defer cancel()
	if fault := s.asked(ctx, p, 2001); fault != "" {
		t.Errorf("a call after calls that were given up: %s", fault)
	}
}

func (s *suite) peers(t conform.T) {
	s.check(t, "", conform.Check{
		Name: "data socket: opens to granted tokens only", Contract: "plugin.proto, Peer; ConfigureRequest.data_socket_fd, data_tokens",
		Remedy: "serve Peer on the inherited socket, and end a stream whose metadata \"stagecoach-token\" is not one of data_tokens with UNAUTHENTICATED", Do: s.tokens,
	})
	s.check(t, "", conform.Check{
		Name: "data socket: Rebind adds tokens", Contract: "plugin.proto, Plugin.Rebind, RebindRequest.data_tokens",
		Remedy: "add the tokens of Rebind to those there are, and let open sessions be", Do: s.rebind,
	})
}

// peerCall makes a probe over the data socket.
func (s *suite) peerCall(t conform.T, p *process, token string) error {
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
	defer cancel()
	c, err := stream.DialPeer(ctx, p.place.socket, token)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.Call(ctx, s.probe(p, 1))
	if err == nil && !s.ofKind(r) {
		err = errors.New("the reply has no response of its kind")
	}
	return err
}

func unauthenticated(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if status.Code(err) == codes.Unauthenticated {
			return true
		}
	}
	return false
}

func (s *suite) tokens(t conform.T) {
	p := s.running(t)
	if err := s.peerCall(t, p, p.place.token); err != nil {
		t.Errorf("with the granted token: %v", err)
	}
	for _, token := range []string{"", "wrong", p.place.token + "x", strings.ToUpper(p.place.token)} {
		if err := s.peerCall(t, p, token); !unauthenticated(err) {
			t.Errorf("with token %q: %v, want the gRPC status UNAUTHENTICATED", token, err)
		}
	}
}

func (s *suite) rebind(t conform.T) {
	p := s.running(t)
	if err := s.peerCall(t, p, "later"); err == nil {
		t.Skipf("a token that was not granted opens the data socket: see the check before")
	}
	if _, err := p.api.Rebind(t.Context(), &v1.RebindRequest{DataTokens: []string{"later"}}); err != nil {
		t.Fatalf("Rebind: %v; %s", err, p.state())
	}
	for _, token := range []string{"later", p.place.token} {
		if err := s.peerCall(t, p, token); err != nil {
			t.Errorf("after Rebind, with token %q: %v", token, err)
		}
	}
}

var metricName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

func (s *suite) metrics(t conform.T) {
	p := s.running(t)
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
	defer cancel()
	r, err := p.api.Metrics(ctx, &v1.MetricsRequest{})
	if err != nil {
		t.Fatalf("Metrics: %v; %s", err, p.state())
	}
	for _, m := range r.GetMetrics() {
		if !metricName.MatchString(m.GetName()) {
			t.Errorf("metric %q: letters, digits and _", m.GetName())
		}
		if m.GetCounter() && m.GetValue() < 0 {
			t.Errorf("counter %s is %v", m.GetName(), m.GetValue())
		}
		for l := range m.GetLabels() {
			if !metricName.MatchString(l) {
				t.Errorf("metric %s has label %q: letters, digits and _", m.GetName(), l)
			}
		}
	}
	t.Logf("%d series", len(r.GetMetrics()))
}

// knock is an access plugin's probe: a client that comes and goes.
func (s *suite) knock(ctx context.Context, p *process) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", p.place.listeners[0].GetAddress())
	if err != nil {
		return err
	}
	defer c.Close()
	if s.opts.Facts.Protocol == "silent" {
		return nil
	}
	c.SetReadDeadline(time.Now().Add(s.opts.Start))
	_, err = c.Read(make([]byte, 1))
	return err
}

// load makes n calls, a few at a time.
func (s *suite) load(ctx context.Context, p *process, from, n int) string {
	var wg sync.WaitGroup
	faults := make(chan string, n)
	next := make(chan int)
	for range 4 {
		wg.Go(func() {
			for i := range next {
				if s.kind() != v1.Kind_KIND_ACCESS {
					faults <- s.asked(ctx, p, from+i)
				} else if err := s.knock(ctx, p); err != nil {
					faults <- err.Error()
				} else {
					faults <- ""
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	close(faults)
	for f := range faults {
		if f != "" {
			return f
		}
	}
	return ""
}
