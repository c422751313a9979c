// Package dns asks recursive name servers what a mail server and its filters need to
// know: bounded, cached, and with a clear difference between "there is none" and
// "nobody could say". It is not a resolver of its own, validates no DNSSEC, and does
// not read /etc/hosts: mail is routed by the DNS alone (RFC 5321 section 5.1).
package dns

import (
	"context"
	"errors"
	"net/netip"
)

// Resolver answers look-ups. Names have no final dot; what cannot be a name does
// not exist. Safe for concurrent use.
//
// No records and no error: the name exists and has none of the type. ErrNotExist:
// the name does not exist (NXDOMAIN, RFC 8020). Any other error is temporary: the
// servers did not say, and nothing may be concluded from that.
type Resolver interface {
	// TXT returns the records, each with its strings joined without a separator
	// (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2).
	TXT(ctx context.Context, name string) ([]string, error)
	// A returns the IPv4 addresses, AAAA the IPv6 ones.
	A(ctx context.Context, name string) ([]netip.Addr, error)
	AAAA(ctx context.Context, name string) ([]netip.Addr, error)
	// MX returns the mail exchangers, best first. One with an empty host is the null
	// MX (RFC 7505).
	MX(ctx context.Context, name string) ([]MX, error)
	// PTR returns the names of an address.
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
}

// MX is a mail exchanger.
type MX struct {
	// Host has no final dot and is in lower case.
	Host string
	// Pref orders them: the lowest first (RFC 5321 section 5.1).
	Pref uint16
}

// ErrNotExist says that a name does not exist.
var ErrNotExist = errors.New("the name does not exist")

// Temporary tells whether err leaves the question open.
func Temporary(err error) bool { return err != nil && !errors.Is(err, ErrNotExist) }

// None is a Resolver for which no name exists, for tests and for checks without
// a network.
type None struct{}

var _ Resolver = None{}

// TXT implements Resolver.
func (None) TXT(context.Context, string) ([]string, error) { return nil, ErrNotExist }

// A implements Resolver.
func (None) A(context.Context, string) ([]netip.Addr, error) { return nil, ErrNotExist }

// AAAA implements Resolver.
func (None) AAAA(context.Context, string) ([]netip.Addr, error) { return nil, ErrNotExist }

// MX implements Resolver.
func (None) MX(context.Context, string) ([]MX, error) { return nil, ErrNotExist }

// PTR implements Resolver.
func (None) PTR(context.Context, netip.Addr) ([]string, error) { return nil, ErrNotExist }
