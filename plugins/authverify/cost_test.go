package authverify

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// BenchmarkFilter is what a mail costs within the filter, its DNS answers cached:
// user and system time of the process, which others on the machine do not stretch
// as they do the wall's. It has SPF, iprev, an RSA signature of 1024 bits and one
// of Ed25519, and DMARC.
func BenchmarkFilter(b *testing.B) {
	s := dnstest.Start(b)
	s.AddTXT("brisbane._domainkey.football.example.com", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	s.AddTXT("test._domainkey.football.example.com", "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB")
	s.AddTXT("_dmarc.football.example.com", "v=DMARC1; p=reject")
	s.AddTXT("hanks.example", "v=spf1 a:mail.hanks.example ip4:192.0.2.7 -all")
	s.Add(b, "7.2.0.192.in-addr.arpa", "PTR mail.hanks.example.")
	s.Add(b, "mail.hanks.example", "A 192.0.2.7")
	c := defaults()
	c.Resolvers = []string{s.Addr()}
	f, err := open(b.Context(), &sdk.Instance{Hostname: "mx.ryan.example", Config: &c, Metrics: &sdk.Metrics{}})
	if err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile("../mailauth/dkim/testdata/rfc8463.eml")
	if err != nil {
		b.Fatal(err)
	}
	ev := &filter.Event{
		Kind: v1.FilterEvent_MESSAGE, Message: mail.FromBytes(crlf(text)),
		Envelope: &v1.Envelope{Sender: "tom@hanks.example", Client: &v1.Client{Ip: "192.0.2.7", Hello: "mail.hanks.example"}},
	}
	ask := func() {
		v, err := f.Filter(b.Context(), ev)
		if err != nil {
			b.Fatal(err)
		}
		if got := fmt.Sprint(len(v.Reply().GetTags()["dkim_pass"].GetList().GetValues()), " ", v.Reply().GetTags()["spf"].GetText()); got != "1 pass" {
			b.Fatal(got)
		}
	}
	ask()
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		ask()
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

func crlf(text []byte) []byte {
	var out []byte
	for _, c := range text {
		if c == '\n' {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	return out
}

func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
