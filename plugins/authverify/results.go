package authverify

import (
	"fmt"
	"slices"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/arc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/authres"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dmarc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/spf"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

// authenticated is what DMARC has to know of SPF and DKIM.
func (r *results) authenticated() dmarc.Authenticated {
	var a dmarc.Authenticated
	switch r.spf.Result {
	case spf.Pass:
		a.SPF = r.spf.Domain
	case spf.TempError:
		a.SPFUnknown = r.spf.Domain
	}
	for _, s := range r.dkim {
		switch s.Result {
		case dkim.Pass:
			a.DKIM = append(a.DKIM, s.Signature.Domain)
		case dkim.TempError:
			a.DKIMUnknown = append(a.DKIMUnknown, s.Signature.Domain)
		}
	}
	return a
}

// fields are the results of an Authentication-Results field.
func (r *results) fields() []authres.Result {
	property := func(kind, name, value string) authres.Property {
		return authres.Property{Type: kind, Name: name, Value: value}
	}
	var out []authres.Result
	if r.hasClient {
		out = append(out, authres.Result{Method: "iprev", Value: string(r.iprev), Comment: r.name, Properties: []authres.Property{property("policy", "iprev", r.ip.String())}})
	}
	who := property("smtp", "mailfrom", r.sender)
	if r.spf.Hello {
		who = property("smtp", "helo", r.hello)
	}
	out = append(out, authres.Result{Method: "spf", Value: string(r.spf.Result), Reason: r.spf.Problem, Properties: []authres.Property{who}})
	for _, s := range r.dkim {
		res := authres.Result{Method: "dkim", Value: string(s.Result), Reason: s.Reason}
		if s.Bits > 0 {
			res.Comment = fmt.Sprintf("%d-bit key", s.Bits)
		}
		algorithm := ""
		if s.Signature.Algorithm.Key != "" {
			algorithm = s.Signature.Algorithm.String()
		}
		// Eight characters of b= tell signatures of one domain apart (RFC 6008).
		b := s.Signature.B[:min(len(s.Signature.B), 8)]
		res.Properties = []authres.Property{
			property("header", "d", s.Signature.Domain), property("header", "i", s.Signature.Identity),
			property("header", "s", s.Signature.Selector), property("header", "a", algorithm), property("header", "b", b),
		}
		out = append(out, res)
	}
	if len(r.dkim) == 0 {
		out = append(out, authres.Result{Method: "dkim", Value: "none"})
	}
	d := authres.Result{Method: "dmarc", Value: string(r.dmarc.Result), Properties: []authres.Property{property("header", "from", r.dmarc.From)}}
	if r.dmarc.Record != nil {
		d.Properties = append(d.Properties, property("polrec", "p", string(r.dmarc.Policy)), property("polrec", "domain", r.dmarc.Domain))
	}
	if r.dmarc.Result == dmarc.TempError || r.dmarc.Result == dmarc.PermError {
		d.Reason = r.dmarc.Reason
	}
	out = append(out, d)
	if r.arc.Result != arc.None {
		a := authres.Result{Method: "arc", Value: string(r.arc.Result), Reason: r.arc.Reason, Comment: fmt.Sprintf("i=%d", r.arc.Sets)}
		if r.arc.Result == arc.Pass {
			a.Comment += " " + r.arc.Sealers[0]
		}
		out = append(out, a)
	}
	return out
}

// best orders what several signatures of one domain come to.
var best = []dkim.Result{dkim.Neutral, dkim.PermError, dkim.Policy, dkim.Fail, dkim.TempError, dkim.Pass}

// tag sets what routes and later filters read.
func (r *results) tag(v *filter.Verdict) {
	v.Tag("spf", string(r.spf.Result))
	if r.hasClient {
		v.Tag("iprev", string(r.iprev))
	}
	domains, passed := map[string]any{}, []string{}
	for _, s := range r.dkim {
		d := s.Signature.Domain
		if d == "" {
			continue
		}
		if have, ok := domains[d].(string); !ok || slices.Index(best, s.Result) > slices.Index(best, dkim.Result(have)) {
			domains[d] = string(s.Result)
		}
		if s.Result == dkim.Pass && !slices.Contains(passed, d) {
			passed = append(passed, d)
		}
	}
	v.TagMap("dkim", domains)
	v.TagList("dkim_pass", passed...)
	v.TagMap("dmarc", map[string]any{
		"result": string(r.dmarc.Result), "policy": string(r.dmarc.Policy), "disposition": string(r.dmarc.Disposition),
		"from": r.dmarc.From, "domain": r.dmarc.Domain, "spf": r.dmarc.SPF, "dkim": r.dmarc.DKIM,
	})
	chain := map[string]any{"result": string(r.arc.Result), "sets": float64(r.arc.Sets)}
	if r.arc.Result == arc.Pass {
		chain["sealer"], chain["sealers"] = r.arc.Sealers[0], r.arc.Sealers
	}
	v.TagMap("arc", chain)
}
