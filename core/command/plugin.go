package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/sdk"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

func (a *App) plugin() *cobra.Command {
	c := &cobra.Command{Use: "plugin", Short: "Look at plugins: those in the binary, and the running ones"}
	c.AddCommand(a.pluginList(), a.pluginDescribe(), a.pluginRestart(), a.pluginReload(), a.pluginLogs(), a.pluginServe(), a.pluginSandbox(), a.pluginConform())
	c.AddCommand(a.pluginNew(), a.pluginDev())
	c.AddCommand(a.pluginBench(), a.pluginYardstick())
	return c
}

// kindWord is a kind as HCL has it.
func kindWord(k v1.Kind) string { return strings.ToLower(strings.TrimPrefix(k.String(), "KIND_")) }

func (a *App) pluginList() *cobra.Command {
	var (
		src     source
		asJSON  bool
		bundled bool
	)
	c := &cobra.Command{
		Use: "list", Short: "List the running server's plugins, or with --bundled those in this binary", Args: cobra.NoArgs,
		Long: `List the running server's plugins. HEALTH names what is the matter with one: that it
does not answer, was ended at a limit of its memory or processes, crashed, answers
garbage or late, or floods its log. How a process ended is told for an hour, all else
for ten minutes after its last time. With --bundled, list those in this binary.`,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			if bundled {
				return a.listBundled(cmd, asJSON)
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			var ps []admin.Plugin
			if err := cl.Call(cmd.Context(), "GET", "/plugins", nil, &ps); err != nil {
				return remote(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), ps)
			}
			return printPlugins(cmd.OutOrStdout(), ps)
		}),
	}
	src.flags(c)
	c.Flags().BoolVar(&bundled, "bundled", false, "list the plugins in this binary; needs no server")
	jsonFlag(c, &asJSON)
	return c
}

// printPlugins writes one line for each, and below them in full what is not well.
func printPlugins(w io.Writer, ps []admin.Plugin) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "INSTANCE\tVERSION\tSTATE\tPID\tUP\tRESTARTS\tCALLS\tERRORS\tP50\tP99\tMEMORY\tSANDBOX\tHEALTH")
	var notes []string
	for _, p := range ps {
		memory := p.PSS
		if memory == 0 {
			memory = p.RSS
		}
		box := "yes"
		switch {
		case !p.Sandboxed:
			box = "none"
		case len(p.Unenforced) > 0:
			box = "partly"
		}
		health, troubles := "ok", p.Troubles
		switch {
		case len(troubles) > 0:
			health, troubles = printable(short(troubles[0].Text, 120)), troubles[1:]
			if len([]rune(p.Troubles[0].Text)) > 120 {
				troubles = p.Troubles // in full, below
			}
		case p.Health != "":
			health = "unwell"
		case p.State != string(host.Ready):
			health = "-"
		}
		for _, t := range troubles {
			notes = append(notes, fmt.Sprintf("%s %s", p.Instance, printable(short(t.Text, 400))))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", p.Instance, printable(p.Version), p.State, p.PID, ago(p.Since), p.Restarts,
			p.Calls, p.Errors, p.P50.Round(time.Microsecond), p.P99.Round(time.Microsecond), bytesOf(memory), box, health)
		for _, n := range []struct{ what, text string }{
			{"says", p.Health}, {"last ended", p.LastError}, {"last failed call", p.LastFault},
			{"not in force of its sandbox", strings.Join(p.Unenforced, "; ")},
		} {
			told := slices.ContainsFunc(p.Troubles, func(t admin.Trouble) bool { return strings.Contains(t.Text, n.text) })
			if n.text != "" && !told {
				notes = append(notes, fmt.Sprintf("%s, %s: %s", p.Instance, n.what, printable(short(n.text, 400))))
			}
		}
	}
	if err := tw.Flush(); err != nil || len(notes) == 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	return err
}

func (a *App) listBundled(cmd *cobra.Command, asJSON bool) error {
	type row struct{ Kind, Name, Version, Summary string }
	var rows []row
	for _, b := range a.Bundled {
		d, err := sdk.Describe(b)
		if err != nil {
			return err
		}
		rows = append(rows, row{kindWord(d.GetKind()), d.GetName(), d.GetVersion(), d.GetSummary()})
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), rows)
	}
	tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tNAME\tVERSION\tSUMMARY")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", r.Kind, r.Name, r.Version, r.Summary)
	}
	return tw.Flush()
}

