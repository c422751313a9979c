package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/pipeline"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// openDry starts the directories and filters of a configuration.
func (a *App) openDry(cmd *cobra.Command, cfg *config.Config) (*pipeline.Dry, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log := zerolog.New(zerolog.ConsoleWriter{Out: cmd.ErrOrStderr(), NoColor: !terminal(cmd.ErrOrStderr())}).Level(zerolog.WarnLevel)
	d, err := pipeline.OpenDry(cmd.Context(), cfg, pipeline.Options{Executable: self, Version: a.Version, Log: log})
	if err != nil {
		return nil, (&running{app: a}).explain(cfg, err)
	}
	return d, nil
}

func (a *App) explain() *cobra.Command {
	var (
		src        source
		asJSON     bool
		m          pipeline.Mail
		ip, helo   string
		user, file string
		tls, noDNS bool
	)
	c := &cobra.Command{
		Use: "explain -c FILE --from ADDRESS --to ADDRESS", Short: "Show what would become of a mail, and why", Args: cobra.NoArgs,
		Long: `Show what would become of a mail: every filter asked, every route tried with its
condition, and for mail that leaves the next hop by DNS and the TLS policy. Nothing is
changed, and no other server but the DNS is contacted. The mail comes in by --listener,
or by the first one that fits (with --user one that has auth, else one that has not): its
directories say who exists, its rules who may relay, and its filters are asked.`,
		RunE: doUntilSignal(func(cmd *cobra.Command, _ []string) error {
			if err := checkMail(m, ip); err != nil {
				return &exit{ExitUsage, err}
			}
			cfg, err := a.load(cmd, src)
			if err != nil {
				return err
			}
			if m.Message, err = messageOf(cmd.InOrStdin(), file, m.From, m.To); err != nil {
				return err
			}
			m.Client = &v1.Client{Ip: ip, Hello: helo, User: user, Tls: tls}
			m.Received, m.LookUp = time.Now(), !noDNS
			if m.Listener == "" {
				m.Listener = listenerFor(cfg, user)
			} else if err := knownListener(cfg, m.Listener); err != nil {
				return &exit{ExitUsage, err}
			}
			d, err := a.openDry(cmd, cfg)
			if err != nil {
				return err
			}
			defer d.Close()
			x, err := d.Explain(cmd.Context(), m)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), forMachines(m, x))
			}
			showExplanation(cmd.OutOrStdout(), m, x)
			return nil
		}),
	}
	src.flags(c)
	f := c.Flags()
	f.StringVar(&m.From, "from", "", "the reverse-path; empty is the null one")
	f.StringArrayVar(&m.To, "to", nil, "a recipient (may be repeated)")
	f.StringVar(&ip, "ip", "192.0.2.1", "the client's address")
	f.StringVar(&helo, "helo", "client.example", "the client's EHLO name")
	f.StringVar(&user, "user", "", "the authenticated user")
	f.BoolVar(&tls, "tls", false, "the client came over TLS")
	f.StringVar(&file, "message", "", "a message file; - is standard input; default: a short made-up one")
	f.StringVar(&m.Listener, "listener", "", "ask this listener's filters: receive.smtp.mx")
	f.BoolVar(&noDNS, "no-dns", false, "do not look up the next hop")
	jsonFlag(c, &asJSON)
	return c
}

// checkMail complains of flags that are no mail's.
func checkMail(m pipeline.Mail, ip string) error {
	if len(m.To) == 0 {
		return errors.New("name at least one recipient with --to")
	}
	if m.From != "" {
		if _, err := address.Parse(m.From, true); err != nil {
			return fmt.Errorf("--from %q is no address: %w", m.From, err)
		}
	}
	for _, to := range m.To {
		if _, err := address.Parse(to, true); err != nil {
			return fmt.Errorf("--to %q is no address: %w", to, err)
		}
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return fmt.Errorf("--ip %q is no IP address", ip)
	}
	return nil
}

func knownListener(cfg *config.Config, ref string) error {
	var known []string
	for _, r := range cfg.Receives {
		known = append(known, r.Ref)
	}
	switch {
	case slices.Contains(known, ref):
		return nil
	case len(known) == 0:
		return fmt.Errorf("--listener %s: the configuration has no receive block", ref)
	}
	return fmt.Errorf("--listener %s: the configuration has %s", ref, strings.Join(known, ", "))
}

func listenerFor(cfg *config.Config, user string) string {
	for _, r := range cfg.Receives {
		if (r.Auth != nil) == (user != "") {
			return r.Ref
		}
	}
	if len(cfg.Receives) > 0 {
		return cfg.Receives[0].Ref
	}
	return ""
}

