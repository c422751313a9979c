package config

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/tools/txtar"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var update = flag.Bool("update", false, "rewrite the expected diagnostics")

// memory is a file system of a test's own files; relative paths only.
type memory struct{ fstest.MapFS }

func (m memory) clean(p string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, p); err == nil && filepath.IsAbs(p) && !strings.HasPrefix(rel, "..") {
			p = rel
		}
	}
	return strings.TrimPrefix(p, "/")
}
func (m memory) ReadFile(p string) ([]byte, error)       { return m.MapFS.ReadFile(m.clean(p)) }
func (m memory) ReadDir(p string) ([]fs.DirEntry, error) { return m.MapFS.ReadDir(m.clean(p)) }
func (m memory) Stat(p string) (fs.FileInfo, error)      { return m.MapFS.Stat(m.clean(p)) }

func attr(name, typ, def, semantic string, required bool, oneOf ...string) *v1.Schema_Attribute {
	a := &v1.Schema_Attribute{Name: name, Type: []byte(typ), Semantic: semantic, Required: required, OneOf: oneOf}
	if def != "" {
		a.DefaultJson = []byte(def)
	}
	return a
}

// stubs are plugins as the tests know them.
var stubs = map[v1.Kind]map[string]*v1.Schema_Block{
	v1.Kind_KIND_DIRECTORY: {"file": {Attributes: []*v1.Schema_Attribute{attr("path", `"string"`, "", "path", true)}}},
	v1.Kind_KIND_STORAGE:   {"local": {}, "maildir": {}},
	v1.Kind_KIND_ACCESS:    {"imap": {}, "pop3": {}},
	v1.Kind_KIND_DELIVER:   {"pipe": {Attributes: []*v1.Schema_Attribute{attr("command", `["list","string"]`, "", "", true)}}},
	v1.Kind_KIND_FILTER: {
		"authverify": {}, "dkimsign": {},
		"attachments": {Attributes: []*v1.Schema_Attribute{attr("forbid", `["list","string"]`, "", "", false)}},
		"greylist":    {Attributes: []*v1.Schema_Attribute{attr("delay", `"string"`, `"5m"`, "duration", false), attr("allow", `["list","string"]`, "", "cidr", false)}},
		"rules": {Blocks: []*v1.Schema_NestedBlock{{Name: "rule", Block: &v1.Schema_Block{
			Attributes: []*v1.Schema_Attribute{attr("when", `"string"`, "", "condition", false)},
		}}}},
		"headers": {
			Attributes: []*v1.Schema_Attribute{attr("mode", `"string"`, `"add"`, "", false, "add", "remove"), attr("match", `"string"`, "", "regexp", false),
				{Name: "secret", Type: []byte(`"string"`), Sensitive: true, OneOf: []string{"x"}}, attr("peer", `"string"`, "", "", false)},
			Blocks: []*v1.Schema_NestedBlock{
				{Name: "field", Labels: []string{"name"}, Block: &v1.Schema_Block{Attributes: []*v1.Schema_Attribute{attr("value", `"string"`, "", "", true), attr("max", `"number"`, "3", "", false)}}},
				{Name: "limit", Max: 1, Block: &v1.Schema_Block{Attributes: []*v1.Schema_Attribute{attr("size", `"string"`, `"1MB"`, "size", false)}}},
			},
		},
	},
}

func testOptions(files map[string]string) Options {
	m := memory{fstest.MapFS{}}
	for name, text := range files {
		mode := fs.FileMode(0o755)
		if strings.HasSuffix(name, ".txt") {
			mode = 0o644
		}
		m.MapFS[m.clean(name)] = &fstest.MapFile{Data: []byte(text), Mode: mode}
	}
	bundled := map[v1.Kind][]string{}
	for kind, plugins := range stubs {
		for name := range plugins {
			if name != "attachments" {
				bundled[kind] = append(bundled[kind], name)
			}
		}
	}
	return Options{
		FS: m, Bundled: bundled,
		Getenv: func(name string) (string, bool) { return "sleepless", name == "SECRET" },
		Schemas: func(_ context.Context, p Plugin) (*v1.DescribeResponse, error) {
			for kind, plugins := range stubs {
				if b, ok := plugins[p.Name]; ok && (kind == p.Kind || p.Binary != nil) {
					return &v1.DescribeResponse{Name: p.Name, Kind: kind, Schema: &v1.Schema{Block: b}}, nil
				}
			}
			return nil, errors.New("no such plugin")
		},
	}
}

func load(t *testing.T, files map[string]string, paths ...string) (*Config, Diagnostics) {
	t.Helper()
	return Load(context.Background(), paths, testOptions(files))
}

func render(t *testing.T, d Diagnostics) string {
	t.Helper()
	var b strings.Builder
	if err := d.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMistakes: each file is an HCL file and the exact words an operator reads.
// testdata/rest.hcl stands beside it, unless the comment says that it stands alone.
func TestMistakes(t *testing.T) {
	names, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal("no test files", err)
	}
	rest, err := os.ReadFile("testdata/rest.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want := map[string]string{}, ""
			var paths []string
			for _, f := range archive.Files {
				if f.Name == "diagnostics" {
					want = string(f.Data)
					continue
				}
				files[f.Name] = string(f.Data)
				if strings.HasSuffix(f.Name, ".hcl") {
					paths = append(paths, f.Name)
				}
			}
			if !strings.Contains(string(archive.Comment), "alone") {
				files["rest.hcl"] = string(rest)
				paths = append(paths, "rest.hcl")
			}
			_, diags := load(t, files, paths...)
			got := render(t, diags)
			if *update {
				kept := archive.Files[:0]
				for _, f := range archive.Files {
					if f.Name != "diagnostics" {
						kept = append(kept, f)
					}
				}
				archive.Files = append(kept, txtar.File{Name: "diagnostics", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}
