package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/queue"
)

func (a *App) trace() *cobra.Command {
	var (
		src    source
		since  age
		most   int
		asJSON bool
	)
	c := &cobra.Command{
		Use: "trace ID|MESSAGE-ID|ADDRESS", Short: "Tell a mail's whole life, also of one that is gone", Args: cobra.ExactArgs(1),
		Long: `Tell a mail's whole life: who sent it, what each filter said and changed, which routes were
tried and why one was taken, each attempt with the other side's words, what came of it, and
where it is now. A mail is named by its queue id, by its Message-ID, by the id that stands in
our Received field, or by an address: then all of its mails are told, sent or received, and
those that were refused.

The server keeps this in a journal of its own: queue { journal = "7d" }. Of refusals it keeps
10,000 an hour. A power cut may cost the journal's last lines, never a mail.`,
		Example: "  stagecoach trace 13uJaS1KXjd\n  stagecoach trace '<20261126.1@hanks.example>'\n  stagecoach trace meg@ryan.example --since 2h",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			if most < 1 {
				return &exit{ExitUsage, errors.New("--limit is how many mails at most, one at least")}
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			var from time.Time
			if since > 0 {
				from = time.Now().Add(-time.Duration(since))
			}
			t, err := cl.Trace(cmd.Context(), args[0], from, most)
			if err != nil {
				return remote(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), t)
			}
			if len(t.Mails)+len(t.Refusals) == 0 {
				text := fmt.Sprintf("nothing is known of %q", args[0])
				if !t.Kept {
					text += `, and no journal is kept: see queue { journal = "7d" }`
				}
				return errors.New(text)
			}
			return showTrace(cmd.OutOrStdout(), t)
		}),
	}
	src.flags(c)
	c.Flags().Var(&since, "since", "only what was received since: 2h, 2d")
	c.Flags().IntVar(&most, "limit", 20, "the newest so many mails, and refusals")
	jsonFlag(c, &asJSON)
	return c
}

func showTrace(out io.Writer, t admin.Traced) error {
	p := &teller{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0), colour: terminal(out)}
	if t.More {
		p.line("There are more than these; --limit and --since say which.")
		p.line("")
	}
	for n := range t.Refusals {
		p.refusal(&t.Refusals[n])
	}
	for _, s := range t.Mails {
		p.story(s, t)
	}
	return p.w.Flush()
}

// teller prints stories: a time, what it was, and what there is to say of it.
type teller struct {
	w      *tabwriter.Writer
	colour bool
	day    string
}

func (p *teller) line(text string) {
	_ = p.w.Flush()
	fmt.Fprintln(p.w, printable(text))
	_ = p.w.Flush()
}

// at prints a row; the day is said once.
func (p *teller) at(t time.Time, what, text string) {
	t = t.Local()
	if day := t.Format("Mon 2006-01-02"); day != p.day {
		p.day = day
		p.line("  " + day)
	}
	fmt.Fprintf(p.w, "  %s\t%s\t%s\n", t.Format("15:04:05.000"), printable(what), printable(text))
}

func (p *teller) more(text string) {
	if text != "" {
		fmt.Fprintf(p.w, "  \t\t%s\n", printable(text))
	}
}

func (p *teller) refusal(r *queue.Refusal) {
	p.day = ""
	p.line("REFUSED  " + angle(r.Sender) + " to " + strings.Join(r.Recipients, ", "))
	p.at(r.At, "client", from(r.ClientIP, r.Hello, "", r.User)+" at "+r.Listener)
	p.notes(r.At, "", r.Notes)
	p.at(r.At, "refused", fmt.Sprintf("%d %s %s, by %s", r.Code, r.Enhanced, r.Text, r.By))
	p.line("")
}

func from(ip, hello, protocol, user string) string {
	s := ip
	if hello != "" {
		s += " (" + hello + ")"
	}
	if protocol != "" {
		s += " by " + protocol
	}
	if user != "" {
		s += ", user " + user
	}
	return s
}

