package command

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/scaffold"
)

const longNew = `Write the project of a new plugin: a program that builds, passes conformance and
does something small for its kind, with a test, a README and the configuration that
names it. Change it from there.

  filter     refuses words in a subject        storage  mailboxes on the disk
  deliver    appends mail to a file, once      access   reads an INBOX as POP3 does
  directory  users in a small text file

The storage keeps a folder for each account in Go and Node, one SQLite database in
Python.

A Go project builds from a checkout of Stagecoach, if --sdk names one or this binary
was built from one: then with the checkout's own versions, and without a network. Else
it requires Stagecoach as it was published, and the network once. Projects in other
languages get a copy of their SDK. Go has every kind; --lang also takes

%s`

func (a *App) pluginNew() *cobra.Command {
	var (
		o      scaffold.Options
		asJSON bool
	)
	c := &cobra.Command{
		Use: "new " + strings.Join(scaffold.Kinds, "|") + " NAME", Short: "Write the project of a new plugin", Args: cobra.ExactArgs(2),
		Long: fmt.Sprintf(longNew, strings.TrimSuffix(scaffold.Others(), "\n")),
		RunE: do(func(cmd *cobra.Command, args []string) error {
			o.Kind, o.Name = args[0], args[1]
			for _, b := range a.Bundled {
				o.Taken = append(o.Taken, b.Name)
			}
			if o.Lang == "go" {
				if err := a.sdkOf(&o); err != nil {
					return err
				}
			}
			p, err := scaffold.New(o)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), p)
			}
			return showProject(cmd, o, p)
		}),
	}
	f := c.Flags()
	f.StringVar(&o.Lang, "lang", "go", "language: "+strings.Join(scaffold.Languages(), ", "))
	f.StringVar(&o.Dir, "dir", "", "the project's folder (default: NAME)")
	f.StringVar(&o.Module, "module", "", "module path of a Go project (default: ryan.example/NAME)")
	f.StringVar(&o.SDK, "sdk", "", "a checkout of Stagecoach to build from (default: the one that this binary was built from)")
	jsonFlag(c, &asJSON)
	return c
}

// released is a version that Go can fetch.
var released = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?)$`)

// sdkOf says where a Go project gets the SDK from, unless the command line has.
func (a *App) sdkOf(o *scaffold.Options) error {
	if o.SDK != "" {
		return nil
	}
	_, source, _, _ := runtime.Caller(0)
	self, _ := os.Executable() // without one, the source may still say
	fetched := strings.Contains(source, "@v")
	for _, from := range []string{source, self} {
		if dir := checkoutAbove(from); dir != "" && !fetched {
			o.SDK = dir
			return nil
		}
	}
	o.Version = a.Version
	if info, ok := debug.ReadBuildInfo(); ok && fetched {
		o.Version = info.Main.Version
	}
	m := released.FindStringSubmatch(o.Version)
	if m == nil {
		return fmt.Errorf("this binary is %s, which is nowhere published: name a checkout of Stagecoach with --sdk", o.Version)
	}
	o.Version = "v" + m[1]
	return nil
}

// checkoutAbove is the checkout that a file lies in; "" for none.
func checkoutAbove(file string) string {
	if !filepath.IsAbs(file) {
		return "" // built with -trimpath
	}
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if scaffold.IsCheckout(dir) {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func showProject(cmd *cobra.Command, o scaffold.Options, p *scaffold.Project) error {
	out, folder := cmd.OutOrStdout(), p.Dir
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, p.Dir); err == nil && !strings.HasPrefix(rel, "..") {
			folder = rel
		}
	}
	fmt.Fprintf(out, "The %s %q is in %s: %s.\n%s\n\nNext:\n", o.Kind, o.Name, folder, strings.Join(p.Files, ", "), p.Note)
	if folder != "." {
		fmt.Fprintf(out, "  cd %s\n", folder)
	}
	for _, c := range p.Commands {
		fmt.Fprintf(out, "  %s\n", c)
	}
	fmt.Fprintf(out, "  stagecoach plugin dev .\n\nIn a server's configuration (%s):\n\n", p.ConfigFile)
	for line := range strings.Lines(p.Config) {
		fmt.Fprint(out, "  ", line)
	}
	_, err := fmt.Fprintf(out, "\nREADME.md says where to name it.\n")
	return err
}
