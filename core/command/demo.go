package command

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/demo"
)

func (a *App) demo() *cobra.Command {
	var (
		dir    string
		asJSON bool
	)
	c := &cobra.Command{
		Use: "demo", Short: "Let two servers write each other on loopback, step by step", Args: cobra.NoArgs,
		Long: `Play the mail world's story with two complete servers, for hanks.example and
ryan.example, and a DNS server that knows them, all on loopback: a submission, an MX
look-up, a server that is down, a bounce, IMAP on two devices, POP3. Exit 5 if a step
did not hold; the servers' logs are kept then.`,
		RunE: doUntilSignal(func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				out = cmd.ErrOrStderr()
			}
			res, err := demo.Run(cmd.Context(), demo.Options{Executable: self, AddUser: a.Users.Add, Out: out, Dir: dir})
			if err != nil {
				return err
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), res); err != nil {
					return err
				}
			}
			if res.Held < res.Steps {
				fmt.Fprintf(cmd.ErrOrStderr(), "The servers' data and logs are in %s\n", res.Dir)
				return &exit{ExitTest, errPrinted}
			}
			return nil
		}),
	}
	c.Flags().StringVar(&dir, "keep", "", "keep the servers' configurations, data and logs in this folder")
	jsonFlag(c, &asJSON)
	return c
}
