package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/admin"
)

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// remote gives errors of the admin socket their exit code.
func remote(err error) error {
	if errors.Is(err, admin.ErrNotRunning) {
		return &exit{ExitNotRunning, err}
	}
	return err
}

func (a *App) queue() *cobra.Command {
	c := &cobra.Command{
		Use: "queue", Short: "Look at and act on queued mail",
		Long: `Look at and act on queued mail, while the server runs; "stagecoach queue check" verifies
the queue of one that is stopped.

All of the other commands take the same flags to choose mail; "stagecoach queue list" with
them shows what another command would act on.`,
	}
	c.AddCommand(a.queueList(), a.queueSearch(), a.queueShow(), a.queueStats(), a.queueExport(), a.queueFlush(), a.queueCheck())
	c.AddCommand(a.queueActions()...)
	return c
}

func (a *App) queueList() *cobra.Command {
	l := lister{}
	c := &cobra.Command{
		Use: "list [ID…]", Short: "List queued mail, oldest first", Args: cobra.ArbitraryArgs,
		Long: "List queued mail, oldest first: all of it, those ids, or what the flags choose. With --json, one\nobject a line.\n\n" + selectionHelp,
		Example: `  stagecoach queue list --destination ryan.example --older 4h
  stagecoach queue list --state held --tag dmarc=fail --json`,
		RunE: do(func(cmd *cobra.Command, args []string) error {
			l.sel.filter.IDs = args
			return a.list(cmd, &l)
		}),
	}
	l.flags(c)
	return c
}

func (a *App) queueSearch() *cobra.Command {
	l := lister{}
	c := &cobra.Command{
		Use: "search WORD…", Short: "List queued mail that has all of these words somewhere", Args: cobra.MinimumNArgs(1),
		Long: `List queued mail that has each of the words in an address, in From, Subject or Message-ID,
in the client's address or user, or in what a recipient waits for. The flags choose among
that. The text of mails is not searched.`,
		Example: "  stagecoach queue search meg greylisted",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			l.sel.filter.Words = args
			return a.list(cmd, &l)
		}),
	}
	l.flags(c)
	return c
}

// lister is the flags of the commands that list.
type lister struct {
	src    source
	sel    selection
	asJSON bool
}

func (l *lister) flags(c *cobra.Command) {
	l.src.flags(c)
	l.sel.flags(c)
	jsonFlag(c, &l.asJSON)
}

func (a *App) list(cmd *cobra.Command, l *lister) error {
	f, err := l.sel.choose()
	if err != nil {
		return err
	}
	cl, err := a.client(cmd, l.src)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if l.asJSON {
		enc := json.NewEncoder(out)
		return remote(cl.List(cmd.Context(), f, func(m admin.Message) error { return enc.Encode(m) }))
	}
	t := newTable(out, "ID", "AGE", "SIZE", "FROM", "TO", "STATE", "TRIES", "NEXT", "WHY")
	n, recipients, size := 0, 0, int64(0)
	err = cl.List(cmd.Context(), f, func(m admin.Message) error {
		n++
		size += m.Size
		rows, err := listRows(t, m)
		recipients += rows
		return err
	})
	if err == nil {
		err = t.flush()
	}
	if err != nil {
		return remote(err)
	}
	if n == 0 {
		fmt.Fprintln(out, noneOf(f))
		return nil
	}
	fmt.Fprintf(out, "\n%s, %s, %s.\n", count(n, "message"), count(recipients, "recipient"), bytesOf(size))
	return nil
}

// listRows prints a message: one line for each recipient that is meant.
func listRows(t *table, m admin.Message) (rows int, err error) {
	id, age, size, from := m.ID, ago(m.Received), bytesOf(m.Size), angle(m.Sender)
	for _, r := range m.Recipients {
		if !r.Selected {
			continue
		}
		rows++
		state, next := cell{text: r.State}, ""
		if r.State == "waiting" {
			next = in(r.Next)
		} else {
			state.style = yellow
		}
		if err := t.row(id, age, size, short(from, 40), short(r.Address, 40), state, r.Attempts, next, short(why(r), 80)); err != nil {
			return rows, err
		}
		id, age, size, from = "", "", "", ""
	}
	return rows, nil
}

// why a recipient waits.
func why(r admin.Recipient) string {
	switch {
	case r.State == "held" && r.Reason != "":
		return r.Reason
	case r.Last != nil:
		return strings.TrimSpace(fmt.Sprintf("%d %s %s", r.Last.Code, r.Last.Enhanced, r.Last.Text))
	}
	return r.Reason
}

// count is a number with its noun.
func count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(int64(n)) + " " + noun + "s"
}

// thousands parts digits for people.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for at := len(s) - 3; at > 0 && s[at-1] != '-'; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

