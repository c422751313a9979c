package spf_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/spf"
	"github.com/stagecoach-mta/stagecoach/sdk/dns/dnstest"
)

// scenario is a document of the RFC 7208 test suite.
type scenario struct {
	Description string
	Tests       map[string]struct {
		Helo, Host, MailFrom string
		Result               any // a string or a list of them
		Explanation          string
	}
	ZoneData map[string][]any
}

// TestSuite runs testdata/own.yml, and with SUITES=DIR all of DIR/spf/rfc7208-tests.yml.
func TestSuite(t *testing.T) {
	runSuite(t, "testdata/own.yml", 7)
	if dir := os.Getenv("SUITES"); dir != "" {
		runSuite(t, filepath.Join(dir, "spf", "rfc7208-tests.yml"), 203)
	}
}

func runSuite(t *testing.T, file string, want int) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var s scenario
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		server := dnstest.Start(t)
		server.Zone(t, s.ZoneData)
		c := &spf.Checker{Resolver: server.Client(t), Receiver: "mx.ryan.example"}
		for name, tc := range s.Tests {
			good := t.Run(s.Description+"/"+name, func(t *testing.T) {
				out := c.Check(t.Context(), spf.Query{IP: netip.MustParseAddr(tc.Host), Hello: tc.Helo, Sender: tc.MailFrom})
				var results []string
				switch r := tc.Result.(type) {
				case string:
					results = []string{r}
				case []any:
					for _, x := range r {
						results = append(results, x.(string))
					}
				}
				if !slices.Contains(results, string(out.Result)) {
					t.Errorf("%s, want %q: %+v", out.Result, results, out)
				}
				explanation := tc.Explanation
				if explanation == "DEFAULT" {
					explanation = ""
				}
				if tc.Explanation != "" && out.Explanation != explanation {
					t.Errorf("explanation %q, want %q", out.Explanation, explanation)
				}
			})
			if good {
				passed++
			}
		}
	}
	t.Logf("%s: %d/%d", filepath.Base(file), passed, want)
	if passed != want {
		t.Errorf("%s: %d cases hold, want %d", file, passed, want)
	}
}
