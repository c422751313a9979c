// Package dmarc tells whether a mail is from the domain that its From field names,
// and what that domain asks to be done if not: RFC 7489 and what came after it
// (RFC 9091, and RFC 9989, which has the DNS Tree Walk in place of the public
// suffix list). It makes no reports, and decides nothing.
package dmarc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Result in the words of Authentication-Results (RFC 7489 section 11.2).
type Result string

// The results. None: no policy applies. PermError: From does not name one domain.
const (
	None      Result = "none"
	Pass      Result = "pass"
	Fail      Result = "fail"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// Organizational is how the domain is found that belongs to one organization.
type Organizational int

const (
	// PublicSuffix is one label below a public suffix (RFC 7489 section 3.2), from
	// the list that came with the program.
	PublicSuffix Organizational = iota
	// TreeWalk asks the DNS (RFC 9989 section 4.10).
	TreeWalk
)

// Evaluator evaluates. Safe for concurrent use.
type Evaluator struct {
	Resolver       dns.Resolver
	Organizational Organizational
	// Sample is a number from 0 to 99 for pct=; nil is one by chance.
	Sample func() int
}

// Authenticated is what SPF and DKIM found out.
type Authenticated struct {
	// SPF is the domain that passed, "" if none did; SPFUnknown the one of which
	// nobody could say.
	SPF, SPFUnknown string
	// DKIM are the domains whose signatures passed; DKIMUnknown those of which
	// nobody could say.
	DKIM, DKIMUnknown []string
}

// Outcome is what is to be said of a mail.
type Outcome struct {
	Result Result
	// Reason says in a person's words how it came about.
	Reason string
	// From is the domain of the From field, in ASCII and lower case.
	From string
	// Domain is where the policy was found, Organizational the organization's.
	Domain, Organizational string
	// Policy is what the domain asks for mail in From's name that fails, by p=, sp=
	// or np=; None where there is none.
	Policy Policy
	// Disposition is what it asks for this mail: None if it passes, and one step
	// less than Policy if it is not in the sample (pct=) or the domain only tests
	// (t=y).
	Disposition Policy
	// SPF and DKIM tell which of them is aligned.
	SPF, DKIM bool
	// Record is nil if there is none.
	Record *Record
}

// Check is an evaluation that waits for SPF and DKIM.
type Check struct {
	e     *Evaluator
	ctx   context.Context
	out   Outcome
	found chan discovery // nil: out stands
}

// discovery is what the DNS says of an author's domain.
type discovery struct {
	record         *Record
	domain, org    string
	err            error
	subdomain, new bool // the record is a parent's; the domain does not exist
}

// Begin reads the From field and asks for the policy. Finish has to be called.
func (e *Evaluator) Begin(ctx context.Context, h message.Header) *Check {
	c := &Check{e: e, ctx: ctx, out: Outcome{Policy: PolicyNone, Disposition: PolicyNone}}
	domain, err := Author(h)
	if err != nil {
		c.out.Result, c.out.Reason = PermError, err.Error()
		return c
	}
	c.out.From = domain
	c.found = make(chan discovery, 1)
	go func() { c.found <- e.discover(ctx, domain) }()
	return c
}

// Author is the domain of the From field, in ASCII and lower case; an error if it
// does not name exactly one (RFC 9989 section 5.3.1).
func Author(h message.Header) (string, error) {
	fields := h.All("From")
	if len(fields) != 1 {
		return "", fmt.Errorf("there are %d From fields", len(fields))
	}
	domain := ""
	for _, a := range mime.Addresses(fields[0].Value(), 64) {
		if a.GetGroup() != v1.MailAddress_NONE {
			continue
		}
		d := ascii(string(a.GetDomain()))
		if d == "" || d[0] == '[' {
			return "", errors.New("From has an address without a domain")
		}
		if domain != "" && d != domain {
			return "", fmt.Errorf("From names several domains: %s and %s", domain, d)
		}
		domain = d
	}
	if domain == "" {
		return "", errors.New("From has no address")
	}
	return domain, nil
}

// ascii is a domain as the DNS has it; "" for one of letters that no name has.
func ascii(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	for i := range len(domain) {
		if domain[i] >= 0x80 {
			a, err := idna.Lookup.ToASCII(domain)
			if err != nil {
				return ""
			}
			return a
		}
	}
	return domain
}

// Finish waits for the policy and gives the outcome.
func (c *Check) Finish(a Authenticated) Outcome {
	if c.found == nil {
		return c.out
	}
	d := <-c.found
	out := &c.out
	out.Domain, out.Organizational, out.Record = d.domain, d.org, d.record
	switch {
	case d.err != nil:
		out.Result, out.Reason = TempError, d.err.Error()
		return *out
	case d.record == nil:
		out.Result, out.Reason = None, "no policy for "+out.From
		return *out
	}
	out.Policy = d.record.policy(d.subdomain, d.new)
	c.align(a)
	if out.Result == Fail {
		out.Disposition = out.Policy
		sample := rand.IntN(100)
		if c.e.Sample != nil {
			sample = c.e.Sample()
		}
		if d.record.Testing || sample >= d.record.Percent {
			out.Disposition = out.Policy.less()
		}
	}
	return *out
}

// align compares who was authenticated with who wrote (RFC 7489 section 3.1).
func (c *Check) align(a Authenticated) {
	out := &c.out
	var doubt error
	aligned := func(domain string, strict bool) bool {
		ok, err := c.aligned(domain, strict)
		if err != nil {
			doubt = err
		}
		return ok
	}
	spf := func(d string) bool { return aligned(d, out.Record.StrictSPF) }
	dkim := func(d string) bool { return aligned(d, out.Record.StrictDKIM) }
	out.SPF, out.DKIM = spf(a.SPF), slices.ContainsFunc(a.DKIM, dkim)
	if out.SPF || out.DKIM {
		out.Result = Pass
		return
	}
	unknown := spf(a.SPFUnknown) || slices.ContainsFunc(a.DKIMUnknown, dkim)
	switch {
	case doubt != nil:
		out.Result, out.Reason = TempError, doubt.Error()
	case unknown:
		out.Result, out.Reason = TempError, "nobody could say whether SPF or DKIM passes for "+out.From
	default:
		out.Result, out.Reason = Fail, "neither SPF nor DKIM passes for "+out.From
	}
}

// aligned tells whether a domain is the author's, or of the same organization.
func (c *Check) aligned(domain string, strict bool) (bool, error) {
	switch domain = ascii(domain); {
	case domain == "":
		return false, nil
	case domain == c.out.From:
		return true, nil
	case strict, !within(domain, c.out.Organizational):
		// Of another organization for certain: nobody has to be asked.
		return false, nil
	}
	org, err := c.e.organizational(c.ctx, domain)
	return err == nil && org == c.out.Organizational, err
}

// within tells whether domain is parent or below it.
func within(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}
