package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/transfer"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

func (a *App) mailboxExport() *cobra.Command {
	var (
		d              door
		to             string
		only           []string
		dryRun, asJSON bool
	)
	c := &cobra.Command{
		Use: "export ACCOUNT --to maildir|mbox DIR", Short: "Write an account's mail into a Maildir or into mbox files", Args: cobra.ExactArgs(2),
		Long: `Write an account's mail into a folder, from which other programs read it and "stagecoach mailbox
import" puts it back.

--to maildir makes a Maildir++: INBOX is DIR itself, Letters/Tom the folder .Letters.Tom in it.
Flags stand in the files' names, keywords in dovecot-keywords, the date of receipt is the file's.
--to mbox makes a file of each mailbox: DIR/INBOX.mbox, DIR/Letters/Tom.mbox (mboxrd), with the
flags in Status and X-Status and the keywords in X-Keywords.

The mail stays where it is. A run that was cut off goes on when it is repeated: messages of a
Maildir, and mbox files, that are whole are not written again. Exit codes: 0 all is there; 1 it
did not work, or was stopped; 5 all is there but what the table says was left out.`,
		Example: "  stagecoach mailbox export meg@ryan.example --to maildir /backup/meg\n  stagecoach mailbox export meg@ryan.example --mailbox Sent --to mbox /tmp/meg",
		RunE: a.inside(&d, func(cmd *cobra.Command, args []string) error {
			account, dir := args[0], args[1]
			st, err := d.one()
			if err != nil {
				return err
			}
			s := d.storage(st)
			if err := known(cmd.Context(), s, st.Instance, account); err != nil {
				return err
			}
			acct, err := s.Open(cmd.Context(), account)
			if err != nil {
				return err
			}
			res := &carried{Account: account, Storage: st.Instance, DryRun: dryRun}
			var notes []transfer.Left
			sink, err := openSink(to, dir, dryRun, func(mailbox, message, why string) {
				notes = append(notes, transfer.Left{Mailbox: mailbox, Message: message, Why: why})
			})
			if err != nil {
				return err
			}
			m := newMeter(cmd.ErrOrStderr())
			e := &transfer.Export{Account: acct, Only: only, DryRun: dryRun, Progress: m.tell}
			res.Report, err = e.Run(cmd.Context(), sink)
			m.end()
			res.Notes = append(res.Notes, notes...)
			return res.close(cmd, asJSON, err, "The same command goes on where it ended.")
		}),
	}
	d.flags(c)
	c.Flags().StringVar(&to, "to", "", "what is written: maildir or mbox")
	c.Flags().StringArrayVar(&only, "mailbox", nil, "only this mailbox; may be repeated")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "write nothing, and tell what would be")
	jsonFlag(c, &asJSON)
	return c
}

func openSink(to, dir string, dryRun bool, note func(mailbox, message, why string)) (transfer.Sink, error) {
	switch {
	case to != "maildir" && to != "mbox":
		return nil, &exit{ExitUsage, errors.New("--to: say maildir or mbox")}
	case dryRun:
		return nil, nil
	case to == "mbox":
		return transfer.NewMbox(dir)
	}
	return transfer.NewMaildir(dir, note)
}

// accountProblem says of a name that no account can have what is wrong.
func accountProblem(err error, name string) error {
	if fail.Is(err, fail.Invalid) {
		return fmt.Errorf("%q cannot be an account: %w", name, err)
	}
	return err
}
