package server

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/rs/zerolog"
)

// Config is what a listener offers and what it bounds. Start from
// [DefaultConfig]: a zero limit means "none" where the comment says so, and is
// replaced by the default otherwise.
type Config struct {
	// Hostname stands in the banner and first in the EHLO reply (RFC 5321 section 4.1.1.1).
	Hostname string
	// LMTP speaks RFC 2033 instead of SMTP: LHLO, and a reply per recipient.
	LMTP bool

	// TLS offers STARTTLS; with ImplicitTLS the handshake comes first instead (RFC 8314).
	TLS         *tls.Config
	ImplicitTLS bool
	// RequireTLS refuses mail and AUTH in plain text with 530 5.7.0.
	RequireTLS bool

	// Auth names the SASL mechanisms to offer. The Session must be an Authenticator.
	Auth []string
	// RequireAuth refuses MAIL from a client that has not authenticated, with 530 5.7.0.
	RequireAuth bool
	// AllowInsecureAuth offers AUTH without TLS: passwords cross the wire in plain text.
	AllowInsecureAuth bool

	// Extensions that are not always there. PIPELINING, SIZE, 8BITMIME, CHUNKING
	// and ENHANCEDSTATUSCODES are.
	EnableDSN        bool // RFC 3461
	EnableSMTPUTF8   bool // RFC 6531
	EnableBinaryMIME bool // RFC 3030 section 3
	EnableRequireTLS bool // RFC 8689, offered under TLS only
	EnableLimits     bool // RFC 9422: says MaxRecipients and MaxTransactionsPerConn aloud
	EnablePriority   bool // MT-PRIORITY, RFC 6710; whose priority counts is the Session's to say
	EnableDeliverBy  bool // RFC 2852
	// MinDeliverBy is the shortest time that BY with R may ask for, said aloud; 0: none.
	MinDeliverBy time.Duration
	// MaxHold offers FUTURERELEASE (RFC 4865) to clients that authenticate, for as
	// long. 0: not offered.
	MaxHold time.Duration

	// MaxSize is the largest message in octets (552 5.3.4). 0: none.
	MaxSize int64
	// MaxRecipients is the largest number of accepted recipients of one message
	// (452 4.5.3). RFC 5321 section 4.5.3.1.8 asks for at least 100. 0: none.
	MaxRecipients int
	// MaxLine is the longest command line in octets with its CRLF (500 5.5.2); the
	// 512 of RFC 5321 section 4.5.3.1.4 grow with every extension's parameters.
	MaxLine int
	// MaxAuthLine is the same for AUTH and its responses: 12288, RFC 4954 section 4.
	MaxAuthLine int
	// MaxBodyLine is the longest line of a message in octets without its CRLF
	// (554 5.6.0). RFC 5321 section 4.5.3.1.6 says 998, but HTML written on one
	// line of tens of KiB is everyday mail, and no buffer grows with a line here.
	// 0: none. A BINARYMIME message has no lines.
	MaxBodyLine int
	// MaxErrors is how many protocol errors and failed logins a connection may make
	// since its last accepted message before it is closed with 421 4.7.0.
	MaxErrors int
	// MaxRefused is how many recipients of a connection may be refused for good
	// beyond those accepted before it is closed with 421 4.7.0: a list may have dead
	// addresses among those that live, who guesses names has little else. 0: none.
	MaxRefused int
	// MaxConnections is for all listeners of the Server together, and
	// MaxConnectionsPerIP for one IPv4 address or IPv6 /64; more get 421 4.3.2 or
	// 421 4.7.0 in place of the banner. 0: none.
	MaxConnections      int
	MaxConnectionsPerIP int
	// MaxTransactionsPerConn is how many MAIL commands a connection may have
	// accepted; the next is answered 421 4.7.0. 0: none.
	MaxTransactionsPerConn int

	// CommandTimeout is how long to wait for a command, and for a client to take
	// its replies; RFC 5321 section 4.5.3.2.7 asks for 5 minutes.
	CommandTimeout time.Duration
	// DataTimeout is how long one read of the message may take. It starts anew with
	// whatever arrives, so a slow client is not cut off.
	DataTimeout time.Duration
	// MessageTimeout is for receiving one whole message: the bound for a client that
	// sends an octet now and then.
	MessageTimeout time.Duration
	// HandshakeTimeout is for the TLS handshake and for the PROXY header.
	HandshakeTimeout time.Duration

	// TolerateBareLF names networks whose bare LF is taken as CRLF, in commands and
	// messages. The end of a message is CRLF.CRLF for them too.
	TolerateBareLF []netip.Prefix
	// ProxyProtocolFrom names the proxies. A connection from there must begin with a
	// PROXY header (version 1 or 2); from elsewhere the header is an unknown command.
	ProxyProtocolFrom []netip.Prefix
	// XClientFrom names the networks that may use Postfix's XCLIENT.
	XClientFrom []netip.Prefix

	Log zerolog.Logger
}

// DefaultConfig is safe for a public MX: every limit is set, nothing but
// STARTTLS and AUTH is switched off.
func DefaultConfig() Config {
	return Config{
		EnableDSN:              true,
		EnableSMTPUTF8:         true,
		EnableBinaryMIME:       true,
		EnableRequireTLS:       true,
		EnableLimits:           true,
		EnablePriority:         true,
		EnableDeliverBy:        true,
		MaxSize:                50 << 20,
		MaxRecipients:          1000,
		MaxLine:                4096,
		MaxAuthLine:            12288,
		MaxBodyLine:            64 << 10,
		MaxErrors:              20,
		MaxRefused:             100,
		MaxConnections:         1000,
		MaxConnectionsPerIP:    50,
		MaxTransactionsPerConn: 1000,
		CommandTimeout:         5 * time.Minute,
		DataTimeout:            5 * time.Minute,
		MessageTimeout:         2 * time.Hour,
		HandshakeTimeout:       30 * time.Second,
		Log:                    zerolog.Nop(),
	}
}

// withDefaults fills what has no meaning at zero.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.Hostname == "" {
		c.Hostname = "localhost"
	}
	setDefault(&c.MaxLine, d.MaxLine)
	setDefault(&c.MaxAuthLine, d.MaxAuthLine)
	// A line is read inside one block.
	c.MaxLine = min(c.MaxLine, blockSize)
	c.MaxAuthLine = min(c.MaxAuthLine, blockSize)
	setDefault(&c.MaxErrors, d.MaxErrors)
	setDefault(&c.CommandTimeout, d.CommandTimeout)
	setDefault(&c.DataTimeout, d.DataTimeout)
	setDefault(&c.MessageTimeout, d.MessageTimeout)
	setDefault(&c.HandshakeTimeout, d.HandshakeTimeout)
	return c
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// inAny reports whether ip lies in one of the networks. No address is in none.
func inAny(nets []netip.Prefix, ip netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}
