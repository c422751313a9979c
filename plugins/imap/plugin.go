package imap

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

// Plugin describes the IMAP access plugin.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "imap", Version: "1.0.0", Summary: "mailboxes over IMAP4rev1 and IMAP4rev2",
		Config: DefaultConfig(),
		Access: func(_ context.Context, in *sdk.Instance) (access.Server, error) {
			return New(*in.Config.(*Config), *in.Access)
		},
	}
}
