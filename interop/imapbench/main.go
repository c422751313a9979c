// Command imapbench measures the mailboxes of Stagecoach beside Dovecot's, in
// turns, on one disk and one machine: a round has each figure once for each
// server. What it prints are ratios to the best of Dovecot's formats: on a machine
// that others use too they hold, where times do not.
//
//	imapbench [flags]
//
// It wants root and Dovecot; .ci/bench-imap sees to both and gives it a network of
// its own.
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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stagecoach-mta/stagecoach/interop/dovecot"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imapbench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("imapbench", flag.ContinueOnError)
	bin := flags.String("bin", "bin/stagecoach", "the binary to measure")
	dir := flags.String("dir", "", "folder on the disk to measure; default: a new one below /var/tmp. With -keep it is filled once")
	sizes := flags.String("mails", "10000,100000", "sizes of the mailboxes, multiples of 1000, separated by commas")
	formats := flags.String("formats", "sdbox,maildir", "formats of Dovecot to measure beside, separated by commas; empty: ours alone")
	rounds := flags.Int("rounds", 3, "rounds")
	only := flags.String("figures", "", "beginnings of the figures' names, separated by commas; default: all")
	flags.IntVar(&idlers, "idlers", idlers, "connections that idle at once")
	keep := flags.Bool("keep", false, "leave the folder behind")
	asJSON := flags.Bool("json", false, "print the ratios as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	counts, err := counts(*sizes)
	if err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: build it with make build", err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := dovecot.LoopbackUp(); err != nil {
		return err
	}
	folder := *dir
	if folder == "" {
		if folder, err = os.MkdirTemp("/var/tmp", "imapbench"); err != nil {
			return err
		}
	}
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.Chmod(folder, 0o755)); err != nil { // the servers give up root
		return err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "kept:", folder)
	} else {
		defer os.RemoveAll(folder)
	}
	servers := []server{&ours{bin: path, folder: filepath.Join(folder, "stagecoach"), port: 2643}}
	for i, format := range strings.FieldsFunc(*formats, func(r rune) bool { return r == ',' }) {
		servers = append(servers, newTheirs(folder, format, 2653+10*i))
	}
	for _, n := range counts {
		accounts = append(accounts, sized(n))
	}
	b := &bench{ctx: ctx, servers: servers, counts: counts, rounds: *rounds}
	defer b.stop()
	if err := b.fill(); err != nil {
		return err
	}
	if err := b.measure(chosen); err != nil {
		return err
	}
	rows := b.rows(chosen)
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(rows)
	}
	return table(os.Stdout, rows)
}

func counts(text string) (list []int, err error) {
	for t := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(t)
		if err != nil || n <= 0 || n%1000 != 0 {
			return nil, fmt.Errorf("-mails %s: %q is no multiple of 1000", text, t)
		}
		list = append(list, n)
	}
	return list, nil
}

// choose finds figures by how their names begin.
func choose(names string) ([]figure, error) {
	if names == "" {
		return figures, nil
	}
	var chosen []figure
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, f := range figures {
			if strings.HasPrefix(f.name, name) {
				found = true
				if !slices.ContainsFunc(chosen, func(c figure) bool { return c.name == f.name }) {
					chosen = append(chosen, f)
				}
			}
		}
		if !found {
			var known []string
			for _, f := range figures {
				known = append(known, f.name)
			}
			return nil, fmt.Errorf("no figure begins with %q; there are: %s", name, strings.Join(known, "; "))
		}
	}
	return chosen, nil
}

// sized is the account whose INBOX holds so many mails.
func sized(mails int) string { return "m" + strconv.Itoa(mails) }

// bench is one run.
type bench struct {
	ctx     context.Context
	servers []server
	counts  []int
	rounds  int
	results []result
}

// result is one figure of one server in one round.
type result struct {
	figure, server string
	mails, round   int
	value          float64
}

func (b *bench) stop() {
	for _, s := range b.servers {
		if err := s.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "imapbench:", err)
		}
	}
}

// fill makes the mailboxes of all servers by IMAP, the same everywhere, and
// leaves the servers running.
func (b *bench) fill() error {
	for _, s := range b.servers {
		filled := filepath.Join(s.dir(), "filled-"+fmt.Sprint(b.counts))
		if _, err := os.Stat(filled); err != nil {
			began := time.Now()
			if err := s.start(true); err != nil {
				return err
			}
			if err := b.fillOne(s); err != nil {
				return fmt.Errorf("fill %s: %w", s.name(), err)
			}
			if err := errors.Join(s.stop(), os.WriteFile(filled, nil, 0o644)); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%s filled in %s\n", s.name(), time.Since(began).Round(time.Second))
		}
		if err := s.start(false); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) fillOne(s server) error {
	for _, n := range b.counts {
		if err := b.deposit(s, sized(n), "INBOX", n); err != nil {
			return err
		}
	}
	for _, account := range []string{"pop", "crowd"} {
		if err := b.deposit(s, account, "INBOX", letters); err != nil {
			return err
		}
	}
	if err := b.deposit(s, "crowd", "Kept", 1); err != nil {
		return err
	}
	for n := range folders {
		if err := b.deposit(s, "folders", folder(n), 5); err != nil {
			return err
		}
	}
	return b.deposit(s, "idle", "INBOX", 10)
}

func (b *bench) deposit(s server, account, box string, mails int) error {
	c, err := dial(s.imap(), user(account), dovecot.Password, 1<<18)
	if err != nil {
		return err
	}
	defer c.close()
	if box != "INBOX" {
		if _, err := c.do(nil, "CREATE %s", box); err != nil {
			return err
		}
	}
	for at := 0; at < mails; {
		if b.ctx.Err() != nil {
			return errors.New("interrupted")
		}
		var some [][]byte
		for ; at < mails && len(some) < 100; at++ {
			some = append(some, mail(at))
		}
		if err := c.append(box, some...); err != nil {
			return err
		}
	}
	return nil
}

// measure runs the rounds; the servers take turns in being the first.
func (b *bench) measure(chosen []figure) error {
	for round := range b.rounds {
		for _, f := range chosen {
			sizes := []int{0}
			if f.sized {
				sizes = b.counts
			}
			for _, n := range sizes {
				for i := range b.servers {
					s := b.servers[(i+round)%len(b.servers)]
					if b.ctx.Err() != nil {
						return errors.New("interrupted")
					}
					v, err := f.run(s, sized(n), n)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", f.name, s.name(), err)
					}
					r := result{figure: f.name, server: s.name(), mails: n, round: round, value: v}
					b.results = append(b.results, r)
					fmt.Fprintf(os.Stderr, "round %d/%d  %-30s %-11s %s %s\n", round+1, b.rounds, label(f, n), s.name(), number(v), f.unit)
				}
			}
		}
	}
	return nil
}
