package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/conform/block"
	"github.com/stagecoach-mta/stagecoach/sdk/conform/program"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

const longConform = `Start a plugin as the core does, again and again, and try all that the contract
asks of it: the handshake, the schema, mistakes in the configuration, calls,
deadlines, a mail of 50 MB and malformed ones, SIGKILL in mid-call, drain and end;
and then what its kind owes. The plugin may be written in any language.

  stagecoach plugin conform ./attachments --config no_exe.hcl
  stagecoach plugin conform python3 subject.py -- --verbose
  stagecoach plugin conform headers --run '^(mail|leaks)'

PATH is a program, or the name of a bundled plugin. Arguments of the program that
begin with - stand after --.

--config names a file with the block that the plugin shall run with, or with what
stands between its braces. --facts names a file with what cannot be found out
without being told; checks that need a missing fact are skipped and say so:

%s
Exit codes: 0 no check failed; 5 a check failed; 1 the run could not be made.`

func (a *App) pluginConform() *cobra.Command {
	var o conformance
	c := &cobra.Command{
		Use: "conform PATH [ARGS…]", Short: "Try a plugin's program, in any language, against the contract",
		Long: fmt.Sprintf(longConform, factsHelp()), Args: cobra.MinimumNArgs(1),
		RunE: doUntilSignal(func(cmd *cobra.Command, args []string) error { return a.conform(cmd, args, o) }),
	}
	c.Flags().StringVarP(&o.config, "config", "c", "", "file with the plugin's block, or with what stands between its braces")
	c.Flags().StringVar(&o.facts, "facts", "", "file with what cannot be found out: an address, a password, mails …")
	c.Flags().StringVar(&o.run, "run", "", "make only the checks whose name matches this regular expression")
	c.Flags().StringVar(&o.largest, "largest", "50MB", "size of the largest mail")
	c.Flags().DurationVar(&o.timeout, "timeout", conform.DefaultTimeout, "time for one check")
	jsonFlag(c, &o.json)
	return c
}

// conformance is what the flags say.
type conformance struct {
	config, facts, run, largest string
	timeout                     time.Duration
	json                        bool
}

// conformed is what --json prints.
type conformed struct {
	Plugin *conformedPlugin `json:"plugin,omitempty"`
	*conform.Report
}

type conformedPlugin struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

func (a *App) conform(cmd *cobra.Command, args []string, o conformance) error {
	opts := program.Options{Command: slices.Clone(args)}
	if err := a.programOf(&opts); err != nil {
		return err
	}
	var err error
	if o.config != "" {
		if opts.Config, err = blockText(o.config); err != nil {
			return err
		}
		opts.ConfigFile = o.config
	}
	if opts.Facts, err = facts(o.facts); err != nil {
		return err
	}
	size, err := schema.ParseSize(o.largest)
	if err != nil || size <= 0 {
		return &exit{ExitUsage, fmt.Errorf("--largest: %q is no size: write 50MB", o.largest)}
	}
	opts.LargeBytes = int64(size)
	runner := &conform.Runner{Timeout: o.timeout}
	if runner.Match, err = regexp.Compile(o.run); err != nil {
		return &exit{ExitUsage, fmt.Errorf("--run: %w", err)}
	}
	out := cmd.OutOrStdout()
	show := &conformTable{w: out, terminal: terminal(out)}
	if o.json {
		// Whoever reads the report elsewhere may watch the progress here.
		show = &conformTable{w: cmd.ErrOrStderr(), terminal: terminal(cmd.ErrOrStderr()), quiet: true}
	}
	runner.Begin, runner.End = show.begin, show.end
	var d *v1.DescribeResponse
	report := runner.Run(cmd.Context(), func(t conform.T) { d = program.Run(t, opts) })
	show.clear()
	if report.Problem == "" && len(report.Results) == 0 {
		report.Problem = fmt.Sprintf("no check's name matches %q", o.run)
	}
	return conformedAs(out, o, d, report)
}

// conformedAs prints the outcome and is the exit code's error.
func conformedAs(out io.Writer, o conformance, d *v1.DescribeResponse, report *conform.Report) error {
	result := conformed{Report: report}
	if d != nil {
		result.Plugin = &conformedPlugin{kindWord(d.GetKind()), d.GetName(), d.GetVersion()}
	}
	if o.json {
		if err := printJSON(out, result); err != nil {
			return err
		}
	} else {
		printConformed(out, result)
	}
	switch {
	case report.Problem != "" && o.json:
		return &exit{ExitFailed, errPrinted}
	case report.Problem != "":
		return errors.New(report.Problem)
	case report.Failed > 0:
		return &exit{ExitTest, errPrinted}
	}
	return nil
}

