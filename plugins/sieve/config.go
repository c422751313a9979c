package sieve

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "sieve" block.
type Config struct {
	Storage      string        `hcl:"storage,optional" doc:"The storage that the mail goes to: users' scripts are in it, and mailboxexists and special uses look there. Without it every mailbox counts as there." example:"storage.local.mail"`
	Scripts      string        `hcl:"scripts,optional" semantic:"path" doc:"Folder of the users' scripts, in place of the storage; the access \"managesieve\" block names the same." example:"/var/lib/stagecoach/sieve"`
	Global       string        `hcl:"global,optional" semantic:"path" doc:"Folder of the operator's scripts, NAME.sieve, for include :global and default; with a folder of users' scripts it is \"global\" in that." example:"/etc/stagecoach/sieve"`
	Default      string        `hcl:"default,optional" doc:"Name of an operator's script that is run for who has none active." example:"spam"`
	Delimiter    string        `hcl:"delimiter,optional" doc:"Characters that part a local part from its detail, for :user and :detail." example:"+"`
	MaxActions   int           `hcl:"max_actions,optional" doc:"Actions of one run, in all." example:"32"`
	MaxRedirects int           `hcl:"max_redirects,optional" doc:"Addresses that one run sends a mail on to; 0 forbids it." example:"4"`
	MaxCPU       time.Duration `hcl:"max_cpu,optional" semantic:"duration" doc:"CPU time of one run, counted in steps." example:"1s"`
	VacationMin  time.Duration `hcl:"vacation_min,optional" semantic:"duration" doc:"Least time between two replies of vacation to the same sender." example:"24h"`
	RedirectFrom string        `hcl:"redirect_from,optional" doc:"Reverse-path of a mail that is sent on: sender, recipient, postmaster, or an address in angle brackets." example:"sender"`
	Without      []string      `hcl:"without,optional" doc:"Extensions that are not offered." example:"[\"editheader\"]"`

	hostname string
}

// DefaultConfig has the values of a block that says nothing else.
func DefaultConfig() Config {
	return Config{Delimiter: "+", MaxActions: 32, MaxRedirects: 4, MaxCPU: time.Second, VacationMin: 24 * time.Hour, RedirectFrom: "sender"}
}

// Validate points at the attribute with a value that makes no sense.
func (c *Config) Validate() error {
	switch {
	case c.Scripts == "" && c.Storage == "":
		return schema.Errorf(nil, "where are the scripts? Write storage = storage.local.mail, or name a folder: scripts = \"/var/lib/stagecoach/sieve\"")
	case c.Scripts != "" && c.Global != "":
		return schema.Errorf(schema.Path("global"), "the operator's scripts are in the folder \"global\" of scripts: leave one of the two out")
	case c.Default != "" && c.Scripts == "" && c.Global == "":
		return schema.Errorf(schema.Path("default"), "default is an operator's script: name their folder, global = \"/etc/stagecoach/sieve\"")
	case c.MaxActions < 1 || c.MaxActions > 64:
		return schema.Errorf(schema.Path("max_actions"), "max_actions must be from 1 to 64")
	case c.MaxRedirects < 0 || c.MaxRedirects > c.MaxActions:
		return schema.Errorf(schema.Path("max_redirects"), "max_redirects must be from 0 to max_actions")
	case c.MaxCPU < time.Millisecond || c.MaxCPU > time.Minute:
		return schema.Errorf(schema.Path("max_cpu"), "max_cpu must be from \"1ms\" to \"1m\"")
	case c.VacationMin < 0:
		return schema.Errorf(schema.Path("vacation_min"), "vacation_min must not be negative")
	}
	switch f := c.RedirectFrom; {
	case f == "sender", f == "recipient", f == "postmaster":
	case strings.HasPrefix(f, "<") && strings.HasSuffix(f, ">"):
	default:
		return schema.Errorf(schema.Path("redirect_from"), "redirect_from is sender, recipient, postmaster or \"<address>\", and not %q", f)
	}
	known := engine.DefaultConfig()
	all := known.Extensions()
	for _, name := range c.Without {
		if !slices.Contains(all, name) {
			return schema.Errorf(schema.Path("without"), "there is no extension %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}

// maxMailbox octets of a mailbox's name (the storage contract).
const maxMailbox = 1024

// mailboxMistake is why no mailbox can have that name; "" if one can. INBOX is "".
func mailboxMistake(name string) string {
	switch {
	case !utf8.ValidString(name):
		return "its name is not UTF-8"
	case len(name) > maxMailbox:
		return "its name is too long"
	}
	for _, r := range name {
		if unicode.IsControl(r) || r == 0x2028 || r == 0x2029 {
			return "its name has a control character"
		}
	}
	if name != "" && slices.Contains(strings.Split(name, "/"), "") {
		return "its name has an empty level"
	}
	return ""
}
