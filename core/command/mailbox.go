package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

func (a *App) mailbox() *cobra.Command {
	c := &cobra.Command{
		Use: "mailbox", Short: "Mailboxes: list, check, back up and restore them",
		Long: `Look after the mail that the storages keep. While the server runs, these commands ask it; when
it is stopped, they start its storages for themselves, with the configuration that -c names,
and the server cannot start until they are done.

An account is a user's mailboxes, named as the directory names it: meg@ryan.example.
docs/mailboxes.md tells more.`,
	}
	c.AddCommand(a.mailboxList(), a.mailboxStats(), a.mailboxCheck(), a.mailboxBackup(), a.mailboxRestore(), a.mailboxExport(), a.mailboxImport())
	return c
}

// inside runs a command's work behind the door, and leaves by it.
func (a *App) inside(d *door, work func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return doUntilSignal(func(cmd *cobra.Command, args []string) (err error) {
		if err := d.enter(a, cmd); err != nil {
			return errors.Join(err, d.close())
		}
		defer func() {
			// Which error is told decides the exit code.
			if left := d.close(); err == nil {
				err = left
			}
		}()
		return work(cmd, args)
	})
}

// accountUse is what an account has.
type accountUse struct {
	Account   string `json:"account"`
	Storage   string `json:"storage"`
	Mailboxes int    `json:"mailboxes"`
	Messages  int64  `json:"messages"`
	Unseen    int64  `json:"unseen"`
	Bytes     int64  `json:"bytes"`
}

func useOf(ctx context.Context, s storage.Storage, ref, name string) (u accountUse, list []*v1.Mailbox, err error) {
	u = accountUse{Account: name, Storage: ref}
	acct, err := s.Open(ctx, name)
	if err != nil {
		return u, nil, err
	}
	r, err := acct.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return u, nil, err
	}
	for _, m := range r.GetMailboxes() {
		if m.GetContainer() {
			continue
		}
		u.Mailboxes++
		u.Messages += int64(m.GetMessages())
		u.Unseen += int64(m.GetUnseen())
		u.Bytes += m.GetSize()
		list = append(list, m)
	}
	return u, list, nil
}

func (a *App) mailboxList() *cobra.Command {
	var (
		d      door
		asJSON bool
	)
	c := &cobra.Command{
		Use: "list", Short: "List the accounts with their mailboxes, messages and size", Args: cobra.NoArgs,
		Long:    "List the accounts of all storages, or of --storage, with the number of their mailboxes and\nmessages and the size of these. With --json, one object a line.",
		Example: "  stagecoach mailbox list",
		RunE: a.inside(&d, func(cmd *cobra.Command, _ []string) error {
			list, err := d.chosen()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			t := newTable(out, "ACCOUNT", "STORAGE", "MAILBOXES", "MESSAGES", "UNSEEN", "SIZE")
			n, size := 0, int64(0)
			for _, st := range list {
				s := d.storage(st)
				if err := accounts(cmd.Context(), s, func(name string) error {
					u, _, err := useOf(cmd.Context(), s, st.Instance, name)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					n, size = n+1, size+u.Bytes
					if asJSON {
						return printLine(out, u)
					}
					return t.row(u.Account, u.Storage, u.Mailboxes, thousands(u.Messages), thousands(u.Unseen), bytesOf(u.Bytes))
				}); err != nil {
					return err
				}
			}
			if asJSON {
				return nil
			}
			if err := t.flush(); err != nil {
				return err
			}
			if n == 0 {
				fmt.Fprintln(out, "There is no account yet: one comes into being with its first mail or login.")
				return nil
			}
			fmt.Fprintf(out, "\n%s, %s.\n", count(n, "account"), bytesOf(size))
			return nil
		}),
	}
	d.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

// mailboxUse is what a mailbox has.
type mailboxUse struct {
	Mailbox     string `json:"mailbox"`
	Role        string `json:"role,omitempty"`
	Messages    uint32 `json:"messages"`
	Unseen      uint32 `json:"unseen"`
	Deleted     uint32 `json:"deleted"`
	Bytes       int64  `json:"bytes"`
	UIDValidity uint32 `json:"uid_validity"`
	UIDNext     uint32 `json:"uid_next"`
}

func (a *App) mailboxStats() *cobra.Command {
	var (
		d      door
		asJSON bool
	)
	c := &cobra.Command{
		Use: "stats [ACCOUNT]", Short: "Show what an account has by mailbox, or what each storage has", Args: cobra.MaximumNArgs(1),
		Long:    "Show the mailboxes of an account with their messages and size; without ACCOUNT, how many\naccounts, mailboxes and messages each storage has, and the greatest accounts.",
		Example: "  stagecoach mailbox stats meg@ryan.example",
		RunE: a.inside(&d, func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.storageStats(cmd, &d, asJSON)
			}
			st, err := d.one()
			if err != nil {
				return err
			}
			s := d.storage(st)
			if err := known(cmd.Context(), s, st.Instance, args[0]); err != nil {
				return err
			}
			u, list, err := useOf(cmd.Context(), s, st.Instance, args[0])
			if err != nil {
				return err
			}
			all := make([]mailboxUse, 0, len(list))
			for _, m := range list {
				all = append(all, mailboxUse{m.GetName(), m.GetRole(), m.GetMessages(), m.GetUnseen(), m.GetDeleted(), m.GetSize(), m.GetUidValidity(), m.GetUidNext()})
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printJSON(out, struct {
					accountUse
					All []mailboxUse `json:"by_mailbox"`
				}{u, all})
			}
			t := newTable(out, "MAILBOX", "ROLE", "MESSAGES", "UNSEEN", "DELETED", "SIZE", "UIDVALIDITY", "UIDNEXT")
			for _, m := range all {
				if err := t.row(m.Mailbox, m.Role, thousands(int64(m.Messages)), thousands(int64(m.Unseen)), thousands(int64(m.Deleted)), bytesOf(m.Bytes), m.UIDValidity, m.UIDNext); err != nil {
					return err
				}
			}
			if err := t.flush(); err != nil {
				return err
			}
			fmt.Fprintf(out, "\n%s in %s, %s.\n", count(u.Messages, "message"), inMailboxes(u.Mailboxes), bytesOf(u.Bytes))
			return nil
		}),
	}
	d.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func inMailboxes(n int) string {
	if n == 1 {
		return "1 mailbox"
	}
	return thousands(int64(n)) + " mailboxes"
}

