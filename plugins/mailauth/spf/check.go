package spf

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// run is one check with what it has spent.
type run struct {
	*Checker
	ctx           context.Context
	ip            netip.Addr
	hello         string
	local, origin string // of <sender>
	terms, voids  int
	names         []string // the client's validated names
	named         bool     // names is known
}

// verdict is what a domain's record says.
type verdict struct {
	result        Result
	term, problem string
	exp           domainSpec
	domain        string // that exp belongs to
}

func temp(err error) verdict { return verdict{result: TempError, problem: err.Error()} }

func perm(format string, args ...any) verdict {
	return verdict{result: PermError, problem: fmt.Sprintf(format, args...)}
}

// checkHost is check_host() for one domain.
func (r *run) checkHost(domain string) verdict {
	txt, err := r.Resolver.TXT(r.ctx, domain)
	if dns.Temporary(err) {
		return temp(err)
	}
	record := ""
	for _, t := range txt {
		if !IsRecord(t) {
			continue
		}
		if record != "" {
			return perm("%s has more than one SPF record", domain)
		}
		record = t
	}
	if record == "" {
		return verdict{result: None}
	}
	rec, err := Parse(record)
	if err != nil {
		return perm("the SPF record of %s is wrong: %v", domain, err)
	}
	for i := range rec.mechanisms {
		m := &rec.mechanisms[i]
		match, trouble := r.match(m, domain)
		if trouble != nil {
			return *trouble
		}
		if match {
			return verdict{result: m.result, term: m.text, exp: rec.exp, domain: domain}
		}
	}
	if rec.redirect == nil {
		return verdict{result: Neutral}
	}
	if trouble := r.spend(); trouble != nil {
		return *trouble
	}
	target, err := r.target(rec.redirect, domain)
	if err != nil {
		return temp(err)
	}
	v := r.checkHost(target)
	if v.result == None {
		return perm("%s redirects to %s, which has no SPF record", domain, target)
	}
	return v
}

// spend counts a term that asks the DNS.
func (r *run) spend() *verdict {
	if r.terms++; r.terms > maxTerms {
		v := perm("more than %d terms need the DNS", maxTerms)
		return &v
	}
	return nil
}

// void counts a look-up that found nothing, and makes trouble of an error.
func (r *run) void(found int, err error) *verdict {
	if dns.Temporary(err) {
		v := temp(err)
		return &v
	}
	if found > 0 {
		return nil
	}
	if r.voids++; r.voids > maxVoid {
		v := perm("more than %d look-ups found nothing", maxVoid)
		return &v
	}
	return nil
}

// match tells whether a mechanism matches (section 5); trouble ends the check.
func (r *run) match(m *mechanism, domain string) (match bool, trouble *verdict) {
	switch m.name {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return m.prefix.Contains(r.ip), nil
	}
	if trouble = r.spend(); trouble != nil {
		return false, trouble
	}
	target, err := r.target(m.spec, domain)
	if err != nil {
		v := temp(err)
		return false, &v
	}
	switch m.name {
	case "include":
		return r.include(target)
	case "a":
		addrs, err := r.addrs(target)
		return r.contains(m, addrs), r.void(len(addrs), err)
	case "mx":
		return r.mx(m, target)
	case "exists":
		// Always A, whatever the client's family is (section 5.7).
		addrs, err := r.Resolver.A(r.ctx, target)
		return len(addrs) > 0, r.void(len(addrs), err)
	default: // ptr
		for _, n := range r.validated() {
			if n == target || strings.HasSuffix(n, "."+target) {
				return true, nil
			}
		}
		return false, nil
	}
}

// include is a check of its own, of which only pass matches (section 5.2).
func (r *run) include(domain string) (match bool, trouble *verdict) {
	v := r.checkHost(domain)
	switch v.result {
	case Pass:
		return true, nil
	case Fail, SoftFail, Neutral:
		return false, nil
	case None:
		v = perm("it includes %s, which has no SPF record", domain)
	}
	return false, &v
}

func (r *run) mx(m *mechanism, domain string) (match bool, trouble *verdict) {
	hosts, err := r.Resolver.MX(r.ctx, domain)
	if trouble = r.void(len(hosts), err); trouble != nil {
		return false, trouble
	}
	if len(hosts) > maxNames {
		v := perm("%s has more than %d mail exchangers", domain, maxNames)
		return false, &v
	}
	for _, h := range hosts {
		addrs, err := r.addrs(h.Host)
		if trouble = r.void(len(addrs), err); trouble != nil {
			return false, trouble
		}
		if r.contains(m, addrs) {
			return true, nil
		}
	}
	return false, nil
}

// addrs of the client's family.
func (r *run) addrs(name string) ([]netip.Addr, error) {
	if r.ip.Is4() {
		return r.Resolver.A(r.ctx, name)
	}
	return r.Resolver.AAAA(r.ctx, name)
}

func (r *run) contains(m *mechanism, addrs []netip.Addr) bool {
	bits := m.bits6
	if r.ip.Is4() {
		bits = m.bits4
	}
	for _, a := range addrs {
		if netip.PrefixFrom(a, bits).Contains(r.ip) {
			return true
		}
	}
	return false
}

// validated lists the client's names that lead back to its address (section
// 5.5). Look-ups that fail leave names out; the sender has no say in them.
func (r *run) validated() []string {
	if r.named {
		return r.names
	}
	r.named = true
	names, err := r.Resolver.PTR(r.ctx, r.ip)
	if err != nil {
		return nil
	}
	for _, n := range names[:min(len(names), maxNames)] {
		addrs, err := r.addrs(n)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if a == r.ip {
				r.names = append(r.names, n)
				break
			}
		}
	}
	return r.names
}
