package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

// UserScript is a Sieve script as `stagecoach sieve list` shows it.
type UserScript struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Active bool   `json:"active"`
}

// ScriptMistake is what is wrong with a script.
type ScriptMistake struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	// Warning: it can be run all the same.
	Warning bool `json:"warning,omitempty"`
}

// ScriptTrial is a mail that a script is tried on.
type ScriptTrial struct {
	From, To string
	Message  []byte
}

// UserScripts are the users' Sieve scripts in a folder, for `stagecoach sieve`. A
// change is on stable storage when its call returns.
type UserScripts interface {
	// List them by name, with what went wrong in the last run.
	List(dir, account string) (list []UserScript, trouble string, err error)
	Get(dir, account, name string) ([]byte, error)
	Put(dir, account, name string, text []byte) error
	// Activate one, or none ("").
	Activate(dir, account, name string) error
	Delete(dir, account, name string) error
	// Check a script; account's others are those that it may include.
	Check(dir, account string, text []byte) ([]ScriptMistake, error)
	// Try a script on a mail and tell in words what it would do; it does nothing.
	Try(dir, account string, text []byte, on ScriptTrial) ([]string, error)
}

const scriptsFolder = "/var/lib/stagecoach/sieve"

func (a *App) sieve() *cobra.Command {
	c := &cobra.Command{
		Use: "sieve", Short: "Users' Sieve scripts: list, read, store, check and try them",
		Long: `The scripts that filter "sieve" runs at delivery, in the folder that its block names. Users
edit them over ManageSieve (access "managesieve"); this is the operator's way. A script with
a mistake is not stored. What is stored counts from the next delivery on.`,
	}
	var dir string
	c.PersistentFlags().StringVar(&dir, "scripts", scriptsFolder, "the folder of scripts, as in the filter's block")
	c.AddCommand(a.sieveList(&dir), a.sieveGet(&dir), a.sievePut(&dir), a.sieveActivate(&dir), a.sieveDelete(&dir), a.sieveCheck(&dir), a.sieveTest(&dir))
	return c
}

// scriptFolder says what is to be done where the folder cannot be used.
func scriptFolder(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run this as the user that the server runs as, or name another folder with --scripts", err)
	}
	return err
}

// text of a file, or of the standard input ("-").
func (a *App) scriptText(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.Stdin)
	}
	return os.ReadFile(path)
}

func (a *App) sieveList(dir *string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list ACCOUNT", Short: "List a user's scripts, and what went wrong in the last run", Args: cobra.ExactArgs(1),
		Example: "  stagecoach sieve list meg@ryan.example",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			list, trouble, err := a.UserScripts.List(*dir, args[0])
			if err != nil {
				return scriptFolder(err)
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printJSON(out, struct {
					Scripts []UserScript `json:"scripts"`
					Trouble string       `json:"trouble,omitempty"`
				}{list, trouble})
			}
			if len(list) == 0 {
				fmt.Fprintf(out, "%s has no script: `stagecoach sieve put %s NAME FILE --activate` stores one\n", args[0], args[0])
			}
			for _, s := range list {
				state := ""
				if s.Active {
					state = "  active"
				}
				fmt.Fprintf(out, "%-24s %8d octets%s\n", s.Name, s.Size, state)
			}
			if trouble != "" {
				fmt.Fprintf(out, "\nThe last run had trouble, and the mail was kept:\n%s", trouble)
			}
			return nil
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func (a *App) sieveGet(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "get ACCOUNT NAME", Short: "Print a script", Args: cobra.ExactArgs(2),
		Example: "  stagecoach sieve get meg@ryan.example main",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			text, err := a.UserScripts.Get(*dir, args[0], args[1])
			if err != nil {
				return scriptFolder(err)
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}),
	}
}

