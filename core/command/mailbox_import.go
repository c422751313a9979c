package command

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/transfer"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

// passwordVariable has the password of the other server's user.
const passwordVariable = "STAGECOACH_IMPORT_PASSWORD"

// importFlags are what an import is told.
type importFlags struct {
	from, prefix, quota              string
	only, maps                       []string
	user, security, passwordFile, ca string
	dryRun, again, asJSON            bool
}

func (a *App) mailboxImport() *cobra.Command {
	var (
		d door
		f importFlags
	)
	c := &cobra.Command{
		Use: "import ACCOUNT --from maildir|mbox|imap SOURCE", Short: "Bring mail from a Maildir, mbox files or another IMAP server into an account", Args: cobra.ExactArgs(2),
		Long: `Bring mail into an account, with its flags, keywords and dates of receipt.

--from maildir  SOURCE is a Maildir with its folders (Maildir++), or a folder of Maildirs
--from mbox     SOURCE is an mbox, which goes to INBOX, or a folder tree of them
--from imap     SOURCE is HOST or HOST:PORT of another server; --user says whose mail. The
                password comes from --password-file, from STAGECOACH_IMPORT_PASSWORD, or is asked for

Mailboxes go to those of the same special use (Sent, Trash …), else of the same name, and are made
where there is none; --map "Gesendete Objekte=Sent" says otherwise for one, --prefix Old puts
all below Old. Subscriptions come along.

What was imported is written down in the data directory, in "import", before and after each step:
the same command, repeated, goes on after an interruption and brings only what came since, nothing
twice, also after a kill or a power cut. --again forgets that.

Exit codes: 0 all is there; 1 it did not work, or was stopped; 5 all is there but what the table
says was left out.`,
		Example: "  stagecoach mailbox import meg@ryan.example --from imap imap.hanks.example --user meg@hanks.example\n  stagecoach mailbox import meg@ryan.example --from maildir /home/meg/Maildir --dry-run\n  stagecoach mailbox import meg@ryan.example --from mbox /var/mail/meg --prefix Old",
		RunE: a.inside(&d, func(cmd *cobra.Command, args []string) error {
			return a.importMail(cmd, &d, &f, args[0], args[1])
		}),
	}
	d.flags(c)
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "what SOURCE is: maildir, mbox or imap")
	fl.StringArrayVar(&f.only, "mailbox", nil, "only this mailbox of the source; may be repeated")
	fl.StringArrayVar(&f.maps, "map", nil, "THEIRS=OURS: the mailbox that one of the source goes to; may be repeated")
	fl.StringVar(&f.prefix, "prefix", "", "put all mailboxes below this one")
	fl.StringVar(&f.quota, "quota", "", "leave out what makes the account larger than this: 2GB; without it there is no limit")
	fl.StringVar(&f.user, "user", "", "the user at the other IMAP server")
	fl.StringVar(&f.security, "tls", "tls", "how to speak to the other server: tls (port 993), starttls (port 143), or none, on this machine alone")
	fl.StringVar(&f.ca, "ca", "", "a PEM file of certificates to trust beside the system's")
	fl.StringVar(&f.passwordFile, "password-file", "", "the file whose first line is the password; - is standard input")
	fl.BoolVar(&f.dryRun, "dry-run", false, "store nothing, and tell what would be")
	fl.BoolVar(&f.again, "again", false, "forget what earlier runs imported, and import all of it once more")
	jsonFlag(c, &f.asJSON)
	return c
}

func (a *App) importMail(cmd *cobra.Command, d *door, f *importFlags, account, where string) (err error) {
	im := &transfer.Import{Only: f.only, Prefix: strings.Trim(f.prefix, "/"), DryRun: f.dryRun}
	if im.Map, err = f.mapping(); err != nil {
		return err
	}
	if f.quota != "" {
		if im.Quota, err = config.ParseSize(f.quota); err != nil {
			return &exit{ExitUsage, fmt.Errorf("--quota: %w", err)}
		}
	}
	st, err := d.one()
	if err != nil {
		return err
	}
	where, err = f.source(where)
	if err != nil {
		return err
	}
	s := d.storage(st)
	have, err := there(cmd.Context(), s, account)
	if err != nil && !fail.Is(err, fail.Unsupported) {
		return err
	}
	if have || !f.dryRun {
		if im.Account, err = s.Open(cmd.Context(), account); err != nil {
			return accountProblem(err, account)
		}
	}
	ledger, spool, done, err := f.openLedger(d, st, account, where)
	if err != nil {
		return err
	}
	defer func() {
		if left := done(); err == nil {
			err = left
		}
	}()
	im.Ledger = ledger
	src, err := f.open(cmd, where, spool)
	if err != nil {
		return err
	}
	defer src.Close()
	m := newMeter(cmd.ErrOrStderr())
	im.Progress = m.tell
	res := &carried{Account: account, Storage: st.Instance, DryRun: f.dryRun}
	res.Report, err = im.Run(cmd.Context(), src)
	m.end()
	return res.close(cmd, f.asJSON, accountProblem(err, account), "The same command goes on where it ended.")
}

