// Package plugins is the one table of the plugins that ride in the binary.
package plugins

import (
	"github.com/stagecoach-mta/stagecoach/plugins/arcsign"
	"github.com/stagecoach-mta/stagecoach/plugins/attachments"
	"github.com/stagecoach-mta/stagecoach/plugins/authverify"
	"github.com/stagecoach-mta/stagecoach/plugins/bcc"
	"github.com/stagecoach-mta/stagecoach/plugins/clamav"
	"github.com/stagecoach-mta/stagecoach/plugins/dkimsign"
	"github.com/stagecoach-mta/stagecoach/plugins/dnsbl"
	"github.com/stagecoach-mta/stagecoach/plugins/exec"
	"github.com/stagecoach-mta/stagecoach/plugins/file"
	"github.com/stagecoach-mta/stagecoach/plugins/greylist"
	"github.com/stagecoach-mta/stagecoach/plugins/headers"
	"github.com/stagecoach-mta/stagecoach/plugins/helo"
	"github.com/stagecoach-mta/stagecoach/plugins/imap"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	"github.com/stagecoach-mta/stagecoach/plugins/maildir"
	"github.com/stagecoach-mta/stagecoach/plugins/managesieve"
	"github.com/stagecoach-mta/stagecoach/plugins/milter"
	"github.com/stagecoach-mta/stagecoach/plugins/pipe"
	"github.com/stagecoach-mta/stagecoach/plugins/policy"
	"github.com/stagecoach-mta/stagecoach/plugins/pop3"
	"github.com/stagecoach-mta/stagecoach/plugins/ratelimit"
	"github.com/stagecoach-mta/stagecoach/plugins/recipients"
	"github.com/stagecoach-mta/stagecoach/plugins/rspamd"
	"github.com/stagecoach-mta/stagecoach/plugins/rules"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve"
	"github.com/stagecoach-mta/stagecoach/plugins/spamd"
	"github.com/stagecoach-mta/stagecoach/plugins/srs"
	"github.com/stagecoach-mta/stagecoach/plugins/srsreverse"
	"github.com/stagecoach-mta/stagecoach/plugins/subaddress"
	"github.com/stagecoach-mta/stagecoach/plugins/tarpit"
	"github.com/stagecoach-mta/stagecoach/sdk"
)

// Bundled lists them by name.
func Bundled() []sdk.Plugin {
	return []sdk.Plugin{
		arcsign.Plugin(),
		attachments.Plugin(),
		authverify.Plugin(),
		bcc.Plugin(),
		clamav.Plugin(),
		dkimsign.Plugin(),
		dnsbl.Plugin(),
		exec.Plugin(),
		file.Plugin(),
		greylist.Plugin(),
		headers.Plugin(),
		helo.Plugin(),
		imap.Plugin(),
		local.Plugin(),
		maildir.Plugin(),
		managesieve.Plugin(),
		milter.Plugin(),
		pipe.Plugin(),
		policy.Plugin(),
		pop3.Plugin(),
		ratelimit.Plugin(),
		recipients.Plugin(),
		rspamd.Plugin(),
		rules.Plugin(),
		sieve.Plugin(),
		spamd.Plugin(),
		srs.Plugin(),
		srsreverse.Plugin(),
		subaddress.Plugin(),
		tarpit.Plugin(),
	}
}