// messageOf reads a message, its line ends made CRLF, or makes a short one up.
func messageOf(stdin io.Reader, file, from string, to []string) ([]byte, error) {
	if file == "" {
		return []byte(fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: explain\r\nDate: %s\r\nMessage-ID: <explain@localhost>\r\n\r\nHello\r\n",
			from, strings.Join(to, ">, <"), time.Now().Format(time.RFC1123Z))), nil
	}
	var (
		b   []byte
		err error
	)
	if file == "-" {
		b, err = io.ReadAll(stdin)
	} else {
		b, err = os.ReadFile(file)
	}
	b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	return b, err
}

func showExplanation(w io.Writer, m pipeline.Mail, x *pipeline.Explanation) {
	fmt.Fprintf(w, "From <%s>, received by %s\n", m.From, m.Listener)
	steps(w, "  ", x.Filters)
	if x.Refused != "" {
		fmt.Fprintf(w, "  the client is told: %s\n", x.Refused)
	}
	for _, r := range x.Recipients {
		fmt.Fprintf(w, "\nTo <%s>", r.Address)
		if r.AliasOf != "" {
			fmt.Fprintf(w, ", by the alias <%s>", r.AliasOf)
		}
		if r.Account != "" {
			fmt.Fprintf(w, ", mailbox of %s", r.Account)
		}
		fmt.Fprintln(w)
		for _, t := range r.Tried {
			mark, when := "no ", t.When
			if t.Taken {
				mark = "yes"
			}
			if when == "" {
				when = "always"
			}
			fmt.Fprintf(w, "  %s  route %q when %s\n", mark, t.Route, when)
		}
		steps(w, "  ", r.Filters)
		for _, c := range r.Copy {
			fmt.Fprintf(w, "  a copy goes to <%s>\n", c)
		}
		fmt.Fprintf(w, "  %s\n", ends(r))
		if p := r.NextHop; p != nil {
			fmt.Fprintf(w, "  next hop by %s, TLS %s:\n", p.Source, p.TLS)
			for _, h := range p.Hosts {
				fmt.Fprintf(w, "    %d %s port %d", h.Pref, h.Name, h.Port)
				for _, ad := range h.Addrs {
					fmt.Fprintf(w, " %s", ad)
				}
				if h.Skip != "" {
					fmt.Fprintf(w, " (skipped: %s)", h.Skip)
				}
				fmt.Fprintln(w)
			}
		}
		if r.NextHopProblem != "" {
			fmt.Fprintf(w, "  next hop: %s\n", r.NextHopProblem)
		}
	}
}

func steps(w io.Writer, indent string, list []filter.Step) {
	for _, s := range list {
		fmt.Fprintf(w, "%s%s: %s", indent, s.Filter, strings.ToLower(s.Verdict.String()))
		if len(s.Edits) > 0 {
			fmt.Fprint(w, ", ", strings.Join(s.Edits, ", "))
		}
		for _, t := range []string{s.Note, s.Failed} {
			if t != "" {
				fmt.Fprintf(w, " (%s)", t)
			}
		}
		fmt.Fprintln(w)
	}
}

func ends(r pipeline.RecipientExplained) string {
	switch {
	case r.Problem != "":
		return r.Problem
	case r.Deliver != "":
		return "-> " + r.Deliver
	case r.Redirect != nil:
		return "-> redirected to " + strings.Join(r.Redirect, ", ")
	case r.Held:
		return "-> held: " + r.Reason
	case r.Reject != nil:
		return fmt.Sprintf("-> rejected: %d %s %s", r.Reject.Code, r.Reject.Enhanced, r.Reject.Text)
	case r.Discard:
		return "-> discarded"
	}
	return "-> nowhere"
}

