package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

func (a *App) queueCheck() *cobra.Command {
	var (
		src    source
		repair bool
		asJSON bool
	)
	c := &cobra.Command{
		Use: "check", Short: "Verify the queue of a server that is stopped, and repair it", Args: cobra.NoArgs,
		Long: `Verify all of the queue while the server is stopped: the format's version, every block of
the database and every record by its checksum, that each message is where it is looked for
(due index, lanes, counts), that each body is there, whole and somebody's, and the mail
journal. Leases need no check: they are memory, and a restart ends them. Large bodies are read
and compared with their checksum, but for those that a program of an older format put.
Nothing is changed without --repair.

With --repair what can be repaired is: indexes and counts are made to agree with the
messages; a corrupt record is set aside in the database, and printed by --json as it was; a
message whose body is gone is held; files that belong to nobody are moved to queue/aside.
A body whose message's record is lost goes there as ID.eml, octets as received, with what is
known of it beside it as ID.json: sender and recipients, by the mail journal, and what its
own header says. To whom it has not been delivered nobody else knows: look, and send it
again with any SMTP client, or remove both. A damaged database is built anew from what can
be read, and kept as queue/db.damaged; a start does that by itself, and sets aside as well.
No mail whose record is whole is lost. A repair that is cut off may simply be repeated.

Exit codes: 0 nothing is wrong, or all of it was repaired; 5 something is.
The format is in docs/formats/queue.md.`,
		Example: "  stagecoach queue check -c /etc/stagecoach\n  stagecoach queue check --data-dir /var/lib/stagecoach --repair",
		RunE: doUntilSignal(func(cmd *cobra.Command, _ []string) error {
			dir := src.dataDir
			if dir == "" || len(src.paths) > 0 {
				cfg, err := a.load(cmd, src)
				if err != nil {
					return err
				}
				dir = cfg.DataDir
			}
			tell := cmd.ErrOrStderr()
			log := zerolog.New(zerolog.ConsoleWriter{Out: tell, NoColor: !terminal(tell), PartsExclude: []string{zerolog.TimestampFieldName}}).Level(zerolog.WarnLevel)
			o := queue.CheckOptions{Dir: filepath.Join(dir, "queue"), Repair: repair, Log: log}
			if terminal(tell) {
				o.Progress = func(what string, seen int64) { fmt.Fprintf(tell, "\r\x1b[K%s %s", thousands(seen), what) }
			}
			f, err := queue.Check(cmd.Context(), o)
			if o.Progress != nil {
				fmt.Fprint(tell, "\r\x1b[K")
			}
			if errors.Is(err, os.ErrPermission) {
				err = fmt.Errorf("%w: run this as the user that the server runs as", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), f)
			} else {
				err = showFindings(cmd.OutOrStdout(), f, o.Dir)
			}
			if err == nil && f.Left > 0 {
				err = &exit{ExitTest, errPrinted}
			}
			return err
		}),
	}
	src.flags(c)
	c.Flags().BoolVar(&repair, "repair", false, "repair what can be repaired")
	jsonFlag(c, &asJSON)
	return c
}

// showOrphans lists the bodies that nobody delivers any more.
func showOrphans(out io.Writer, f *queue.Findings) error {
	if len(f.Orphans) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\n%s (%s) of which only the body is left:\n", count(f.Leftover.Bodies, "mail"), bytesOf(f.Leftover.Bytes))
	t := newTable(out, "ID", "RECEIVED", "SENDER", "RECIPIENTS", "SUBJECT", "WHERE")
	for n := range f.Orphans {
		o := &f.Orphans[n]
		sender, to := o.From, o.To+" (by its header)"
		if o.Journal {
			sender, to = o.Sender, reached(o)
		}
		if err := t.row(o.ID, o.Received.Format(time.RFC3339), sender, to, o.Subject, o.Where); err != nil {
			return err
		}
	}
	if n := f.Leftover.Bodies - int64(len(f.Orphans)); n > 0 {
		if err := t.flush(); err != nil {
			return err
		}
		fmt.Fprintf(out, "… and %s more\n", thousands(n))
		return nil
	}
	return t.flush()
}

// reached are an orphan's recipients as the mail journal has them.
func reached(o *queue.Orphan) string {
	words := make([]string, len(o.Recipients))
	for n, r := range o.Recipients {
		words[n] = r.Address + " " + r.State
	}
	return strings.Join(words, ", ")
}

func showFindings(out io.Writer, f *queue.Findings, dir string) error {
	fmt.Fprintf(out, "%s, format %d\n\n", dir, f.Format)
	t := newTable(out, "CHECKED", "NUMBER", "WRONG")
	for _, k := range f.Checked {
		wrong := cell{text: thousands(k.Wrong)}
		if k.Wrong > 0 {
			wrong.style = yellow
		}
		if err := t.row(k.What, thousands(k.Count), wrong); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(f.Problems) > 0 {
		fmt.Fprintln(out)
		t = newTable(out, "WHAT", "WHERE", "IS WRONG", "REPAIR")
		for _, p := range f.Problems {
			if err := t.row(p.What, p.Where, p.Text, p.Repair); err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
		if f.Unlisted > 0 {
			fmt.Fprintf(out, "… and %s more\n", thousands(f.Unlisted))
		}
	}
	if len(f.Notes) > 0 {
		fmt.Fprintln(out)
		for _, n := range f.Notes {
			fmt.Fprintln(out, printable(n))
		}
	}
	if err := showOrphans(out, f); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if n := f.Aside.Bodies; n > 0 {
		fmt.Fprintf(out, "In %s, now or before: %s (%s) whose record is lost, as ID.eml with ID.json.\n", filepath.Join(dir, "aside"), count(n, "mail"), bytesOf(f.Aside.Bytes))
	}
	if n := int64(len(f.SetAside)) + f.MoreSetAside; n > 0 {
		fmt.Fprintf(out, "Set aside in the database, now or before: %s; --json prints what they are.\n", count(n, "record"))
	}
	found := int64(len(f.Problems)) + f.Unlisted
	switch {
	case found == 0:
		fmt.Fprintln(out, "The queue is whole.")
	case f.Left == 0:
		fmt.Fprintf(out, "%s, repaired.\n", count(found, "problem"))
	case f.Left < found:
		fmt.Fprintf(out, "%s, %s repaired.\n", count(found, "problem"), thousands(found-f.Left))
	default:
		fmt.Fprintf(out, "%s. `stagecoach queue check --repair` repairs what can be.\n", count(found, "problem"))
	}
	return nil
}
