package arc_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/arc"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, dnstest.Outlives()) }

// scenario is a document of ValiMail's arc_test_suite. Tests is a node: some of
// its names stand there twice.
type scenario struct {
	Description string
	Tests       yaml.Node
	Records     map[string]string `yaml:"txt-records"`
}

type suiteCase struct{ Spec, Description, Message, CV string }

// TestSuite runs SUITES/arc: 175 cases under 171 names.
func TestSuite(t *testing.T) {
	dir := os.Getenv("SUITES")
	if dir == "" {
		t.Log("SUITES names no folder: only the chain of the other tests was tried")
		return
	}
	b, err := os.ReadFile(filepath.Join(dir, "arc", "arc-draft-validation-tests.yml"))
	if err != nil {
		t.Fatal(err)
	}
	good, cases := map[string]bool{}, 0
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var s scenario
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		server := dnstest.Start(t)
		for name, record := range s.Records {
			server.AddTXT(name, record)
		}
		v := &arc.Verifier{Resolver: server.Client(t)}
		for i := 0; i+1 < len(s.Tests.Content); i += 2 {
			name := s.Tests.Content[i].Value
			var c suiteCase
			if err := s.Tests.Content[i+1].Decode(&c); err != nil {
				t.Fatal(err)
			}
			cases++
			held := t.Run(name, func(t *testing.T) { runCase(t, v, c) })
			if before, again := good[name]; again {
				held = held && before
			}
			good[name] = held
		}
	}
	passed := 0
	for _, held := range good {
		if held {
			passed++
		}
	}
	t.Logf("arc-draft-validation-tests.yml: %d/%d (%d cases)", passed, len(good), cases)
	if passed != 171 || len(good) != 171 || cases != 175 {
		t.Errorf("%d of %d names hold in %d cases, want 171 in 175", passed, len(good), cases)
	}
}

func runCase(t *testing.T, v *arc.Verifier, c suiteCase) {
	got := validate(t, v, c.Message)
	want := arc.Result(strings.ToLower(strings.TrimSpace(c.CV)))
	if want == "" {
		// The suite leaves three chains open whose last seal says cv=fail. RFC 8617
		// section 5.2 step 2 does not.
		want = arc.Fail
	}
	if got.Result != want || (got.Result == arc.Fail) != (got.Reason != "") {
		t.Errorf("%+v, want %s", got, want)
	}
}

func validate(t *testing.T, v *arc.Verifier, text string) arc.Outcome {
	t.Helper()
	m, err := message.Read(strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func FuzzVerify(f *testing.F) {
	set := "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=lists.reed.example; s=s; b=AAAA\nARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/simple; d=lists.reed.example; s=s; h=from:subject; bh=AAAA; b=AAAA\nARC-Authentication-Results: i=1; lists.reed.example; spf=pass\n"
	f.Add([]byte(set + "From: tom@hanks.example\n\nHello\n"))
	f.Add([]byte(strings.ReplaceAll(set, "i=1", "i=2") + set + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := message.Read(bytes.NewReader(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))))
		if err != nil {
			return
		}
		got, err := (&arc.Verifier{Resolver: dns.None{}}).Verify(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case got.Result == arc.Pass:
			t.Fatalf("a chain without a key passes: %q", text)
		case got.Result == arc.Fail && got.Reason == "", got.Result != arc.Fail && got.Result != arc.None, got.Sets > arc.MaxSets:
			t.Fatalf("%+v", got)
		}
	})
}
