package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// backlogResult is what a queue of many mails, whose next hop is down, costs.
type backlogResult struct {
	Mails    int           `json:"mails"`
	Accepted float64       `json:"accepted_per_second"`
	First    int           `json:"first_mails"`
	Empty    int64         `json:"resident_empty"`
	AtFirst  int64         `json:"resident_first"`
	AtAll    int64         `json:"resident_all"`
	List     time.Duration `json:"list_ns"`  // of one destination
	Stats    time.Duration `json:"stats_ns"` // of all
	Restart  time.Duration `json:"restart_to_first_delivery_ns"`
	Drain    float64       `json:"drained_per_second"`
	Relay    float64       `json:"relayed_per_second"` // with an empty queue, just before
}

// backlog measures ours alone: its goals are figures, not ratios.
func (b *bench) backlog(mails int) (res *backlogResult, err error) {
	p := &stagecoach{bin: b.bin}
	res = &backlogResult{Mails: mails, First: min(100_000, mails/2)}
	// The rate of the relay with an empty queue, for the same load.
	l := load{tool: "kept", sessions: 20, size: 2 * kib, to: anyone, mails: max(2000, min(mails, 20_000))}
	stop, _, err := b.serve(p, relay)
	if err == nil {
		began := time.Now()
		if _, err = l.run(b.client, b.tools, p.port()); err == nil {
			err = b.arrive(p, relay, l.mails)
		}
		res.Relay = float64(l.mails) / time.Since(began).Seconds()
	}
	if err = errors.Join(err, stop()); err != nil {
		return nil, err
	}
	// The queue fills while the sink is down.
	stop, g, err := b.serve(p, relay)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return nil, err
	}
	if err := b.sink.g.stop(time.Second); err != nil {
		return nil, err
	}
	res.Empty = memoryOf(p.core(g), "Rss:")
	began := time.Now()
	for at, n := range []int{res.First, mails - res.First} {
		l.mails = n
		fmt.Fprintf(os.Stderr, "backlog  %d mails into the queue\n", n)
		if _, err := l.run(b.client, b.tools, p.port()); err != nil {
			return nil, err
		}
		if at == 0 {
			res.AtFirst = memoryOf(p.core(g), "Rss:")
		}
	}
	res.Accepted = float64(mails) / time.Since(began).Seconds()
	res.AtAll = memoryOf(p.core(g), "Rss:")
	if res.List, err = p.timed("queue", "list", "--destination", "d7.example", "--json"); err != nil {
		return nil, err
	}
	if res.Stats, err = p.timed("queue", "stats", "--json"); err != nil {
		return nil, err
	}
	// Restart, with the next hop there again.
	if err := p.stop(g); err != nil {
		return nil, err
	}
	if err := b.sink.start(b.tools); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	began = time.Now()
	if err := p.start(g, log); err != nil {
		return nil, err
	}
	if err := greeted(p.port(), time.Minute); err != nil {
		return nil, err
	}
	// The next hop was down, so all waits for its next attempt, as after any
	// outage: the operator asks for it now. That is part of the time.
	retried := make(chan error, 1)
	go func() {
		out, err := p.command("queue", "retry", "--all", "--yes")
		if err != nil {
			err = fmt.Errorf("queue retry: %w: %.500s", err, out)
		}
		retried <- err
	}()
	err = b.arriving(func(n int) bool { return n > 0 })
	res.Restart = time.Since(began)
	if err = errors.Join(err, <-retried); err != nil {
		return nil, err
	}
	// The rate of the drain is that from a tenth to nine tenths of it.
	var from, to time.Time
	if err := b.arriving(func(n int) bool {
		if from.IsZero() && n >= mails/10 {
			from = time.Now()
		}
		if n >= mails*9/10 {
			to = time.Now()
		}
		return !to.IsZero()
	}); err != nil {
		return nil, err
	}
	res.Drain = float64(mails*8/10) / to.Sub(from).Seconds()
	fmt.Fprintf(os.Stderr, "backlog  drained at %.0f/s\n", res.Drain)
	return res, nil
}

// arriving follows the sink's count until enough says so.
func (b *bench) arriving(enough func(int) bool) error {
	last, at := -1, time.Now()
	for {
		n, err := b.sink.taken()
		if err != nil {
			return err
		}
		if enough(n) {
			return nil
		}
		if n != last {
			last, at = n, time.Now()
		}
		if time.Since(at) > 2*stall {
			return fmt.Errorf("%d mails came to the sink, and none in %s", n, 2*stall)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *stagecoach) command(words ...string) ([]byte, error) {
	return exec.Command(s.bin, append(words, "-c", s.config())...).CombinedOutput()
}

// timed runs a command three times and tells the shortest.
func (s *stagecoach) timed(words ...string) (best time.Duration, err error) {
	for range 3 {
		began := time.Now()
		if out, err := s.command(words...); err != nil {
			return 0, fmt.Errorf("stagecoach %s: %w: %.500s", strings.Join(words, " "), err, out)
		}
		if took := time.Since(began); best == 0 || took < best {
			best = took
		}
	}
	return best, nil
}

func (r *backlogResult) rows() []row {
	name := fmt.Sprintf("backlog %d", r.Mails)
	rows := []row{
		{What: "resident memory of the core", Unit: "MB", Ours: float64(r.AtAll) / 1e6, Goal: 500},
		{What: "restart to first delivery", Unit: "s", Ours: r.Restart.Seconds(), Goal: 5},
		{What: "queue list of one destination", Unit: "ms", Ours: ms(r.List), Goal: 200},
		{What: "queue stats", Unit: "ms", Ours: ms(r.Stats), Goal: 200},
	}
	if r.Mails > r.First && r.First >= 100_000 {
		rows = append(rows, row{What: fmt.Sprintf("memory a mail beyond %d", r.First), Unit: "octets", Ours: max(0, float64(r.AtAll-r.AtFirst)/float64(r.Mails-r.First)), Goal: 100})
	}
	for i := range rows {
		rows[i].Workload = name
		rows[i].Holds = rows[i].Ours <= rows[i].Goal
	}
	drain := row{Workload: name, What: "drained, of the relay's rate", Unit: "", Ours: r.Drain / r.Relay, Goal: 0.5}
	drain.Holds = drain.Ours >= drain.Goal
	return append(rows, drain)
}