func (f *importFlags) mapping() (map[string]string, error) {
	m := map[string]string{}
	for _, s := range f.maps {
		theirs, ours, ok := strings.Cut(s, "=")
		if !ok || theirs == "" || ours == "" {
			return nil, &exit{ExitUsage, fmt.Errorf("--map %q: write THEIRS=OURS", s)}
		}
		m[theirs] = ours
	}
	return m, nil
}

// source is the source's name, by which a later run knows it.
func (f *importFlags) source(where string) (string, error) {
	switch f.from {
	case "maildir", "mbox":
		path, err := filepath.Abs(where)
		if err == nil {
			path, err = filepath.EvalSymlinks(path)
		}
		return path, err
	case "imap":
		if f.user == "" {
			return "", &exit{ExitUsage, errors.New("whose mail? Say --user NAME, as the user logs in at the other server")}
		}
		if _, _, err := net.SplitHostPort(where); err == nil {
			return where, nil
		}
		port := "993"
		if f.security != "tls" {
			port = "143"
		}
		return net.JoinHostPort(strings.Trim(where, "[]"), port), nil
	}
	return "", &exit{ExitUsage, errors.New("--from: say maildir, mbox or imap")}
}

func (f *importFlags) open(cmd *cobra.Command, where, spool string) (transfer.Source, error) {
	switch f.from {
	case "maildir":
		return transfer.OpenMaildir(where, spool)
	case "mbox":
		return transfer.OpenMbox(where, spool)
	}
	s := transfer.Server{Address: where, TLS: f.security, User: f.user}
	var err error
	if s.Config, err = f.trust(where); err != nil {
		return nil, err
	}
	if s.Password, err = f.password(cmd); err != nil {
		return nil, err
	}
	return transfer.OpenIMAP(cmd.Context(), s, spool)
}

func (f *importFlags) trust(where string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(where)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if f.ca == "" {
		return c, nil
	}
	b, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, err
	}
	if c.RootCAs, err = x509.SystemCertPool(); err != nil {
		c.RootCAs = x509.NewCertPool()
	}
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", f.ca)
	}
	return c, nil
}

func (f *importFlags) password(cmd *cobra.Command) (string, error) {
	switch {
	case f.passwordFile == "-":
		return readPassword(cmd)
	case f.passwordFile != "":
		b, err := os.ReadFile(f.passwordFile)
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.TrimSuffix(line, "\r"); err == nil && line == "" {
			err = fmt.Errorf("%s has no password in its first line", f.passwordFile)
		}
		return line, err
	case os.Getenv(passwordVariable) != "":
		return os.Getenv(passwordVariable), nil
	}
	return readPassword(cmd)
}

// openLedger opens what is written down of this source and this account, and an empty
// folder for large messages.
func (f *importFlags) openLedger(d *door, st admin.Storage, account, where string) (l *transfer.Ledger, spool string, done func() error, err error) {
	dir := filepath.Join(d.dataDir, "import")
	sum := sha256.Sum256([]byte(strings.Join([]string{st.Instance, account, f.from, where, f.user}, "\x00")))
	path := filepath.Join(dir, fmt.Sprintf("%x", sum[:12]))
	if f.dryRun {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || f.again {
			spool, err = os.MkdirTemp("", "stagecoach-import-*")
			return &transfer.Ledger{}, spool, func() error { return os.RemoveAll(spool) }, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", nil, err
	}
	if l, err = transfer.OpenLedger(path); err != nil {
		return nil, "", nil, err
	}
	if f.again && !f.dryRun {
		if err := l.Forget(); err != nil {
			return nil, "", nil, errors.Join(err, l.Close())
		}
	}
	spool = path + ".spool" // a run that was killed may have left something there
	err = os.RemoveAll(spool)
	if err == nil {
		err = os.Mkdir(spool, 0o700)
	}
	if err == nil {
		err = ownLike(dir, d.dataDir)
	}
	if err != nil {
		return nil, "", nil, errors.Join(err, l.Close())
	}
	return l, spool, func() error { return errors.Join(os.RemoveAll(spool), l.Close()) }, nil
}
