// Command imapdiff sends the same random commands to Stagecoach and to Dovecot and
// compares what they answer, in a form that leaves out what servers are free in.
// What differs is explained in the table of explained.go, or it fails.
//
//	imapdiff -ours 127.0.0.1:2143 -user meg@ryan.example -password sleepless [flags]
//
// It wants root, for the Dovecot that it starts. A seed makes the same commands
// again: -seed 7 -sequences 1.
package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/interop/dovecot"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imapdiff:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	fl := flag.NewFlagSet("imapdiff", flag.ContinueOnError)
	ours := fl.String("ours", "127.0.0.1:2143", "address of the Stagecoach to compare")
	user := fl.String("user", "meg@ryan.example", "its user, whose mailboxes d… come and go")
	password := fl.String("password", dovecot.Password, "its user's password")
	dir := fl.String("dir", "", "folder for Dovecot; default: a new one")
	port := fl.Int("port", 2753, "Dovecot's port, and the one above it")
	seed := fl.Int64("seed", 1, "the first sequence")
	sequences := fl.Int("sequences", 20, "how many")
	steps := fl.Int("steps", 60, "random commands of each")
	verbose := fl.Bool("v", false, "print all commands")
	if err := fl.Parse(args); err != nil {
		return err
	}
	folder := *dir
	if folder == "" {
		if folder, err = os.MkdirTemp("", "imapdiff"); err != nil {
			return err
		}
		defer os.RemoveAll(folder)
	}
	if err := os.Chmod(folder, 0o755); err != nil { // Dovecot's processes give up root
		return err
	}
	d := &dovecot.Server{Dir: filepath.Join(folder, "dovecot"), Format: "sdbox", IMAP: *port, POP3: *port + 1, Unsafe: true}
	if err := d.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	c := &comparison{ours: *ours, theirs: fmt.Sprintf("127.0.0.1:%d", *port), user: *user, password: *password, steps: *steps, verbose: *verbose, explained: map[string]int{}}
	for n := range *sequences {
		if err := c.sequence(*seed + int64(n)); err != nil {
			return fmt.Errorf("seed %d: %w", *seed+int64(n), err)
		}
	}
	fmt.Printf("%d sequences, %d commands: %d answered alike, %d differences that are explained, %d that are not\n",
		*sequences, c.commands, c.alike, c.known, c.unknown)
	for _, name := range slices.Sorted(maps.Keys(c.explained)) {
		fmt.Printf("  %4d  %s\n", c.explained[name], name)
	}
	if c.unknown > 0 {
		return fmt.Errorf("%d differences are not explained (above)", c.unknown)
	}
	return nil
}

// comparison is one run.
type comparison struct {
	ours, theirs, user, password    string
	steps                           int
	verbose                         bool
	commands, alike, known, unknown int
	explained                       map[string]int
}

func (c *comparison) sequence(seed int64) error {
	ours, err := dial(c.ours, c.user, c.password)
	if err != nil {
		return err
	}
	defer ours.c.Close()
	theirs, err := dial(c.theirs, "meg", dovecot.Password)
	if err != nil {
		return err
	}
	defer theirs.c.Close()
	s := newSequence(seed)
	// A run that was broken off may have left some.
	if err := remove(s, ours, theirs); err != nil {
		return err
	}
	list := s.prepare()
	for range c.steps {
		list = append(list, s.next())
	}
	bad := 0
	for _, cmd := range append(list, s.finish()...) {
		// Ours ends a session after 20 mistakes in a row: where nothing is
		// selected, most commands are.
		if bad == 10 {
			for _, side := range []*conn{ours, theirs} {
				if _, _, err := side.exchange(command{text: "NOOP"}); err != nil {
					return err
				}
			}
			bad = 0
		}
		bad++
		goOn, err := c.step(seed, cmd, ours, theirs)
		if err != nil {
			return err
		}
		if !goOn {
			break
		}
	}
	return remove(s, ours, theirs)
}

// remove removes a sequence's mailboxes.
func remove(s *sequence, sides ...*conn) error {
	for _, side := range sides {
		for _, cmd := range append([]command{{text: "UNSELECT"}}, s.leave()...) {
			if _, _, err := side.exchange(cmd); err != nil {
				return err
			}
		}
	}
	return nil
}

// step sends one command to both; false if they part here.
func (c *comparison) step(seed int64, cmd command, ours, theirs *conn) (bool, error) {
	d := difference{command: cmd.text}
	var err error
	if d.ours, err = ours.run(cmd); err != nil {
		return false, fmt.Errorf("ours: %w", err)
	}
	if d.theirs, err = theirs.run(cmd); err != nil {
		return false, fmt.Errorf("dovecot: %w", err)
	}
	c.commands++
	if c.verbose {
		fmt.Printf("%s\n    %s\n", cmd.text, strings.Join(d.ours, "\n    "))
	}
	if slices.Equal(d.ours, d.theirs) {
		c.alike++
		return true, nil
	}
	mine, other := without(d.ours, d.theirs), without(d.theirs, d.ours)
	parts := false
	for _, e := range explanations {
		a, b := e.explain(d, mine, other)
		if len(a) < len(mine) || len(b) < len(other) {
			c.explained[e.name]++
			parts = parts || e.parts
		}
		mine, other = a, b
	}
	if len(mine) == 0 && len(other) == 0 {
		c.known++
		return !parts, nil
	}
	c.unknown++
	fmt.Printf("seed %d: %s\n", seed, cmd.text)
	for _, l := range mine {
		fmt.Printf("  ours     %.600s\n", l)
	}
	for _, l := range other {
		fmt.Printf("  dovecot  %.600s\n", l)
	}
	// After a change that only one has made, all else would differ too.
	return state(d.ours) == state(d.theirs), nil
}

// without are the lines of a that b does not have.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(l string) bool { return slices.Contains(b, l) })
}