func (a *App) queueShow() *cobra.Command {
	var (
		src    source
		asJSON bool
	)
	c := &cobra.Command{
		Use: "show ID", Short: "Show one queued mail with each recipient's state", Args: cobra.ExactArgs(1),
		Long: "Show one queued mail with each recipient's state. `stagecoach trace` tells how it came to that,\n`stagecoach queue export` prints the mail itself.",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			m, err := cl.Message(cmd.Context(), args[0])
			if err != nil {
				return remote(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), m)
			}
			return showMessage(cmd.OutOrStdout(), m)
		}),
	}
	src.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func showMessage(out io.Writer, m admin.Message) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(k, v string) {
		if v = strings.TrimSpace(v); v != "" {
			fmt.Fprintf(w, "%s\t%s\n", k, printable(v))
		}
	}
	row("Queue id", m.ID)
	row("Received", moment(m.Received)+" ("+ago(m.Received)+" ago) by "+m.Origin)
	row("Client", client(m))
	row("TLS", m.TLS)
	row("User", m.User)
	row("Sender", angle(m.Sender))
	row("Envelope id", m.EnvelopeID)
	row("From", m.From)
	row("Subject", m.Subject)
	row("Message-ID", m.MessageID)
	row("Size", bytesOf(m.Size))
	if m.Priority != 0 {
		row("Priority", strconv.Itoa(m.Priority))
	}
	row("Not before", moment(m.NotBefore))
	row("Expires", moment(m.Expires))
	if m.DeliverByMode == "R" {
		row("Deliver by", moment(m.DeliverBy)+", else return it")
	} else {
		row("Deliver by", moment(m.DeliverBy))
	}
	row("Next hop", m.NextHop)
	for n, line := range strings.Split(tagLines(m.Tags), "\n") {
		row([]string{"Tags", ""}[min(n, 1)], line)
	}
	for _, r := range m.Recipients {
		fmt.Fprintln(w, "\t")
		row("Recipient", r.Address)
		row("  written as", strings.TrimPrefix(r.Original, "rfc822;"))
		row("  state", r.State)
		row("  reason", r.Reason)
		row("  route", r.Route)
		row("  deliver", r.Deliver)
		row("  notify", strings.Join(r.Notify, ","))
		row("  attempts", strconv.Itoa(r.Attempts))
		if r.State == "waiting" {
			row("  next attempt", moment(r.Next)+" ("+in(r.Next)+")")
		}
		if l := r.Last; l != nil {
			row("  last answer", fmt.Sprintf("%d %s %s", l.Code, l.Enhanced, l.Text))
			row("  from", l.RemoteMTA)
			row("  TLS", l.TLS)
			row("  at", moment(l.At))
		}
	}
	return w.Flush()
}

// client is who brought the mail.
func client(m admin.Message) string {
	s := m.ClientIP
	if m.Hello != "" {
		s += " (" + m.Hello + ")"
	}
	if m.Protocol != "" {
		s += " by " + m.Protocol
	}
	return s
}

// moment of time for people; "" if there is none.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.RFC3339)
}

// tagLines are one tag a line.
func tagLines(tags map[string]any) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		switch v := tags[name].(type) {
		case []any:
			var parts []string
			for _, p := range v {
				parts = append(parts, fmt.Sprint(p))
			}
			out = append(out, name+" = "+strings.Join(parts, ", "))
		case map[string]any:
			for line := range strings.SplitSeq(tagLines(v), "\n") {
				if line != "" {
					out = append(out, name+"."+line)
				}
			}
		default:
			out = append(out, fmt.Sprintf("%s = %v", name, v))
		}
	}
	return strings.Join(out, "\n")
}

func (a *App) queueFlush() *cobra.Command {
	var (
		src    source
		sel    selection
		asJSON bool
	)
	c := &cobra.Command{
		Use: "flush [ID…]", Short: "Try waiting mail now", Args: cobra.ArbitraryArgs,
		Long: "Make waiting mail due now: all of it, those ids, or what the flags choose. Held mail stays held.\n`stagecoach queue retry` does the same for a selection and shows its progress.",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			sel.filter.IDs = args
			f, err := sel.choose()
			if err != nil {
				return err
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			n, err := cl.Flush(cmd.Context(), f)
			if err != nil {
				return remote(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), n)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d message(s) are due now.\n", n.Messages)
			return nil
		}),
	}
	src.flags(c)
	sel.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func ago(t time.Time) string { return span(time.Since(t)) }

func in(t time.Time) string {
	d := time.Until(t)
	if d <= 0 {
		return "now"
	}
	return "in " + span(d)
}

// span is a duration in its largest two units.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

func bytesOf(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/unit, 0
	for v >= unit && u < 3 {
		v, u = v/unit, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGT"[u])
}

func angle(sender string) string { return "<" + sender + ">" }

func short(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
