package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/tryout"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

const longDev = `Run a plugin in a small server of its own, hand it a mail, and print what it was asked,
what it answered, how long that took, and what it logged. Then wait: whenever a source
file, the configuration or the mail is saved, build, start and ask again. Ctrl-C ends it.

PATH is a folder: with Go files (built by go build), a package.json, or a Python program;
or it is a program, or the name of a bundled plugin. Arguments of the program that begin
with - stand after --.

--config names a file with the plugin's block, or with what stands between its braces, or
a whole configuration with such a block. Without it, conform.hcl or NAME.hcl of the
project's folder is read, as ` + "`stagecoach plugin new`" + ` writes them.

What is asked depends on the kind:
  filter     every event of its interest, in the order of a mail's life
  deliver    one delivery to all of --to
  directory  its domains, and what each of --to stands for
  storage    a deposit for each of --to, then the listing of their mailboxes
  access     its greeting; it runs on loopback with a storage, in which the mail is, and
             a directory with tom@hanks.example and meg@ryan.example, password "sleepless"

--debug starts the program stopped under dlv (Go), node --inspect-brk (Node) or debugpy
(Python), if there is one, and says how to connect to it; else it starts it as always,
says how to attach, and hands over the mail when a debugger is attached, or on Enter. No
call is late while you step.`

const exampleDev = `  stagecoach plugin dev .
  stagecoach plugin dev subject --config conform.hcl --mail lottery.eml
  printf 'Subject: lottery\n\nHello\n' | stagecoach plugin dev subject --mail - --once
  stagecoach plugin dev ./subject_tagger.py --config rules.hcl --to meg@ryan.example
  stagecoach plugin dev . --debug`

// developing is what the flags say.
type developing struct {
	config, mail, from string
	to                 []string
	debug, once, json  bool
}

func (a *App) pluginDev() *cobra.Command {
	var o developing
	c := &cobra.Command{
		Use: "dev PATH [ARGS…]", Short: "Run a plugin on a mail, and again after each change of its source",
		Long: longDev, Example: exampleDev, Args: cobra.MinimumNArgs(1),
		RunE: do(func(cmd *cobra.Command, args []string) error { return a.develop(cmd, args, o) }),
	}
	f := c.Flags()
	f.StringVarP(&o.config, "config", "c", "", "file with the plugin's block")
	f.StringVarP(&o.mail, "mail", "m", "", "file with the mail; - is standard input (default: a sample)")
	f.StringVar(&o.from, "from", "tom@hanks.example", "the mail's sender; empty is the null one")
	f.StringArrayVar(&o.to, "to", []string{"meg@ryan.example"}, "a recipient (may be repeated)")
	f.BoolVar(&o.debug, "debug", false, "start it for a debugger")
	f.BoolVar(&o.once, "once", false, "end after the first mail: 1 if there was no answer, 3 if the configuration has mistakes")
	jsonFlag(c, &o.json)
	return c
}

func (o *developing) check() error {
	if o.from != "" {
		if _, err := address.Parse(o.from, true); err != nil {
			return fmt.Errorf("--from %q is no address: %w", o.from, err)
		}
	}
	for _, to := range o.to {
		if _, err := address.Parse(to, true); err != nil {
			return fmt.Errorf("--to %q is no address: %w", to, err)
		}
	}
	return nil
}

// developer is one run of `plugin dev`.
type developer struct {
	developing
	args    []string
	names   []string // of the bundled plugins
	place   *tryout.Place
	project *tryout.Project
	show    *devShow
	stdin   []byte // the mail, if it came that way
	enter   <-chan struct{}
}

func (a *App) develop(cmd *cobra.Command, args []string, o developing) error {
	if err := o.check(); err != nil {
		return &exit{ExitUsage, err}
	}
	d := &developer{developing: o, args: args, show: newDevShow(cmd.OutOrStdout(), o.json)}
	for _, b := range a.Bundled {
		d.names = append(d.names, b.Name)
	}
	if o.mail == "-" {
		var err error
		if d.stdin, err = messageOf(cmd.InOrStdin(), "-", "", nil); err != nil {
			return err
		}
	}
	if o.debug && o.mail != "-" {
		d.enter = lines(cmd.InOrStdin())
	}
	place, err := a.tryPlace(zerolog.New(d.show), o.debug)
	if err != nil {
		return err
	}
	d.place = place
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends it at once
	err = d.loop(ctx)
	d.show.end(o.debug)
	if cerr := place.Close(); err == nil {
		err = cerr
	}
	switch {
	case ctx.Err() == nil:
		return err
	case o.once:
		return errors.New("interrupted")
	}
	return nil // interrupted: that is how it ends
}

