package scaffold

import (
	"bytes"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// checkout is this one.
const checkout = "../.."

// write makes a project in a temporary folder.
func write(t *testing.T, o Options) *Project {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "project")
	if o.Lang == "go" {
		o.SDK = checkout
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// offline runs a command in a project: Go finds what it needs in the checkout and
// in what built the checkout, or fails.
func offline(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off", "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// again are checks of TestConformance that a filter, whose project runs them all, has
// passed with the same SDK, and those that a storage's own test makes without a
// process. They would take half of the time.
const again = `TestConformance/(leaks|end|storage):`

// TestGoProjects: each kind's project is formatted, vetted, and passes its own
// tests, of which one is the conformance of the built program.
func TestGoProjects(t *testing.T) {
	for _, kind := range Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := write(t, Options{Kind: kind, Name: "my-" + kind, Lang: "go"})
			for _, f := range p.Files {
				text, err := os.ReadFile(filepath.Join(p.Dir, f))
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Ext(f) != ".go" {
					continue
				}
				if clean, err := format.Source(text); err != nil || !bytes.Equal(clean, text) {
					t.Errorf("%s is not gofmt'ed: %v", f, err)
				}
			}
			offline(t, p.Dir, "go", "vet", ".")
			args := []string{"test", "-count=1", "-v"}
			if kind != "filter" {
				args = append(args, "-skip", again)
			}
			out := offline(t, p.Dir, "go", append(args, ".")...)
			if !strings.Contains(out, "--- PASS: TestConformance ") {
				t.Errorf("it was not tried against the contract:\n%s", out)
			}
		})
	}
}

// word of a template.
var word = regexp.MustCompile(`@[A-Z]+@`)

// TestProjects: there is a project of each kind in each language, its README has the
// usual sections in their order, and its files hold what they promise.
func TestProjects(t *testing.T) {
	for _, lang := range Languages() {
		for _, kind := range Kinds {
			p := write(t, Options{Kind: kind, Name: "my_" + kind, Lang: lang})
			text, err := os.ReadFile(filepath.Join(p.Dir, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			at := 0
			for _, heading := range []string{"## Name", "## Description", "## Syntax", "## Examples", "## Metrics", "## Development"} {
				i := strings.Index(string(text), "\n"+heading+"\n")
				if i < at {
					t.Errorf("%s %s: %q is missing or out of order", lang, kind, heading)
				}
				at = i
			}
			// All words are filled in, and the configurations can be read.
			for _, f := range p.Files {
				text := must(t, filepath.Join(p.Dir, f))
				if w := word.Find(text); w != nil {
					t.Errorf("%s %s: %s has %s", lang, kind, f, w)
				}
				if filepath.Ext(f) == ".hcl" {
					if _, diags := hclsyntax.ParseConfig(text, f, hcl.InitialPos); diags.HasErrors() {
						t.Errorf("%s %s: %v", lang, kind, diags)
					}
				}
			}
			if info, err := os.Stat(filepath.Join(p.Dir, p.Program)); lang != "go" && (err != nil || info.Mode()&0o111 == 0) {
				t.Errorf("%s %s: %s is no program: %v", lang, kind, p.Program, err)
			}
			if !strings.Contains(p.Config, kind+` "my_`+kind+`" "my" {`) || !strings.Contains(p.Config, `path = "`+filepath.Join(p.Dir, p.Program)+`"`) {
				t.Errorf("%s %s: its configuration is\n%s", lang, kind, p.Config)
			}
		}
	}
}

// TestModules: a project requires what the SDK is built from, no more and no less.
func TestModules(t *testing.T) {
	packages := []string{
		modulePath + "/sdk/sdktest", modulePath + "/sdk/conform/program", modulePath + "/sdk/mime", modulePath + "/sdk/storage/storagetest",
	}
	out := offline(t, checkout, "go", append([]string{"list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}"}, packages...)...)
	want := strings.Fields(out)
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(sdkModules, want) {
		t.Errorf("sdkModules is\n%s\nand should be\n%s", strings.Join(sdkModules, "\n"), strings.Join(want, "\n"))
	}
}

// TestPublished: without a checkout a project requires the version, and says what
// to do about the rest.
func TestPublished(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "subject")
	p, err := New(Options{Kind: "filter", Name: "subject", Lang: "go", Dir: dir, Version: "v1.2.3", Module: "hanks.example/subject"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	want := "module hanks.example/subject\n\ngo " + goVersion + "\n\nrequire " + modulePath + " v1.2.3\n"
	if string(text) != want || !strings.Contains(p.Note, "go mod tidy") {
		t.Errorf("go.mod is\n%s\nand the note %q", text, p.Note)
	}
	version, _ := readModule(string(must(t, filepath.Join(checkout, "go.mod"))))
	if version != goVersion {
		t.Errorf("the checkout needs Go %s, a published project says %s", version, goVersion)
	}
}

func must(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRefused: what cannot be written is refused with a remedy, before anything is.
func TestRefused(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    Options
		says string
	}{
		{Options{Kind: "filters", Name: "subject"}, "name one of filter, storage"},
		{Options{Kind: "filter", Name: "1st"}, "a letter, then"},
		{Options{Kind: "filter", Name: "no/path"}, "a letter, then"},
		{Options{Kind: "filter", Name: strings.Repeat("x", 64)}, "at most 62"},
		{Options{Kind: "filter", Name: "imap", Taken: []string{"imap"}}, "take another name"},
		{Options{Kind: "filter", Name: "subject", Lang: "perl"}, "name one of go, node, python"},
		{Options{Kind: "filter", Name: "subject", Lang: "python", Module: "hanks.example/subject"}, "only Go has modules"},
		{Options{Kind: "filter", Name: "subject", Lang: "python", SDK: checkout}, "leave --sdk out"},
		{Options{Kind: "filter", Name: "subject", Module: "a b"}, "module path"},
		{Options{Kind: "filter", Name: "subject", Dir: full}, "--dir"},
		{Options{Kind: "filter", Name: "subject", SDK: full}, "no checkout of Stagecoach"},
	} {
		o := c.o
		if o.Lang == "" {
			o.Lang = "go"
		}
		if o.Dir == "" {
			o.Dir = filepath.Join(t.TempDir(), "project")
		}
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.says)
		}
		if _, err := os.Stat(o.Dir); o.Dir != full && err == nil {
			t.Errorf("%+v: the folder was made", c.o)
		}
	}
}
