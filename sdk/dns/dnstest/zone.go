package dnstest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Zone adds the records of a suite's zone data: for each name a list of "TIMEOUT"
// (every type that it has no record of fails) and of maps from a type to a value.
// SPF records stand for TXT records where a name has none of those (the suite was
// written when there was a type of that name); "TXT: NONE" prevents that.
func (s *Server) Zone(t testing.TB, zone map[string][]any) {
	t.Helper()
	for name, entries := range zone {
		hasTXT := false
		for _, e := range entries {
			if m, ok := e.(map[string]any); ok && m["TXT"] != nil {
				hasTXT = true
			}
		}
		name = wireName(name)
		for _, e := range entries {
			if e == "TIMEOUT" {
				s.Make(name, Servfail)
				continue
			}
			m, ok := e.(map[string]any)
			if !ok {
				t.Fatalf("%s: %v is no record", name, e)
			}
			for qtype, value := range m {
				if qtype == "SPF" {
					if hasTXT {
						continue
					}
					qtype = "TXT"
				}
				if err := s.zoneRecord(name, qtype, value); err != nil {
					t.Fatalf("%s %s %v: %v", name, qtype, value, err)
				}
			}
		}
	}
}

func (s *Server) zoneRecord(name, qtype string, value any) error {
	h := dns.RR_Header{Name: dns.Fqdn(name), Class: dns.ClassINET, Ttl: 60, Rrtype: dns.StringToType[qtype]}
	text, _ := value.(string)
	list, _ := value.([]any)
	switch qtype {
	case "A", "AAAA":
		a, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		s.AddAddr(name, a)
	case "TXT":
		if text == "NONE" {
			return nil
		}
		parts := []string{text}
		if value == nil || list != nil {
			parts = nil
		}
		for _, p := range list {
			parts = append(parts, fmt.Sprint(p))
		}
		s.AddTXT(name, parts...)
	case "MX":
		if len(list) != 2 {
			return fmt.Errorf("want a preference and a host")
		}
		pref, _ := list[0].(int)
		s.AddRR(&dns.MX{Hdr: h, Preference: uint16(pref), Mx: dns.Fqdn(fmt.Sprint(list[1]))})
	case "PTR":
		s.AddRR(&dns.PTR{Hdr: h, Ptr: dns.Fqdn(text)})
	case "CNAME":
		s.AddRR(&dns.CNAME{Hdr: h, Target: dns.Fqdn(text)})
	default:
		return fmt.Errorf("this type is not known here")
	}
	return nil
}

// wireName is a name in the form in which questions for it arrive.
func wireName(name string) string {
	name = strings.TrimSuffix(name, ".")
	wire := make([]byte, 0, len(name)+2)
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > 63 {
			return name // nobody can ask for it
		}
		wire = append(append(wire, byte(len(label))), label...)
	}
	out, _, err := dns.UnpackDomainName(append(wire, 0), 0)
	if err != nil {
		return name
	}
	return out
}
