package main

import (
	"fmt"
	"time"
)

// workload is one kind of work, and what the issue that asked for this benchmark
// wants of us beside Postfix.
type workload struct {
	name, what string
	mode       string
	load       load
	// beside is the workload of a peer that ours is compared with, if it is not
	// the same.
	beside string
	// rate and cpu are the goals: how many times a peer's mails a second, and a
	// peer's CPU time per mail divided by ours. 0: no goal.
	rate, cpu float64
	// half: a run at half of the maximum rate; the goal is that our 99th
	// percentile is no longer than the peer's median.
	half bool
	// only: only ours runs it.
	only bool
}

const kib = 1024

func one(int) string      { return "u0@ryan.example" }
func all(n int) string    { return fmt.Sprintf("u%d@ryan.example", n%users) }
func anyone(n int) string { return fmt.Sprintf("u%d@d%d.example", n, n%100) }
func someone(int) string  { return "annie@reed.example" }

var workloads = []workload{
	{name: "local20", what: "local, 20 sessions, a connection per mail, 2 KiB", mode: local, rate: 8, cpu: 8,
		load: load{tool: "smtp-source", sessions: 20, size: 2 * kib, to: one}},
	{name: "local100", what: "local, 100 sessions, a connection per mail, 2 KiB", mode: local, rate: 8, cpu: 8,
		load: load{tool: "smtp-source", sessions: 100, size: 2 * kib, to: one}},
	{name: "kept20", what: "local, 20 kept connections, 2 KiB", mode: local, rate: 10, cpu: 10,
		load: load{tool: "kept", sessions: 20, size: 2 * kib, to: all}},
	{name: "one", what: "local, one session, a connection per mail, 2 KiB", mode: local, rate: 2,
		load: load{tool: "smtp-source", sessions: 1, size: 2 * kib, to: one}},
	{name: "big", what: "local, 4 sessions, a connection per mail, 1 MiB", mode: local, rate: 1.3,
		load: load{tool: "smtp-source", sessions: 4, size: kib * kib, to: one}},
	{name: "relay20", what: "relay, 20 sessions, a connection per mail, 2 KiB", mode: relay, rate: 8, cpu: 8,
		load: load{tool: "smtp-source", sessions: 20, size: 2 * kib, to: someone}},
	{name: "relay20f5", what: "the same past five filters, beside relay20", mode: past5, beside: "relay20", rate: 4, only: true,
		load: load{tool: "smtp-source", sessions: 20, size: 2 * kib, to: someone}},
	{name: "latency", what: "local, 20 kept connections at half of the rate", mode: local, half: true,
		load: load{tool: "kept", sessions: 20, size: 2 * kib, to: all}},
}

// result of one run of one server.
type result struct {
	Workload string        `json:"workload"`
	Peer     string        `json:"peer"`
	Round    int           `json:"round"`
	Mails    int           `json:"mails"`
	Took     time.Duration `json:"took_ns"`
	Accepted float64       `json:"accepted_per_second"`
	Rate     float64       `json:"per_second"` // until all are stored or with the sink
	CPU      float64       `json:"cpu_ms_per_mail"`
	// Load is what the client, the sink and this program used.
	Load   float64       `json:"load_cpu_ms_per_mail"`
	Memory int64         `json:"peak_memory"` // of all its processes, shared pages counted once
	Median time.Duration `json:"median_ns,omitempty"`
	P99    time.Duration `json:"p99_ns,omitempty"`
	// Other is the share of the machine that neither the server nor the load used.
	Other float64 `json:"other_cpu_share"`
}

// processors is how many the load can use at most: smtp-source has one thread.
func (w workload) processors(cores int) int {
	if w.load.tool == "smtp-source" && w.mode == local {
		return 1
	}
	return cores
}

// stall is how long nothing may arrive before a run is given up.
const stall = 30 * time.Second

// run starts the server anew, warms it with a small load, sends the load, and
// waits until all of it has arrived.
func (b *bench) run(w workload, p peer, round int) (res *result, err error) {
	stop, g, err := b.serve(p, w.mode)
	defer func() {
		if e := stop(); err == nil {
			err = e
		}
	}()
	if err != nil {
		return nil, err
	}
	arrived := 0
	send := func(l load) (*sent, time.Duration, error) {
		began := time.Now()
		s, err := l.run(b.client, b.tools, p.port())
		if err != nil {
			return nil, 0, err
		}
		arrived += l.mails
		err = b.arrive(p, w.mode, arrived)
		return s, time.Since(began), err
	}
	warm := w.load
	warm.mails = max(10, min(400, (4<<20)/warm.size))
	_, took, err := send(warm)
	if err != nil {
		return nil, err
	}
	l := w.load
	l.mails = b.mails
	if l.mails == 0 {
		l.mails = max(warm.mails, int(float64(warm.mails)/took.Seconds()*b.seconds.Seconds()))
	}
	if w.half {
		// The maximum rate, and then half of it.
		_, took, err := send(l)
		if err != nil {
			return nil, err
		}
		l.rate = float64(l.mails) / took.Seconds() / 2
	}
	before, client, busy, began := g.cpu(), b.used(), machine(), time.Now()
	peak := b.watch(g)
	s, took, err := send(l)
	most := peak()
	if err != nil {
		return nil, err
	}
	cpu, used := g.cpu()-before, b.used()-client
	other := machine() - busy - cpu - used
	return &result{
		Workload: w.name, Peer: p.name(), Round: round, Mails: l.mails, Took: took,
		Accepted: float64(l.mails) / s.took.Seconds(), Rate: float64(l.mails) / took.Seconds(),
		CPU: cpu.Seconds() * 1000 / float64(l.mails), Load: used.Seconds() * 1000 / float64(l.mails), Memory: most, Median: s.quantile(0.5), P99: s.quantile(0.99),
		Other: max(0, other.Seconds()) / time.Since(began).Seconds() / float64(b.cores),
	}, nil
}

// arrive waits until so many mails are where they should be.
func (b *bench) arrive(p peer, mode string, want int) error {
	last, at := -1, time.Now()
	for {
		var n int
		var err error
		if mode == local {
			n, err = p.stored()
		} else {
			n, err = b.sink.taken()
		}
		switch {
		case err != nil:
			return err
		case n > want:
			return fmt.Errorf("%d mails arrived and only %d were sent", n, want)
		case n == want:
			return nil
		case n != last:
			last, at = n, time.Now()
		case time.Since(at) > stall:
			return fmt.Errorf("%d of %d mails arrived, and none in %s", n, want, stall)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// watch samples the memory of a group until the function that it returns is
// called, which tells the most.
func (b *bench) watch(g *group) func() int64 {
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		most := g.memory()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, g.memory())
			case <-stop:
				done <- max(most, g.memory())
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-done }
}
