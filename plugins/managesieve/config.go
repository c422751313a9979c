package managesieve

import (
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Config of an access "managesieve" block.
type Config struct {
	Scripts               string        `hcl:"scripts,optional" semantic:"path" doc:"Folder of the users' scripts, in place of the storage; the filter \"sieve\" block names the same." example:"/var/lib/stagecoach/sieve"`
	Global                string        `hcl:"global,optional" semantic:"path" doc:"Folder of the operator's scripts, as in the filter." example:"/etc/stagecoach/sieve"`
	MaxScripts            int           `hcl:"max_scripts,optional" doc:"Scripts of one account." example:"32"`
	MaxScriptSize         int           `hcl:"max_script_size,optional" doc:"Octets of one script." example:"1048576"`
	Without               []string      `hcl:"without,optional" doc:"Extensions that are not offered, as in the filter." example:"[\"editheader\"]"`
	MaxConnections        int           `hcl:"max_connections,optional" doc:"Connections at once, in all; 0 means no limit." example:"1000"`
	MaxAddressConnections int           `hcl:"max_address_connections,optional" doc:"Connections at once from one IPv4 address or one IPv6 /64; 0 means no limit." example:"20"`
	MaxLoginAttempts      int           `hcl:"max_login_attempts,optional" doc:"Wrong passwords after which a connection ends." example:"3"`
	MaxErrors             int           `hcl:"max_errors,optional" doc:"Commands that are no commands after which a connection ends." example:"20"`
	LoginDelay            time.Duration `hcl:"login_delay,optional" semantic:"duration" doc:"What a wrong password costs; each further one from that address within the hour costs twice as much." example:"1s"`
	MaxLoginDelay         time.Duration `hcl:"max_login_delay,optional" semantic:"duration" doc:"The most that a wrong password costs." example:"15s"`
	LoginTimeout          time.Duration `hcl:"login_timeout,optional" semantic:"duration" doc:"Time from the connection to the login, in all." example:"1m"`
	IdleTimeout           time.Duration `hcl:"idle_timeout,optional" semantic:"duration" doc:"Time that a session may send nothing; RFC 5804 section 1.2 demands at least 30 minutes." example:"30m"`
	WriteTimeout          time.Duration `hcl:"write_timeout,optional" semantic:"duration" doc:"Time within which the client must take what is sent." example:"1m"`
}

// DefaultConfig has the values of a block that says nothing else.
func DefaultConfig() Config {
	return Config{
		MaxScripts: 32, MaxScriptSize: 1 << 20, MaxConnections: 1000, MaxAddressConnections: 20, MaxLoginAttempts: 3, MaxErrors: 20,
		LoginDelay: time.Second, MaxLoginDelay: 15 * time.Second, LoginTimeout: time.Minute, IdleTimeout: 30 * time.Minute, WriteTimeout: time.Minute,
	}
}

// Validate points at the attribute with a value that no server can live with.
func (c *Config) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"login_timeout", c.LoginTimeout}, {"idle_timeout", c.IdleTimeout}, {"write_timeout", c.WriteTimeout}} {
		if d.value <= 0 {
			return schema.Errorf(schema.Path(d.name), "%s must be more than 0: write a duration as \"1m\"", d.name)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"max_scripts", c.MaxScripts}, {"max_script_size", c.MaxScriptSize}, {"max_login_attempts", c.MaxLoginAttempts}, {"max_errors", c.MaxErrors}} {
		if n.value < 1 {
			return schema.Errorf(schema.Path(n.name), "%s must be at least 1", n.name)
		}
	}
	most := 16 << 20
	if c.Scripts == "" {
		most = storage.MaxAnnotation
	}
	if c.MaxScriptSize > most {
		return schema.Errorf(schema.Path("max_script_size"), "max_script_size must be at most %d", most)
	}
	if c.Scripts != "" && c.Global != "" {
		return schema.Errorf(schema.Path("global"), "the operator's scripts are in the folder \"global\" of scripts: leave one of the two out")
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
