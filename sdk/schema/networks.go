package schema

import (
	"fmt"
	"net/netip"
)

// Networks reads what an attribute of semantic "cidr" may hold: "192.0.2.0/24",
// "2001:db8::/32", or one address, which is a network of itself. The core has checked
// them; the error is for who did not come by it.
func Networks(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("%q is no network: write it as 192.0.2.0/24, or as one address", s)
			}
			p = netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
