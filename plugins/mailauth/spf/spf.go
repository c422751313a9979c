// Package spf tells whether a host may send mail in a domain's name: check_host()
// of RFC 7208. What becomes of the mail is not its business.
package spf

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// Result is what check_host() says (RFC 7208 section 2.6), in the words of
// Authentication-Results (RFC 8601 section 2.7.2).
type Result string

// The seven results.
const (
	None      Result = "none"
	Neutral   Result = "neutral"
	Pass      Result = "pass"
	Fail      Result = "fail"
	SoftFail  Result = "softfail"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// Limits of RFC 7208 section 4.6.4: what a check may cost the one who makes it.
const (
	maxTerms = 10 // terms that ask the DNS
	maxVoid  = 2  // look-ups without an answer
	maxNames = 10 // hosts of one mx, names of one ptr
)

// Query is who sends, and what it says about itself.
type Query struct {
	IP netip.Addr
	// Hello is what the client said at EHLO or HELO.
	Hello string
	// Sender is the reverse-path without brackets; empty, the null one, asks for
	// postmaster at Hello (RFC 7208 section 2.4).
	Sender string
}

// Outcome is a Result and how it came about.
type Outcome struct {
	Result Result
	// Domain is the one whose record was asked for, in lower case.
	Domain string
	// Hello: it was the HELO identity, not the MAIL FROM one.
	Hello bool
	// Term is the mechanism that decided, as the record has it.
	Term string
	// Problem says in a person's words what is behind an error.
	Problem string
	// Explanation is the domain's own text for a fail (RFC 7208 section 6.2),
	// printable ASCII. Strangers write it.
	Explanation string
}

// Checker makes checks. Safe for concurrent use.
type Checker struct {
	Resolver dns.Resolver
	// Receiver is this server's name, for the macro %{r}; empty: "unknown".
	Receiver string
	// Now is the clock of the macro %{t}; nil is time.Now.
	Now func() time.Time
}

// Check answers for the MAIL FROM identity, or the HELO identity if the
// reverse-path is null. It ends when ctx does, with TempError.
func (c *Checker) Check(ctx context.Context, q Query) Outcome {
	local, domain, isPath := "", "", false
	if i := strings.LastIndexByte(q.Sender, '@'); i >= 0 {
		local, domain, isPath = q.Sender[:i], q.Sender[i+1:], true
	}
	out := Outcome{Hello: q.Sender == ""}
	if !isPath {
		domain = q.Hello
		if q.Sender != "" {
			domain = q.Sender // no path at all: section 4.3 makes it a domain
		}
	}
	if local == "" {
		local = "postmaster"
	}
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	out.Domain = domain
	if !multiLabel(domain) || !q.IP.IsValid() {
		out.Result = None
		return out
	}
	r := &run{
		Checker: c, ctx: ctx, ip: q.IP.Unmap().WithZone(""), hello: q.Hello,
		local: local, origin: domain,
	}
	v := r.checkHost(domain)
	out.Result, out.Term, out.Problem = v.result, v.term, v.problem
	if v.result == Fail && v.exp != nil {
		out.Explanation = r.explain(v.exp, v.domain)
	}
	return out
}

// multiLabel is RFC 7208 section 4.3's well-formed domain: something that can
// have a record.
func multiLabel(domain string) bool {
	labels := strings.Split(domain, ".")
	if len(labels) < 2 || len(domain) > 253 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return false
		}
	}
	return topLabel(labels[len(labels)-1])
}