func (a *App) pluginDescribe() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "describe NAME|PATH", Short: "Show what a plugin is and which attributes it takes", Args: cobra.ExactArgs(1),
		Long: "Describe a bundled plugin by its name, or an external one by the path of its program.",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			d, err := a.describe(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				b, err := protojson.MarshalOptions{Multiline: true}.Marshal(d)
				if err != nil {
					return err
				}
				_, err = out.Write(append(b, '\n'))
				return err
			}
			fmt.Fprintf(out, "%s %q %s: %s\n\n%s", kindWord(d.GetKind()), d.GetName(), d.GetVersion(), d.GetSummary(), schema.Markdown(d.GetSchema()))
			return nil
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func (a *App) describe(ctx context.Context, what string) (*v1.DescribeResponse, error) {
	for _, b := range a.Bundled {
		if d, err := sdk.Describe(b); err == nil && d.GetName() == what {
			return d, nil
		}
	}
	if !strings.ContainsRune(what, filepath.Separator) {
		return nil, fmt.Errorf("there is no bundled plugin %q (`stagecoach plugin list --bundled` shows them); for a program give its path", what)
	}
	path, err := filepath.Abs(what)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	d, err := describeBinary(ctx, &config.Binary{Path: path}, a.Version)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer as a Stagecoach plugin: %s", what, strings.TrimPrefix(err.Error(), "plugin : "))
	}
	return d, nil
}

func (a *App) pluginRestart() *cobra.Command {
	var src source
	c := &cobra.Command{
		Use: "restart INSTANCE", Short: "Give an instance a new process: filter.greylist.calm", Args: cobra.ExactArgs(1),
		RunE: do(func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			if err := cl.Call(cmd.Context(), "POST", "/plugins/"+url.PathEscape(args[0])+"/restart", nil, &struct{}{}); err != nil {
				return remote(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s runs in a new process.\n", args[0])
			return nil
		}),
	}
	src.flags(c)
	return c
}

// pluginServe is how the core starts a bundled plugin: this binary, re-executed.
func (a *App) pluginServe() *cobra.Command {
	return &cobra.Command{
		Use: "serve NAME", Short: "Be a bundled plugin's process (started by the core)", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: do(func(_ *cobra.Command, args []string) error { return a.serveBundled(args[0]) }),
	}
}

func (a *App) serveBundled(name string) error {
	for _, b := range a.Bundled {
		if b.Name == name {
			sdk.Serve(b)
			return nil
		}
	}
	return fmt.Errorf("there is no bundled plugin %q", name)
}

// Plugins for the admin socket.
func (s *running) Plugins(context.Context) ([]admin.Plugin, error) {
	out := []admin.Plugin{}
	for _, i := range s.pipeline.Host().List() {
		out = append(out, shown(i))
	}
	return out, nil
}

func shown(i host.Info) admin.Plugin {
	p := admin.Plugin{
		Instance: i.Instance, Kind: kindWord(i.Kind), Plugin: i.Plugin, Version: i.Version, State: string(i.State), PID: i.PID,
		Restarts: i.Restarts, Since: i.Since, Calls: int64(i.Calls), Errors: int64(i.Errors), P50: i.P50, P99: i.P99, RSS: i.RSS,
		PSS: i.PSS, LastError: i.LastError, LastFault: i.LastFault, Health: i.Health, Listening: i.Listeners,
		Sandboxed: i.Sandboxed, Unenforced: i.Unenforced,
		Processes: i.Processes, LogLinesDropped: i.DroppedLines, LogBytesDropped: i.DroppedOctets,
	}
	for _, t := range i.Troubles {
		p.Troubles = append(p.Troubles, admin.Trouble{Kind: string(t.Kind), Count: t.Count, Bytes: t.Octets, Last: t.Last, Text: t.Text})
	}
	return p
}

func (a *App) user() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "Edit a people file (directory \"file\")"}
	var file string
	c.PersistentFlags().StringVarP(&file, "file", "f", "people.hcl", "the people file")
	edit := func(use, short string, change func(path, address, password string) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " ADDRESS", Short: short, Args: cobra.ExactArgs(1),
			Long: short + ".\nThe password is read from the terminal, or from standard input as one line.",
			RunE: do(func(cmd *cobra.Command, args []string) error {
				password, err := readPassword(cmd)
				if err != nil {
					return err
				}
				if err := change(file, args[0], password); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: done. A running server sees it within seconds.\n", args[0])
				return nil
			}),
		}
	}
	var asJSON bool
	list := &cobra.Command{
		Use: "list", Short: "List the users of the file", Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			users, err := a.Users.List(file)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no people file %s: name it with -f, or `stagecoach user add` makes one", file)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), append([]string{}, users...))
			}
			for _, u := range users {
				fmt.Fprintln(cmd.OutOrStdout(), u)
			}
			return nil
		}),
	}
	jsonFlag(list, &asJSON)
	c.AddCommand(edit("add", "Add a user with a password", a.Users.Add), edit("password", "Change a user's password", a.Users.SetPassword), list)
	return c
}

var errNoPassword = errors.New("no password: type one, or pipe it in as one line")
