package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/config"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
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

// ScriptsAt is where users' Sieve scripts are: in a storage, or, with Storage nil, in
// Folder. Global is the operator's folder beside a storage; "" for none.
type ScriptsAt struct {
	Storage        storage.Storage
	Folder, Global string
}

// UserScripts are the users' Sieve scripts, for `stagecoach sieve`. A change is on
// stable storage when its call returns.
type UserScripts interface {
	// List them by name, with what went wrong in the last run.
	List(ctx context.Context, at ScriptsAt, account string) (list []UserScript, trouble string, err error)
	Get(ctx context.Context, at ScriptsAt, account, name string) ([]byte, error)
	Put(ctx context.Context, at ScriptsAt, account, name string, text []byte) error
	// Activate one, or none ("").
	Activate(ctx context.Context, at ScriptsAt, account, name string) error
	Delete(ctx context.Context, at ScriptsAt, account, name string) error
	// Check a script; account's others are those that it may include. at may be nowhere.
	Check(ctx context.Context, at ScriptsAt, account string, text []byte) ([]ScriptMistake, error)
	// Try a script on a mail and tell in words what it would do; it does nothing.
	Try(ctx context.Context, at ScriptsAt, account string, text []byte, on ScriptTrial) ([]string, error)
}

func (a *App) sieve() *cobra.Command {
	c := &cobra.Command{
		Use: "sieve", Short: "Users' Sieve scripts: list, read, store, check and try them",
		Long: `The scripts that filter "sieve" runs at delivery. Users edit them over ManageSieve (access
"managesieve"); this is the operator's way. A script with a mistake is not stored. What is
stored counts from the next delivery on.

They are where the filter's block in the configuration has them: in its storage, which the
server is asked for, or which is started for this command alone while the server is stopped;
or in the folder that the block names. --scripts names such a folder without a configuration.`,
	}
	c.AddCommand(a.sieveList(), a.sieveGet(), a.sievePut(), a.sieveActivate(), a.sieveDelete(), a.sieveCheck(), a.sieveTest())
	return c
}

// scriptDoor leads to the scripts.
type scriptDoor struct {
	door
	at ScriptsAt
	// account whose other scripts a check may look at; without one, and without a
	// configuration, nothing is looked for. nil: there is no work without scripts.
	account *string
}

func (d *scriptDoor) flags(c *cobra.Command) {
	d.door.flags(c)
	c.Flags().StringVar(&d.at.Folder, "scripts", "", "the folder of scripts, in place of what the configuration says")
}

// at runs a command's work with the scripts at hand.
func (a *App) at(d *scriptDoor, work func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return doUntilSignal(func(cmd *cobra.Command, args []string) (err error) {
		err = d.enter(a, cmd)
		if err == nil {
			err = work(cmd, args)
		}
		if left := d.close(); err == nil {
			err = left
		}
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: run this as the user that the server runs as, or name another folder with --scripts", err)
		}
		return err
	})
}

// enter finds the scripts: the block of the filter says where they are.
func (d *scriptDoor) enter(a *App, cmd *cobra.Command) error {
	alone := d.account != nil && *d.account == "" && d.ref == "" && len(d.src.paths) == 0 && d.src.dataDir == ""
	if d.at.Folder != "" || alone {
		return nil
	}
	socketAlone := len(d.src.paths) == 0 && d.src.dataDir != ""
	if d.ref == "" && !socketAlone {
		cfg, diags := a.parse(cmd.Context(), d.src)
		if diags.HasErrors() {
			return errors.Join(diags.WriteText(cmd.ErrOrStderr(), terminal(cmd.ErrOrStderr())), &exit{ExitConfig, errPrinted})
		}
		if err := d.find(cfg); err != nil || d.at.Folder != "" {
			return err
		}
	}
	if err := d.door.enter(a, cmd); err != nil {
		return err
	}
	st, err := d.one()
	if err != nil {
		return err
	}
	d.at.Storage = d.storage(st)
	return nil
}

// find reads where the filters "sieve" of a configuration have their scripts.
func (d *scriptDoor) find(cfg *config.Config) error {
	var places []ScriptsAt
	var refs []string
	for _, i := range cfg.ByKind(v1.Kind_KIND_FILTER) {
		if i.Plugin != "sieve" {
			continue
		}
		said := struct{ Scripts, Storage, Global string }{}
		if err := json.Unmarshal(i.ConfigJSON, &said); err != nil {
			return err
		}
		p, ref := ScriptsAt{Folder: said.Scripts, Global: said.Global}, said.Storage
		if p.Folder != "" {
			ref = ""
		}
		if !slices.Contains(places, p) || !slices.Contains(refs, ref) {
			places, refs = append(places, p), append(refs, ref)
		}
	}
	switch len(places) {
	case 0:
		return errors.New(`the configuration has no filter "sieve"; with --scripts name a folder of scripts`)
	case 1:
		d.at, d.ref = places[0], refs[0]
		return nil
	}
	return &exit{ExitUsage, errors.New("the configuration has scripts in several places: say which, with --storage or --scripts")}
}

// scriptText of a file, or of the standard input ("-").
func (a *App) scriptText(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.Stdin)
	}
	return os.ReadFile(path)
}

