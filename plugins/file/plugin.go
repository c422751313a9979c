package file

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
)

// Config of a directory "file" block.
type Config struct {
	Path      string `hcl:"path" semantic:"path" doc:"The HCL file with domains, users and aliases." example:"people.hcl"`
	Separator string `hcl:"separator,optional" doc:"Between the local-part and the detail of a plus-address; empty: no plus-addresses."`

	Issuers []Issuer `hcl:"issuer,block" doc:"An authorization server whose access tokens log in (SASL OAUTHBEARER and XOAUTH2), by the iss of its tokens. They are JWTs, signed with a public key's algorithm."`
}

// Plugin describes the file directory.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "file", Version: "1.0.0", Summary: "domains, users and aliases in one HCL file",
		Config: Config{Separator: "+", Issuers: []Issuer{{Username: "email"}}},
		Directory: func(_ context.Context, in *sdk.Instance) (directory.Directory, error) {
			c := in.Config.(*Config)
			d, err := Open(c.Path, c.Separator, in.Log)
			if err == nil {
				err = d.Trust(c.Issuers)
			}
			if err != nil {
				return nil, err
			}
			return d, nil
		},
	}
}
