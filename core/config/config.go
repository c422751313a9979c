// Package config reads the operator's HCL files and says, by file, line and
// column, what is wrong with them and what to write instead.
//
// It is not a running pipeline: it opens no socket and no database, starts no
// plugin (the caller hands in what plugins say of themselves) and keeps no state.
package config

import (
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Config is everything that the files say, references resolved and defaults
// applied. Slices stand in the order of the files. It is never changed after
// Load; a reload loads another one.
type Config struct {
	// Hostname is the server's own name: banner, EHLO, Received, DSNs.
	Hostname string
	// DataDir is absolute; the queue, the spool, run/ and the plugins' own
	// directories lie below it.
	DataDir string

	// Welcome is printed when the server is up; "" for nothing.
	Welcome string

	Log     Log
	DNS     DNS
	Admin   Admin
	Metrics Metrics

	TLS       []*TLS
	Binaries  []*Binary
	Instances []*Instance
	Receives  []*Receive
	Queue     Queue
	Routes    []*Route
	Delivers  []*Deliver
	Observe   Observe
	Tests     []*Test

	// Files that were read, sorted: to watch, or to name in a log.
	Files []string

	sources sources
}

// Log says how much is logged and in which form.
type Log struct {
	Level  string // "trace", "debug", "info" (default), "warn", "error"
	Format string // "json" (default) or "console"
	Range  hcl.Range
}

// DNS says whom to ask. Without servers the system's resolv.conf decides.
type DNS struct {
	Servers []netip.AddrPort
	Timeout time.Duration // per question; default 5s
	Range   hcl.Range
}

// Admin is the socket that the command line talks to.
type Admin struct {
	Socket string // default: DATA_DIR/run/admin.sock
	Range  hcl.Range
}

// TLS is a certificate with its key, PEM files. Paths are absolute.
type TLS struct {
	Ref, Name string // "tls.default", "default"
	Cert, Key string
	// SelfSigned asks for a certificate made at start, for development only;
	// Cert and Key are then empty.
	SelfSigned bool
	Range      hcl.Range
}

// Binary is an external plugin program (block plugin "NAME"): it serves every
// TYPE "NAME" block of the kind that its Describe names.
type Binary struct {
	Name, Path string // Path is absolute
	SHA256     []byte // nil: not checked
	Args       []string
	Env        map[string]string
	Range      hcl.Range
	// unfit: a complaint was made of it; it is not started.
	unfit bool
	// sumAt is where SHA256 stands.
	sumAt   hcl.Range
	sandbox *sandboxBlock
}

// Instance is one plugin instance: a directory, storage, filter or access
// block, or a deliver block whose type is a plugin.
type Instance struct {
	Ref          string // "filter.headers.inbound"
	Kind         v1.Kind
	Plugin, Name string
	Binary       *Binary // nil: bundled
	// Describe is what the plugin said of itself; its schema decoded Config.
	Describe *v1.DescribeResponse

	// Config holds the plugin's own attributes by its schema, defaults applied;
	// ConfigMsgpack and ConfigJSON are the same for the wire. Attributes of
	// semantic "path" are absolute.
	Config                    cty.Value
	ConfigMsgpack, ConfigJSON []byte
	// Uses are the instances that the plugin's own attributes refer to; the
	// reference arrives in Config as its text, "directory.file.people".
	Uses []*Instance

	// What follows belongs to the core; the plugin never sees it.

	// OnFailure of a filter: "defer" (default), "accept" or "hold".
	OnFailure string
	// Sandbox that the process runs in; nil: none.
	Sandbox *Sandbox
	// Timeout of one call; 0: the core's default. MaxConcurrent calls at once;
	// 0: what Describe says. For filters and delivers.
	Timeout       time.Duration
	MaxConcurrent int

	// For access plugins.
	Listen        []Listen
	TLS           *TLS
	Storage, Auth *Instance
	// InsecureAuth allows passwords without TLS; loopback addresses only.
	InsecureAuth bool

	Range hcl.Range
	body  *hclsyntax.Body
}

// Listen is an address to accept connections on. "tls://:993" or a bare port
// 465, 993 or 995 is implicit TLS; "tcp://…" forces a plain start;
// "unix:///path" is a socket file.
type Listen struct {
	Network     string // "tcp" or "unix"
	Address     string // for net.Listen: ":25", "127.0.0.1:2525", "/run/lmtp.sock"
	ImplicitTLS bool
	Range       hcl.Range
}

// Receive is a listener for mail.
type Receive struct {
	Ref, Name string // "receive.smtp.mx", "mx"
	Protocol  string // "smtp" or "lmtp"
	Hostname  string // default: Config.Hostname
	Listen    []Listen
	TLS       *TLS // default: tls "default", if there is one
	// RequireTLS refuses mail before STARTTLS.
	RequireTLS bool
	// Auth is the directory that checks passwords; nil: AUTH is not offered.
	Auth *Instance
	// RequireAuth refuses mail without AUTH; default: true if Auth is set.
	RequireAuth bool
	// InsecureAuth offers AUTH without TLS; loopback addresses only.
	InsecureAuth bool

	Filters []*Instance
	// Recipients are the directories asked at RCPT; default: all of them.
	Recipients []*Instance
	// RelayDomains are accepted for anybody beside the directories' addresses:
	// "ryan.example", or ".ryan.example" for all names below it.
	RelayDomains []string
	// RelayFrom are networks whose clients may send to any address.
	RelayFrom []netip.Prefix
	// SenderCheck: an authenticated user may use only own addresses as
	// reverse-path. Default true.
	SenderCheck bool
	// ReverseDNS has the names of clients looked up, but for those of loopback.
	// Default true.
	ReverseDNS bool

	MaxSize             int64 // octets; default 50 MiB, 0: no limit
	MaxRecipients       int   // default 1000
	MaxConnections      int   // default 1000
	MaxConnectionsPerIP int   // default 50; IPv6 counts by /64
	MaxHops             int   // Received fields; default 100
	MaxErrors           int   // default 10
	MaxRefused          int   // recipients refused beyond those accepted; default 100, 0: no limit
	MaxMessages         int   // of one connection; default 1000, 0: no limit
	MaxLine             int   // command line, octets; default 4096
	// MaxBodyLine is a message's longest line; default 1 MiB, 0: no limit.
	MaxBodyLine    int
	CommandTimeout time.Duration // default 5m (RFC 5321 section 4.5.3.2.7)
	DataTimeout    time.Duration // between blocks of a message; default 5m
	MessageTimeout time.Duration // for the whole of a message; default 2h

	// Priority says whose MT-PRIORITY may be a higher one: PriorityAuthenticated
	// (default), PriorityAll or PriorityOff.
	Priority string
	// MinDeliverBy is the shortest time that BY with R may ask for (RFC 2852);
	// default 0: none.
	MinDeliverBy time.Duration
	// FutureRelease is how long a mail may be held for a client that logged in
	// (RFC 4865); default 0: not offered.
	FutureRelease time.Duration

	// TolerateBareLF are networks whose bare LF is read as CRLF.
	TolerateBareLF []netip.Prefix
	// ProxyProtocol are networks whose connections begin with a PROXY header.
	ProxyProtocol []netip.Prefix
	// XClient are networks that may use XCLIENT.
	XClient []netip.Prefix

	Range hcl.Range
}

// Queue says how long and how often delivery is tried.
type Queue struct {
	// Retry are the waits after the first, second, … failure; the last repeats.
	Retry []time.Duration // default 5m 15m 30m 1h 2h 3h
	// Expire is when a mail is given up: default 5d (RFC 5321 section 4.5.4.1).
	Expire time.Duration
	// DelayNotice is when the sender hears of a delay, once; default 4h, 0: never.
	DelayNotice time.Duration
	// Workers is how many deliveries run at once; default 64. Those that wait for
	// a slow peer are counted apart, up to four times as many.
	Workers int
	// PerDomain is how many run at once to one destination; default 20. It begins
	// with two and grows as the peer answers.
	PerDomain int
	// Journal is how long the mail journal is kept, for `stagecoach trace`; default
	// 7d, 0: not at all.
	Journal time.Duration
	// JournalSize is how many octets of it at most, about; default 1 GiB, 0: no bound.
	JournalSize int64
	// Sources are limits of senders.
	Sources []*Source
	Range   hcl.Range
}

// Route is asked for every recipient, in the order of the files. Exactly one of
// Deliver, Redirect, Hold, Reject and Discard is set; Copy may stand beside it
// or alone, and then the next routes are asked too.
type Route struct {
	Name string
	// When decides whether this route is taken; nil: always.
	When    *Expr
	Filters []*Instance

	Deliver  *Deliver
	Redirect []*Expr // addresses, by Expr.Strings
	Copy     []*Expr // addresses, by Expr.Strings
	Hold     *Expr   // the reason, by Expr.String
	Reject   *Reply
	Discard  bool

	Range hcl.Range
	// broken: a complaint was made of When; nothing may be concluded from its value.
	broken bool
}

// Expr, Env and Message are what a route is decided by.
type (
	Expr    = expression.Expr
	Env     = expression.Env
	Message = expression.Message
)

// Final reports whether a taken route ends the search.
func (r *Route) Final() bool {
	return r.Deliver != nil || r.Redirect != nil || r.Hold != nil || r.Reject != nil || r.Discard
}

// Reply is an SMTP reply of the operator's own words.
type Reply struct {
	Code     int    // 4xx or 5xx; default 550
	Enhanced string // default: 5.7.1 or 4.7.1
	Text     string
}

// Deliver is one way out. One of SMTP, Storage and Instance is set, by Type.
type Deliver struct {
	Ref, Type, Name string // "deliver.smtp.internet"
	Filters         []*Instance
	SMTP            *NextHop // types "smtp" and "lmtp"

	// Type "storage".
	Storage *Instance
	// Mailbox to deliver into; "": the account's inbox.
	Mailbox string
	// DetailToFolder puts meg+lists@ryan.example into the folder "lists",
	// which comes into being with its first mail.
	DetailToFolder bool

	// Instance of a plugin type.
	Instance *Instance
	Timeout  time.Duration // of one of its deliveries; 0: the core's default

	Range hcl.Range
}

// NextHop says how to reach another server by SMTP or LMTP.
type NextHop struct {
	// Hosts are smarthosts, tried in order: "relay.example", "[192.0.2.1]:2525",
	// "unix:///run/lmtp.sock". Empty: the recipient domain's MX (smtp only).
	Hosts []string
	Port  int // for hosts without one; default 25, implicit TLS 465, lmtp 24
	// TLS: "none", "opportunistic" (default), "required" (encrypted, any
	// certificate), "verify" (certificate checked) or "implicit" (checked, TLS
	// from the first byte).
	TLS      string
	CAFile   string // PEM; empty: the system's
	Username string
	Password string // never printed
	Helo     string // default: Config.Hostname
	// Source are the local addresses to connect from; at most one per family.
	Source             []netip.Addr
	MaxConnections     int // per next hop; default 20
	MailsPerConnection int // default 100
	// Rate of each destination that has none of its own; with Hosts, of the block.
	Rate Rate
	// Destinations are limits of domains; only without Hosts.
	Destinations []*Destination

	ConnectTimeout time.Duration // default 30s
	CommandTimeout time.Duration // default 5m (RFC 5321 section 4.5.3.2)
	DataTimeout    time.Duration // wait for the reply to the final dot; default 10m
	// DNS overrides Config.DNS.
	DNS *DNS
	// Encode8Bit encodes 8-bit and binary content for a server that does not take
	// it, in place of returning the mail; default true.
	Encode8Bit bool
	// AllowLoopback lets an MX lie on a loopback address, which otherwise is
	// taken for a mistake or for ourselves. For tests and demonstrations.
	AllowLoopback bool
}

// Test is a test block: one envelope and what must become of it.
type Test struct {
	Name     string
	From, To string // From "" is the null reverse-path
	ClientIP string
	Helo     string
	User     string
	TLS      bool
	Tags     map[string]*v1.Tag
	// Header fields of a made-up message, or Message, a file (absolute).
	Header  map[string][]string
	Message string
	Expect  Expect
	Range   hcl.Range
}

// Expect holds what a test wants; only what is set is checked.
type Expect struct {
	Route    string // a route's name
	Deliver  *Deliver
	Hold     *string // nil: not asked; "": any reason
	Reject   *int    // nil: not asked; 0: any code
	Redirect []string
	Copy     []string
	Discard  bool
	Range    hcl.Range
}

// Instance returns the instance of that reference, or nil.
func (c *Config) Instance(ref string) *Instance {
	for _, i := range c.Instances {
		if i.Ref == ref {
			return i
		}
	}
	return nil
}

// ByKind returns the instances of one kind, in the order of the files.
func (c *Config) ByKind(k v1.Kind) []*Instance {
	var out []*Instance
	for _, i := range c.Instances {
		if i.Kind == k {
			out = append(out, i)
		}
	}
	return out
}
