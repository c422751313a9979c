// Package command is the command line: it parses words, calls the part of the
// core that does the work, and prints for people or, with --json, for machines.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/sdk"
)

// Exit codes, the same for every command.
const (
	ExitOK         = 0
	ExitFailed     = 1 // what was asked for did not work
	ExitUsage      = 2 // the command line is wrong
	ExitConfig     = 3 // the configuration has mistakes
	ExitNotRunning = 4 // the command needs a running server, and there is none
	ExitTest       = 5 // a test block, a check or a step of the demo did not hold
)

// Users edits a people file, for `stagecoach user`.
type Users interface {
	Add(path, address, password string) error
	SetPassword(path, address, password string) error
	List(path string) ([]string, error)
}

// App is what the composition root hands in.
type App struct {
	Version string
	// Bundled are the plugins in this binary.
	Bundled     []sdk.Plugin
	Users       Users
	SigningKeys SigningKeys
	UserScripts UserScripts
	Stdin       io.Reader
	Stdout      io.Writer
	Stderr      io.Writer
}

// exit carries an exit code with the error that caused it.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

// printed marks an error whose text the user has seen already.
var errPrinted = errors.New("")

// Run executes the command line and returns the exit code.
func (a *App) Run(ctx context.Context, args []string) int {
	if work := a.ofCore(args); work != nil {
		if err := work(); err != nil {
			fmt.Fprintln(a.Stderr, "stagecoach:", err)
			return ExitFailed
		}
		return ExitOK
	}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	code := ExitUsage
	var e *exit
	if errors.As(err, &e) {
		code = e.code
	}
	if !errors.Is(err, errPrinted) {
		fmt.Fprintln(a.Stderr, "stagecoach:", err)
		if code == ExitUsage {
			fmt.Fprintf(a.Stderr, "Run `%s --help` for how it is used.\n", cmd.CommandPath())
		}
	}
	return code
}

// ofCore is the work of the two commands with which the core starts a process; nil
// for others. A plugin's process shall not make, and keep, what the tree of all
// commands takes.
func (a *App) ofCore(args []string) func() error {
	switch {
	case len(args) == 3 && slices.Equal(args[:2], []string{"plugin", "serve"}) && !strings.HasPrefix(args[2], "-"):
		return func() error { return a.serveBundled(args[2]) }
	case len(args) == 3 && slices.Equal(args[:2], host.SandboxCommand) && !strings.HasPrefix(args[2], "-"):
		return func() error { return host.EnterSandbox(args[2:]) }
	}
	return nil
}

// do wraps a command's work: its errors are failures unless they say otherwise.
func do(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var e *exit
		if err == nil || errors.As(err, &e) {
			return err
		}
		return &exit{ExitFailed, err}
	}
}

const longHelp = `Stagecoach is a mail transfer agent that is configured by one HCL file and made of
plugins: receive, queue, route, deliver.

First steps:
  stagecoach serve -c configs/dev.hcl     a server on loopback with two users
  stagecoach demo                         two servers write each other, step by step
  stagecoach validate -c FILE             what is wrong with a configuration, and where

Exit codes: 0 done; 1 it did not work; 2 wrong command line; 3 the configuration
has mistakes; 4 no server is running; 5 a test, a check or a step of the
demo did not hold.`

func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use: "stagecoach", Short: "A plugin-driven mail transfer agent", Long: longHelp,
		SilenceErrors: true, SilenceUsage: true, Version: a.Version,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetVersionTemplate("stagecoach {{.Version}}\n")
	root.AddCommand(
		a.serve(), a.reload(), a.validate(), a.format(), a.test(), a.explain(), a.demo(),
		a.queue(), a.trace(), a.plugin(), a.user(), a.mailbox(), a.dkim(), a.sieve(), a.version(),
	)
	for _, c := range root.Commands() {
		strict(c)
	}
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command",
		RunE: func(c *cobra.Command, args []string) error {
			of, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("there is no command %q", strings.Join(args, " "))
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	})
	return root
}

// strict says wrong words in our own ones. A group of commands would print its
// help for a misspelt one, and end well.
func strict(c *cobra.Command) {
	for _, sub := range c.Commands() {
		strict(sub)
	}
	if c.HasSubCommands() && !c.Runnable() {
		c.SuggestionsMinimumDistance = 2
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			text := fmt.Sprintf("there is no command %q", spoken(c)+" "+args[0])
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				text += fmt.Sprintf("; did you mean %q?", spoken(c)+" "+near[0])
			}
			return errors.New(text)
		}
		return
	}
	check := c.Args
	if check == nil {
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		switch err := check(c, args); {
		case err == nil:
			return nil
		case len(args) > 0 && c.Flags().Lookup("config") != nil && check(c, nil) == nil:
			return fmt.Errorf("%s takes no arguments; a configuration is named with -c: %s -c %s", spoken(c), c.CommandPath(), args[0])
		case len(args) > 0 && check(c, nil) == nil:
			return fmt.Errorf("%s takes no arguments", spoken(c))
		}
		return fmt.Errorf("write: %s %s", c.Parent().CommandPath(), c.Use)
	}
}

// spoken is a command's words without the program's.
func spoken(c *cobra.Command) string {
	return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
}

// doUntilSignal is do for what has processes to end and folders to remove when
// the user loses patience.
func doUntilSignal(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return do(func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop) // the second signal ends it at once
		cmd.SetContext(ctx)
		err := run(cmd, args)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	})
}

func (a *App) version() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"version": a.Version, "contract": "v1"})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "stagecoach %s (plugin contract v1)\n", a.Version)
			return nil
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func jsonFlag(c *cobra.Command, v *bool) {
	c.Flags().BoolVar(v, "json", false, "print JSON for machines")
}

// terminal tells whether w is one, for colour and progress.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}
