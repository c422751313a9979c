package scaffold

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCopies: a project's copy of its SDK is the SDK, its tests left out.
func TestCopies(t *testing.T) {
	for lang, from := range map[string]string{"python": "sdk/python/stagecoach", "node": "sdk/node"} {
		p := write(t, Options{Kind: "filter", Name: "subject", Lang: lang})
		source := filepath.Join(checkout, from)
		n := 0
		err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
			rel, rerr := filepath.Rel(source, path)
			switch {
			case err != nil || rerr != nil:
				t.Fatal(err, rerr)
			case d.IsDir() && slices.Contains([]string{"__pycache__", "node_modules", "test"}, rel[strings.LastIndexByte(rel, '/')+1:]):
				return fs.SkipDir
			case d.IsDir() || rel == ".npmrc" || filepath.Ext(rel) == ".go":
				return nil
			}
			n++
			copied, err := os.ReadFile(filepath.Join(p.Dir, sdkFolder, rel))
			if err != nil || !bytes.Equal(copied, must(t, path)) {
				t.Errorf("%s: the copy of %s is not the same: %v", lang, rel, err)
			}
			return nil
		})
		if err != nil || n < 20 {
			t.Errorf("%s: %d files, %v", lang, n, err)
		}
	}
}

// TestLockFile: a Node project's lock file is as npm writes it for a package that is
// copied from a folder; npm wrote the example's.
func TestLockFile(t *testing.T) {
	p := write(t, Options{Kind: "filter", Name: "Subject", Lang: "node"})
	type lock struct {
		Name     string
		Version  string
		Packages map[string]map[string]any
	}
	read := func(path string) (l lock) {
		if err := json.Unmarshal(must(t, path), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	got, want := read(filepath.Join(p.Dir, "package-lock.json")), read(filepath.Join(checkout, "examples/webhook/package-lock.json"))
	if got.Name != "subject" || got.Version != "0.1.0" {
		t.Errorf("it is of %s %s", got.Name, got.Version)
	}
	const sdk = "@stagecoach-mta/plugin"
	want.Packages["node_modules/"+sdk]["resolved"] = "file:stagecoach"
	want.Packages[""] = map[string]any{
		"name": "subject", "version": "0.1.0", "dependencies": map[string]any{sdk: "file:stagecoach"}, "engines": map[string]any{"node": ">=20"},
	}
	if a, b := slices.Sorted(maps.Keys(got.Packages)), slices.Sorted(maps.Keys(want.Packages)); !slices.Equal(a, b) {
		t.Fatalf("packages\n%q, want\n%q", a, b)
	}
	for name := range want.Packages {
		a, _ := json.Marshal(got.Packages[name])
		b, _ := json.Marshal(want.Packages[name])
		if !bytes.Equal(a, b) {
			t.Errorf("%s is\n%s, want\n%s", name, a, b)
		}
	}
	var own struct {
		Name, Main, Type string
		Dependencies     map[string]string
	}
	if err := json.Unmarshal(must(t, filepath.Join(p.Dir, "package.json")), &own); err != nil || own.Name != "subject" || own.Main != p.Program ||
		own.Type != "module" || own.Dependencies[sdk] != "file:"+sdkFolder {
		t.Errorf("package.json: %v, %+v", err, own)
	}
}
