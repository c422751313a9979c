package dmarc

import (
	"context"
	"errors"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"

	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// maxWalk is the most questions of a tree walk (RFC 9989 section 4.10).
const maxWalk = 8

// discover finds the policy for mail from a domain.
func (e *Evaluator) discover(ctx context.Context, domain string) discovery {
	d := e.find(ctx, domain)
	if d.err != nil || d.record == nil || !d.subdomain || d.record.Nonexistent == "" {
		return d
	}
	// np= counts for names that do not exist at all (RFC 9989 section 3.2.13).
	_, err := e.Resolver.A(ctx, domain)
	if d.new = errors.Is(err, dns.ErrNotExist); !d.new {
		d.err = err
	}
	return d
}

func (e *Evaluator) find(ctx context.Context, domain string) discovery {
	if e.Organizational == TreeWalk {
		return e.findByWalk(ctx, domain)
	}
	org := publicOrganizational(domain)
	record, err := e.record(ctx, domain)
	d := discovery{record: record, domain: domain, org: org, err: err}
	if err == nil && record == nil && org != domain {
		d.record, d.err = e.record(ctx, org)
		d.domain, d.subdomain = org, true
	}
	if d.err == nil && d.record == nil {
		// A public suffix may have one for all below it (RFC 9091 section 3.5): only
		// where it says that it is one.
		if _, suffix, ok := strings.Cut(org, "."); ok {
			if d.record, d.err = e.record(ctx, suffix); d.record != nil && d.record.Suffix != "y" {
				d.record = nil
			}
			d.domain, d.subdomain = suffix, true
		}
	}
	return d
}

// publicOrganizational is one label below the public suffix.
func publicOrganizational(domain string) string {
	org, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain // a public suffix itself
	}
	return org
}

// organizational is the domain of the organization that a domain belongs to.
func (e *Evaluator) organizational(ctx context.Context, domain string) (string, error) {
	if e.Organizational == PublicSuffix {
		return publicOrganizational(domain), nil
	}
	steps, err := e.walk(ctx, domain)
	if err != nil {
		return "", err
	}
	return chooseOrganizational(domain, steps), nil
}

// step is a name of a walk that has a record.
type step struct {
	domain string
	record *Record
}

// walk asks for the records of a domain and of those above it (section 4.10), all
// at once: most are in the cache, where a wrong guess costs nothing. It ends at a
// record that says what it is.
func (e *Evaluator) walk(ctx context.Context, domain string) ([]step, error) {
	names := walkNames(domain)
	steps, errs := make([]step, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			steps[i].domain = name
			steps[i].record, errs[i] = e.record(ctx, name)
		})
	}
	wg.Wait()
	var out []step
	for i, s := range steps {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if s.record == nil {
			continue
		}
		out = append(out, s)
		if s.record.Suffix != "u" {
			break
		}
	}
	return out, nil
}

// walkNames are the names of a walk: of a long one the first, and the last seven.
func walkNames(domain string) []string {
	names := []string{domain}
	labels := strings.Split(domain, ".")
	for n := min(len(labels)-1, maxWalk-1); n > 0; n-- {
		names = append(names, strings.Join(labels[len(labels)-n:], "."))
	}
	return names
}

// chooseOrganizational is section 4.10.2.
func chooseOrganizational(start string, steps []step) string {
	org := start
	for _, s := range steps {
		if s.record.Suffix == "y" && s.domain != start {
			// One label below the suffix.
			below := strings.TrimSuffix(start, "."+s.domain)
			return below[strings.LastIndexByte(below, '.')+1:] + "." + s.domain
		}
		if org = s.domain; s.record.Suffix == "n" {
			break
		}
	}
	return org
}

// findByWalk is section 4.10.1: the record of the domain, of its organization, or
// of the public suffix above that.
func (e *Evaluator) findByWalk(ctx context.Context, domain string) discovery {
	steps, err := e.walk(ctx, domain)
	if err != nil || len(steps) == 0 {
		return discovery{domain: domain, org: domain, err: err}
	}
	d := discovery{org: chooseOrganizational(domain, steps)}
	chosen := steps[len(steps)-1] // the organization's, or a suffix's where it has none
	for _, s := range steps {
		if s.domain == domain || s.domain == d.org {
			chosen = s
			break
		}
	}
	d.record, d.domain, d.subdomain = chosen.record, chosen.domain, chosen.domain != domain
	return d
}

// record asks for a domain's policy record; nil: it has none that counts. Of two
// none does.
func (e *Evaluator) record(ctx context.Context, domain string) (*Record, error) {
	txt, err := e.Resolver.TXT(ctx, "_dmarc."+domain)
	if dns.Temporary(err) {
		return nil, err
	}
	found := ""
	for _, t := range txt {
		if !IsRecord(t) {
			continue
		}
		if found != "" {
			return nil, nil
		}
		found = t
	}
	if found == "" {
		return nil, nil
	}
	r, err := ParseRecord(found)
	if err != nil {
		return nil, nil // a record that is wrong is none (RFC 7489 section 6.6.3)
	}
	return r, nil
}