func (a *App) test() *cobra.Command {
	var (
		src    source
		asJSON bool
	)
	c := &cobra.Command{
		Use: "test -c FILE", Short: "Run the test blocks of a configuration", Args: cobra.NoArgs,
		Long: "Run the test blocks: each mail is explained, and what comes of it compared. Nothing is changed.\nExit 5 if a test does not hold.",
		RunE: doUntilSignal(func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(cmd, src)
			if err != nil {
				return err
			}
			d, err := a.openDry(cmd, cfg)
			if err != nil {
				return err
			}
			defer d.Close()
			type row struct {
				Test     string   `json:"test"`
				Held     bool     `json:"held"`
				Problems []string `json:"problems,omitempty"`
			}
			rows, failed := []row{}, 0
			for _, t := range cfg.Tests {
				problems, err := runTest(cmd, cfg, d, t)
				if err != nil {
					return err
				}
				rows = append(rows, row{t.Name, len(problems) == 0, problems})
				if len(problems) > 0 {
					failed++
				}
				if !asJSON {
					mark := "ok     "
					if len(problems) > 0 {
						mark = "FAILED "
					}
					fmt.Fprintln(cmd.OutOrStdout(), mark+t.Name)
					for _, p := range problems {
						fmt.Fprintf(cmd.OutOrStdout(), "       %s (%s:%d)\n", p, t.Range.Filename, t.Range.Start.Line)
					}
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), rows); err != nil {
					return err
				}
			} else if len(rows) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "The configuration has no test block.")
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "%d of %d tests held.\n", len(rows)-failed, len(rows))
			}
			if failed > 0 {
				return &exit{ExitTest, errPrinted}
			}
			return nil
		}),
	}
	src.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

// runTest explains the test's mail and compares.
func runTest(cmd *cobra.Command, cfg *config.Config, d *pipeline.Dry, t *config.Test) ([]string, error) {
	msg, err := messageOf(cmd.InOrStdin(), t.Message, t.From, []string{t.To})
	if err != nil {
		return nil, err
	}
	if t.Message == "" {
		msg = withHeader(msg, t.Header)
	}
	ip := t.ClientIP
	if ip == "" {
		ip = "192.0.2.1"
	}
	x, err := d.Explain(cmd.Context(), pipeline.Mail{
		From: t.From, To: []string{t.To}, Tags: t.Tags, Message: msg, Received: time.Now(), Listener: listenerFor(cfg, t.User),
		Client: &v1.Client{Ip: ip, Hello: t.Helo, User: t.User, Tls: t.TLS},
	})
	if err != nil {
		return nil, err
	}
	if len(x.Recipients) == 0 {
		return []string{"the mail has no recipient left: " + x.Refused}, nil
	}
	return compare(t.Expect, x, x.Recipients[0]), nil
}

// withHeader puts the test's own fields in place of the made-up ones.
func withHeader(msg []byte, header map[string][]string) []byte {
	head, body, _ := bytes.Cut(msg, []byte("\r\n\r\n"))
	var out bytes.Buffer
	for _, line := range bytes.Split(head, []byte("\r\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		replaced := false
		for k := range header {
			replaced = replaced || strings.EqualFold(k, string(name))
		}
		if !replaced {
			out.Write(append(line, "\r\n"...))
		}
	}
	for k, vs := range header {
		for _, v := range vs {
			fmt.Fprintf(&out, "%s: %s\r\n", k, v)
		}
	}
	out.WriteString("\r\n")
	out.Write(body)
	return out.Bytes()
}

func compare(e config.Expect, x *pipeline.Explanation, r pipeline.RecipientExplained) (problems []string) {
	differ := func(what, want, got string) {
		if got == "" {
			got = "none"
		}
		problems = append(problems, fmt.Sprintf("%s: expected %s, got %s", what, want, got))
	}
	if e.Route != "" && e.Route != r.Route {
		differ("route", e.Route, r.Route)
	}
	if e.Deliver != nil && e.Deliver.Ref != r.Deliver {
		differ("deliver", e.Deliver.Ref, r.Deliver)
	}
	if e.Hold != nil && (!r.Held || *e.Hold != "" && *e.Hold != r.Reason) {
		differ("hold", fmt.Sprintf("%q", *e.Hold), r.Reason)
	}
	if e.Reject != nil {
		got := either(x.Refused, r.Problem)
		if r.Reject != nil {
			got = fmt.Sprintf("%d %s", r.Reject.Code, r.Reject.Text)
		}
		if got == "" || *e.Reject != 0 && !strings.Contains(got, fmt.Sprint(*e.Reject)) {
			differ("reject", fmt.Sprint(*e.Reject), got)
		}
	} else if x.Refused != "" {
		problems = append(problems, "the mail was refused: "+x.Refused)
	}
	if e.Redirect != nil && !slices.Equal(e.Redirect, r.Redirect) {
		differ("redirect", strings.Join(e.Redirect, ", "), strings.Join(r.Redirect, ", "))
	}
	if e.Copy != nil && !slices.Equal(e.Copy, r.Copy) {
		differ("copy", strings.Join(e.Copy, ", "), strings.Join(r.Copy, ", "))
	}
	if e.Discard && !r.Discard {
		differ("discard", "true", ends(r))
	}
	return problems
}

func either(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
