// Package dns says what the answers of the DNS mean for the mail: where it goes,
// whether it waits or comes back. Package sdk/dns asks for them.
package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/dns"
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

// MX is one mail exchanger.
type MX = dns.MX

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
	Reason string // for people, in place of Err
	Err    error  // the cause of a temporary one; it tells name, type and server
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("DNS: %v", e.Err)
	}
	return fmt.Sprintf("DNS: %s %s: %s", e.Type, e.Name, e.Reason)
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

// Config of a Client: as that of sdk/dns.
type Config struct {
	// Servers are recursive ones, as address or address:port. Empty: those of
	// /etc/resolv.conf, read once by New.
	Servers []string
	// Timeout of one question to one server; 0 is 5 s.
	Timeout time.Duration
	// Attempts is how many rounds over all servers are made; 0 is 2.
	Attempts int
	// CacheSize is the most answers kept; 0 is 10,000.
	CacheSize int
	// Now is the clock of the cache; nil is time.Now.
	Now func() time.Time
}

// questions that are under way at once.
const questions = 1024

// Client is a Resolver.
type Client struct{ dns *dns.Client }

var _ Resolver = (*Client)(nil)

// New returns a Client, or an error if a server's address cannot be used or none
// is named and /etc/resolv.conf names none.
func New(c Config) (*Client, error) {
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	client, err := dns.New(dns.Config{
		Servers: c.Servers, Timeout: c.Timeout, Attempts: c.Attempts, CacheSize: c.CacheSize, Now: c.Now, MaxQuestions: questions,
	})
	if err != nil {
		return nil, fmt.Errorf("DNS: %w", err)
	}
	return &Client{client}, nil
}

// MX implements Resolver.
func (c *Client) MX(ctx context.Context, domain string) ([]MX, error) {
	list, err := c.dns.MX(ctx, domain)
	if err := failed(len(list), err, domain, "MX"); err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b MX) int { return int(a.Pref) - int(b.Pref) })
	return list, nil
}

// Addrs implements Resolver.
func (c *Client) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if h := trimDot(host); h == "localhost" || strings.HasSuffix(h, ".localhost") {
		// RFC 6761 section 6.3: never asked of a server.
		return []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	}
	type result struct {
		addrs []netip.Addr
		err   error
	}
	v6 := make(chan result, 1)
	go func() {
		addrs, err := c.dns.AAAA(ctx, host)
		v6 <- result{addrs, err}
	}()
	v4, err4 := c.dns.A(ctx, host)
	r6 := <-v6
	if out := slices.Concat(r6.addrs, v4); len(out) > 0 {
		return out, nil
	}
	// One family unknown leaves the host's existence unknown.
	err := err4
	if !dns.Temporary(err) && r6.err != nil {
		err = r6.err
	}
	return nil, failed(0, err, host, "A/AAAA")
}

// TXT implements Resolver.
func (c *Client) TXT(ctx context.Context, name string) ([]string, error) {
	list, err := c.dns.TXT(ctx, name)
	return slices.Clone(list), failed(len(list), err, name, "TXT")
}

// PTR implements Resolver.
func (c *Client) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	list, err := c.dns.PTR(ctx, ip)
	return slices.Clone(list), failed(len(list), err, ip.String(), "PTR")
}

// failed is what n records and an error mean; nil for records.
func failed(n int, err error, name, what string) error {
	e := &Error{Name: trimDot(name), Type: what}
	switch {
	case dns.Temporary(err):
		e.Kind, e.Err = Temporary, err
	case err != nil:
		e.Kind, e.Reason = NotFound, "the name does not exist"
	case n == 0:
		e.Kind, e.Reason = NoData, "no such record"
	default:
		return nil
	}
	return e
}

func trimDot(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
