package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/host"
)

func (a *App) pluginLogs() *cobra.Command {
	var (
		src    source
		last   int
		follow bool
		asJSON bool
	)
	c := &cobra.Command{
		Use: "logs INSTANCE", Short: "Show what an instance wrote to its log, and what became of it", Args: cobra.ExactArgs(1),
		Long: `Show the end of an instance's log: what its process wrote, and what the server said of
it, over restarts. The server keeps up to 1000 lines of each instance in memory; all of
them are in its own log, too.`,
		Example: "  stagecoach plugin logs filter.greylist.calm -n 20 -f",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			if last < 0 {
				return &exit{ExitUsage, errors.New("-n wants a number of lines; 0 means all that are kept")}
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			err = cl.PluginLogs(cmd.Context(), args[0], last, follow, func(l admin.LogLine) error {
				if asJSON {
					return json.NewEncoder(out).Encode(l)
				}
				return printLogLine(out, l)
			})
			if follow && cmd.Context().Err() != nil {
				return nil // interrupted: that is how following ends
			}
			return remote(err)
		}),
	}
	src.flags(c)
	c.Flags().IntVarP(&last, "lines", "n", 100, "how many lines from the end; 0: all that are kept")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with the lines to come, until interrupted")
	jsonFlag(c, &asJSON)
	return c
}

// printLogLine writes: time, level, who, message, fields in the order of their
// names.
func printLogLine(w io.Writer, l admin.LogLine) error {
	who := "server"
	if l.PID != 0 {
		who = fmt.Sprint(l.PID)
	}
	level := l.Level
	if level == "" {
		level = "-"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s %-7s %s", l.Time.Local().Format("2006-01-02 15:04:05.000"), level, who, printable(l.Message))
	names := make([]string, 0, len(l.Fields))
	for name := range l.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := string(l.Fields[name])
		var text string
		if json.Unmarshal(l.Fields[name], &text) == nil && !strings.ContainsAny(text, " \"=") {
			value = text
		}
		fmt.Fprintf(&b, " %s=%s", printable(name), printable(value))
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

// printable replaces what would move a terminal's cursor or change its colours: a
// plugin's words may be a stranger's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

func (a *App) pluginReload() *cobra.Command {
	var src source
	c := &cobra.Command{
		Use: "reload INSTANCE", Short: "Read one instance's block and program again, and give it a new process", Args: cobra.ExactArgs(1),
		Long: `Read the configuration again for one instance alone, and give it a new process: with its
block as it is now, and with the program that is now at its path. The new process is
ready before the old one gets its last call, so no call and no session is lost. If
anything is wrong, the old one stays.

All other changes in the files wait for ` + "`stagecoach reload`" + `. To give an instance a new
process as it is configured now, use ` + "`stagecoach plugin restart`" + `.`,
		RunE: do(func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			if err := cl.Call(cmd.Context(), "POST", "/plugins/"+url.PathEscape(args[0])+"/reload", nil, &struct{}{}); err != nil {
				if errors.Is(err, admin.ErrNotRunning) {
					return remote(err)
				}
				return &exit{ExitConfig, fmt.Errorf("%s runs as before:\n%w", args[0], err)}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s runs in a new process.\n", args[0])
			return nil
		}),
	}
	src.flags(c)
	return c
}

// ReloadPlugin for the admin socket.
func (s *running) ReloadPlugin(ctx context.Context, instance string) error {
	begin := time.Now()
	cfg, err := s.again(ctx)
	if err != nil {
		return err
	}
	if err := s.pipeline.ReloadPlugin(ctx, cfg, instance); err != nil {
		return s.explain(cfg, err)
	}
	s.log.Info().Str("plugin", instance).Dur("took", time.Since(begin)).Msg("plugin reloaded")
	return nil
}

// PluginLogs for the admin socket.
func (s *running) PluginLogs(ctx context.Context, instance string, n int, follow bool, each func(admin.LogLine) error, flush func()) error {
	h := s.pipeline.Host()
	if !follow {
		lines, err := h.Logs(instance, n)
		if err != nil {
			return err
		}
		return eachLine(lines, each)
	}
	f, err := h.Follow(instance, n)
	if err != nil {
		return err
	}
	flush()
	for {
		lines, missed, err := f.Next(ctx)
		if err != nil || len(lines) == 0 {
			return err
		}
		if missed > 0 {
			lines = append([]host.LogLine{{Time: lines[0].Time, Level: "warn", Message: fmt.Sprintf("%d lines came faster than they could be shown", missed)}}, lines...)
		}
		if err := eachLine(lines, each); err != nil {
			return err
		}
		flush()
	}
}

func eachLine(lines []host.LogLine, each func(admin.LogLine) error) error {
	for _, l := range lines {
		if err := each(admin.LogLine(l)); err != nil {
			return err
		}
	}
	return nil
}
