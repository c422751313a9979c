package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// SigningKey is a key as `stagecoach dkim` shows it.
type SigningKey struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	Type     string `json:"type"`
	// Signs: it is in use; else its file waits to be renamed, or another one of
	// its type is used.
	Signs bool   `json:"signs"`
	Path  string `json:"path"`
	// Name and Record are the TXT record, Zone the same as a line of a zone file.
	Name   string `json:"name"`
	Record string `json:"record"`
	Zone   string `json:"-"`
}

// SigningKeys are the keys in a folder, for `stagecoach dkim`.
type SigningKeys interface {
	// Make adds a key of type "rsa" or "ed25519"; an empty selector is made of the day.
	Make(dir, domain, selector, kind string, bits int) (SigningKey, error)
	// List those of a domain, or of all ("").
	List(dir, domain string) ([]SigningKey, error)
	// Published asks the name servers (none: those of the machine) for a key's
	// record; the error says what is wrong with it.
	Published(ctx context.Context, k SigningKey, resolvers []string) error
}

const dkimFolder = "/etc/stagecoach/dkim"

func (a *App) dkim() *cobra.Command {
	c := &cobra.Command{
		Use: "dkim", Short: "Make the keys that sign your mail, and check their DNS records",
		Long: `Keys for filter "dkimsign": a folder with a PEM file DOMAIN/SELECTOR.pem each, whose
public half is a TXT record at SELECTOR._domainkey.DOMAIN.

The first key of its type signs as soon as it is made. A later one is SELECTOR.pem.next
and waits: publish its record, let "dkim check" find it, and take the .next off its name.`,
	}
	var dir string
	c.PersistentFlags().StringVar(&dir, "keys", dkimFolder, "the folder of keys, as in the filter's block")
	c.AddCommand(a.dkimNew(&dir), a.dkimDNS(&dir), a.dkimCheck(&dir))
	return c
}

func (a *App) dkimNew(dir *string) *cobra.Command {
	var (
		selector, kind string
		bits           int
		asJSON         bool
	)
	c := &cobra.Command{
		Use: "new DOMAIN", Short: "Make an RSA and an Ed25519 key, and print their DNS records", Args: cobra.ExactArgs(1),
		Example: "  stagecoach dkim new hanks.example\n  stagecoach dkim new hanks.example --type rsa --selector autumn",
		RunE: do(func(cmd *cobra.Command, args []string) error {
			kinds := []string{"rsa", "ed25519"}
			if kind != "both" {
				kinds = []string{kind}
			}
			var made []SigningKey
			for _, k := range kinds {
				name := selector
				if name != "" && len(kinds) > 1 {
					name += "-" + k[:1]
				}
				key, err := a.SigningKeys.Make(*dir, args[0], name, k, bits)
				if err != nil {
					return folder(err, *dir)
				}
				made = append(made, key)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), made)
			}
			for _, k := range made {
				state := "it signs at once: publish its record before the filter is in your configuration"
				if !k.Signs {
					state = "it waits: rename it to " + k.Selector + ".pem once `stagecoach dkim check` finds its record"
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", k.Path, state)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "\nPut into the DNS:")
			return zone(cmd, made)
		}),
	}
	f := c.Flags()
	f.StringVar(&selector, "selector", "", "the selector; with two keys -r and -e are added (default: the day and r or e)")
	f.StringVar(&kind, "type", "both", "rsa, ed25519 or both")
	f.IntVar(&bits, "bits", 2048, "size of the RSA key; above 2048 its record does not fit into every DNS")
	jsonFlag(c, &asJSON)
	return c
}

// folder says what is to be done where the folder cannot be used.
func folder(err error, dir string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there are no keys in %s: `stagecoach dkim new DOMAIN` makes one, --keys names another folder", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run this as the user that the server runs as, or name another folder with --keys", err)
	}
	return err
}

func zone(cmd *cobra.Command, keys []SigningKey) error {
	for _, k := range keys {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), k.Zone); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) listKeys(dir string, args []string) ([]SigningKey, error) {
	domain := ""
	if len(args) > 0 {
		domain = args[0]
	}
	keys, err := a.SigningKeys.List(dir, domain)
	if err == nil && len(keys) == 0 {
		what := "DOMAIN"
		if domain != "" {
			what = domain
		}
		err = fmt.Errorf("there is no key in %s: `stagecoach dkim new %s` makes one", dir, what)
	}
	if err != nil {
		return nil, folder(err, dir)
	}
	return keys, nil
}

func (a *App) dkimDNS(dir *string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "dns [DOMAIN]", Short: "Print the DNS records of the keys, as lines of a zone file", Args: cobra.MaximumNArgs(1),
		RunE: do(func(cmd *cobra.Command, args []string) error {
			keys, err := a.listKeys(*dir, args)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), keys)
			}
			return zone(cmd, keys)
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

// checkedKey is a row of dkim check.
type checkedKey struct {
	SigningKey
	Published bool   `json:"published"`
	Problem   string `json:"problem,omitempty"`
}

func (a *App) dkimCheck(dir *string) *cobra.Command {
	var (
		resolvers []string
		asJSON    bool
	)
	c := &cobra.Command{
		Use: "check [DOMAIN]", Short: "Ask the DNS whether it has the keys' records", Args: cobra.MaximumNArgs(1),
		Long: `Ask the DNS for the record of each key and compare it with the file.

Exit codes: 0 every key that signs is published as it should be; 5 one is not.`,
		RunE: do(func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			keys, err := a.listKeys(*dir, args)
			if err != nil {
				return err
			}
			var rows []checkedKey
			bad := 0
			for _, k := range keys {
				row := checkedKey{SigningKey: k}
				err := a.SigningKeys.Published(ctx, k, resolvers)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					row.Problem = err.Error()
					if k.Signs {
						bad++
					}
				}
				row.Published = err == nil
				rows = append(rows, row)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), rows)
			} else {
				err = showKeys(cmd, rows)
			}
			if err == nil && bad > 0 {
				err = &exit{ExitTest, fmt.Errorf("%d of the keys that sign %s: mail that they sign fails DKIM until that is mended", bad, plural(bad, "is not published", "are not published"))}
			}
			return err
		}),
	}
	c.Flags().StringSliceVar(&resolvers, "resolver", nil, "name server to ask, address or address:port (default: those of the machine)")
	jsonFlag(c, &asJSON)
	return c
}

func showKeys(cmd *cobra.Command, rows []checkedKey) error {
	t := newTable(cmd.OutOrStdout(), "DOMAIN", "SELECTOR", "TYPE", "SIGNS", "DNS")
	for _, r := range rows {
		signs, dns := "no", cell{text: "as it should be"}
		if r.Signs {
			signs = "yes"
		}
		if !r.Published {
			dns = cell{text: r.Problem, style: yellow}
		} else if !r.Signs {
			dns.text += "; another key signs, or rename the file to " + r.Selector + ".pem"
		}
		if err := t.row(r.Domain, r.Selector, r.Type, signs, dns); err != nil {
			return err
		}
	}
	return t.flush()
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}
