package nexthop

import (
	"fmt"

	"github.com/emersion/go-smtp"
)

// policy is how a mail's connections are encrypted.
type policy struct {
	mode   TLSMode
	verify bool // the certificate
}

// level orders policies; implicit TLS is as good as STARTTLS that must succeed.
func (p policy) level() int {
	switch {
	case p.verify:
		return 3
	case p.mode == TLSRequired || p.mode == TLSImplicit:
		return 2
	case p.mode == TLSOpportunistic:
		return 1
	}
	return 0
}

// policy of the options, raised by what the mail asks for. A hint comes from a
// filter, which may be wrong or somebody else's: it never lowers what the
// operator or the sender (RFC 8689 section 4.2.1) wants.
func (t *Transport) policy(m *Message) (policy, error) {
	p := policy{mode: t.opts.TLS}
	insecure := t.opts.TLSConfig != nil && t.opts.TLSConfig.InsecureSkipVerify
	p.verify = (p.mode == TLSRequired || p.mode == TLSImplicit) && !insecure
	asked, ok := map[string]policy{
		"":              {mode: TLSNone},
		"none":          {mode: TLSNone},
		"opportunistic": {mode: TLSOpportunistic},
		"required":      {mode: TLSRequired},
		"verify":        {mode: TLSRequired, verify: true},
	}[m.TLSLevel]
	if !ok {
		return p, &RouteError{451, smtp.EnhancedCode{4, 3, 5},
			fmt.Sprintf("A filter asked for the TLS level %q; it may be none, opportunistic, required or verify", m.TLSLevel), nil}
	}
	if m.Options.RequireTLS {
		asked = policy{mode: TLSRequired, verify: true}
	}
	if asked.level() > p.level() {
		p.verify = asked.verify
		if p.mode != TLSImplicit {
			p.mode = asked.mode
		}
	}
	return p, nil
}

// fromHint is the one host that a filter named.
func (t *Transport) fromHint(p *Plan, nextHop string) error {
	h, err := parseHost(nextHop, t.opts.Port)
	if err != nil || h.network != "tcp" {
		return &RouteError{451, smtp.EnhancedCode{4, 3, 5},
			fmt.Sprintf("A filter named the next hop %q, which is not host:port", nextHop), err}
	}
	p.Source, p.Auth, p.Hosts = FromHint, false, []Host{h}
	return nil
}
