package mime

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"user@domain", "||user|domain"},
		{"From Real <fromuser@fromdomain.org>", "|From Real|fromuser|fromdomain.org"},
		{`"Last, First" <a@b>, c@d`, "|Last, First|a|b ||c|d"},
		{"user@domain (Real Name)", "|Real Name|user|domain"},
		{"group: g1@d1.org, g2@d2.org;, group2: g3@d3.org;", "START||group| ||g1|d1.org ||g2|d2.org END||| START||group2| ||g3|d3.org END|||"},
		{"group:;, group2: (foo) ;", "START||group| END||| START||group2| END|||"},
		{"<@route:user@domain>", "via @route||user|domain"},
		{"Tom <@a.example, @b.example : user@domain>", "via @a.example,@b.example|Tom|user|domain"},
		{"<user@a@b>", "||user|b"},
		{"<user-from (comment)@ (comment) domain.org>", "|comment|user-from|domain.org"},
		{"<>", ""},
		{"just words", "||just words|"},
		{`"a b"@c`, "||a b|c"},
		{"a@[192.0.2.1]", "||a|[192.0.2.1]"},
		{"Unclosed <a@b, c@d", "|Unclosed|a|b ||c|d"},
		{"J\xf6rg <j@x>", "|J\xf6rg|j|x"},
		{"undisclosed-recipients:;", "START||undisclosed-recipients| END|||"},
		{"open: a@b", "START||open| ||a|b END|||"},
		{",,a@b,,", "||a|b"},
	} {
		var got []string
		for _, a := range parseAddresses([]byte(c.in), 100) {
			g := ""
			if a.Group != v1.MailAddress_NONE {
				g = a.Group.String()
			}
			if len(a.Route) > 0 {
				g += "via " + string(a.Route)
			}
			got = append(got, fmt.Sprintf("%s|%s|%s|%s", g, a.Name, a.LocalPart, a.Domain))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q: got %q, want %q", c.in, s, c.want)
		}
	}
}

func TestParams(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`Text/Plain; CharSet="utf-8"; format=flowed`, "text/plain charset=utf-8 format=flowed"},
		{"text/plain; charset=us-ascii (Plain text)", "text/plain charset=us-ascii"},
		{`multipart/mixed; boundary="a;b\"c"; x=y`, `multipart/mixed boundary=a;b"c x=y`},
		{"attachment; filename=my file.pdf; size=3", "attachment filename=my file.pdf size=3"},
		{"attachment; filename*0*=utf-8''a%20; filename*1=b", "attachment filename*0*=utf-8''a%20 filename*1=b"},
		{"text/plain;; ;charset=x;", "text/plain charset=x"},
		{`text/plain; name="open`, "text/plain name=open"},
		{"text/plain; noequals; charset=x", "text/plain charset=x"},
	} {
		got, params := parseParams([]byte(c.in))
		for _, p := range params {
			got += " " + p.Name + "=" + string(p.Value)
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestPreview(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"\n  Hello\n\n  world \n", "Hello world"},
		{"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=\n=DFe", "Grüße"},
		{"Content-Type: text/html\n\n<html><head><title>no</title></head><style>p{}</style><p>Yes &amp; <b>no</b></p>", "Yes & no"},
		{"Content-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/html\n\n<p>html</p>\n--a\n\nplain\n--a--\n", "plain"},
		{"Content-Type: application/pdf\n\n%PDF", ""},
		{"\n" + strings.Repeat("é", 300), strings.Repeat("é", 200)},
	} {
		r, err := Summarize(strings.NewReader(crlf(c.in)))
		if err != nil || r.Preview != c.want {
			t.Errorf("%.60q: preview %q %v, want %q", c.in, r.Preview, err, c.want)
		}
	}
}
