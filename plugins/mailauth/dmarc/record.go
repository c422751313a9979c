package dmarc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Policy is what a domain asks to be done with mail that fails.
type Policy string

// The policies.
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// less is one step down (RFC 7489 section 6.6.4).
func (p Policy) less() Policy {
	if p == PolicyReject {
		return PolicyQuarantine
	}
	return PolicyNone
}

// Record is a policy record (RFC 7489 section 6.3, RFC 9989 section 4.7).
type Record struct {
	Policy Policy // p=
	// Subdomain is sp=, Nonexistent np=; empty: not given.
	Subdomain, Nonexistent Policy
	StrictDKIM, StrictSPF  bool // adkim=s, aspf=s
	Percent                int  // pct=
	Testing                bool // t=y
	// Suffix is psd=: "y", "n" or "u".
	Suffix string
	// Aggregate and Failure are where reports go, rua= and ruf=, as they are written.
	Aggregate, Failure []string
}

// IsRecord tells whether a TXT record is a policy record: v=DMARC1 comes first.
func IsRecord(txt string) bool {
	name, rest, ok := strings.Cut(txt, "=")
	value, _, _ := strings.Cut(rest, ";")
	return ok && strings.Trim(name, " \t") == "v" && strings.Trim(value, " \t") == "DMARC1"
}

// ParseRecord reads a policy record. What is no tag is passed over; of tags that
// are not known, or have a value that is not, the default counts, but for p=, sp= and np=: with a wrong one the
// record asks for nothing but reports, and is none if it names nobody to get them
// (RFC 7489 section 6.6.3).
func ParseRecord(txt string) (*Record, error) {
	if !IsRecord(txt) {
		return nil, errors.New("it does not begin with v=DMARC1")
	}
	tags := map[string]string{}
	for tag := range strings.SplitSeq(txt, ";") {
		name, value, ok := strings.Cut(tag, "=")
		name = strings.Trim(name, " \t")
		if _, twice := tags[name]; ok && !twice {
			tags[name] = strings.Trim(value, " \t")
		}
	}
	r := &Record{Policy: PolicyNone, Percent: 100, Suffix: "u"}
	is := func(name, value string) bool { return strings.EqualFold(tags[name], value) }
	for name, to := range map[string]*[]string{"rua": &r.Aggregate, "ruf": &r.Failure} {
		for uri := range strings.SplitSeq(tags[name], ",") {
			if uri = strings.TrimSpace(uri); strings.Contains(uri, ":") {
				*to = append(*to, uri)
			}
		}
	}
	for name, to := range map[string]*Policy{"p": &r.Policy, "sp": &r.Subdomain, "np": &r.Nonexistent} {
		v, ok := tags[name]
		if !ok {
			continue
		}
		switch p := Policy(strings.ToLower(v)); p {
		case PolicyNone, PolicyQuarantine, PolicyReject:
			*to = p
		default:
			if len(r.Aggregate) == 0 {
				return nil, fmt.Errorf("%s=%.20s is no policy", name, v)
			}
			return &Record{Policy: PolicyNone, Percent: 100, Suffix: "u", Aggregate: r.Aggregate, Failure: r.Failure}, nil
		}
	}
	r.StrictDKIM, r.StrictSPF, r.Testing = is("adkim", "s"), is("aspf", "s"), is("t", "y")
	if is("psd", "y") || is("psd", "n") {
		r.Suffix = strings.ToLower(tags["psd"])
	}
	if n, err := strconv.Atoi(tags["pct"]); err == nil && n >= 0 && n <= 100 {
		r.Percent = n
	}
	return r, nil
}

// policy for the record's own domain, or for one below it, which may not exist.
func (r *Record) policy(subdomain, nonexistent bool) Policy {
	switch {
	case !subdomain:
		return r.Policy
	case nonexistent && r.Nonexistent != "":
		return r.Nonexistent
	case r.Subdomain != "":
		return r.Subdomain
	}
	return r.Policy
}