// programOf makes a command line of a bundled plugin's name, and finds the
// program of another one.
func (a *App) programOf(opts *program.Options) error {
	name := opts.Command[0]
	for _, b := range a.Bundled {
		if b.Name != name {
			continue
		}
		if len(opts.Command) > 1 {
			return &exit{ExitUsage, fmt.Errorf("the bundled plugin %q takes no arguments", name)}
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		opts.Command = []string{self, "plugin", "serve", name}
		return nil
	}
	if _, err := exec.LookPath(name); err != nil {
		if _, here := os.Stat(name); here == nil && !strings.Contains(name, "/") {
			return fmt.Errorf("%w; for the one in this directory write ./%s", err, name)
		}
		return err
	}
	return nil
}

// blockText reads a block's inside: the file is that, or holds the whole block.
// Lines keep their numbers.
func blockText(file string) (string, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	f, diags := hclsyntax.ParseConfig(src, file, hcl.InitialPos)
	if diags.HasErrors() {
		return "", diags
	}
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok || len(body.Attributes) > 0 || len(body.Blocks) != 1 || len(body.Blocks[0].Labels) != 2 || !isKind(body.Blocks[0].Type) {
		return string(src), nil
	}
	b := body.Blocks[0]
	return strings.Repeat("\n", b.OpenBraceRange.Start.Line-1) + string(src[b.OpenBraceRange.End.Byte:b.CloseBraceRange.Start.Byte]), nil
}

func isKind(word string) bool {
	return v1.Kind_value["KIND_"+strings.ToUpper(word)] != 0
}

// facts reads a file of conform.Facts; none for no file.
func facts(file string) (conform.Facts, error) {
	var out conform.Facts
	if file == "" {
		return out, nil
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return out, err
	}
	s, err := schema.FromStruct(out)
	if err != nil {
		return out, err
	}
	v, err := block.Decode(s, file, string(src))
	if err != nil {
		return out, err
	}
	js, _, err := block.Wire(s, v)
	if err != nil {
		return out, err
	}
	return out, schema.Decode(js, &out)
}

// factsHelp lists the facts for the help text.
func factsHelp() string {
	s, err := schema.FromStruct(conform.Facts{})
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, at := range s.GetBlock().GetAttributes() {
		var typ any
		_ = json.Unmarshal(at.GetType(), &typ)
		word := "text"
		if list, ok := typ.([]any); ok {
			word = fmt.Sprintf("%v of texts", list[0])
		}
		fmt.Fprintf(&b, "  %-10s %-13s %s\n", at.GetName(), word, at.GetDoc())
	}
	return b.String()
}

// conformTable prints results as they come.
type conformTable struct {
	w        io.Writer
	terminal bool
	quiet    bool // progress only
	head     bool
	shown    bool // a line of progress stands there
	reason   string
}

func (c *conformTable) begin(name string) {
	if !c.terminal {
		return
	}
	fmt.Fprintf(c.w, "\r\x1b[K…       %s", short(name, 70))
	c.shown = true
}

func (c *conformTable) clear() {
	if c.shown {
		fmt.Fprint(c.w, "\r\x1b[K")
		c.shown = false
	}
}

func (c *conformTable) end(r conform.Result) {
	c.clear()
	if c.quiet {
		return
	}
	if !c.head {
		fmt.Fprintf(c.w, "%-6s  %8s  %s\n", "RESULT", "TOOK", "CHECK")
		c.head = true
	}
	word, mark, end := string(r.Status), "", ""
	if r.Status == conform.Fail {
		word = "FAIL"
	}
	if c.terminal {
		mark, end = map[conform.Status]string{conform.Pass: "\x1b[32m", conform.Fail: "\x1b[1;31m", conform.Skip: "\x1b[33m"}[r.Status], "\x1b[0m"
	}
	fmt.Fprintf(c.w, "%s%-6s%s  %8s  %s\n", mark, word, end, took(r.TookMS), r.Check)
	// What one failure makes impossible is told once.
	if r.Reason != "" && r.Reason != c.reason {
		fmt.Fprintf(c.w, "%18s%s\n", "", r.Reason)
	}
	c.reason = r.Reason
}

func took(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

func printConformed(out io.Writer, c conformed) {
	for _, r := range c.Results {
		if r.Status != conform.Fail {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", r.Check)
		for i, seen := range r.Seen {
			fmt.Fprintf(out, "  %-9s %s\n", map[bool]string{true: "seen"}[i == 0], indented(seen))
		}
		if r.Contract != "" {
			fmt.Fprintf(out, "  %-9s %s\n", "contract", r.Contract)
		}
		if r.Remedy != "" {
			fmt.Fprintf(out, "  %-9s %s\n", "do", r.Remedy)
		}
	}
	if len(c.Results) == 0 {
		return
	}
	what := "The plugin"
	if c.Plugin != nil {
		what = fmt.Sprintf("%s %q %s", c.Plugin.Kind, c.Plugin.Name, c.Plugin.Version)
	}
	fmt.Fprintf(out, "\n%s: %d passed, %d failed, %d skipped in %s.\n", what, c.Passed, c.Failed, c.Skipped, took(c.TookMS))
}

// indented keeps the lines of a text under each other.
func indented(s string) string {
	return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n"+strings.Repeat(" ", 12))
}