func (a *App) sieveList() *cobra.Command {
	var (
		d      scriptDoor
		asJSON bool
	)
	c := &cobra.Command{
		Use: "list ACCOUNT", Short: "List a user's scripts, and what went wrong in the last run", Args: cobra.ExactArgs(1),
		Example: "  stagecoach sieve list meg@ryan.example",
		RunE: a.at(&d, func(cmd *cobra.Command, args []string) error {
			list, trouble, err := a.UserScripts.List(cmd.Context(), d.at, args[0])
			if err != nil {
				return err
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
	d.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func (a *App) sieveGet() *cobra.Command {
	var d scriptDoor
	c := &cobra.Command{
		Use: "get ACCOUNT NAME", Short: "Print a script", Args: cobra.ExactArgs(2),
		Example: "  stagecoach sieve get meg@ryan.example main",
		RunE: a.at(&d, func(cmd *cobra.Command, args []string) error {
			text, err := a.UserScripts.Get(cmd.Context(), d.at, args[0], args[1])
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}),
	}
	d.flags(c)
	return c
}

func (a *App) sievePut() *cobra.Command {
	var (
		d        scriptDoor
		activate bool
	)
	c := &cobra.Command{
		Use: "put ACCOUNT NAME FILE", Short: "Check a script and store it (FILE - is the standard input)", Args: cobra.ExactArgs(3),
		Example: "  stagecoach sieve put meg@ryan.example main main.sieve --activate",
		RunE: a.at(&d, func(cmd *cobra.Command, args []string) error {
			text, err := a.scriptText(args[2])
			if err != nil {
				return err
			}
			if err := a.checkScript(cmd, d.at, args[0], args[2], text, false); err != nil {
				return err
			}
			if err := a.UserScripts.Put(cmd.Context(), d.at, args[0], args[1], text); err != nil {
				return err
			}
			if activate {
				return a.UserScripts.Activate(cmd.Context(), d.at, args[0], args[1])
			}
			return nil
		}),
	}
	d.flags(c)
	c.Flags().BoolVar(&activate, "activate", false, "run it from now on, in place of the one that is active")
	return c
}

func (a *App) sieveActivate() *cobra.Command {
	var d scriptDoor
	c := &cobra.Command{
		Use: "activate ACCOUNT [NAME]", Short: "Run a script from now on; without a NAME none", Args: cobra.RangeArgs(1, 2),
		Example: "  stagecoach sieve activate meg@ryan.example main",
		RunE: a.at(&d, func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 1 {
				name = args[1]
			}
			return a.UserScripts.Activate(cmd.Context(), d.at, args[0], name)
		}),
	}
	d.flags(c)
	return c
}

func (a *App) sieveDelete() *cobra.Command {
	var d scriptDoor
	c := &cobra.Command{
		Use: "delete ACCOUNT NAME", Short: "Delete a script that is not active", Args: cobra.ExactArgs(2),
		Example: "  stagecoach sieve delete meg@ryan.example old",
		RunE: a.at(&d, func(cmd *cobra.Command, args []string) error {
			return a.UserScripts.Delete(cmd.Context(), d.at, args[0], args[1])
		}),
	}
	d.flags(c)
	return c
}

// checkScript prints what is wrong with a script, and fails if it cannot be run.
func (a *App) checkScript(cmd *cobra.Command, at ScriptsAt, account, file string, text []byte, asJSON bool) error {
	mistakes, err := a.UserScripts.Check(cmd.Context(), at, account, text)
	if err != nil {
		return err
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

func (a *App) sieveCheck() *cobra.Command {
	var (
		account string
		asJSON  bool
	)
	d := scriptDoor{account: &account}
	c := &cobra.Command{
		Use: "check FILE", Short: "Check a script without storing it", Args: cobra.ExactArgs(1),
		Long:    "Check a script without storing it. Exit codes: 0 it can be run; 5 it has mistakes.",
		Example: "  stagecoach sieve check main.sieve",
		RunE: a.at(&d, func(cmd *cobra.Command, args []string) error {
			text, err := a.scriptText(args[0])
			if err != nil {
				return err
			}
			return a.checkScript(cmd, d.at, account, args[0], text, asJSON)
		}),
	}
	c.Flags().StringVar(&account, "account", "", "the user whose other scripts it may include")
	d.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func (a *App) sieveTest() *cobra.Command {
	var (
		account string
		on      ScriptTrial
		asJSON  bool
	)
	d := scriptDoor{account: &account}
	c := &cobra.Command{
		Use: "test FILE MESSAGE", Short: "Tell what a script would do with a message, and do nothing", Args: cobra.ExactArgs(2),
		Example: "  stagecoach sieve test main.sieve mail.eml --from tom@hanks.example --to meg@ryan.example",
		RunE: a.at(&d, func(cmd *cobra.Command, args []string) error {
			text, err := a.scriptText(args[0])
			if err != nil {
				return err
			}
			if on.Message, err = os.ReadFile(args[1]); err != nil {
				return err
			}
			if err := a.checkScript(cmd, d.at, account, args[0], text, false); err != nil {
				return err
			}
			lines, err := a.UserScripts.Try(cmd.Context(), d.at, account, text, on)
			if err != nil {
				return err
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
	d.flags(c)
	f := c.Flags()
	f.StringVar(&account, "account", "", "the user whose other scripts it may include")
	f.StringVar(&on.From, "from", "", "the sender of the envelope; empty is the null one")
	f.StringVar(&on.To, "to", "", "the recipient of the envelope")
	jsonFlag(c, &asJSON)
	return c
}
