package command

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/admin"
)

func (a *App) queueExport() *cobra.Command {
	var (
		src     source
		sel     selection
		to, box string
		all     bool
	)
	c := &cobra.Command{
		Use: "export [ID…]", Short: "Copy queued mail out of the queue, with its envelope", Args: cobra.ArbitraryArgs,
		Long: `Copy queued mail out; it stays in the queue.

With --to DIR each mail is two files: ID.eml, octet for octet, and ID.json, its envelope as
"queue show --json" has it. With --mbox FILE (or - for standard output) all of it is one
mbox, whose mails begin with Return-Path, X-Envelope-To and X-Queue-ID. A single mail
without either is printed as it is. Files that are there are not overwritten.

` + selectionHelp,
		Example: "  stagecoach queue export 0DvUy2ENEvA | less\n  stagecoach queue export --state held --to /tmp/held\n  stagecoach queue export --all --mbox - | gzip > queue.mbox.gz",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			f, err := sel.choose()
			if err != nil {
				return err
			}
			if f.IDs, err = readIDs(args, a.Stdin); err != nil {
				return err
			}
			switch {
			case all == f.Selects():
				return &exit{ExitUsage, errors.New("which mail? Give ids, flags that choose, or --all")}
			case to != "" && box != "":
				return &exit{ExitUsage, errors.New("--to and --mbox: say one of them")}
			case to == "" && box == "" && len(f.IDs) != 1:
				return &exit{ExitUsage, errors.New("more than one mail goes into a folder (--to DIR) or an mbox (--mbox FILE)")}
			}
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			x := &exporter{cmd: cmd, client: cl}
			if to == "" && box == "" {
				return remote(cl.Contents(cmd.Context(), f.IDs[0], cmd.OutOrStdout()))
			}
			for _, id := range f.IDs { // a mistyped one is no success
				if _, err := cl.Message(cmd.Context(), id); err != nil {
					return remote(err)
				}
			}
			each, done, err := x.folder, func() error { return nil }, error(nil)
			if to != "" {
				x.dir = to
				err = os.MkdirAll(to, 0o700)
			} else {
				each = x.mbox
				done, err = x.open(box)
			}
			if err != nil {
				return err
			}
			err = cl.List(cmd.Context(), f, each)
			if err = errors.Join(err, done()); err != nil {
				return remote(err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Copied %s.\n", count(x.messages, "message"))
			return nil
		}),
	}
	src.flags(c)
	c.Flags().StringVar(&to, "to", "", "write two files for each mail into this folder")
	c.Flags().StringVar(&box, "mbox", "", "write one mbox; - is standard output")
	c.Flags().BoolVar(&all, "all", false, "all mail in the queue is meant")
	sel.flags(c)
	return c
}

// exporter copies mail that is in the queue while it runs.
type exporter struct {
	cmd      *cobra.Command
	client   *admin.Client
	dir      string
	out      *bufio.Writer
	messages int
}

// folder writes the two files of a mail. One that ended meanwhile leaves none.
func (x *exporter) folder(m admin.Message) (err error) {
	path := filepath.Join(x.dir, m.ID)
	f, err := os.OpenFile(path+".eml", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = x.client.Contents(x.cmd.Context(), m.ID, f)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path + ".eml")
		return x.gone(m.ID, err)
	}
	for n := range m.Recipients {
		m.Recipients[n].Selected = false // that is the list's
	}
	envelope, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	x.messages++
	return os.WriteFile(path+".json", append(envelope, '\n'), 0o600)
}

// gone forgives the end of a mail between its listing and its copy.
func (x *exporter) gone(id string, err error) error {
	if _, there := x.client.Message(x.cmd.Context(), id); there == nil || errors.Is(there, admin.ErrNotRunning) {
		return err
	}
	fmt.Fprintf(x.cmd.ErrOrStderr(), "%s ended meanwhile.\n", id)
	return nil
}

func (x *exporter) open(path string) (done func() error, err error) {
	if path == "-" {
		x.out = bufio.NewWriter(x.cmd.OutOrStdout())
		return x.out.Flush, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	x.out = bufio.NewWriter(f)
	return func() error { return errors.Join(x.out.Flush(), f.Close()) }, nil
}

// mbox writes one mail in the form that mboxrd names: lines that begin with
// "From ", behind any number of ">", get one ">" more; line ends are LF.
func (x *exporter) mbox(m admin.Message) error {
	var mail bytes.Buffer // a mail that ended meanwhile must leave no half of it
	if err := x.client.Contents(x.cmd.Context(), m.ID, &mail); err != nil {
		return x.gone(m.ID, err)
	}
	from := m.Sender
	if from == "" || strings.ContainsAny(from, " \t") {
		from = "MAILER-DAEMON"
	}
	fmt.Fprintf(x.out, "From %s %s\n", from, m.Received.UTC().Format("Mon Jan _2 15:04:05 2006"))
	fmt.Fprintf(x.out, "Return-Path: <%s>\n", m.Sender)
	for _, r := range m.Recipients {
		if r.State == "waiting" || r.State == "held" {
			fmt.Fprintf(x.out, "X-Envelope-To: <%s>\n", r.Address)
		}
	}
	fmt.Fprintf(x.out, "X-Queue-ID: %s\n", m.ID)
	for {
		line, err := mail.ReadBytes('\n')
		if len(line) > 0 {
			line = append(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), '\n')
			if bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
				x.out.WriteByte('>')
			}
			x.out.Write(line)
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	x.messages++
	return x.out.WriteByte('\n')
}
