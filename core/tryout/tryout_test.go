package tryout

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/config"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// tree writes files; a name that ends in * may be executed.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, "*") {
			name, mode = strings.TrimSuffix(name, "*"), 0o700
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		files   map[string]string
		path    string // below the folder
		lang    string
		program string // the base name of what is run
		problem string
	}{
		"a Go folder":             {map[string]string{"main.go": ""}, "", "go", "", ""},
		"a Go file":               {map[string]string{"main.go": ""}, "main.go", "go", "", ""},
		"package.json's main":     {map[string]string{"package.json": `{"main":"lib/a.js"}`, "lib/a.js": "", "index.js": ""}, "", "node", "a.js", ""},
		"package.json's name":     {map[string]string{"package.json": `{"name":"@ryan/hook"}`, "hook.js*": "#!/usr/bin/node"}, "", "node", "hook.js", ""},
		"package.json of nothing": {map[string]string{"package.json": `{"name":"hook"}`}, "", "", "", `"main"`},
		"main.py":                 {map[string]string{"main.py": "", "other.py": ""}, "", "python", "main.py", ""},
		"the one with a #!":       {map[string]string{"a.py*": "#!/usr/bin/python3", "b.py": ""}, "", "python", "a.py", ""},
		"not the tests":           {map[string]string{"a.py": "", "test_a.py": ""}, "", "python", "a.py", ""},
		"which of two":            {map[string]string{"a.py": "", "b.py": ""}, "", "", "", "Name it"},
		"a script":                {map[string]string{"a.py": "", "b.py": ""}, "b.py", "python", "b.py", ""},
		"a program":               {map[string]string{"plug*": "#!/bin/sh"}, "plug", "", "plug", ""},
		"no program":              {map[string]string{"plug": "text"}, "plug", "", "", "chmod +x"},
		"nothing":                 {map[string]string{"README.md": ""}, "", "", "", "plugin new"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, c.files)
			p, err := Find(filepath.Join(dir, c.path), []string{"--verbose"}, nil, "/built")
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Fatalf("%v, want %q", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Lang != c.lang || p.Dir != filepath.Dir(filepath.Join(dir, "x")) && c.lang != "node" {
				t.Errorf("language %q in %s", p.Lang, p.Dir)
			}
			if p.Built() != (c.lang == "go") || p.Built() && filepath.Dir(p.Command[0]) != "/built" {
				t.Errorf("built: %v, %s", p.Built(), p.Command)
			}
			if n := len(p.Command); p.Command[n-1] != "--verbose" || c.program != "" && filepath.Base(p.Command[n-2]) != c.program {
				t.Errorf("command %q, want %s", p.Command, c.program)
			}
		})
	}
	if p, err := Find("headers", nil, []string{"headers"}, ""); err != nil || p.Bundled != "headers" {
		t.Errorf("%+v %v", p, err)
	}
}

// What a plugin, an editor or a tool writes beside the source starts no round.
func TestWatchSeesSourceOnly(t *testing.T) {
	dir := tree(t, map[string]string{"a.py": "1", "notes.txt": "1", ".git/x.py": "1", "node_modules/y.py": "1", "lib/b.py": "1"})
	p, err := Find(dir, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "c.hcl")
	before := p.Look(other)
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("22"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"notes.txt", "out.bin", ".git/x.py", "node_modules/y.py"} {
		write(filepath.Join(dir, name))
	}
	if f := p.Look(other).Changed(before); f != "" {
		t.Errorf("%s is no source", f)
	}
	for _, path := range []string{filepath.Join(dir, "lib", "b.py"), filepath.Join(dir, "new.py"), other} {
		before := p.Look(other)
		write(path)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if got, err := p.Watch(ctx, before, other); err != nil || got != path {
			t.Errorf("%q %v, want %s", got, err, path)
		}
		cancel()
	}
	before = p.Look()
	if err := os.Remove(filepath.Join(dir, "new.py")); err != nil {
		t.Fatal(err)
	}
	if f := p.Look().Changed(before); filepath.Base(f) != "new.py" {
		t.Errorf("changed %q", f)
	}
}

type words struct {
	Forbid []string `hcl:"forbid" doc:"Words."`
}

// A configuration is a block's inside, a block, or a server's: mistakes are found at
// the author's own lines in each.
func TestAround(t *testing.T) {
	s, err := schema.FromStruct(words{})
	if err != nil {
		t.Fatal(err)
	}
	d := &v1.DescribeResponse{Name: "words", Kind: v1.Kind_KIND_FILTER, Schema: s, Filter: &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}}}
	dir := t.TempDir()
	load := func(text string) (*config.Config, *around, config.Diagnostics, error) {
		a := &around{d: d, command: []string{"/bin/sh", "-c", "${x}"}, file: filepath.Join(dir, "my.hcl"), people: "/people.hcl"}
		if err := a.read([]byte(text)); err != nil {
			return nil, a, nil, err
		}
		cfg, diags := a.load(t.Context(), dir, func(context.Context, config.Plugin) (*v1.DescribeResponse, error) { return d, nil }, nil)
		return cfg, a, diags, nil
	}
	const server = `
receive "smtp" "mx" {
  listen  = ["127.0.0.1:2525"]
  filters = [filter.words.my]
}
`
	for name, c := range map[string]struct {
		text string
		line int // of the mistake; 0: none
	}{
		"inside":                    {"forbid = [\"a\"]\n", 0},
		"a mistake inside":          {"# one\n\nforbidden = 1\nforbid = []", 3},
		"no HCL":                    {"forbid = [\"a\"]\nforbid [", 2},
		"a block":                   {"filter \"words\" \"my\" {\n  forbid = []\n  timeout = \"5s\"\n}\n", 0},
		"a mistake in a block":      {"filter \"words\" \"my\" {\n  forbid = 5\n}\n", 2},
		"with its program":          {"plugin \"words\" {\n  path = \"/nowhere\"\n  args = [\"x\",\n    \"y\"]\n  sha256 = \"00\"\n}\nfilter \"words\" \"my\" {\n  forbid = []\n}\n", 0},
		"a mistake below a program": {"plugin \"words\" {\n  path = \"/nowhere\"\n}\nfilter \"words\" \"my\" {\n  forbid = 5\n}\n", 5},
		"a server's":                {server + "plugin \"words\" {\n  path = \"/nowhere\"\n}\nfilter \"words\" \"my\" {\n  forbid = []\n}\n", 0},
		"a mistake in a server's":   {server + "filter \"words\" \"my\" {\n  forbid = []\n  nothing = 1\n}\n", 8},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, a, diags, err := load(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if c.line == 0 {
				in := cfg.Instance(a.reference())
				if diags.HasErrors() || in == nil || in.Binary == nil {
					t.Fatalf("%v\n%s", diags, a.text+a.rest())
				}
				if cmd := append([]string{in.Binary.Path}, in.Binary.Args...); !slices.Equal(cmd, a.command) || in.Binary.SHA256 != nil {
					t.Errorf("runs %q", cmd)
				}
				return
			}
			if len(diags) == 0 || diags[0].Place == nil || diags[0].Place.Line != c.line || filepath.Base(diags[0].Place.File) != "my.hcl" {
				t.Errorf("%v, want line %d", diags, c.line)
			}
		})
	}
	if _, _, _, err := load(`filter "other" "my" {}` + "\n"); err == nil || !strings.Contains(err.Error(), `filter "other" "my"`) {
		t.Errorf("another plugin's block: %v", err)
	}
}
