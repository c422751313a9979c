package dnsbl_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/dnsbl"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const lists = `
list "bl.example" { weight = 5 }
list "other.bl.example" {
  weight = 2
  codes  = ["127.0.0.2", "127.0.0.8/30"]
}
list "wl.example" { weight = -4 }
list "dbl.example" {
  weight = 3
  of     = "sender"
}
list "dbl.example" {
  weight = 1.5
  of     = "hello"
}
list "names.example" { of = "name" }
`

func world(t *testing.T) *dnstest.Server {
	t.Helper()
	s := dnstest.Start(t)
	s.Add(t, "7.2.0.192.bl.example", "A 127.0.0.2")
	s.AddTXT("7.2.0.192.bl.example", "See https://bl.example/\x01192.0.2.7")
	s.Add(t, "8.2.0.192.other.bl.example", "A 127.0.0.3")
	s.Add(t, "9.2.0.192.other.bl.example", "A 127.0.0.10")
	s.Add(t, "10.2.0.192.bl.example", "A 127.0.0.2")
	s.Add(t, "10.2.0.192.wl.example", "A 127.0.10.1")
	s.Add(t, "11.2.0.192.bl.example", "A 127.255.255.254")
	s.Add(t, "12.2.0.192.bl.example", "A 192.0.2.99") // a zone that was sold answers with its seller
	s.Add(t, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example", "A 127.0.0.2")
	s.Add(t, "spam.example.dbl.example", "A 127.0.1.2")
	s.Add(t, "dyn.example.names.example", "A 127.0.1.2")
	s.Make("13.2.0.192.bl.example", dnstest.Servfail)
	return s
}

func TestLists(t *testing.T) {
	s := world(t)
	filter := sdktest.Filter(t, dnsbl.Plugin(), fmt.Sprintf("resolvers = [%q]\nreject_at = 5\n%s", s.Addr(), lists))
	for name, c := range map[string]struct {
		ip, sender, hello, rdns, user string
		weight                        float64
		lists, reply                  string
	}{
		"nowhere":           {ip: "192.0.2.1"},
		"listed":            {ip: "192.0.2.7", weight: 5, lists: "bl.example", reply: "Listed by bl.example: See https://bl.example/192.0.2.7"},
		"a user":            {ip: "192.0.2.7", user: "tom@hanks.example"},
		"another code":      {ip: "192.0.2.8"},
		"one of a network":  {ip: "192.0.2.9", weight: 2, lists: "other.bl.example"},
		"listed and good":   {ip: "192.0.2.10", weight: 1, lists: "bl.example wl.example"},
		"list refuses":      {ip: "192.0.2.11"},
		"a zone for sale":   {ip: "192.0.2.12"},
		"no answer":         {ip: "192.0.2.13"},
		"IPv6":              {ip: "2001:db8::1", weight: 5, lists: "bl.example", reply: "Listed by bl.example"},
		"sender":            {ip: "192.0.2.1", sender: "joe@Spam.Example", weight: 3, lists: "dbl.example"},
		"sender and hello":  {ip: "192.0.2.9", sender: "joe@spam.example", hello: "spam.example.", weight: 6.5, lists: "other.bl.example dbl.example dbl.example", reply: "Listed by dbl.example"},
		"name":              {ip: "192.0.2.1", rdns: "dyn.example", weight: 1, lists: "names.example"},
		"literals and none": {ip: "192.0.2.1", sender: "joe@[192.0.2.1]", hello: "localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			call := sdktest.Mail()
			call.Envelope.Sender = c.sender
			call.Envelope.Client = &v1.Client{Ip: c.ip, Hello: c.hello, Rdns: c.rdns, User: c.user}
			r, err := filter(call)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(r.GetTags()["dnsbl"].GetList().GetValues(), " "); got != c.lists || r.GetScore() != c.weight || r.GetTags()["dnsbl_weight"].GetNumber() != c.weight {
				t.Errorf("listed by %q, score %v, %v", got, r.GetScore(), r.GetTags())
			}
			want := v1.Verdict_ACCEPT
			if c.reply != "" {
				want = v1.Verdict_REJECT
			}
			if v := r.GetVerdict(); v.GetAction() != want || v.GetReply().GetText() != c.reply {
				t.Errorf("%v, want %s %q", v, want, c.reply)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		``:             "there is no list",
		`list "bl" {}`: `list[0]: "bl" is no zone`,
		`list "bl.example" {}
list "BL.example" {}`: "list[1]: BL.example is asked for the same twice",
		`list "bl.example" {}
resolvers = ["ns.example"]`: "resolvers[0]",
		`list "bl.example" {}
reject_at = -1`: "reject_at",
		`list "bl.example" {}
lookup_timeout = "0s"`: "lookup_timeout",
	} {
		diags := sdktest.Diagnostics(t, dnsbl.Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(strings.TrimPrefix(diags[0], ": "), want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}
