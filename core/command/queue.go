package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/config"
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
	c := &cobra.Command{Use: "queue", Short: "Look at and act on queued mail"}
	c.AddCommand(a.queueList(), a.queueShow(), a.queueFlush())
	return c
}

// selection is the flags that choose messages.
type selection struct {
	sender, recipient, domain, deliver, state string
	older                                     age
	limit                                     int
}

func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.sender, "sender", "", "only where the reverse-path contains this")
	f.StringVar(&s.recipient, "recipient", "", "only where an open recipient contains this")
	f.StringVar(&s.domain, "domain", "", "only with an open recipient in this domain")
	f.StringVar(&s.deliver, "deliver", "", "only with a recipient that goes this way: deliver.smtp.internet")
	f.StringVar(&s.state, "state", "", "only with a recipient in this state: waiting or held")
	f.Var(&s.older, "older", "only what was received longer ago than this: 90m, 2h, 3d")
}

// age is a duration flag that reads what the files read: 5d too.
type age time.Duration

func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *age) Type() string { return "duration" }

func (a *age) Set(s string) error {
	d, err := config.ParseDuration(s)
	*a = age(d)
	return err
}

// check complains of a flag's value before a server is asked.
func (s *selection) check() error {
	if s.state != "" && s.state != "waiting" && s.state != "held" {
		return &exit{ExitUsage, errors.New("--state is waiting or held")}
	}
	if s.limit < 0 {
		return &exit{ExitUsage, errors.New("--limit is how many at most; 0: all")}
	}
	return nil
}

func (s *selection) query(ids []string) url.Values {
	q := url.Values{"id": ids}
	for k, v := range map[string]string{
		"sender": s.sender, "recipient": s.recipient, "domain": s.domain, "deliver": s.deliver, "state": s.state,
	} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if s.older > 0 {
		q.Set("older", time.Duration(s.older).String())
	}
	if s.limit > 0 {
		q.Set("limit", strconv.Itoa(s.limit))
	}
	return q
}

func (a *App) queueList() *cobra.Command {
	var (
		src    source
		sel    selection
		asJSON bool
	)
	c := &cobra.Command{
		Use: "list", Short: "List queued mail, oldest first", Args: cobra.NoArgs,
		Long: "List queued mail, oldest first. With --json, one object a line.",
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			if err := sel.check(); err != nil {
				return err
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				return remote(cl.List(cmd.Context(), sel.query(nil), func(m admin.Message) error { return enc.Encode(m) }))
			}
			tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			n := 0
			err = cl.List(cmd.Context(), sel.query(nil), func(m admin.Message) error {
				if n == 0 {
					fmt.Fprintln(tw, "ID\tAGE\tSIZE\tFROM\tTO\tSTATE\tNEXT\tLAST ANSWER")
				}
				n++
				listRow(tw, m)
				return nil
			})
			if err != nil {
				return remote(err)
			}
			if err := tw.Flush(); err != nil {
				return err
			}
			if n == 0 {
				fmt.Fprintln(out, "No mail in the queue matches.")
			}
			return nil
		}),
	}
	src.flags(c)
	sel.flags(c)
	c.Flags().IntVar(&sel.limit, "limit", 0, "at most this many; 0: all")
	jsonFlag(c, &asJSON)
	return c
}

// listRow prints a message: one line for each recipient that is open.
func listRow(w io.Writer, m admin.Message) {
	id, age, size, from := m.ID, ago(m.Received), bytesOf(m.Size), angle(m.Sender)
	for _, r := range m.Recipients {
		if r.State != "waiting" && r.State != "held" {
			continue
		}
		next, last := "", r.Reason
		if r.State == "waiting" {
			next = in(r.Next)
		}
		if r.Last != nil {
			last = fmt.Sprintf("%d %s", r.Last.Code, r.Last.Text)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", id, age, size, from, r.Address, r.State, next, short(last, 60))
		id, age, size, from = "", "", "", ""
	}
}

func (a *App) queueShow() *cobra.Command {
	var (
		src    source
		asJSON bool
	)
	c := &cobra.Command{
		Use: "show ID", Short: "Show one queued mail with each recipient's state", Args: cobra.ExactArgs(1),
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
			showMessage(cmd.OutOrStdout(), m)
			return nil
		}),
	}
	src.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func showMessage(out io.Writer, m admin.Message) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(k, v string) {
		if v != "" {
			fmt.Fprintf(w, "%s\t%s\n", k, v)
		}
	}
	row("Queue id", m.ID)
	row("Received", m.Received.Local().Format(time.RFC3339)+" ("+ago(m.Received)+" ago) by "+m.Origin)
	row("Client", strings.TrimSpace(m.ClientIP+" "+m.User))
	row("Sender", angle(m.Sender))
	row("From", m.From)
	row("Subject", m.Subject)
	row("Message-ID", m.MessageID)
	row("Size", bytesOf(m.Size))
	for _, r := range m.Recipients {
		fmt.Fprintln(w, "\t")
		row("Recipient", r.Address)
		row("  state", r.State)
		row("  reason", r.Reason)
		row("  route", r.Route)
		row("  deliver", r.Deliver)
		row("  attempts", strconv.Itoa(r.Attempts))
		if r.State == "waiting" {
			row("  next attempt", r.Next.Local().Format(time.RFC3339)+" ("+in(r.Next)+")")
		}
		if l := r.Last; l != nil {
			row("  last answer", strings.TrimSpace(fmt.Sprintf("%d %s %s", l.Code, l.Enhanced, l.Text)))
			row("  from", l.RemoteMTA)
			row("  at", l.At.Local().Format(time.RFC3339))
		}
	}
	_ = w.Flush()
}

func (a *App) queueFlush() *cobra.Command {
	var (
		src    source
		sel    selection
		asJSON bool
	)
	c := &cobra.Command{
		Use: "flush [ID…]", Short: "Try waiting mail now", Args: cobra.ArbitraryArgs,
		Long: "Make waiting mail due now: all of it, those ids, or what the flags choose. Held mail stays held.",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			if err := sel.check(); err != nil {
				return err
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			var n admin.Flushed
			if err := cl.Call(cmd.Context(), "POST", "/queue/flush", sel.query(args), &n); err != nil {
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
