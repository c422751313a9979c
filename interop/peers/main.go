// Command peers measures Stagecoach and the mail servers that people run today,
// in interleaved runs on one disk and one machine: a round has each workload once
// for each server, one server at a time. What it prints are ratios: on a machine
// that others use too they hold, where rates do not.
//
//	peers [flags]
//
// It wants root, for control groups, and smtp-source, smtp-sink and postfix
// installed; .ci/bench-peers sees to both and gives it a network of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is what the runs share.
type bench struct {
	ctx     context.Context
	bin     string
	dir     string
	root    string // of the control groups
	tools   tools
	client  *group // smtp-source
	sink    *sink
	mails   int
	seconds time.Duration
	cores   int
	keep    bool
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	b := &bench{cores: runtime.NumCPU()}
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.StringVar(&b.bin, "bin", "bin/stagecoach", "the binary to measure")
	flags.StringVar(&b.dir, "dir", "", "folder on the disk to measure; default: a new one below /var/tmp")
	flags.IntVar(&b.mails, "mails", 0, "mails of a run; 0: as many as take -seconds")
	flags.DurationVar(&b.seconds, "seconds", 4*time.Second, "about how long a run takes")
	flags.BoolVar(&b.keep, "keep", false, "leave the folder behind")
	rounds := flags.Int("rounds", 3, "rounds")
	only := flags.String("workloads", "", "names of workloads, separated by commas; default: all")
	others := flags.String("peers", "postfix", "servers beside ours, separated by commas; empty: none")
	backlog := flags.Int("backlog", 20000, "mails of the workload backlog")
	asJSON := flags.Bool("json", false, "print the runs and the ratios as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, withBacklog, err := choose(*only)
	if err != nil {
		return err
	}
	peers, err := b.peers(*others)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	b.ctx = ctx
	if err := b.open(); err != nil {
		return err
	}
	defer b.close()
	var results []*result
	var waits *backlogResult
	for round := 1; round <= *rounds; round++ {
		for _, w := range chosen {
			for _, p := range peers {
				if _, ours := p.(*stagecoach); w.only && !ours {
					continue
				}
				r, err := b.run(w, p, round)
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, p.name(), err)
				}
				results = append(results, r)
				fmt.Fprintln(os.Stderr, r.line(*rounds))
			}
		}
	}
	if withBacklog {
		if waits, err = b.backlog(*backlog); err != nil {
			return fmt.Errorf("backlog: %w", err)
		}
	}
	rows := compare(results, peers, b.cores)
	if waits != nil {
		rows = append(rows, waits.rows()...)
	}
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(map[string]any{"runs": results, "backlog": waits, "ratios": rows})
	}
	return table(os.Stdout, rows)
}

// choose finds workloads by their names.
func choose(names string) (chosen []workload, backlog bool, err error) {
	if names == "" {
		return workloads, true, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
		switch {
		case name == "backlog":
			backlog = true
		case i < 0:
			var known []string
			for _, w := range workloads {
				known = append(known, w.name)
			}
			return nil, false, fmt.Errorf("there is no workload %q: there are %s and backlog", name, strings.Join(known, ", "))
		default:
			chosen = append(chosen, workloads[i])
		}
	}
	return chosen, backlog, nil
}

// peers has ours as the first.
func (b *bench) peers(names string) (list []peer, err error) {
	list = []peer{&stagecoach{bin: b.bin}}
	for name := range strings.SplitSeq(names, ",") {
		switch name {
		case "":
		case "postfix":
			list = append(list, &postfix{})
		default:
			return nil, fmt.Errorf("there is no server %q: there is postfix", name)
		}
	}
	return list, nil
}

func (b *bench) open() (err error) {
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if _, err := os.Stat(b.bin); err != nil {
		return fmt.Errorf("%w: build it with make build", err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if b.tools, err = findTools(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(orDefault(b.dir, "/var/tmp"), "peers"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // the servers give up root
		return err
	}
	if b.root, err = groupRoot(); err != nil {
		return err
	}
	if b.client, err = newGroup(b.root, "client"); err != nil {
		return err
	}
	into, err := newGroup(b.root, "sink")
	b.sink = &sink{g: into, out: filepath.Join(b.dir, "sink.out"), port: 2600}
	return err
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (b *bench) close() {
	for _, g := range []*group{b.client, b.sink.g} {
		if err := g.stop(time.Second); err != nil {
			fmt.Fprintln(os.Stderr, "peers:", err)
		}
		g.remove()
	}
	os.Remove(b.root)
	if b.keep {
		fmt.Fprintln(os.Stderr, "kept:", b.dir)
		return
	}
	os.RemoveAll(b.dir)
}

// used is the CPU time of the load and the sink.
func (b *bench) used() time.Duration {
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	return b.client.cpu() + b.sink.g.cpu() + time.Duration(own.Utime.Nano()+own.Stime.Nano())
}

// serve starts a server in an empty folder, and the sink if it relays. The
// function that it returns ends both, and is there even with an error.
func (b *bench) serve(p peer, mode string) (stop func() error, g *group, err error) {
	dir := filepath.Join(b.dir, p.name())
	var log *os.File
	stop = func() error {
		var errs []error
		if g != nil {
			errs = append(errs, p.stop(g))
			g.remove()
		}
		if log != nil {
			log.Close()
		}
		errs = append(errs, b.sink.g.stop(time.Second))
		if !b.keep {
			errs = append(errs, os.RemoveAll(dir))
		}
		return errors.Join(errs...)
	}
	if err := os.RemoveAll(dir); err != nil {
		return stop, nil, err
	}
	if err := p.prepare(dir, mode, b.sink.port); err != nil {
		return stop, nil, err
	}
	if log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return stop, nil, err
	}
	if mode != local {
		if err := b.sink.start(b.tools); err != nil {
			return stop, nil, err
		}
	}
	if g, err = newGroup(b.root, p.name()); err != nil {
		return stop, nil, err
	}
	if err = p.start(g, log); err == nil {
		err = greeted(p.port(), 30*time.Second)
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		err = fmt.Errorf("%w\n%s", err, text)
	}
	return stop, g, err
}
