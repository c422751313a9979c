package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages says which sections of docs/configuration.md tell of a block's attributes,
// and how one with an attribute that there is not is written.
var pages = []struct {
	sections []string
	block    string
}{
	{[]string{"At the top"}, `%s`},
	{[]string{"log"}, `log { %s }`},
	{[]string{"admin"}, `admin { %s }`},
	{[]string{"metrics"}, `metrics { %s }`},
	{[]string{"dns"}, `dns { %s }`},
	{[]string{"tls"}, `tls "default" { %s }`},
	{[]string{"receive"}, `receive "smtp" "mx" { %s }`},
	{[]string{"receive"}, `receive "lmtp" "mx" { %s }`},
	{[]string{"queue"}, `queue { %s }`},
	{[]string{"queue, source"}, "queue {\n source \"*\" { %s }\n}"},
	{[]string{"route"}, `route "here" { %s }`},
	{[]string{"deliver", `deliver "storage"`}, `deliver "storage" "mail" { %s }`},
	{[]string{"deliver", `deliver "smtp" and "lmtp"`}, `deliver "smtp" "out" { %s }`},
	{[]string{"deliver", `deliver "smtp" and "lmtp"`}, `deliver "lmtp" "in" { %s }`},
	{[]string{"deliver, destination"}, "deliver \"smtp\" \"out\" {\n destination \"ryan.example\" { %s }\n}"},
	{[]string{"dns"}, "deliver \"smtp\" \"out\" {\n dns { %s }\n}"},
	{[]string{"deliver", "deliver with a plugin"}, "deliver \"pipe\" \"out\" {\n command = []\n %s\n}"},
	{[]string{"filter"}, `filter "authverify" "inbound" { %s }`},
	{[]string{"access"}, `access "imap" "imap" { %s }`},
	{[]string{"plugin"}, `plugin "own" { %s }`},
	{[]string{"sandbox"}, "filter \"authverify\" \"inbound\" {\n sandbox { %s }\n}"},
	{[]string{"observe"}, `observe { %s }`},
	{[]string{"test"}, `test "mail" { %s }`},
	{[]string{"test, expect"}, "test \"mail\" {\n expect { %s }\n}"},
}

// TestConfigurationPage: docs/configuration.md has every attribute that there is,
// and none that there is not.
func TestConfigurationPage(t *testing.T) {
	src, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	told := attributesBySection(string(src))
	seen := map[string]bool{}
	for _, p := range pages {
		text := fmt.Sprintf(p.block, "quite_unknown = 1")
		_, diags := load(t, map[string]string{"a.hcl": text + "\n"}, "a.hcl")
		var has []string
		for _, d := range diags {
			if strings.Contains(d.Text, `no attribute "quite_unknown"`) {
				has = strings.Split(strings.TrimSuffix(strings.TrimPrefix(d.Remedy, "It has: "), "."), ", ")
			}
		}
		if len(has) == 0 {
			t.Errorf("%s: nothing says what it has:\n%s", text, render(t, diags))
			continue
		}
		var page []string
		for _, name := range p.sections {
			page, seen[name] = append(page, told[name]...), true
		}
		for _, name := range has {
			if !slices.Contains(page, name) && !(name == "command" && strings.Contains(text, "pipe")) {
				t.Errorf("the page does not tell of %s in:\n%s", name, text)
			}
		}
		for _, name := range page {
			if !slices.Contains(has, name) {
				t.Errorf("the page tells of %s, which there is not in:\n%s", name, text)
			}
		}
	}
	for name := range told {
		if !seen[name] && name != "Conditions" {
			t.Errorf("nothing compares the section %q", name)
		}
	}
}

var (
	heading = regexp.MustCompile(`^#+ (.*)$`)
	row     = regexp.MustCompile("^\\| (`[a-z0-9_]+`(?:, `[a-z0-9_]+`)*) \\|")
)

// attributesBySection are the names in the first column of each section's table.
func attributesBySection(page string) map[string][]string {
	told, section := map[string][]string{}, ""
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if m := heading.FindStringSubmatch(line); m != nil {
			section = m[1]
		}
		if m := row.FindStringSubmatch(line); m != nil {
			for name := range strings.SplitSeq(m[1], ", ") {
				told[section] = append(told[section], strings.Trim(name, "`"))
			}
		}
	}
	return told
}
