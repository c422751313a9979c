// Package iprev tells whether a client's address has a name that leads back to it
// (RFC 8601 section 3).
package iprev

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// Result in the words of Authentication-Results (RFC 8601 section 2.7.3).
type Result string

// The results. PermError: the address has no name at all.
const (
	Pass      Result = "pass"
	Fail      Result = "fail"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// maxNames of an address that are looked at.
const maxNames = 10

// Check returns the first name that leads back to the address, if it passes. With
// other results name is empty.
func Check(ctx context.Context, r dns.Resolver, ip netip.Addr) (result Result, name string) {
	ip = ip.Unmap().WithZone("")
	names, err := r.PTR(ctx, ip)
	switch {
	case dns.Temporary(err):
		return TempError, ""
	case len(names) == 0:
		return PermError, ""
	}
	names = names[:min(len(names), maxNames)]
	results := make([]Result, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Go(func() {
			look := r.A
			if ip.Is6() {
				look = r.AAAA
			}
			addrs, err := look(ctx, n)
			switch {
			case dns.Temporary(err):
				results[i] = TempError
			case slices.Contains(addrs, ip):
				results[i] = Pass
			}
		})
	}
	wg.Wait()
	if i := slices.Index(results, Pass); i >= 0 {
		return Pass, names[i]
	}
	if slices.Contains(results, TempError) {
		return TempError, ""
	}
	return Fail, ""
}
