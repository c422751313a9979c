package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

// withPart is a mail whose second part has these header fields.
func withPart(fields string) string {
	return "From: tom@hanks.example\nSubject: Have a look\nMIME-Version: 1.0\n" +
		"Content-Type: multipart/mixed; boundary=b\n\n" +
		"--b\nContent-Type: text/plain\n\nHello Meg\n--b\n" + fields + "\n\nTVqQAA==\n--b--\n"
}

func TestVerdicts(t *testing.T) {
	ask := sdktest.Filter(t, plugin, `forbid = [".exe", ".tar.gz"]`)
	const octets = "Content-Type: application/octet-stream\n"
	for name, c := range map[string]struct {
		fields  string
		refused string // part of the reply; "" if the mail passes
	}{
		"a document":               {octets + `Content-Disposition: attachment; filename="report.pdf"`, ""},
		"no name":                  {"Content-Type: image/png", ""},
		"name without ending":      {octets + "Content-Disposition: attachment; filename=exe", ""},
		"the ending in the middle": {octets + "Content-Disposition: attachment; filename=evil.exe.readme", ""},
		"forbidden":                {octets + "Content-Disposition: attachment; filename=evil.exe", ".exe"},
		"in capitals":              {octets + "Content-Disposition: inline; filename=EVIL.EXE", ".exe"},
		"name of the type":         {"Content-Type: application/octet-stream; name=evil.exe", ".exe"},
		"two dots":                 {octets + "Content-Disposition: attachment; filename=src.tar.gz", ".tar.gz"},
		"dots and blanks after it": {octets + `Content-Disposition: attachment; filename="evil.exe. ."`, ".exe"},
		"encoded word":             {octets + `Content-Disposition: attachment; filename="=?utf-8?b?ZXZpbC5leGU=?="`, ".exe"},
		"extended":                 {octets + "Content-Disposition: attachment; filename*=utf-8'en'evil%2Eexe", ".exe"},
		"continued":                {octets + "Content-Disposition: attachment;\n filename*1=l.exe;\n filename*0*=utf-8''e%76i", ".exe"},
		"plain beside extended":    {octets + "Content-Disposition: attachment; filename=a.txt; filename*=utf-8''evil.exe", ".exe"},
		"right to left":            {octets + "Content-Disposition: attachment; filename*=utf-8''invoice%E2%80%AEcod.exe", ".exe"},
		"two endings":              {octets + "Content-Disposition: attachment; filename=report.pdf.htm", "two endings"},
		"two endings and blanks":   {octets + `Content-Disposition: attachment; filename="report.pdf          .scr"`, "two endings"},
		"the same ending twice":    {octets + "Content-Disposition: attachment; filename=report.pdf.pdf", ""},
		"packed document":          {octets + "Content-Disposition: attachment; filename=report.pdf.gz", ""},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := ask(sdktest.Message(t, withPart(c.fields)))
			if err != nil {
				t.Fatal(err)
			}
			check(t, reply.GetVerdict(), c.refused)
		})
	}
}

func check(t *testing.T, v *v1.Verdict, refused string) {
	t.Helper()
	if refused == "" {
		if v.GetAction() != v1.Verdict_ACCEPT {
			t.Errorf("%s %q, want accepted", v.GetAction(), v.GetReply().GetText())
		}
		return
	}
	if v.GetAction() != v1.Verdict_REJECT || v.GetReply().GetCode() != 550 || !strings.Contains(v.GetReply().GetText(), refused) {
		t.Errorf("%s %d %q, want 550 with %q", v.GetAction(), v.GetReply().GetCode(), v.GetReply().GetText(), refused)
	}
}

// A forwarded mail is looked into, and a message above the inline limit comes as
// a file: nothing changes.
func TestForwardedAndLarge(t *testing.T) {
	ask := sdktest.Filter(t, plugin, `forbid = [".exe"]`)
	inner := withPart("Content-Type: application/octet-stream; name=evil.exe")
	forwarded := "Content-Type: multipart/mixed; boundary=outer\n\n--outer\n\n" +
		strings.Repeat("A line of a longer story.\n", mail.InlineLimit/20) +
		"--outer\nContent-Type: message/rfc822\n\n" + inner + "--outer--\n"
	call := sdktest.Message(t, forwarded)
	if call.GetMessage().GetPath() == "" {
		t.Fatal("the message is not large enough to be a file")
	}
	reply, err := ask(call)
	if err != nil {
		t.Fatal(err)
	}
	check(t, reply.GetVerdict(), ".exe")
}

func TestTooManyParts(t *testing.T) {
	ask := sdktest.Filter(t, plugin, "forbid = [\".exe\"]\nmax_parts = 3")
	two := withPart("Content-Type: text/html")
	reply, err := ask(sdktest.Message(t, two))
	if err != nil {
		t.Fatal(err)
	}
	check(t, reply.GetVerdict(), "")
	reply, err = ask(sdktest.Message(t, strings.Replace(two, "--b--", "--b\n\nmore\n--b--", 1)))
	if err != nil {
		t.Fatal(err)
	}
	check(t, reply.GetVerdict(), "more parts")
}

func TestConformance(t *testing.T) {
	sdktest.Conform(t, plugin, `forbid = [".exe"]`, conform.Facts{})
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`forbid = []`:                          "forbid: nothing is forbidden",
		`forbid = [".exe", "*.js"]`:            `forbid[1]: an ending begins with a dot: ".js"`,
		"forbid = [\".exe\"]\nmax_parts = 0":   "max_parts: write a number",
		"forbid = [\".exe\"]\ndecoys = [\"\"]": "decoys[0]: an ending begins with a dot",
	} {
		got := sdktest.Diagnostics(t, plugin, config)
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%s:\n got  %q\n want %q", config, got, want)
		}
	}
}
