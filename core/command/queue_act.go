package command

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/queue"
)

const actHelp = `Without ids the flags say which mail; --all says that all of it is meant. "-" reads ids from
standard input, the first word of each line. More than one mail by flags is asked about at
a terminal; elsewhere it wants --yes. The server goes on meanwhile. What is being delivered
right now is waited for, some seconds; what still is then is told as busy and unchanged.

`

// actor is the flags of a command that changes mail.
type actor struct {
	src           source
	sel           selection
	all, yes, dry bool
	asJSON        bool
	action        admin.Action
	verb, past    string
}

func (a *App) queueActions() []*cobra.Command {
	hold := &actor{action: admin.Action{Do: "hold"}, verb: "Hold", past: "Held"}
	release := &actor{action: admin.Action{Do: "release"}, verb: "Release", past: "Released"}
	retry := &actor{action: admin.Action{Do: "retry"}, verb: "Try", past: "Due now:"}
	remove := &actor{action: admin.Action{Do: "delete"}, verb: "Delete", past: "Deleted"}
	bounce := &actor{action: admin.Action{Do: "bounce"}, verb: "Bounce", past: "Bounced"}
	redirect := &actor{action: admin.Action{Do: "redirect"}, verb: "Redirect", past: "Redirected"}
	var in age
	var via string
	cmds := []*cobra.Command{
		a.acting(hold, "hold", "Keep waiting mail until it is released",
			"Keep waiting mail in the queue, untried, until it is released.", "  stagecoach queue hold --sender bulk@hanks.example --reason-text 'asked Tom'", nil),
		a.acting(release, "release", "Let held mail go on", "Let held mail go on: it is routed and tried at once.",
			"  stagecoach queue release --state held --tag dmarc=fail --older 1d", nil),
		a.acting(retry, "retry", "Try waiting mail now", "Make waiting mail due now, or after --in. Destinations that did not answer are tried again.",
			"  stagecoach queue retry --destination ryan.example", func(*cobra.Command, []string) error {
				if in > 0 {
					retry.action.At = time.Now().Add(time.Duration(in))
					retry.past = "Due in " + span(time.Duration(in)) + ":"
				}
				return nil
			}),
		a.acting(bounce, "bounce", "Give mail up and tell its senders",
			"Give recipients up: they end, and in the same step a delivery status notification to the\nsender becomes part of the queue. As always nobody is told of mail that has no reverse-path\nor whose sender asked for none.",
			"  stagecoach queue bounce --domain gone.example --reason-text 'That server is gone for good'", nil),
		a.acting(remove, "delete", "Throw mail away", "Throw mail away: its recipients end, and nobody is told.",
			"  stagecoach queue delete --subject 'You have won' --newer 1h --dry-run", nil),
		a.acting(redirect, "redirect", "Send mail somewhere else",
			"Put other addresses in the place of recipients (--to), which are then routed as any are;\nor give the whole message a next hop (--via), which holds where it goes out by SMTP in place\nof the MX look-up. --via none takes a next hop back. Held mail goes on by that.",
			"  stagecoach queue redirect --recipient meg@ryan.example --to meg@reed.example\n  stagecoach queue redirect --domain ryan.example --via gate.ryan.example:2525",
			func(_ *cobra.Command, _ []string) error {
				if redirect.action.NextHop = via; (via == "") == (len(redirect.action.To) == 0) {
					return &exit{ExitUsage, errors.New("write --to ADDRESS or --via HOST:PORT")}
				}
				return nil
			}),
	}
	cmds[0].Flags().StringVar(&hold.action.Reason, "reason-text", "", "what stands as the reason")
	cmds[2].Flags().Var(&in, "in", "not now but then: 30m, 2h")
	cmds[3].Flags().StringVar(&bounce.action.Reason, "reason-text", "", "what the sender is told")
	cmds[5].Flags().StringArrayVar(&redirect.action.To, "to", nil, "the new recipient (may be repeated)")
	cmds[5].Flags().StringVar(&via, "via", "", "the next hop, HOST:PORT; none: as the domains say")
	return cmds
}

func (a *App) acting(x *actor, name, short, long, example string, prepare func(*cobra.Command, []string) error) *cobra.Command {
	c := &cobra.Command{
		Use: name + " [ID…]", Short: short, Args: cobra.ArbitraryArgs, Example: example,
		Long: long + "\n\n" + actHelp + selectionHelp,
		RunE: do(func(cmd *cobra.Command, args []string) error {
			if prepare != nil {
				if err := prepare(cmd, args); err != nil {
					return err
				}
			}
			return a.act(cmd, x, args)
		}),
	}
	x.src.flags(c)
	c.Flags().BoolVar(&x.all, "all", false, "all mail in the queue is meant")
	c.Flags().BoolVarP(&x.yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&x.dry, "dry-run", "n", false, "change nothing, tell what would be")
	x.sel.flags(c)
	jsonFlag(c, &x.asJSON)
	return c
}

func (a *App) act(cmd *cobra.Command, x *actor, args []string) error {
	f, err := x.sel.choose()
	if err != nil {
		return err
	}
	if f.IDs, err = readIDs(args, a.Stdin); err != nil {
		return err
	}
	switch {
	case x.all && f.Selects():
		return &exit{ExitUsage, errors.New("--all and a choice: say one of them")}
	case !x.all && !f.Selects():
		return &exit{ExitUsage, errors.New("which mail? Give ids, flags that choose, or --all")}
	}
	cl, err := a.client(cmd, x.src)
	if err != nil {
		return err
	}
	total := 0
	if len(f.IDs) == 0 && !x.dry && !x.yes {
		n, err := x.ask(cmd, cl, f)
		if err != nil || n == 0 {
			return err
		}
		total = n
	}
	action := x.action
	action.DryRun = x.dry
	sum, err := x.run(cmd, cl, f, action, total)
	if err != nil {
		return remote(err)
	}
	return x.tell(cmd, sum)
}

