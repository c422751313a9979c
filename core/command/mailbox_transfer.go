package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/transfer"
)

// meter tells how far an import or export is: on a terminal in one line, else a line
// now and then.
type meter struct {
	out   io.Writer
	shows bool
	now   func() time.Time
	begun time.Time
	told  time.Time
}

func newMeter(out io.Writer) *meter {
	at := time.Now()
	return &meter{out: out, shows: terminal(out), now: time.Now, begun: at, told: at}
}

// Between two lines.
const (
	meterOnTerminal = 200 * time.Millisecond
	meterInLog      = 10 * time.Second
)

func (m *meter) tell(p transfer.Progress) {
	at := m.now()
	every := meterInLog
	if m.shows {
		every = meterOnTerminal
	}
	if at.Sub(m.told) < every {
		return
	}
	m.told = at
	line := m.line(p, at.Sub(m.begun))
	if m.shows {
		fmt.Fprintf(m.out, "\r\x1b[K%s", printable(line))
		return
	}
	fmt.Fprintln(m.out, printable(line))
}

// bar has so many places.
const barWidth = 20

func (m *meter) line(p transfer.Progress, took time.Duration) string {
	done, all := p.Octets, p.AllOctets
	if all <= 0 {
		done, all = p.Messages, p.AllMessages
	}
	line := thousands(p.Messages) + " mails, " + bytesOf(p.Octets)
	if p.AllMessages >= 0 {
		line = thousands(p.Messages) + " of " + thousands(p.AllMessages) + " mails, " + bytesOf(p.Octets)
	}
	if all > 0 {
		part := min(float64(done)/float64(all), 1)
		full := int(part * barWidth)
		bar := make([]byte, 0, barWidth)
		for n := range barWidth {
			if n < full {
				bar = append(bar, '#')
			} else {
				bar = append(bar, '.')
			}
		}
		line = fmt.Sprintf("[%s] %d%% ", bar, int(part*100)) + line
	}
	if s := took.Seconds(); s > 0 && p.Carried > 0 {
		line += fmt.Sprintf(", %s/s", bytesOf(int64(float64(p.Carried)/s)))
		if all > 0 && done > 0 && done < all {
			left := time.Duration(float64(took) * float64(all-done) / float64(done))
			line += ", " + left.Round(time.Second).String() + " left"
		}
	}
	return line + ": " + p.Mailbox
}

func (m *meter) end() {
	if m.shows {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

// carried is what an import or export tells in the end.
type carried struct {
	Account string `json:"account"`
	Storage string `json:"storage"`
	DryRun  bool   `json:"dry_run"`
	// Whole: it came to its end.
	Whole bool   `json:"whole"`
	Error string `json:"error,omitempty"`
	*transfer.Report
}

// close tells what was done, and makes of it the exit code. goOn says what to do after
// a run that was cut off.
func (c *carried) close(cmd *cobra.Command, asJSON bool, failed error, goOn string) error {
	c.Whole = failed == nil
	if failed != nil {
		c.Error = failed.Error()
	}
	out := cmd.OutOrStdout()
	var err error
	if asJSON {
		err = printJSON(out, c)
	} else {
		err = c.show(out)
	}
	switch {
	case failed != nil && errors.Is(failed, context.Canceled):
		fmt.Fprintln(cmd.ErrOrStderr(), "Stopped. "+goOn)
		return failed
	case failed != nil:
		return fmt.Errorf("%w\n%s", failed, goOn)
	case err == nil && c.Sum().LeftOut > 0:
		return &exit{ExitTest, errPrinted}
	}
	return err
}

// shownLeft are told on the screen; --json has more.
const shownLeft = 50

func (c *carried) show(out io.Writer) error {
	what := "CARRIED"
	if c.DryRun {
		what = "WOULD BE CARRIED"
	}
	to := false
	for _, r := range c.Mailboxes {
		to = to || r.To != ""
	}
	head := []string{"MAILBOX", "TO", "MESSAGES", what, "BEFORE", "LEFT OUT", "SIZE"}
	if !to {
		head = append(head[:1], head[2:]...)
	}
	t := newTable(out, head...)
	row := func(r transfer.Row) error {
		left := cell{text: thousands(r.LeftOut)}
		if r.LeftOut > 0 {
			left.style = yellow
		}
		cells := []any{r.From, r.To, thousands(r.Messages), thousands(r.Carried), thousands(r.Before), left, bytesOf(r.Octets)}
		if !to {
			cells = append(cells[:1], cells[2:]...)
		}
		return t.row(cells...)
	}
	for _, r := range c.Mailboxes {
		if err := row(*r); err != nil {
			return err
		}
	}
	sum := c.Sum()
	if len(c.Mailboxes) > 1 {
		sum.From = "together"
		if err := row(sum); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := told(out, "LEFT OUT", "WHY", c.Left, int(sum.LeftOut)); err != nil {
		return err
	}
	return told(out, "CHANGED", "HOW", c.Notes, len(c.Notes))
}

func told(out io.Writer, what, why string, list []transfer.Left, all int) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	t := newTable(out, "MAILBOX", what, why)
	for _, l := range list[:min(len(list), shownLeft)] {
		if err := t.row(l.Mailbox, l.Message, l.Why); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if all > shownLeft {
		fmt.Fprintf(out, "… and %s more; --json lists them\n", thousands(int64(all-shownLeft)))
	}
	return nil
}
