package imap

import (
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Config of an access "imap" block.
type Config struct {
	MaxConnections        int           `hcl:"max_connections,optional" doc:"Connections at once, in all; 0 means no limit." example:"10000"`
	MaxAddressConnections int           `hcl:"max_address_connections,optional" doc:"Connections at once from one IPv4 address or one IPv6 /64; 0 means no limit." example:"50"`
	MaxUserConnections    int           `hcl:"max_user_connections,optional" doc:"Sessions at once of one account; 0 means no limit. A phone and a desktop client open about ten." example:"40"`
	MaxLoginAttempts      int           `hcl:"max_login_attempts,optional" doc:"Wrong passwords after which a connection ends." example:"3"`
	LoginDelay            time.Duration `hcl:"login_delay,optional" doc:"What a wrong password costs; each further one from that address within the hour costs twice as much." semantic:"duration" example:"1s"`
	MaxLoginDelay         time.Duration `hcl:"max_login_delay,optional" doc:"The most that a wrong password costs." semantic:"duration" example:"15s"`
	LoginTimeout          time.Duration `hcl:"login_timeout,optional" doc:"Time from the connection to the login, in all." semantic:"duration" example:"2m"`
	IdleTimeout           time.Duration `hcl:"idle_timeout,optional" doc:"Time that a session may send nothing; RFC 9051 section 5.4 demands at least 30 minutes." semantic:"duration" example:"35m"`
	ReadTimeout           time.Duration `hcl:"read_timeout,optional" doc:"Time within which more of a command or message that has begun must come." semantic:"duration" example:"1m"`
	WriteTimeout          time.Duration `hcl:"write_timeout,optional" doc:"Time within which the client must take a piece of at most 64 KiB." semantic:"duration" example:"1m"`
	StorageTimeout        time.Duration `hcl:"storage_timeout,optional" doc:"Time that the storage has for one request, other than streaming messages." semantic:"duration" example:"1m"`
	MaxMessage            schema.Size   `hcl:"max_message,optional" doc:"Largest message that APPEND takes." semantic:"size" example:"50MB"`
	MaxCommand            schema.Size   `hcl:"max_command,optional" doc:"Longest command, with all its lines and literals but the messages of APPEND and REPLACE. Before the login a literal has 12 KiB at most." semantic:"size" example:"64KB"`
	MaxAnnotation         schema.Size   `hcl:"max_annotation,optional" doc:"Largest value of an annotation (METADATA)." semantic:"size" example:"32KB"`
	MaxAnnotations        int           `hcl:"max_annotations,optional" doc:"Annotations of one mailbox, and of an account beside those of its mailboxes." example:"100"`
	Admin                 string        `hcl:"admin,optional" doc:"How users reach the administrator, a URI: the annotation /shared/admin of the server." example:"mailto:postmaster@ryan.example"`
}

// DefaultConfig has the values of a block that says nothing.
func DefaultConfig() Config {
	return Config{
		MaxConnections:        10000,
		MaxAddressConnections: 50,
		MaxUserConnections:    40,
		MaxLoginAttempts:      3,
		LoginDelay:            time.Second,
		MaxLoginDelay:         15 * time.Second,
		LoginTimeout:          2 * time.Minute,
		IdleTimeout:           35 * time.Minute,
		ReadTimeout:           time.Minute,
		WriteTimeout:          time.Minute,
		StorageTimeout:        time.Minute,
		MaxMessage:            50 << 20,
		MaxCommand:            64 << 10,
		MaxAnnotation:         32 << 10,
		MaxAnnotations:        100,
	}
}

// Validate points at the attribute with a value that no server can live with.
func (c *Config) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"login_timeout", c.LoginTimeout}, {"idle_timeout", c.IdleTimeout}, {"read_timeout", c.ReadTimeout},
		{"write_timeout", c.WriteTimeout}, {"storage_timeout", c.StorageTimeout},
	} {
		if d.value <= 0 {
			return schema.Errorf(schema.Path(d.name), "%s must be more than 0: write a duration as \"1m\"", d.name)
		}
	}
	if c.MaxLoginAttempts < 1 {
		return schema.Errorf(schema.Path("max_login_attempts"), "max_login_attempts must be at least 1")
	}
	if c.MaxMessage < 1 || c.MaxMessage > 1<<32-1 {
		return schema.Errorf(schema.Path("max_message"), "max_message must be between 1 and %d octets", uint32(1<<32-1))
	}
	if c.MaxCommand < 16<<10 || c.MaxCommand > 16<<20 {
		return schema.Errorf(schema.Path("max_command"), "max_command must be between 16KB and 16MB")
	}
	if c.MaxAnnotation < 1 || c.MaxAnnotation > min(c.MaxCommand-4<<10, storage.MaxAnnotation) {
		return schema.Errorf(schema.Path("max_annotation"), "max_annotation must be between 1 and %d octets: it is a part of one command, so max_command must be larger", min(c.MaxCommand-4<<10, storage.MaxAnnotation))
	}
	if c.MaxAnnotations < 1 || c.MaxAnnotations > 1000 {
		return schema.Errorf(schema.Path("max_annotations"), "max_annotations must be between 1 and 1000")
	}
	return nil
}
