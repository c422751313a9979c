// Package dns asks recursive name servers what SPF, DKIM, DMARC and ARC need to
// know: bounded, cached, and with a clear difference between "there is none" and
// "nobody could say". It is not a resolver of its own and validates no DNSSEC.
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
	// MX returns the hosts, best first; "" is the null MX (RFC 7505).
	MX(ctx context.Context, name string) ([]string, error)
	// PTR returns the names of an address.
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
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
func (None) MX(context.Context, string) ([]string, error) { return nil, ErrNotExist }

// PTR implements Resolver.
func (None) PTR(context.Context, netip.Addr) ([]string, error) { return nil, ErrNotExist }
