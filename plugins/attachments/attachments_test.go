package attachments_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/attachments"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// with is a mail with one attachment; header is what its part says of it.
func with(header, body string) string {
	return "From: tom@hanks.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n#! is no program here\r\n--b\r\n" +
		header + "\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(body)) + "\r\n--b--\r\n"
}

func zipped(t *testing.T, name, body string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	e, err := w.Create(name)
	if err == nil {
		_, err = io.WriteString(e, body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestVerdicts(t *testing.T) {
	const pdf = "Content-Type: application/pdf; name=\"report.pdf\""
	for name, c := range map[string]struct{ config, text, why, contents string }{
		"a report":              {"", with(pdf, "%PDF-1.7"), "", ""},
		"no attachment":         {"", "From: tom@hanks.example\r\n\r\nMZ\r\n", "", ""},
		"a program":             {"", with(pdf, "MZ\x90"), "a program", "executable"},
		"its name":              {"", with("Content-Disposition: attachment; filename*=utf-8''Setup%2eEXE", "x"), "a name like *.exe", ""},
		"its second name":       {"", with("Content-Disposition: attachment; filename=a.txt\r\nContent-Type: a/b; name=\"a.js \"", "x"), "a name like *.js", ""},
		"in an archive":         {"", with(pdf, zipped(t, "d/run.vbs", "x")), "a name like *.vbs", "archive"},
		"a program in one":      {"", with(pdf, zipped(t, "readme", "MZ")), "a program", "archive executable"},
		"a script as text":      {"", with("Content-Type: text/plain; name=notes.txt", "#!/bin/sh"), "a program", "executable"},
		"in a forwarded mail":   {"", "From: a@b.example\r\nContent-Type: message/rfc822\r\n\r\n" + with(pdf, "MZ"), "a program", "executable"},
		"an archive":            {`contents = ["archive"]`, with(pdf, zipped(t, "a", "x")), "an archive", "archive"},
		"what cannot be opened": {`contents = ["unreadable"]`, with(pdf, "Rar!\x1a\x07"), "an archive that cannot be looked into", "archive unreadable"},
		"beyond the limits":     {"contents = [\"unreadable\"]\nmax_unpacked = \"10B\"", with(pdf, zipped(t, "a", "x")), "an archive that cannot be looked into", "archive unreadable"},
		"own names":             {`names = ["secret-??.doc"]`, with("Content-Type: a/b; name=\"Secret-12.doc\"", "x"), "a name like secret-??.doc", ""},
		"nothing is refused":    {"names = []\ncontents = []\naction = \"tag\"", with(pdf, "MZ"), "", "executable"},
	} {
		for _, action := range []string{"reject", "hold", "tag"} {
			if strings.Contains(c.config, "action") && action != "tag" {
				continue
			}
			config := c.config
			if !strings.Contains(config, "action") {
				config += fmt.Sprintf("\naction = %q", action)
			}
			r, err := sdktest.Filter(t, attachments.Plugin(), config)(sdktest.Message(t, c.text))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := v1.Verdict_ACCEPT
			if c.why != "" {
				want = map[string]v1.Verdict_Action{"reject": v1.Verdict_REJECT, "hold": v1.Verdict_HOLD, "tag": v1.Verdict_ACCEPT}[action]
			}
			if got := r.GetTags()["attachment_refused"].GetText(); r.GetVerdict().GetAction() != want || got != c.why {
				t.Errorf("%s, %s: %v, because of %q, want %q", name, action, r.GetVerdict(), got, c.why)
			}
			if got := strings.Join(r.GetTags()["attachment_contents"].GetList().GetValues(), " "); got != c.contents {
				t.Errorf("%s: contents %q, want %q", name, got, c.contents)
			}
		}
	}
}

func TestTagNamesThem(t *testing.T) {
	r, err := sdktest.Filter(t, attachments.Plugin(), "")(sdktest.Message(t, with("Content-Type: application/zip; name=a.zip", zipped(t, "inner.txt", "x"))))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.GetTags()["attachments"].GetList().GetValues(); len(got) != 1 || got[0] != "a.zip" {
		t.Errorf("%q", got)
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`names = ["[a"]`: "names[0]", `names = ["a/b"]`: "names[0]", "names = []\ncontents = []": "action", `max_depth = 0`: "max_depth",
		`max_files = 0`: "max_files", `max_unpacked = "0B"`: "max_unpacked",
	} {
		if diags := sdktest.Diagnostics(t, attachments.Plugin(), config); len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q", config, diags)
		}
	}
}