// greatest accounts that stats shows.
const greatest = 10

type storageUse struct {
	Storage   string       `json:"storage"`
	Plugin    string       `json:"plugin"`
	Accounts  int          `json:"accounts"`
	Mailboxes int          `json:"mailboxes"`
	Messages  int64        `json:"messages"`
	Bytes     int64        `json:"bytes"`
	Greatest  []accountUse `json:"greatest"`
}

// add keeps the accounts with the most octets.
func (u *storageUse) add(a accountUse) {
	u.Accounts++
	u.Mailboxes += a.Mailboxes
	u.Messages += a.Messages
	u.Bytes += a.Bytes
	at := len(u.Greatest)
	for at > 0 && u.Greatest[at-1].Bytes < a.Bytes {
		at--
	}
	if at < greatest {
		u.Greatest = append(u.Greatest[:at], append([]accountUse{a}, u.Greatest[at:]...)...)
		u.Greatest = u.Greatest[:min(len(u.Greatest), greatest)]
	}
}

func (a *App) storageStats(cmd *cobra.Command, d *door, asJSON bool) error {
	list, err := d.chosen()
	if err != nil {
		return err
	}
	var all []storageUse
	for _, st := range list {
		u := storageUse{Storage: st.Instance, Plugin: st.Plugin, Greatest: []accountUse{}}
		s := d.storage(st)
		if err := accounts(cmd.Context(), s, func(name string) error {
			one, _, err := useOf(cmd.Context(), s, st.Instance, name)
			u.add(one)
			return err
		}); err != nil {
			return err
		}
		all = append(all, u)
	}
	out := cmd.OutOrStdout()
	if asJSON {
		return printJSON(out, all)
	}
	t := newTable(out, "STORAGE", "PLUGIN", "ACCOUNTS", "MAILBOXES", "MESSAGES", "SIZE")
	top := newTable(out, "GREATEST", "STORAGE", "MESSAGES", "SIZE")
	for _, u := range all {
		if err := t.row(u.Storage, u.Plugin, thousands(int64(u.Accounts)), thousands(int64(u.Mailboxes)), thousands(u.Messages), bytesOf(u.Bytes)); err != nil {
			return err
		}
		for _, one := range u.Greatest {
			if err := top.row(one.Account, u.Storage, thousands(one.Messages), bytesOf(one.Bytes)); err != nil {
				return err
			}
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return top.flush()
}

func (a *App) mailboxCheck() *cobra.Command {
	var (
		d              door
		repair, asJSON bool
	)
	c := &cobra.Command{
		Use: "check [ACCOUNT]", Short: "Verify all that a storage keeps, or one account, and repair it", Args: cobra.MaximumNArgs(1),
		Long: `Verify what a storage keeps, while it serves: that the counters agree with the messages, that
names lead to mailboxes, that each message has its record and its body, that each body is
whole by its checksum, that the search index can be read. Without ACCOUNT all accounts are
verified, and files that belong to nobody are found too. Nothing is changed without --repair.

With --repair what can be repaired is: counters are made to agree with the messages; a damaged
part of the search index is made anew; a message whose body is gone is removed from its
mailbox, which cannot be read with it; a file that belongs to nobody is moved aside. A body that
is damaged stays, for most of it can be read: restore its file from a backup. A repair that is
cut off may simply be repeated, and so may one that uncovered something else.

Exit codes: 0 nothing is wrong, or all of it was repaired; 5 something is.`,
		Example: "  stagecoach mailbox check\n  stagecoach mailbox check meg@ryan.example --repair",
		RunE: a.inside(&d, func(cmd *cobra.Command, args []string) error {
			account := ""
			list, err := d.chosen()
			if len(args) > 0 {
				account = args[0]
				one, oneErr := d.one()
				list, err = append(list[:0:0], one), oneErr
			}
			if err != nil {
				return err
			}
			left := 0
			var all []*checkedStorage
			for _, st := range list {
				s := d.storage(st)
				if account != "" {
					if err := known(cmd.Context(), s, st.Instance, account); err != nil {
						return err
					}
				}
				f, err := a.checkStorage(cmd, s, st.Instance, account, repair)
				if err != nil {
					return err
				}
				left += f.Left
				all = append(all, f)
				if !asJSON {
					if err := f.show(cmd.OutOrStdout()); err != nil {
						return err
					}
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), all); err != nil {
					return err
				}
			}
			if left > 0 {
				return &exit{ExitTest, errPrinted}
			}
			return nil
		}),
	}
	d.flags(c)
	c.Flags().BoolVar(&repair, "repair", false, "repair what can be repaired")
	jsonFlag(c, &asJSON)
	return c
}

// unsupported says what a storage cannot do.
func unsupported(err error, ref, what string) error {
	if fail.Is(err, fail.Unsupported) {
		return fmt.Errorf("%s %s: %w", ref, what, err)
	}
	return err
}
