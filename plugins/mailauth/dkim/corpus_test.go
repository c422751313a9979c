package dkim_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

// verify reads a message with LF or CRLF line ends.
func verify(t *testing.T, v *dkim.Verifier, text []byte) []dkim.Verdict {
	t.Helper()
	text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	m, err := message.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestVector is the message of RFC 8463 appendix A.3, signed with both kinds of
// key.
func TestVector(t *testing.T) {
	s := dnstest.Start(t)
	s.AddTXT("brisbane._domainkey.football.example.com", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	s.AddTXT("test._domainkey.football.example.com", "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"+
		"iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hs"+
		"tT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB")
	b, err := os.ReadFile("testdata/rfc8463.eml")
	if err != nil {
		t.Fatal(err)
	}
	got := verify(t, &dkim.Verifier{Resolver: s.Client(t)}, b)
	if len(got) != 2 || got[0].Result != dkim.Pass || got[1].Result != dkim.Pass || got[1].Bits != 1024 {
		t.Errorf("%+v", got)
	}
}

// TestCorpus takes Mail::DKIM's corpus from SUITES=DIR. Its files are old:
// they are read as archives are (Historic), and the verdict is the one
// in the file's name, with two exceptions: see expected. Read as mail of today, no
// file passes but the one with an Ed25519 key: all others are signed with rsa-sha1,
// with keys of 512 or 768 bits, or in a form that RFC 6376 knows no longer.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("SUITES")
	if dir == "" {
		t.Log("SUITES names no folder: only testdata was tried")
		return
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	server := fakeDNS(t, filepath.Join(dir, "dkim", "FAKE_DNS.dat"))
	resolver := server.Client(t)
	files, err := filepath.Glob(filepath.Join(dir, "dkim", "corpus", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		passed += held(t.Run(name, func(t *testing.T) { corpusFile(t, resolver, file, name) }))
	}
	t.Logf("%d/79 files of the corpus", passed)
	if passed != 79 || len(files) != 79 {
		t.Errorf("%d of %d files hold, want 79", passed, len(files))
	}
}

func held(good bool) int {
	if good {
		return 1
	}
	return 0
}

func corpusFile(t *testing.T, resolver dns.Resolver, file, name string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := verify(t, &dkim.Verifier{Resolver: resolver, MinRSABits: 512, Historic: true}, b)
	result, want := "none", expected(name)
	for _, v := range got {
		if result = "bad"; v.Result == dkim.Pass {
			result = "good"
			break
		}
	}
	if result != want {
		t.Errorf("%s, want %s: %+v", result, want, got)
	}
	for _, v := range verify(t, &dkim.Verifier{Resolver: resolver}, b) {
		if (v.Result == dkim.Pass) != (name == "goodkey_ed25519") {
			t.Errorf("today: %s %s", v.Result, v.Reason)
		}
	}
}

// expected reads the verdict in a file's name.
func expected(name string) string {
	switch kind, _, _ := strings.Cut(name, "_"); {
	case strings.Contains(name, "dk_"):
		// DomainKeys (RFC 4870, historic) is another protocol: to DKIM the mail is
		// unsigned.
		return "none"
	case strings.HasPrefix(name, "good_ietf00"):
		// Signatures without bh=, by a draft that nobody verifies any more, the
		// corpus's own program included.
		return "bad"
	case kind == "good", strings.HasPrefix(kind, "goodkey"), kind == "mine", kind == "multiple", kind == "no":
		return "good"
	default: // bad, badkey, ignore
		return "bad"
	}
}

// fakeDNS serves the corpus's keys.
func fakeDNS(t *testing.T, file string) *dnstest.Server {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := dnstest.Start(t)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		switch value = strings.TrimSpace(value); {
		case value == "NXDOMAIN":
		case strings.HasPrefix(value, "~~"):
			s.Make(name, dnstest.Servfail)
		case value == `""`:
			s.AddTXT(name, "")
		default:
			s.AddTXT(name, value)
		}
	}
	return s
}
