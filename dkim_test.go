package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

// TestDKIM: an operator makes keys, publishes and checks them, and a mail of their
// network comes out of the queue with signatures that verify.
func TestDKIM(t *testing.T) {
	dns := dnstest.Start(t)
	keys := filepath.Join(t.TempDir(), "dkim")
	dkimCommand := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := run(t, append([]string{"dkim", "--keys", keys}, args...)...)
		if code != want {
			t.Fatalf("dkim %s: exit %d\n%s%s", args, code, out, errs)
		}
		return out + errs
	}
	if out := dkimCommand(command.ExitFailed, "check"); !strings.Contains(out, "there are no keys in "+keys+": `stagecoach dkim new DOMAIN` makes one") {
		t.Errorf("without a folder: %s", out)
	}
	code, made, errs := run(t, "dkim", "--keys", keys, "new", "hanks.example", "--selector", "a", "--bits", "1024", "--json")
	if code != command.ExitOK {
		t.Fatal(errs)
	}
	var list []command.SigningKey
	if err := json.Unmarshal([]byte(made), &list); err != nil || len(list) != 2 {
		t.Fatal(err, made)
	}
	if out := dkimCommand(command.ExitTest, "check", "hanks.example", "--resolver", dns.Addr()); !strings.Contains(out, "2 of the keys that sign are not published") {
		t.Error(out)
	}
	for _, k := range list {
		if !k.Signs {
			t.Errorf("the first key of its type does not sign: %+v", k)
		}
		dns.AddTXT(k.Name, k.Record)
	}
	if out := dkimCommand(command.ExitOK, "check", "--resolver", dns.Addr()); strings.Count(out, "as it should be") != 2 {
		t.Error(out)
	}
	if out := dkimCommand(command.ExitOK, "new", "hanks.example", "--selector", "b", "--type", "ed25519"); !strings.Contains(out, "b.pem.next: it waits: rename it to b.pem") {
		t.Error(out)
	}
	if out := dkimCommand(command.ExitOK, "dns", "Hanks.Example"); strings.Count(out, "._domainkey.hanks.example.\tIN\tTXT\t( \"v=DKIM1; k=") != 3 {
		t.Error(out)
	}
	// A key that waits is no fault, published or not.
	if out := dkimCommand(command.ExitOK, "check", "--resolver", dns.Addr()); !strings.Contains(out, "there is no key") {
		t.Error(out)
	}
	if out := dkimCommand(command.ExitFailed, "dns", "reed.example"); !strings.Contains(out, "`stagecoach dkim new reed.example` makes one") {
		t.Error(out)
	}
	// The server may run as another user than the one who tests.
	if err := os.Chmod(keys, 0o755); err != nil {
		t.Fatal(err)
	}
	path, dir := queueConfig(t, `
filter "dkimsign" "ours" {
  keys     = "`+keys+`"
  networks = ["127.0.0.0/8"]
}
receive "smtp" "submission" {
  listen     = ["127.0.0.3:0"]
  filters    = [filter.dkimsign.ours]
  relay_from = ["127.0.0.0/8"]
}
route "signed" {
  when = tags.dkim_signed == "hanks.example"
  hold = "to look at"
}
`)
	s := serveFile(t, path, dir)
	in := &serving{smtp: s.printed(`receive\.smtp\.submission +([^ \n]+)`)}
	if err := in.send("meg@ryan.example", mailAbout("Dinner", "one")); err != nil {
		t.Fatal(err)
	}
	m := queued(t, s, 1)[0]
	if m.Recipients[0].Route != "signed" {
		t.Errorf("route %q", m.Recipients[0].Route)
	}
	code, text, errs := run(t, "queue", "export", "-c", path, m.ID)
	if code != command.ExitOK {
		t.Fatal(errs)
	}
	_, text, _ = strings.Cut(text, "DKIM-Signature:") // an mbox begins otherwise
	parsed, err := message.Read(strings.NewReader("DKIM-Signature:" + strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := (&dkim.Verifier{Resolver: dns.Client(t)}).Verify(t.Context(), parsed)
	if err != nil || len(verdicts) != 2 {
		t.Fatal(err, verdicts)
	}
	for _, v := range verdicts {
		if v.Result != dkim.Pass {
			t.Errorf("%s %s: %s %s\n%s", v.Signature.Domain, v.Signature.Selector, v.Result, v.Reason, text)
		}
	}
}
