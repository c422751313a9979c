package command

import (
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/host"
)

// pluginSandbox is how the core starts a plugin in its sandbox: this binary,
// which locks itself in and then becomes the plugin.
func (a *App) pluginSandbox() *cobra.Command {
	return &cobra.Command{
		Use: host.SandboxCommand[1] + " DESCRIPTOR", Short: "Become a plugin in its sandbox (started by the core)", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: do(func(_ *cobra.Command, args []string) error { return host.EnterSandbox(args) }),
	}
}
