package main

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

// TestAuthverify: a mail comes over SMTP past the authverify filter's process, and
// the routes see who sent it.
func TestAuthverify(t *testing.T) {
	dns := dnstest.Start(t)
	dns.AddTXT("hanks.example", "v=spf1 ip4:127.0.0.0/8 -all")
	dns.AddTXT("_dmarc.hanks.example", "v=DMARC1; p=quarantine")
	dns.AddTXT("_dmarc.reed.example", "v=DMARC1; p=reject")
	dns.Make("_dmarc.broken.example", dnstest.Servfail)
	path, dir := queueConfig(t, `
filter "authverify" "inbound" { resolvers = ["`+dns.Addr()+`"] }
receive "smtp" "checked" {
  listen     = ["127.0.0.3:0"]
  filters    = [filter.authverify.inbound]
  relay_from = ["127.0.0.0/8"]
}
route "genuine" {
  when = tags.spf == "pass" && tags.dmarc.result == "pass" && tags.dmarc.policy == "quarantine" && tags.dkim["hanks.example"] == null
  hold = "it is Tom's"
}
route "forged" {
  when = tags.dmarc.disposition == "reject" && !contains(tags.dkim_pass, "reed.example")
  hold = "it is not Annie's"
}
route "unknown" {
  when = tags.dmarc.result == "temperror"
  hold = "nobody could say"
}
`)
	s := serveFile(t, path, dir)
	checked := &serving{smtp: s.printed(`receive\.smtp\.checked +([^ \n]+)`)}
	genuine := append([]byte("Authentication-Results: mx.ryan.example; dmarc=fail\r\n"), mailAbout("Dinner", "one")...)
	for _, mail := range [][]byte{genuine, forgedFrom("annie@reed.example"), forgedFrom("x@broken.example")} {
		if err := checked.send("meg@ryan.example", mail); err != nil {
			t.Fatal(err)
		}
	}
	// Not past the filter: no tags, and no complaint about them.
	if err := s.send("meg@ryan.example", mailAbout("Unchecked", "two")); err != nil {
		t.Fatal(err)
	}
	routes := map[string]string{}
	for _, m := range queued(t, s, 4) {
		routes[m.From+" "+m.Subject] = m.Recipients[0].Route
		if m.Subject != "Dinner" {
			continue
		}
		code, out, errs := run(t, "queue", "export", "-c", path, m.ID)
		if code != command.ExitOK || strings.Contains(out, "dmarc=fail") || !strings.Contains(out, "Authentication-Results: mx.ryan.example;") ||
			!strings.Contains(out, "spf=pass") || !strings.Contains(out, "dmarc=pass") {
			t.Errorf("exit %d, the mail is\n%s%s", code, out, errs)
		}
	}
	for mail, want := range map[string]string{
		"tom@hanks.example Dinner": "route.genuine", "annie@reed.example Forged": "route.forged", "x@broken.example Forged": "route.unknown",
		"tom@hanks.example Unchecked": "route.out",
	} {
		if got := routes[mail]; got != want && "route."+got != want {
			t.Errorf("%s went to %q, want %s (of %v)", mail, got, want, routes)
		}
	}
	if code, out, errs := run(t, "queue", "list", "-c", path, "--tag", "dmarc.disposition=reject"); code != command.ExitOK || !strings.Contains(out, "1 message,") || !strings.Contains(out, "it is not Annie's") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
}

func forgedFrom(author string) []byte {
	return []byte("From: " + author + "\r\nSubject: Forged\r\n\r\nSend money\r\n")
}