// readIDs takes "-" for a list on standard input.
func readIDs(args []string, in io.Reader) ([]string, error) {
	if len(args) != 1 || args[0] != "-" {
		return args, nil
	}
	var ids []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) > 0 {
			ids = append(ids, words[0])
		}
	}
	if len(ids) == 0 && lines.Err() == nil {
		return nil, &exit{ExitUsage, errors.New("there are no ids on standard input")}
	}
	return ids, lines.Err()
}

// ask counts what is meant, and asks about more than one mail.
func (x *actor) ask(cmd *cobra.Command, cl *admin.Client, f queue.Filter) (int, error) {
	dry := x.action
	dry.DryRun = true
	sum := &acted{}
	if err := cl.Act(cmd.Context(), f, dry, sum.add); err != nil {
		return 0, remote(err)
	}
	n := sum.messages[admin.Would]
	if n == 0 {
		return 0, x.tell(cmd, sum)
	}
	if n == 1 {
		return n, nil
	}
	what := fmt.Sprintf("%s %s of %s, %s", x.verb, count(sum.recipients[admin.Would], "recipient"), count(n, "message"), bytesOf(sum.bytes))
	in, ok := cmd.InOrStdin().(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
		ok = err == nil
	}
	if !ok {
		return 0, &exit{ExitUsage, fmt.Errorf("%s: say --yes if that is meant, --dry-run to see it", strings.ToLower(what[:1])+what[1:])}
	}
	fmt.Fprint(cmd.ErrOrStderr(), what+"? [y/N] ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if s := strings.ToLower(strings.TrimSpace(line)); s != "y" && s != "yes" {
		return 0, errors.New("nothing was changed")
	}
	return n, nil
}

// idsAtOnce stand in one request.
const idsAtOnce = 500

func (x *actor) run(cmd *cobra.Command, cl *admin.Client, f queue.Filter, action admin.Action, total int) (*acted, error) {
	sum := &acted{}
	enc := json.NewEncoder(cmd.OutOrStdout())
	progress := cmd.ErrOrStderr()
	shown := time.Time{}
	visible := terminal(progress) && !x.asJSON
	each := func(r admin.Acted) error {
		if err := sum.add(r); err != nil {
			return err
		}
		if x.asJSON {
			return enc.Encode(r)
		}
		if visible && time.Since(shown) > 100*time.Millisecond {
			shown = time.Now()
			of := ""
			if total > 0 {
				of = " of " + thousands(int64(total))
			}
			fmt.Fprintf(progress, "\r\x1b[K%s%s", thousands(int64(sum.seen)), of)
		}
		return nil
	}
	defer func() {
		if visible && !shown.IsZero() {
			fmt.Fprint(progress, "\r\x1b[K")
		}
	}()
	if len(f.IDs) == 0 {
		return sum, cl.Act(cmd.Context(), f, action, each)
	}
	for ids := f.IDs; len(ids) > 0; {
		n := min(idsAtOnce, len(ids))
		f.IDs, ids = ids[:n], ids[n:]
		if err := cl.Act(cmd.Context(), f, action, each); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// acted sums up an action.
type acted struct {
	seen                 int
	messages, recipients map[string]int
	bytes                int64
	problems             []string
}

const problemsShown = 10

func (s *acted) add(r admin.Acted) error {
	if s.messages == nil {
		s.messages, s.recipients = map[string]int{}, map[string]int{}
	}
	s.seen++
	s.messages[r.Result]++
	s.recipients[r.Result] += r.Recipients
	if r.Result == admin.Would || r.Result == admin.Done {
		s.bytes += r.Bytes
	}
	if r.Problem != "" && len(s.problems) < problemsShown {
		s.problems = append(s.problems, r.ID+": "+r.Problem)
	}
	return nil
}

// tell says what was done; what was meant and not done is a failure.
func (x *actor) tell(cmd *cobra.Command, s *acted) error {
	out := cmd.OutOrStdout()
	if !x.asJSON {
		done, what := admin.Done, x.past
		if x.dry {
			done, what = admin.Would, x.verb
		}
		switch n := s.messages[done]; {
		case n > 0:
			fmt.Fprintf(out, "%s %s of %s (%s)%s\n", what, count(s.recipients[done], "recipient"), count(n, "message"), bytesOf(s.bytes), map[bool]string{true: "; a dry run, nothing was changed.", false: "."}[x.dry])
		case s.seen == 0:
			fmt.Fprintln(out, "No mail in the queue matches.")
		case s.messages[admin.Nothing] == s.seen:
			fmt.Fprintf(out, "Nothing to do: %s like that already.\n", map[bool]string{true: "it is", false: "they are"}[s.seen == 1])
		}
		if n := s.messages[admin.Gone]; n > 0 {
			fmt.Fprintf(out, "%s ended meanwhile.\n", count(n, "message"))
		}
		for _, p := range s.problems {
			fmt.Fprintln(cmd.ErrOrStderr(), p)
		}
	}
	if n := s.messages[admin.Busy]; n > 0 {
		return fmt.Errorf("%s still being delivered and not changed: try again, or hold them first", count(n, "message"))
	}
	if n := s.messages[admin.Failed]; n > 0 {
		return fmt.Errorf("%s not changed", count(n, "message"))
	}
	return nil
}
