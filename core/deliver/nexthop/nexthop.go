// Package nexthop hands mail to other servers over SMTP or LMTP: to the mail
// exchangers of a domain, or to smarthosts. It chooses host, address and TLS,
// keeps connections for the next mail, and says of each recipient what became
// of it.
//
// It makes one attempt and keeps no queue: when to try again, and what to tell
// the sender, is decided by whoever calls Deliver.
package nexthop

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/dns"
	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// TLSMode is the policy for encryption to the next hop.
type TLSMode string

const (
	TLSNone          TLSMode = "none"
	TLSOpportunistic TLSMode = "opportunistic" // STARTTLS where offered, unverified; plain if it fails
	TLSRequired      TLSMode = "required"      // STARTTLS with a certificate that verifies
	TLSImplicit      TLSMode = "implicit"      // TLS from the first octet, verified (RFC 8314)
)

// Auth is how to log in at the next hop. A password is only sent over TLS or to
// a loopback address.
type Auth struct {
	User, Password string
	// Mechanisms allowed, best first. Default SCRAM-SHA-256, PLAIN, LOGIN.
	Mechanisms []string
}

// Options of a Transport; the zero value is direct delivery by MX.
type Options struct {
	// Smarthost are tried in this order in place of the recipient's MX:
	// host, host:port, an IP address, or unix:/path.
	Smarthost []string
	Port      int // where none is named; default 25, LMTP 24, implicit TLS 465
	LMTP      bool
	TLS       TLSMode // default opportunistic
	Auth      *Auth
	// TLSConfig holds roots and client certificate; it may be nil. With its
	// InsecureSkipVerify the modes required and implicit encrypt without
	// looking whom they talk to; mail with REQUIRETLS is verified all the same.
	TLSConfig *tls.Config

	LocalName  string       // our host name, for EHLO and to know ourselves in an MX list
	OwnAddrs   []netip.Addr // our own public addresses, for the same
	LocalAddrs []netip.Addr // source addresses, at most one per family

	Timeouts        client.Timeouts
	MaxAddrs        int           // addresses tried in one attempt; default 5
	MaxRecipients   int           // in one transaction; default 100 (RFC 5321 section 4.5.3.1.8)
	MaxMailsPerConn int           // default 100
	MaxConnsPerHost int           // open to one address; default 20
	IdleTimeout     time.Duration // how long a connection waits for the next mail; default 10 s

	// AllowLoopback permits an MX to point to a loopback address, which
	// otherwise is taken for ourselves. Smarthosts may always.
	AllowLoopback bool
	NoPipelining  bool
	NoChunking    bool
	// NoRecoding returns mail with 8-bit or binary content that the next hop does
	// not take, in place of encoding it, which breaks DKIM signatures over the body.
	NoRecoding bool

	Resolver dns.Resolver // needed unless every smarthost is an address or a socket
	// Dial replaces the dialer; network is tcp or unix.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Clock; nil: time.Now.
	Clock func() time.Time
	Log   zerolog.Logger
}

// Validate tells what a user wrote wrong.
func (o Options) Validate() error {
	switch o.TLS {
	case "", TLSNone, TLSOpportunistic, TLSRequired, TLSImplicit:
	default:
		return fmt.Errorf("tls = %q is unknown; write none, opportunistic, required or implicit", o.TLS)
	}
	for _, s := range o.Smarthost {
		if _, err := parseHost(s, 25); err != nil {
			return err
		}
	}
	if o.LocalName == "" || strings.ContainsAny(o.LocalName, " \t\r\n\x00") {
		return fmt.Errorf("the host name %q cannot be said in EHLO", o.LocalName)
	}
	if o.Auth != nil {
		for _, m := range o.Auth.Mechanisms {
			if !knownMechanism(m) {
				return fmt.Errorf("AUTH mechanism %q is unknown; write SCRAM-SHA-256, PLAIN or LOGIN", m)
			}
		}
	}
	return nil
}