func (a *App) sievePut(dir *string) *cobra.Command {
	var activate bool
	c := &cobra.Command{
		Use: "put ACCOUNT NAME FILE", Short: "Check a script and store it (FILE - is the standard input)", Args: cobra.ExactArgs(3),
		Example: "  stagecoach sieve put meg@ryan.example main main.sieve --activate",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			text, err := a.scriptText(args[2])
			if err != nil {
				return err
			}
			if err := a.checkScript(cmd, *dir, args[0], args[2], text, false); err != nil {
				return err
			}
			if err := a.UserScripts.Put(*dir, args[0], args[1], text); err != nil {
				return scriptFolder(err)
			}
			if activate {
				return scriptFolder(a.UserScripts.Activate(*dir, args[0], args[1]))
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&activate, "activate", false, "run it from now on, in place of the one that is active")
	return c
}

func (a *App) sieveActivate(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "activate ACCOUNT [NAME]", Short: "Run a script from now on; without a NAME none", Args: cobra.RangeArgs(1, 2),
		Example: "  stagecoach sieve activate meg@ryan.example main",
		RunE: do(func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) > 1 {
				name = args[1]
			}
			return scriptFolder(a.UserScripts.Activate(*dir, args[0], name))
		}),
	}
}

func (a *App) sieveDelete(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "delete ACCOUNT NAME", Short: "Delete a script that is not active", Args: cobra.ExactArgs(2),
		Example: "  stagecoach sieve delete meg@ryan.example old",
		RunE: do(func(_ *cobra.Command, args []string) error {
			return scriptFolder(a.UserScripts.Delete(*dir, args[0], args[1]))
		}),
	}
}

// checkScript prints what is wrong with a script, and fails if it cannot be run.
func (a *App) checkScript(cmd *cobra.Command, dir, account, file string, text []byte, asJSON bool) error {
	mistakes, err := a.UserScripts.Check(dir, account, text)
	if err != nil {
		return scriptFolder(err)
	}
	bad := false
	for _, m := range mistakes {
		bad = bad || !m.Warning
		if asJSON {
			continue
		}
		kind := ""
		if m.Warning {
			kind = "warning: "
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d:%d: %s%s\n", file, m.Line, m.Column, kind, m.Message)
	}
	if asJSON {
		if mistakes == nil {
			mistakes = []ScriptMistake{}
		}
		if err := printJSON(cmd.OutOrStdout(), mistakes); err != nil {
			return err
		}
	}
	if bad {
		return &exit{ExitTest, errPrinted}
	}
	return nil
}

func (a *App) sieveCheck(dir *string) *cobra.Command {
	var (
		account string
		asJSON  bool
	)
	c := &cobra.Command{
		Use: "check FILE", Short: "Check a script without storing it", Args: cobra.ExactArgs(1),
		Long:    "Check a script without storing it. Exit codes: 0 it can be run; 5 it has mistakes.",
		Example: "  stagecoach sieve check main.sieve",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			text, err := a.scriptText(args[0])
			if err != nil {
				return err
			}
			return a.checkScript(cmd, *dir, account, args[0], text, asJSON)
		}),
	}
	c.Flags().StringVar(&account, "account", "", "the user whose other scripts it may include")
	jsonFlag(c, &asJSON)
	return c
}

func (a *App) sieveTest(dir *string) *cobra.Command {
	var (
		account string
		on      ScriptTrial
		asJSON  bool
	)
	c := &cobra.Command{
		Use: "test FILE MESSAGE", Short: "Tell what a script would do with a message, and do nothing", Args: cobra.ExactArgs(2),
		Example: "  stagecoach sieve test main.sieve mail.eml --from tom@hanks.example --to meg@ryan.example",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			text, err := a.scriptText(args[0])
			if err != nil {
				return err
			}
			if on.Message, err = os.ReadFile(args[1]); err != nil {
				return err
			}
			if err := a.checkScript(cmd, *dir, account, args[0], text, false); err != nil {
				return err
			}
			lines, err := a.UserScripts.Try(*dir, account, text, on)
			if err != nil {
				return scriptFolder(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), lines)
			}
			for _, l := range lines {
				fmt.Fprintln(cmd.OutOrStdout(), l)
			}
			return nil
		}),
	}
	f := c.Flags()
	f.StringVar(&account, "account", "", "the user whose other scripts it may include")
	f.StringVar(&on.From, "from", "", "the sender of the envelope; empty is the null one")
	f.StringVar(&on.To, "to", "", "the recipient of the envelope")
	jsonFlag(c, &asJSON)
	return c
}
