package command

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

func (a *App) queueStats() *cobra.Command {
	var (
		src    source
		sel    selection
		top    int
		exact  bool
		asJSON bool
	)
	c := &cobra.Command{
		Use: "stats", Short: "Count queued mail: by destination, sender, age and reason", Args: cobra.NoArgs,
		Long: `Count queued mail, or what the flags choose of it: by destination, sender, age and why it
waits. Of a whole queue of 50,000 messages and more, senders and reasons are estimated from a
sample, so that they are there at once; all else is always counted. --exact reads every
message.

` + selectionHelp,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			f, err := sel.choose()
			if err != nil {
				return err
			}
			if top < 0 {
				return &exit{ExitUsage, fmt.Errorf("--top is how many lines of each kind; 0: all")}
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			b, err := cl.Stats(cmd.Context(), f, top, exact)
			if err != nil {
				return remote(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), b)
			}
			return showStats(cmd.OutOrStdout(), f, b)
		}),
	}
	src.flags(c)
	c.Flags().IntVar(&top, "top", 10, "how many destinations, senders and reasons; 0: all")
	c.Flags().BoolVar(&exact, "exact", false, "read every message, however many there are, for senders and reasons")
	sel.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func showStats(out io.Writer, f queue.Filter, b queue.Breakdown) error {
	if b.Messages == 0 {
		fmt.Fprintln(out, noneOf(f))
		return nil
	}
	fmt.Fprintf(out, "%s, %s; %s: %s waiting (%s tried before), %s held.\n", count(b.Messages, "message"), bytesOf(b.Bytes),
		count(b.Recipients, "recipient"), thousands(b.Waiting), thousands(b.Tried), thousands(b.Held))
	if b.Sample > 0 {
		fmt.Fprintf(out, "Figures with ~ are estimated from %s; --exact reads all.\n", count(b.Sample, "message"))
	}
	for _, kind := range []struct {
		head   string
		shares []queue.Share
	}{{"DESTINATION", b.Destinations}, {"SENDER", b.Senders}, {"WHY", b.Reasons}} {
		if len(kind.shares) == 0 {
			continue
		}
		fmt.Fprintln(out)
		about := ""
		if b.Sample > 0 && kind.head != "DESTINATION" {
			about = "~"
		}
		n := func(v int64) string { return about + thousands(v) }
		t := newTable(out, kind.head, "RECIPIENTS", "MESSAGES", "SIZE", "OLDEST")
		for _, s := range kind.shares {
			name := s.Name
			if kind.head == "SENDER" {
				name = angle(name)
			}
			if err := t.row(short(name, 70), n(s.Recipients), n(s.Messages), about+bytesOf(s.Bytes), ago(s.Oldest)); err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	t := newTable(out, "AGE", "MESSAGES", "")
	from := ""
	for _, a := range b.Ages {
		name := "from " + from
		if a.Below > 0 {
			name = "below " + brief(a.Below)
			from = brief(a.Below)
		}
		if err := t.row(name, thousands(a.Messages), bar(a.Messages, b.Messages)); err != nil {
			return err
		}
	}
	return t.flush()
}

// brief is a bound of the ages: whole units.
func brief(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

// bar is a share of a whole.
func bar(n, whole int64) string {
	const width = 30
	out := ""
	for range min(width, (n*width+whole-1)/max(whole, 1)) {
		out += "#"
	}
	return out
}
