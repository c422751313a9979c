package pop3

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

// Plugin describes the POP3 access plugin.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "pop3", Version: "1.0.0", Summary: "the inbox over POP3",
		Config: DefaultConfig(),
		Access: func(_ context.Context, in *sdk.Instance) (access.Server, error) {
			return newServer(*in.Config.(*Config), in.Access, in.Metrics)
		},
	}
}
