package helo_test

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/plugins/helo"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

func TestFaults(t *testing.T) {
	s := dnstest.Start(t)
	s.Add(t, "mx.hanks.example", "A 192.0.2.7")
	s.Add(t, "mx.hanks.example", "AAAA 2001:db8::7")
	s.Add(t, "six.hanks.example", "AAAA 2001:db8::8")
	s.Add(t, "hanks.example", "MX 10 mx.hanks.example.")
	s.Make("broken.example", dnstest.Servfail)
	ask := sdktest.Filter(t, helo.Plugin(), fmt.Sprintf("own = [\"mx.ryan.example\"]\nresolvers = [%q]\ndefer = [\"unknown\"]\nexcept = [\"198.51.100.0/24\"]", s.Addr()))
	for name, c := range map[string]struct{ hello, ip, rdns, want, reply string }{
		"right":                       {hello: "MX.hanks.example.", ip: "192.0.2.7", rdns: "mx.hanks.example"},
		"right by IPv6":               {hello: "mx.hanks.example", ip: "2001:db8::7", rdns: "mx.hanks.example"},
		"no name":                     {hello: "mx.hanks.example", ip: "192.0.2.7", want: "no_name"},
		"another's":                   {hello: "mx.hanks.example", ip: "192.0.2.9", rdns: "x.example", want: "other"},
		"another family":              {hello: "six.hanks.example", ip: "192.0.2.9", rdns: "x.example", want: "other"},
		"a domain with MX":            {hello: "hanks.example", ip: "192.0.2.9", rdns: "x.example", want: "other"},
		"unknown":                     {hello: "nowhere.example", ip: "192.0.2.9", rdns: "x.example", want: "unknown", reply: "450 The DNS does not know your name"},
		"no answer":                   {hello: "broken.example", ip: "192.0.2.9", rdns: "x.example"},
		"ours":                        {hello: "mx.Ryan.example", ip: "192.0.2.9", rdns: "x.example", want: "own", reply: "550 That is our name, not yours"},
		"no host name":                {hello: "localhost", ip: "192.0.2.9", rdns: "x.example", want: "syntax", reply: "550 Greet with your full host name"},
		"an address without brackets": {hello: "192.0.2.9", ip: "192.0.2.9", rdns: "x.example", want: "syntax", reply: "550 Greet with your full host name"},
		"its address":                 {hello: "[192.0.2.9]", ip: "192.0.2.9", rdns: "x.example", want: "literal"},
		"its IPv6 address":            {hello: "[IPv6:2001:db8::9]", ip: "2001:db8::9", rdns: "x.example", want: "literal"},
		"another's address":           {hello: "[192.0.2.8]", ip: "192.0.2.9", rdns: "x.example", want: "literal other"},
		"a dial-up line":              {hello: "mx.hanks.example", ip: "192.0.2.7", rdns: "p192-0-2-7.dsl.provider.example", want: "dynamic"},
		"a numbered server":           {hello: "mx.hanks.example", ip: "192.0.2.7", rdns: "mx7.192.example"},
		"a neighbour":                 {hello: "localhost", ip: "127.0.0.1"},
		"an exception":                {hello: "localhost", ip: "198.51.100.3"},
		"a socket":                    {hello: "mx.hanks.example"},
	} {
		call := sdktest.Hello()
		call.Envelope.Client = &v1.Client{Ip: c.ip, Hello: c.hello, Rdns: c.rdns}
		r, err := ask(call)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.GetTags()["helo"].GetList().GetValues(), " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		reply := ""
		if v := r.GetVerdict(); v.GetAction() != v1.Verdict_ACCEPT {
			reply = fmt.Sprintf("%d %s", v.GetReply().GetCode(), v.GetReply().GetText())
		}
		if reply != c.reply {
			t.Errorf("%s: replies %q, want %q", name, reply, c.reply)
		}
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`own = ["mx"]`: "own[0]", `own = ["192.0.2.1"]`: "own[0]", `resolvers = ["ns.example"]`: "resolvers[0]", `lookup_timeout = "0s"`: "lookup_timeout",
	} {
		if diags := sdktest.Diagnostics(t, helo.Plugin(), config); len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q", config, diags)
		}
	}
}
