package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
journal. Leases need no check: they are memory, and a restart ends them. Of a large body the
length is compared, its octets have no checksum. Nothing is changed without --repair.

With --repair what can be repaired is: indexes and counts are made to agree with the
messages; a corrupt record is set aside in the database, and printed by --json as it was; a
message whose body is gone is held; files that belong to nobody are moved to queue/aside;
a damaged database is built anew from what can be read, and kept as queue/db.damaged. No
mail whose record is whole is lost. A repair that is cut off may simply be repeated.

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
	fmt.Fprintln(out)
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
