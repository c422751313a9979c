// Package dns answers the questions a mail server asks of the DNS: MX, A and
// AAAA, TXT, PTR. It speaks to recursive resolvers, keeps a cache that honours
// TTLs, and tells "does not exist" from "nobody answered".
//
// It is not a recursive resolver and does not validate DNSSEC. It does not read
// /etc/hosts: mail is routed by the DNS alone (RFC 5321 section 5.1).
package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"

	"github.com/miekg/dns"
)

// Resolver is what mail routing needs of the DNS. Names may be given with or
// without a final dot, in U-labels or A-labels. Every failure is an *Error;
// methods may be called by many goroutines, and callers own what they get.
type Resolver interface {
	// MX returns the domain's mail exchangers by ascending preference, those
	// of equal preference in a fresh random order (RFC 5321 section 5.1). A
	// null MX (RFC 7505) is one entry with an empty Host.
	MX(ctx context.Context, domain string) ([]MX, error)
	// Addrs returns the host's IPv6 and IPv4 addresses, never none without an
	// error. If one family could not be looked up the other is still returned.
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	// TXT returns one string for each TXT record, its character-strings joined.
	TXT(ctx context.Context, name string) ([]string, error)
	// PTR returns the names of an address.
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
}

// MX is one mail exchanger. Host has no final dot and is in lower case.
type MX struct {
	Host string
	Pref uint16
}

// Kind is what a failed look-up means for the mail.
type Kind int

const (
	// NotFound: the name does not exist (NXDOMAIN), or cannot exist.
	NotFound Kind = iota + 1
	// NoData: the name exists, but has no record of the type asked.
	NoData
	// Temporary: no usable answer (SERVFAIL, refused, time-out). Ask later.
	Temporary
)

func (k Kind) String() string {
	switch k {
	case NotFound:
		return "not found"
	case NoData:
		return "no data"
	case Temporary:
		return "temporary failure"
	}
	return "unknown"
}

// Error is a failed look-up.
type Error struct {
	Kind   Kind
	Name   string // as asked, without the final dot
	Type   string // MX, A, A/AAAA, …
	Server string // the last server asked, host:port; empty if none was
	Reason string // for people
	Err    error  // the cause, if any
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "DNS: %s %s: %s", e.Type, e.Name, e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Server != "" {
		fmt.Fprintf(&b, " (asked %s)", e.Server)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of a look-up's error; an error of another type counts
// as Temporary, so that mail is never bounced for a reason not understood.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Temporary
}

// Names with underscores are legal for TXT and SRV, so no STD3 rules.
var toASCII = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// fqdn returns the name as it is asked: A-labels, lower case, final dot.
func fqdn(name string) (string, error) {
	ascii := strings.ToLower(name)
	for i := 0; i < len(name); i++ {
		if name[i] >= 0x80 {
			var err error
			if ascii, err = toASCII.ToASCII(name); err != nil {
				return "", err
			}
			break
		}
	}
	for i := 0; i < len(ascii); i++ {
		// A backslash starts an escape of the zone file syntax, which the DNS
		// library would unpack; no name in mail has one.
		if c := ascii[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return "", fmt.Errorf("character %q is not allowed in a domain name", c)
		}
	}
	ascii = strings.TrimSuffix(ascii, ".")
	if ascii == "" {
		return "", errors.New("the name is empty")
	}
	ascii += "."
	if _, ok := dns.IsDomainName(ascii); !ok {
		return "", errors.New("not a valid domain name")
	}
	return ascii, nil
}

func trimDot(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