// tryPlace makes the place where a plugin is tried.
func (a *App) tryPlace(log zerolog.Logger, patient bool) (*tryout.Place, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return tryout.Open(tryout.Options{
		Executable: self, Version: a.Version, Log: log, Schemas: a.schemas, Bundled: a.bundledNames(), AddUser: a.Users.Add, Patient: patient,
	})
}

// lines tells of each line that comes.
func lines(r io.Reader) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		buf := make([]byte, 256)
		for {
			n, err := r.Read(buf)
			if strings.ContainsRune(string(buf[:n]), '\n') {
				c <- struct{}{}
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// loop is a round for each change.
func (d *developer) loop(ctx context.Context) error {
	var err error
	if d.project, err = tryout.Find(d.args[0], d.args[1:], d.names, d.place.Built); err != nil {
		return err
	}
	for {
		before := d.project.Look(d.watched()...)
		err := d.round(ctx)
		if d.once || ctx.Err() != nil {
			return err
		}
		d.show.waiting(d.project, len(before))
		changed, err := d.project.Watch(ctx, before, d.watched()...)
		if err != nil {
			return err
		}
		d.show.changed(d.shown(changed))
		if p, err := d.project.Again(d.args[1:], d.names, d.place.Built); err == nil {
			d.project = p
		}
	}
}

// watched are files beside the project's.
func (d *developer) watched() []string {
	var out []string
	for _, f := range []string{d.config, d.mail} {
		if f != "" && f != "-" {
			out = append(out, f)
		}
	}
	if d.config == "" && d.project.Dir != "" {
		found, _ := filepath.Glob(filepath.Join(d.project.Dir, "*.hcl"))
		out = append(out, found...)
	}
	return out
}

// shown is a file as a person here would name it.
func (d *developer) shown(file string) string {
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, file); err == nil && !strings.HasPrefix(rel, "..") {
			return rel
		}
	}
	return file
}

// round builds, starts and asks once. What goes wrong is printed here.
func (d *developer) round(ctx context.Context) error {
	m := tryout.Mail{From: d.from, To: d.to, Text: d.stdin}
	if d.mail != "" && d.mail != "-" {
		var err error
		if m.Text, err = messageOf(nil, d.mail, "", nil); err != nil {
			return d.failed(ctx, err)
		}
	}
	built, err := d.project.Build(ctx, d.debug)
	if err != nil {
		return d.failed(ctx, err)
	}
	var bug *tryout.Debugger
	var via func([]string) []string
	if d.debug && d.project.Bundled == "" {
		if bug, err = d.project.Debugger(exec.LookPath); err != nil {
			return d.failed(ctx, err)
		}
		if via = bug.Via; via != nil {
			d.show.debugger(bug, 0)
		}
	}
	d.show.gather()
	r, err := d.place.Start(ctx, d.project, d.config, via)
	if err != nil {
		d.show.settle(ctx)
		return d.failed(ctx, err)
	}
	d.show.started(d.project, r, built)
	if bug != nil && via == nil {
		pid := r.Instance.Info().PID
		d.show.debugger(bug, pid)
		if err := d.attached(ctx, pid); err != nil {
			return err
		}
	}
	d.show.gather()
	out, err := r.Ask(ctx, m, func(x *tryout.Exchange) { d.show.exchange(ctx, x) })
	d.show.settle(ctx)
	if err != nil {
		return d.failed(ctx, err)
	}
	d.show.outcome(out)
	if out.Failed {
		return &exit{ExitFailed, errPrinted}
	}
	return nil
}

// attached waits for a debugger, or for Enter.
func (d *developer) attached(ctx context.Context, pid int) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.enter:
			return nil
		case <-tick.C:
			if tryout.Traced(pid) {
				return nil
			}
		}
	}
}

// failed prints why a round has no answer.
func (d *developer) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.show.problem(err)
	var wrong *tryout.ConfigError
	if errors.As(err, &wrong) {
		return &exit{ExitConfig, errPrinted}
	}
	return &exit{ExitFailed, errPrinted}
}
