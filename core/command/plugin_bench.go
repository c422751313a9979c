package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/pluginbench"
	"github.com/stagecoach-mta/stagecoach/core/tryout"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

const longBench = `Measure what the calls of a plugin cost: how many are answered in a second and how long
one takes, the CPU time of the plugin's process and of the server's side, memory, and the
time from start to ready. In turns with it, in the same run, a bare gRPC stream is
measured that carries the same octets over the same TLS to a process that does nothing.
The ratio to that says more than the figures: it holds on another machine, and on a busy
one.

What is called depends on the kind:
  filter     the event message (or the first that it wants); with a message of 1 MiB, too,
             if it reads messages: by reference, beside a bare stream that carries it inline
  deliver    Deliver, small and 1 MiB by reference
  directory  Resolve
  storage    Append, small and 1 MiB by reference, and Fetch
  access     from a connection to the greeting, beside a bare TCP greeting

A plugin that stores or sends does so here: give it a configuration for that. PATH and
--config are as for ` + "`stagecoach plugin dev`" + `. Programs of Go are built as for use.`

const exampleBench = `  stagecoach plugin bench . --config conform.hcl
  stagecoach plugin bench ./subject_tagger.py -c rules.hcl --at 4 --size 12KiB
  stagecoach plugin bench headers --time 10s --json`

// benching is what the flags say.
type benching struct {
	config, size string
	at           int
	long         time.Duration
	json         bool
}

func (a *App) pluginBench() *cobra.Command {
	var o benching
	c := &cobra.Command{
		Use: "bench PATH [ARGS…]", Short: "Measure what a plugin's calls cost, beside a bare gRPC stream",
		Long: longBench, Example: exampleBench, Args: cobra.MinimumNArgs(1),
		RunE: doUntilSignal(func(cmd *cobra.Command, args []string) error { return a.bench(cmd, args, o) }),
	}
	f := c.Flags()
	f.StringVarP(&o.config, "config", "c", "", "file with the plugin's block")
	f.IntVar(&o.at, "at", 16, "calls at the same time")
	f.StringVar(&o.size, "size", "4KiB", "size of the small message")
	f.DurationVar(&o.long, "time", 3*time.Second, "time for each kind of call, and as much for the bare stream")
	jsonFlag(c, &o.json)
	return c
}

// pluginYardstick is what a plugin is measured against: this binary, re-executed.
func (a *App) pluginYardstick() *cobra.Command {
	return &cobra.Command{
		Use: "yardstick FOLDER", Short: "Be a bare gRPC stream (started by plugin bench)", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: do(func(cmd *cobra.Command, args []string) error {
			return pluginbench.ServeYardstick(args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		}),
	}
}

func (a *App) bench(cmd *cobra.Command, args []string, o benching) error {
	size, err := schema.ParseSize(o.size)
	switch {
	case err != nil || size <= 0 || size > 64<<20:
		return &exit{ExitUsage, fmt.Errorf("--size: %q is no size up to 64MiB: write 4KiB", o.size)}
	case o.at < 1 || o.at > 1000:
		return &exit{ExitUsage, errors.New("--at: write a number from 1 to 1000")}
	case o.long <= 0:
		return &exit{ExitUsage, errors.New("--time: write a time as 3s")}
	}
	// What the plugin logs of thousands of calls is of no use.
	place, err := a.tryPlace(zerolog.Nop(), false)
	if err != nil {
		return err
	}
	err = a.measure(cmd, place, args, o, int(size))
	if cerr := place.Close(); err == nil {
		err = cerr
	}
	return err
}

func (a *App) measure(cmd *cobra.Command, place *tryout.Place, args []string, o benching, size int) error {
	var names []string
	for _, b := range a.Bundled {
		names = append(names, b.Name)
	}
	project, err := tryout.Find(args[0], args[1:], names, place.Built)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	progress := &devShow{w: cmd.ErrOrStderr()}
	if _, err := project.Build(cmd.Context(), false); err != nil {
		return benchFailed(cmd.Context(), progress, err)
	}
	tell := cmd.ErrOrStderr()
	shown := terminal(tell)
	clear := func() {
		if shown {
			fmt.Fprint(tell, "\r\x1b[K")
		}
	}
	rep, err := pluginbench.Run(cmd.Context(), place, pluginbench.Options{
		Command: []string{self, "plugin", "yardstick"}, Project: project, Config: o.config, At: o.at, Size: size, Time: o.long,
		Begin: func(what string) {
			clear()
			if shown {
				fmt.Fprintf(tell, "measuring: %s …", what)
			}
		},
	})
	clear()
	if err != nil {
		return benchFailed(cmd.Context(), progress, err)
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), rep)
	}
	return printBench(cmd.OutOrStdout(), rep)
}

func benchFailed(ctx context.Context, show *devShow, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	show.problem(err)
	var wrong *tryout.ConfigError
	if errors.As(err, &wrong) {
		return &exit{ExitConfig, errPrinted}
	}
	return &exit{ExitFailed, errPrinted}
}

func printBench(w io.Writer, rep *pluginbench.Report) error {
	fmt.Fprintf(w, "%s %q %s, %d call(s) at the same time\n", rep.Kind, rep.Plugin, rep.Version, rep.At)
	fmt.Fprintf(w, "start to ready %.0f ms (median of %d)\n", rep.StartMS, rep.Starts)
	if rep.PSSBefore > 0 {
		fmt.Fprintf(w, "memory %s before, %s after (its share, PSS)\n", bytesOf(rep.PSSBefore), bytesOf(rep.PSSAfter))
	}
	width := 0
	for _, r := range rep.Rows {
		width = max(width, len(r.Name), len(r.BareName)+2)
	}
	fmt.Fprintf(w, "\n%-*s  %10s  %9s  %9s  %11s  %11s\n", width, "CALL", "PER SECOND", "P50", "P99", "CPU, PLUGIN", "CPU, SERVER")
	for _, r := range rep.Rows {
		benchLine(w, width, r.Name, r.Plugin)
		benchLine(w, width, "  "+r.BareName, r.Bare)
		if r.TimeRatio > 0 {
			fmt.Fprintf(w, "%-*s  %10s  %22s%13s\n", width, "  ratio", times(r.TimeRatio), "of both sides", times(r.CPURatio))
		}
	}
	for _, r := range rep.Rows {
		if r.Plugin.Errors > 0 {
			fmt.Fprintf(w, "%s: %d of %d calls failed, the first one: %s\n", r.Name, r.Plugin.Errors, r.Plugin.Calls, printable(r.Plugin.Error))
		}
	}
	return nil
}

func benchLine(w io.Writer, width int, name string, f pluginbench.Figures) {
	fmt.Fprintf(w, "%-*s  %10.0f  %9s  %9s  %11s  %11s\n", width, name, f.PerSecond, inMicros(f.P50), inMicros(f.P99), inMicros(f.TheirCPU), inMicros(f.OurCPU))
}

// inMicros writes microseconds in the unit that reads best.
func inMicros(us float64) string {
	switch {
	case us < 100:
		return fmt.Sprintf("%.1f µs", us)
	case us < 10_000:
		return fmt.Sprintf("%.0f µs", us)
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}

func times(ratio float64) string {
	if ratio < 10 {
		return fmt.Sprintf("%.2f×", ratio)
	}
	return fmt.Sprintf("%.0f×", ratio)
}