func (p *teller) story(s *queue.Story, t admin.Traced) {
	p.day = ""
	p.line("MAIL " + s.ID + "  " + angle(s.Sender) + "  " + bytesOf(s.Size) + "  " + s.Subject)
	if s.MessageID != "" {
		p.line("  Message-ID " + s.MessageID)
	}
	if !s.Received.IsZero() {
		p.at(s.Received, "received", "by "+s.Origin+" "+client(admin.Message{ClientIP: s.ClientIP, Hello: s.Hello, Protocol: s.Protocol}))
		if s.User != "" {
			p.more("user " + s.User)
		}
		if s.TLS != "" {
			p.more(s.TLS)
		}
		if s.Parent != "" {
			p.more("made by mail " + s.Parent)
		}
		p.notes(s.Received, "", s.Notes)
		for _, r := range s.Recipients {
			if r.From == "" {
				p.at(s.Received, "queued", "for "+r.Address+written(r.Original))
			}
		}
	}
	for n := range s.Events {
		e := &s.Events[n]
		about := ""
		if len(s.Recipients) > 1 {
			about = e.Recipient
		}
		p.notes(e.At, about, e.Notes)
		p.event(e, t)
	}
	p.now(s, t)
	p.line("")
}

func written(original string) string {
	if original == "" {
		return ""
	}
	_, address, _ := strings.Cut(original, ";")
	return " (written as " + address + ")"
}

// notes prints steps that were about a recipient; "" if that goes without saying.
func (p *teller) notes(at time.Time, about string, notes []queue.Note) {
	for _, n := range notes {
		if n.What == "route" {
			text := n.By + ": " + n.Verdict
			if about != "" {
				text = about + ": " + text
			}
			if n.Text != "" {
				text += ", when " + n.Text
			}
			p.at(at, "route", text)
			continue
		}
		if n.What == "asked" {
			p.at(at, "asked", "by the "+n.By+": "+n.Text)
			continue
		}
		text := strings.ToLower(n.What) + ": " + strings.ToLower(n.Verdict)
		if n.Score != 0 {
			text += fmt.Sprintf(", score %+g", n.Score)
		}
		if n.Text != "" {
			text += ", " + n.Text
		}
		p.at(at, n.By, fmt.Sprintf("%s (%s)", text, n.Took.Round(time.Microsecond)))
		for _, e := range n.Edits {
			p.more(e)
		}
	}
}

func (p *teller) event(e *queue.Event, t admin.Traced) {
	text := e.Recipient
	if len(e.Becomes) > 0 {
		text += " becomes " + strings.Join(e.Becomes, ", ")
	}
	if e.Deliver != "" {
		text += " by " + e.Deliver
	}
	if e.Operator {
		text += ", by an operator"
	}
	what := e.State
	if what == "waiting" && e.Operator {
		what = "retry"
	}
	p.at(e.At, what, text)
	if e.Code != 0 {
		answer := strings.TrimSpace(fmt.Sprintf("%d %s %s", e.Code, e.Enhanced, e.Text))
		if e.RemoteMTA != "" {
			answer = e.RemoteMTA + " said: " + answer
		}
		p.more(answer)
		p.more(e.TLS)
	}
	if e.Reason != "" && e.Reason != e.Text {
		p.more(e.Reason)
	}
	if e.State == "deferred" || e.State == "waiting" {
		p.more("not before " + moment(e.Next))
	}
	for _, id := range e.Made {
		what := "a message"
		for _, o := range append(t.Others, t.Mails...) {
			if o.ID == id {
				what = o.Origin + " to"
				for _, r := range o.Recipients {
					what += " " + r.Address
				}
			}
		}
		p.more("made mail " + id + ", " + what)
	}
}

// now is where the mail is.
func (p *teller) now(s *queue.Story, t admin.Traced) {
	m, there := t.Queued[s.ID]
	if !there {
		p.line("  It is no longer in the queue.")
		return
	}
	for _, r := range m.Recipients {
		if r.State != "waiting" && r.State != "held" {
			continue
		}
		text := r.Address
		if r.State == "waiting" {
			text += ", next attempt " + in(r.Next)
		}
		if w := why(r); w != "" {
			text += ": " + w
		}
		fmt.Fprintf(p.w, "  %s\t%s\t%s\n", styled(p.colour, bold, "now"), r.State, printable(text))
	}
}