// Message is one mail for recipients of one destination.
type Message struct {
	QueueID string // for the log
	// Domain is the destination; empty: the domain of the first recipient.
	// Smarthosts are used whatever it is.
	Domain string
	// NextHop, "host:port", is tried in place of the domain's MX, without
	// logging in there. Smarthosts are used whatever it is.
	NextHop string
	// TLSLevel raises the policy of the options for this mail: none,
	// opportunistic, required (whoever it is) or verify. It lowers nothing.
	TLSLevel   string
	From       string // reverse-path without brackets; empty for the null one
	Options    smtp.MailOptions
	Priority   int               // MT-PRIORITY
	DeliverBy  *client.DeliverBy // nil: none
	Recipients []client.Rcpt
	Body       func() (io.ReadCloser, error)
	Size       int64 // octets; 0 if not known
}

// Status of a recipient after an attempt.
type Status int

const (
	// Deferred: try again later.
	Deferred Status = iota
	// Delivered: the next hop has taken the responsibility.
	Delivered
	// Failed for good.
	Failed
)

func (s Status) String() string {
	return [...]string{"deferred", "delivered", "failed"}[s]
}

// Outcome is what became of one recipient.
type Outcome struct {
	Recipient string
	Status    Status
	Code      int               // SMTP reply code, the peer's or ours
	Enhanced  smtp.EnhancedCode // of the class of Code, never zero
	Text      string
	// Diagnostic is the peer's reply as RFC 3464 section 2.3.6 wants it
	// ("550 5.1.1 no such user"); empty if the outcome was decided here.
	Diagnostic string
	RemoteMTA  string // host name; empty if none was reached
	RemoteAddr string // address:port
	TLS        string // "TLSv1.3 TLS_AES_128_GCM_SHA256 verified"; empty: plain
	// DSN: the peer offers the extension, and with a delivery takes over the
	// duty to report (RFC 3461 section 5.2.2).
	DSN bool
	// KnowsDeliverBy: the peer offers DELIVERBY, and minds the time.
	KnowsDeliverBy bool
	// Ambiguous: the connection broke after the whole message was sent. The
	// next attempt may deliver a second copy.
	Ambiguous bool
}

// RouteError says why a destination has no next hop.
type RouteError struct {
	Code     int
	Enhanced smtp.EnhancedCode
	Text     string
	Err      error
}

func (e *RouteError) Error() string {
	return fmt.Sprintf("%d %d.%d.%d %s", e.Code, e.Enhanced[0], e.Enhanced[1], e.Enhanced[2], e.Text)
}

func (e *RouteError) Unwrap() error { return e.Err }

// Temporary tells whether it may be different later.
func (e *RouteError) Temporary() bool { return e.Code < 500 }

// Transport delivers; its methods may be called concurrently.
type Transport struct {
	opts  Options
	pool  *pool
	hosts *hosts
}

// New returns a Transport. Options that Validate refuses give a Transport that
// defers all mail with the reason.
func New(o Options) *Transport {
	if o.TLS == "" {
		o.TLS = TLSOpportunistic
	}
	if o.Port == 0 {
		switch {
		case o.LMTP:
			o.Port = 24
		case o.TLS == TLSImplicit:
			o.Port = 465
		default:
			o.Port = 25
		}
	}
	def := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	def(&o.MaxAddrs, 5)
	def(&o.MaxRecipients, 100)
	def(&o.MaxMailsPerConn, 100)
	def(&o.MaxConnsPerHost, 20)
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 10 * time.Second
	}
	if o.Timeouts.Connect <= 0 {
		o.Timeouts.Connect = 30 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	t := &Transport{opts: o, pool: newPool(o.MaxConnsPerHost, o.IdleTimeout), hosts: newHosts(o.Clock)}
	return t
}

// Close ends idle connections and waits for them. Deliver must not be running.
func (t *Transport) Close() { t.pool.close() }
