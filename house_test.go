package main

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/stagecoach-mta/stagecoach/"

// goFiles calls each for every Go file of ours, generated ones left out.
func goFiles(t *testing.T, each func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, ".pb.go"):
			each(filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLayers: core never imports plugins, plugins never import core, sdk
// imports neither, and examples know the SDK alone.
func TestLayers(t *testing.T) {
	forbidden := map[string][]string{
		"core/":     {"plugins", "examples"},
		"plugins/":  {"core", "examples"},
		"sdk/":      {"core", "plugins", "examples"},
		"examples/": {"core", "plugins"},
	}
	seen := map[string]int{}
	goFiles(t, func(path string) {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for layer, bad := range forbidden {
			if !strings.HasPrefix(path, layer) {
				continue
			}
			seen[layer]++
			for _, im := range f.Imports {
				name := strings.TrimPrefix(strings.Trim(im.Path.Value, `"`), module)
				for _, b := range bad {
					if name == b || strings.HasPrefix(name, b+"/") {
						t.Errorf("%s imports %s: %s must not know %s", path, im.Path.Value, strings.TrimSuffix(layer, "/"), b)
					}
				}
			}
		}
	})
	for _, layer := range []string{"core/", "plugins/", "sdk/"} {
		if seen[layer] == 0 {
			t.Errorf("no file of %s was looked at", layer)
		}
	}
}

// TestFileSize: past 600 lines a file wants to be two.
func TestFileSize(t *testing.T) {
	goFiles(t, func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b, []byte("\n")); n > 600 {
			t.Errorf("%s has %d lines: split it by meaning", path, n)
		}
	})
}

// TestNoInit: nothing happens because a package is imported.
func TestNoInit(t *testing.T) {
	goFiles(t, func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("\nfunc init() {")) {
			t.Errorf("%s has an init function: let main name what it does", path)
		}
	})
}

// TestPluginReadmes: every bundled plugin says what it is, in the usual order.
func TestPluginReadmes(t *testing.T) {
	dirs, err := filepath.Glob("plugins/*/plugin.go")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no bundled plugins found", err)
	}
	more, _ := filepath.Glob("plugins/*/*.go")
	dirs = append(dirs, more...)
	done := map[string]bool{}
	for _, f := range dirs {
		dir := filepath.Dir(f)
		if done[dir] {
			continue
		}
		done[dir] = true
		b, err := os.ReadFile(filepath.Join(dir, "README.md"))
		if err != nil {
			t.Errorf("%s has no README.md", dir)
			continue
		}
		at := 0
		for _, heading := range []string{"## Name", "## Description", "## Syntax", "## Examples", "## Metrics"} {
			i := strings.Index(string(b), "\n"+heading)
			if i < at {
				t.Errorf("%s/README.md: %q is missing or out of order", dir, heading)
				continue
			}
			at = i
		}
	}
}
