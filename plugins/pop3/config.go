package pop3

import (
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of an access "pop3" block.
type Config struct {
	MaxConnections        int           `hcl:"max_connections,optional" doc:"Connections at once, in all; 0 means no limit." example:"1000"`
	MaxAddressConnections int           `hcl:"max_address_connections,optional" doc:"Connections at once from one IPv4 address or one IPv6 /64; 0 means no limit." example:"20"`
	MaxLoginAttempts      int           `hcl:"max_login_attempts,optional" doc:"Wrong passwords after which a connection ends." example:"3"`
	MaxErrors             int           `hcl:"max_errors,optional" doc:"Commands that are no commands after which a connection ends." example:"20"`
	LoginDelay            time.Duration `hcl:"login_delay,optional" doc:"What a wrong password costs; each further one from that address within the hour costs twice as much." semantic:"duration" example:"1s"`
	MaxLoginDelay         time.Duration `hcl:"max_login_delay,optional" doc:"The most that a wrong password costs." semantic:"duration" example:"15s"`
	MinLoginInterval      time.Duration `hcl:"min_login_interval,optional" doc:"Least time between two logins of an account, announced as LOGIN-DELAY; 0 means none." semantic:"duration" example:"1m"`
	LoginTimeout          time.Duration `hcl:"login_timeout,optional" doc:"Time from the connection to the login, in all." semantic:"duration" example:"1m"`
	IdleTimeout           time.Duration `hcl:"idle_timeout,optional" doc:"Time that a session may send nothing; RFC 1939 section 3 demands at least 10 minutes." semantic:"duration" example:"10m"`
	WriteTimeout          time.Duration `hcl:"write_timeout,optional" doc:"Time within which the client must take a piece of at most 32 KiB." semantic:"duration" example:"1m"`
	Expire                string        `hcl:"expire,optional" doc:"What EXPIRE announces: the days that the storage keeps mail, or NEVER if it never removes any by itself; empty announces nothing. This plugin removes nothing by age." example:"NEVER"`
	StorageTimeout        time.Duration `hcl:"storage_timeout,optional" doc:"Time that the storage has for one request, other than streaming a message." semantic:"duration" example:"1m"`
}

// DefaultConfig has the values of a block that says nothing.
func DefaultConfig() Config {
	return Config{
		MaxConnections:        1000,
		MaxAddressConnections: 20,
		MaxLoginAttempts:      3,
		MaxErrors:             20,
		LoginDelay:            time.Second,
		MaxLoginDelay:         15 * time.Second,
		LoginTimeout:          time.Minute,
		IdleTimeout:           10 * time.Minute,
		WriteTimeout:          time.Minute,
		StorageTimeout:        time.Minute,
	}
}

// Validate points at the attribute with a value that no server can live with.
func (c *Config) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"login_timeout", c.LoginTimeout}, {"idle_timeout", c.IdleTimeout},
		{"write_timeout", c.WriteTimeout}, {"storage_timeout", c.StorageTimeout},
	} {
		if d.value <= 0 {
			return schema.Errorf(schema.Path(d.name), "%s must be more than 0: write a duration as \"1m\"", d.name)
		}
	}
	if c.MaxLoginAttempts < 1 {
		return schema.Errorf(schema.Path("max_login_attempts"), "max_login_attempts must be at least 1")
	}
	if c.MaxErrors < 1 {
		return schema.Errorf(schema.Path("max_errors"), "max_errors must be at least 1")
	}
	if d := c.MinLoginInterval; d != 0 && (d < time.Second || d%time.Second != 0) {
		return schema.Errorf(schema.Path("min_login_interval"), "min_login_interval must be 0 or whole seconds, as in \"60s\"")
	}
	if c.Expire != "" && !strings.EqualFold(c.Expire, "NEVER") {
		if _, err := strconv.ParseUint(c.Expire, 10, 31); err != nil {
			return schema.Errorf(schema.Path("expire"), "expire must be a number of days or \"NEVER\", not %q", c.Expire)
		}
	}
	return nil
}
