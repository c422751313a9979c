package config

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func designFiles(t testing.TB) map[string]string {
	t.Helper()
	src, err := os.ReadFile("testdata/design.hcl")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := pemPair(t, time.Now().Add(time.Hour))
	return map[string]string{"design.hcl": string(src), "mx.pem": cert, "mx.key": key, "attachments": ""}
}

// pemPair makes a certificate with its key.
func pemPair(t testing.TB, until time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.ryan.example"}, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// TestCertificates: what the server could not use is found before it starts.
func TestCertificates(t *testing.T) {
	good, goodKey := pemPair(t, time.Now().Add(time.Hour))
	old, oldKey := pemPair(t, time.Now().Add(-time.Hour))
	for name, c := range map[string]struct{ cert, key, says string }{
		"fits":        {good, goodKey, ""},
		"another key": {good, oldKey, "do not belong together"},
		"no key":      {good, good, "do not belong together"},
		"text":        {good, "text", "holds no PEM key"},
		"no cert":     {"text", goodKey, "holds no PEM certificate"},
		"expired":     {old, oldKey, "ended on"},
	} {
		_, diags := load(t, map[string]string{"a.hcl": "tls \"default\" {\n  cert = \"mx.pem\"\n  key  = \"mx.key\"\n}\n",
			"rest.hcl": restOf(t), "mx.pem": c.cert, "mx.key": c.key}, "a.hcl", "rest.hcl")
		got := render(t, diags)
		if (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s:\n%s", name, got)
		}
		if diags.HasErrors() == (name == "fits" || name == "expired") {
			t.Errorf("%s: errors: %v", name, diags.HasErrors())
		}
	}
}

// TestNoText: a file in another coding is one complaint, at its place.
func TestNoText(t *testing.T) {
	for src, want := range map[string]string{
		"hostname = \"a\"\n# \xe9\n": "This file is not UTF-8 text\n  a.hcl:2:3\n",
		"\xff\xfeh\x00":              "This file is UTF-16\n  a.hcl:1:1\n",
		"queue {}\n\x00":             "A NUL byte: this file is no text\n  a.hcl:2:1\n",
		"queue {}\rlog {}\r":         "The lines of this file end with CR alone\n  a.hcl:1:9\n",
	} {
		_, diags := load(t, map[string]string{"a.hcl": src, "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
		if got := render(t, diags); len(diags) != 1 || !strings.HasPrefix(got, "Error: "+want) {
			t.Errorf("%q:\n%s", src, got)
		}
	}
	// A byte order mark, CRLF and an empty file are nothing to complain of.
	rest := restOf(t)
	for name, src := range map[string]string{"BOM": "\ufeff" + rest, "CRLF": strings.ReplaceAll(rest, "\n", "\r\n")} {
		if _, diags := load(t, map[string]string{"a.hcl": src, "empty.hcl": ""}, "a.hcl", "empty.hcl"); len(diags) != 0 {
			t.Errorf("%s:\n%s", name, render(t, diags))
		}
	}
	// Control characters stay in the file.
	_, diags := load(t, map[string]string{"a.hcl": "queue {\n  worker = \"\x1b[2J\"\n}\n", "rest.hcl": rest}, "a.hcl", "rest.hcl")
	if got := render(t, diags); strings.Contains(got, "\x1b") || !strings.Contains(got, "workers") {
		t.Errorf("%q", got)
	}
}

// TestFolder: files of one folder are one configuration, duplicates are found
// across them, and the people file that they name is none of them.
func TestFolder(t *testing.T) {
	files := map[string]string{"conf/rest.hcl": restOf(t), "conf/people.hcl": "domain \"ryan.example\" {}\n", "conf/deep/x.hcl": "nonsense"}
	c, diags := load(t, files, "conf")
	if len(diags) != 0 || len(c.Files) != 1 {
		t.Error(c.Files, render(t, diags))
	}
	files["conf/b.hcl"] = "hostname = \"b.example\"\nstorage \"local\" \"rest\" {}\nreceive \"smtp\" \"b\" {\n  listen = [\":2599\"]\n}\n"
	_, diags = load(t, files, "conf")
	got := render(t, diags)
	for _, want := range []string{"hostname is set twice; the first is at conf/b.hcl:1", "conf/rest.hcl:2:1", "A second block storage \"local\" \"rest\"; the first is at conf/b.hcl:2",
		"127.0.0.1:2599 overlaps with :2599 of receive.smtp.b at conf/b.hcl:4"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	// By its own name it is read, and is wrong.
	if _, diags = load(t, files, "conf/people.hcl"); !strings.Contains(render(t, diags), "This is a people file") {
		t.Error(render(t, diags))
	}
	for path, want := range map[string]string{"nowhere": "Cannot read nowhere", "conf/deep/none": "Cannot read"} {
		if _, diags = load(t, files, path); !strings.Contains(render(t, diags), want) {
			t.Error(render(t, diags))
		}
	}
	if _, diags = load(t, map[string]string{"conf/a.txt": ""}, "conf"); !strings.Contains(render(t, diags), "holds no .hcl file") {
		t.Error(render(t, diags))
	}
}

func TestDesignExample(t *testing.T) {
	c, diags := load(t, designFiles(t), "design.hcl")
	if len(diags) > 0 {
		t.Fatal(render(t, diags))
	}
	mx, submission := c.Receives[0], c.Receives[1]
	if len(mx.Filters) != 3 || mx.Filters[1].Ref != "filter.greylist.calm" || mx.Auth != nil || mx.RequireAuth || mx.TLS == nil {
		t.Errorf("receive mx: %+v", mx)
	}
	if !submission.RequireAuth || !submission.SenderCheck || submission.Auth.Ref != "directory.file.people" ||
		submission.Listen[0].ImplicitTLS || !submission.Listen[1].ImplicitTLS || len(submission.Recipients) != 1 ||
		submission.Hostname != "mx.ryan.example" || submission.MaxSize != 50<<20 {
		t.Errorf("receive submission: %+v", submission)
	}
	exe := c.Instance("filter.attachments.no_exe")
	if exe.OnFailure != "accept" || exe.Timeout != 5*time.Second || exe.Binary == nil || len(exe.Binary.SHA256) != 32 {
		t.Errorf("filter no_exe: %+v", exe)
	}
	if got := string(exe.ConfigJSON); got != `{"forbid":[".exe"]}` {
		t.Error("no_exe's JSON:", got)
	}
	people := c.Instance("directory.file.people").Config.GetAttr("path").AsString()
	if !filepath.IsAbs(people) || filepath.Base(people) != "people.hcl" {
		t.Error("people's path:", people)
	}
	if q := c.Queue; len(q.Retry) != 4 || q.Retry[3] != 3*time.Hour || q.Expire != 120*time.Hour || q.DelayNotice != 4*time.Hour {
		t.Errorf("queue: %+v", q)
	}
	imap, pop := c.Instance("access.imap.imap"), c.Instance("access.pop3.pop3")
	if !imap.Listen[0].ImplicitTLS || pop.Listen[0].ImplicitTLS || imap.Storage.Ref != "storage.local.mail" || imap.TLS != c.TLS[0] {
		t.Errorf("access: %+v %+v", imap, pop)
	}
	if r := c.Routes[1]; r.Deliver != c.Delivers[0] || !r.Final() || c.Routes[2].When != nil {
		t.Errorf("routes: %+v", c.Routes)
	}
	if h := c.Delivers[1].SMTP; h == nil || h.TLS != "opportunistic" || h.Port != 25 || h.Helo != "mx.ryan.example" {
		t.Errorf("deliver internet: %+v", h)
	}
	if x := c.Tests[0]; x.Expect.Deliver != c.Delivers[0] || x.Expect.Route != "here" {
		t.Errorf("test: %+v", x)
	}
	if c.Admin.Socket != "/var/lib/stagecoach/run/admin.sock" || c.Log.Level != "info" || len(c.ByKind(v1.Kind_KIND_FILTER)) != 4 {
		t.Errorf("config: %+v", c)
	}
}

func TestFolderAndOverrides(t *testing.T) {
	files := map[string]string{"conf/a.hcl": "hostname = \"mx.ryan.example\"\n", "conf/b.hcl": "data_dir = \"data\"\n", "conf/people.txt": "not HCL {"}
	o := testOptions(files)
	c, _ := Load(context.Background(), []string{"conf"}, o)
	if len(c.Files) != 2 || c.Hostname != "mx.ryan.example" || !strings.HasSuffix(c.DataDir, "/conf/data") {
		t.Errorf("%+v", c)
	}
	o.DataDir, o.Hostname = "/tmp/elsewhere", "localhost"
	if c, _ = Load(context.Background(), []string{"conf"}, o); c.DataDir != "/tmp/elsewhere" || c.Hostname != "localhost" {
		t.Errorf("%+v", c)
	}
	if _, d := Load(context.Background(), []string{"nowhere"}, o); !d.HasErrors() || d[0].Place != nil {
		t.Error("a missing file:", d)
	}
}

// TestPluginCondition: the plugin gets the text as it was written.
func TestPluginCondition(t *testing.T) {
	c, diags := load(t, map[string]string{"a.hcl": `
filter "rules" "x" {
  rule { when = tags.spf == "fail" }
  rule {
    when = (sender.null && # a notice
      length(message.headers["list-id"]) == 0)
  }
  rule {}
}
route "a" {
  filters = [filter.rules.x]
  discard = true
}
`, "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
	for _, i := range c.Instances {
		if i.Ref != "filter.rules.x" {
			continue
		}
		want := "{\"rule\":[{\"when\":\"tags.spf == \\\"fail\\\"\"},{\"when\":\"(sender.null \\u0026\\u0026 # a notice\\n      length(message.headers[\\\"list-id\\\"]) == 0)\"},{\"when\":null}]}"
		if got := string(i.ConfigJSON); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		return
	}
	t.Fatal(render(t, diags))
}

func TestPluginConfig(t *testing.T) {
	c, diags := load(t, map[string]string{"a.hcl": `
filter "headers" "a" {
  secret = "x"
  peer   = filter.greylist.b
  field "X-One" {
    value = env("SECRET")
  }
  field "X-Two" {
    value = "2"
    max   = 300
  }
}
filter "greylist" "b" {}
route "a" {
  when     = sender.null
  filters  = [filter.headers.a]
  redirect = "meg@ryan.example"
}
`, "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
	if diags.HasErrors() {
		t.Fatal(render(t, diags))
	}
	i := c.Instance("filter.headers.a")
	want := `{"field":[{"max":3,"name":"X-One","value":"sleepless"},{"max":300,"name":"X-Two","value":"2"}],` +
		`"limit":null,"match":null,"mode":"add","peer":"filter.greylist.b","secret":"x"}`
	if string(i.ConfigJSON) != want {
		t.Errorf("JSON: %s", i.ConfigJSON)
	}
	pack := "\x86\xa5field\x92\x83\xa3max\x03\xa4name\xa5X-One\xa5value\xa9sleepless" +
		"\x83\xa3max\xd3\x00\x00\x00\x00\x00\x00\x01\x2c\xa4name\xa5X-Two\xa5value\xa12" +
		"\xa5limit\xc0\xa5match\xc0\xa4mode\xa3add\xa4peer\xb1filter.greylist.b\xa6secret\xa1x"
	if string(i.ConfigMsgpack) != pack {
		t.Errorf("msgpack: %q", i.ConfigMsgpack)
	}
	if len(i.Uses) != 1 || i.Uses[0].Ref != "filter.greylist.b" {
		t.Error("uses:", i.Uses)
	}

	// A plugin's own complaint points at the line it is about.
	d := c.Locate(i.Ref, &v1.Diagnostic{Summary: "too many", Detail: "Write less.", Path: []*v1.PathStep{
		{Step: &v1.PathStep_Name{Name: "field"}}, {Step: &v1.PathStep_Index{Index: 1}}, {Step: &v1.PathStep_Name{Name: "max"}}}})
	if got := render(t, d); got != "Error: filter.headers.a: too many\n  a.hcl:10:13\n    10 |     max   = 300\n       |             ^^^\n  Write less.\n" {
		t.Error(got)
	}
	d = c.Locate(i.Ref, &v1.Diagnostic{Summary: "weak", Path: []*v1.PathStep{{Step: &v1.PathStep_Name{Name: "secret"}}}})
	if got := render(t, d); !strings.Contains(got, "secret = (hidden)") {
		t.Error("a secret is shown:", got)
	}
}

func restOf(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/rest.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// No text that people or machines read holds a value of env() or file().
func TestSecretsStayHidden(t *testing.T) {
	for _, line := range []string{
		"log {\n level = env(\"SECRET\")\n}", "queue {\n expire = env(\"SECRET\")\n}",
		"route \"a\" {\n redirect = env(\"SECRET\")\n}", "route \"a\" {\n when = env(\"SECRET\")\n discard = true\n}",
		"receive \"smtp\" \"a\" {\n listen = [env(\"SECRET\")]\n}", "receive \"smtp\" \"a\" {\n relay_from = [env(\"SECRET\")]\n}",
		"filter \"greylist\" \"a\" {\n delay = env(\"SECRET\")\n}", "test \"a\" {\n from = env(\"SECRET\")\n}",
		"route \"a\" {\n when = cidr_contains(env(\"SECRET\"), client.ip)\n discard = true\n}",
		"route \"a\" {\n reject = { code = 550, enhanced = env(\"SECRET\") }\n}",
	} {
		_, diags := load(t, map[string]string{"a.hcl": line + "\n", "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
		out := render(t, diags) + string(diags.JSON())
		if !diags.HasErrors() || strings.Contains(out, "sleepless") {
			t.Errorf("%s\n%s", line, out)
		}
	}
}

func TestJSON(t *testing.T) {
	_, diags := load(t, map[string]string{"a.hcl": "queue {\n  wrokers = 3\n}\n", "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
	var got []Diagnostic
	if err := json.Unmarshal(diags.JSON(), &got); err != nil || len(got) != 1 {
		t.Fatal(err, string(diags.JSON()))
	}
	if g := got[0]; g.Severity != Error || *g.Place != (Place{"a.hcl", 2, 3, 2, 10}) || g.Remedy != `Did you mean "workers"?` {
		t.Errorf("%+v", g)
	}
	if string(Diagnostics(nil).JSON()) != "[]\n" {
		t.Error("no diagnostics are no empty list")
	}
}

func TestFormat(t *testing.T) {
	if got := Format([]byte("queue {\nworkers=3\n   expire =\"5d\" # days\n}\n")); string(got) != "queue {\n  workers = 3\n  expire  = \"5d\" # days\n}\n" {
		t.Errorf("%s", got)
	}
	if src := []byte("queue {"); !bytes.Equal(Format(src), src) {
		t.Error("broken HCL was changed")
	}
}

func TestValues(t *testing.T) {
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "5d": 120 * time.Hour, "2w": 336 * time.Hour, "1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond, "0": 0} {
		if d, err := parseDuration(s); err != nil || d != want {
			t.Error(s, d, err)
		}
	}
	for s, want := range map[string]int64{"25MB": 25 << 20, "512KiB": 512 << 10, "1000": 1000, "1.5 GB": 3 << 29, "10k": 10240} {
		if n, err := parseSize(s); err != nil || n != want {
			t.Error(s, n, err)
		}
	}
	for _, s := range []string{"", "-5m", "m", "5", "5 m", "99999999w", ".", "1e9s"} {
		if d, err := parseDuration(s); err == nil {
			t.Errorf("%q is %s", s, d)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(designFiles(f)["design.hcl"])
	f.Add(restOf(f))
	names, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, src string) {
		c, diags := Load(context.Background(), []string{"a.hcl", "rest.hcl"}, testOptions(map[string]string{"a.hcl": src, "rest.hcl": restOf(t)}))
		if err := diags.WriteText(&bytes.Buffer{}, true); err != nil {
			t.Fatal(err)
		}
		diags.JSON()
		Format([]byte(src))
		if diags.HasErrors() {
			return
		}
		env := &Env{Sender: "tom@hanks.example", Recipient: "meg@ryan.example", Client: &v1.Client{Ip: "192.0.2.1"},
			Has: func(string, string) (bool, error) { return true, nil }}
		for _, r := range c.Routes {
			if r.When != nil {
				_, _ = r.When.Bool(env) // an error is an answer; a panic is not
			}
			for _, e := range append(append([]*Expr{}, r.Redirect...), r.Copy...) {
				_, _ = e.Strings(env)
			}
		}
	})
}

func TestMetricsListen(t *testing.T) {
	c, diags := load(t, map[string]string{"a.hcl": "metrics {\n  listen = \"127.0.0.1:9325\"\n}\n", "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
	if len(diags) > 0 {
		t.Fatal(render(t, diags))
	}
	if m := c.Metrics.Listen; m == nil || m.Network != "tcp" || m.Address != "127.0.0.1:9325" {
		t.Errorf("metrics: %+v", m)
	}
	if c, _ := load(t, designFiles(t), "design.hcl"); c.Metrics.Listen != nil {
		t.Error("a page that nobody asked for:", c.Metrics.Listen)
	}
}
