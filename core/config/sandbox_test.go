package config

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// loadSandboxed loads src with a bundled filter "headers" and an external one
// "attachments", which say that they need something, in a folder of real files.
func loadSandboxed(t *testing.T, src string) (*Config, Diagnostics, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"mx.hcl": src, "rest.hcl": restOf(t), "people/people.hcl": "", "attachments": "x", "own/list": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := testOptions(nil)
	o.FS = osFS{}
	paths := &v1.Schema_Block{
		Attributes: []*v1.Schema_Attribute{attr("file", `"string"`, "", "path", false), attr("store", `"string"`, "", "path", false), attr("text", `"string"`, "", "", false)},
		Blocks:     []*v1.Schema_NestedBlock{{Name: "key", Block: &v1.Schema_Block{Attributes: []*v1.Schema_Attribute{attr("path", `["list","string"]`, "", "path", false)}}}},
	}
	stubs := o.Schemas
	o.Schemas = func(ctx context.Context, p Plugin) (*v1.DescribeResponse, error) {
		d, err := stubs(ctx, p)
		if err == nil && p.Kind == v1.Kind_KIND_FILTER {
			d.Schema = &v1.Schema{Block: paths}
			d.Needs = &v1.Needs{Network: true, ReadPaths: []string{"/usr/share"}, WritePaths: []string{"/var/tmp", "{store}"}}
		}
		return d, err
	}
	cfg, diags := Load(context.Background(), []string{filepath.Join(dir, "mx.hcl"), filepath.Join(dir, "rest.hcl")}, o)
	if diags.HasErrors() {
		t.Fatal(render(t, diags))
	}
	return cfg, diags, dir
}

func TestSandbox(t *testing.T) {
	cfg, diags, dir := loadSandboxed(t, `
plugin "attachments" {
  path = "attachments"
  sandbox {
    user   = "root"
    memory = "128MB"
    files  = 100
    read   = ["/usr"]
  }
}
filter "headers" "plain" {}
filter "headers" "named" {
  file  = "own/list"
  store = "later"
  text  = "/etc/shadow"
  key { path = ["own", "own/list"] }
  sandbox {
    write   = []
    network = false
  }
}
filter "headers" "off" {
  sandbox { off = true }
}
filter "attachments" "one" {
  store = "own"
  sandbox {
    network   = true
    files     = 200
    processes = 10
  }
}
receive "smtp" "b" {
  listen  = ["127.0.0.1:2626"]
  filters = [filter.headers.plain, filter.headers.named, filter.headers.off, filter.attachments.one]
}
`)
	own := filepath.Join(dir, "own")
	for ref, want := range map[string]*Sandbox{
		"filter.headers.plain": {Network: true, Read: []string{"/usr/share"}, Write: []string{"/var/tmp"}},
		// The lists are replaced; what the block itself names stays.
		"filter.headers.named": {Read: []string{"/usr/share", own, filepath.Join(dir, "later"), own, own}, Write: []string{filepath.Join(dir, "later")}},
		"filter.headers.off":   nil,
		"filter.attachments.one": {User: "root", Network: true, Read: []string{"/usr", own}, Memory: 128 << 20,
			Files: 200, Processes: 10},
	} {
		got := cfg.Instance(ref).Sandbox
		if (got == nil) != (want == nil) {
			t.Errorf("%s: %+v, want %+v", ref, got, want)
			continue
		}
		if want == nil {
			continue
		}
		if !slices.Equal(got.Read, want.Read) || !slices.Equal(got.Write, want.Write) || got.Network != want.Network ||
			got.Memory != want.Memory || got.Files != want.Files || got.Processes != want.Processes || got.User != want.User {
			t.Errorf("%s:\n%+v, want\n%+v", ref, got, want)
		}
	}
	// What the external plugin wants and does not get is said.
	text := render(t, diags)
	for _, want := range []string{"needs to write to /var/tmp", "needs to write to " + own} {
		if !strings.Contains(text, want) {
			t.Errorf("no warning that it %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, "the network") || strings.Contains(text, "/usr/share") {
		t.Errorf("a warning of what is granted:\n%s", text)
	}
}

func TestExternalPluginWithoutASandboxBlock(t *testing.T) {
	cfg, diags, _ := loadSandboxed(t, `
plugin "attachments" { path = "attachments" }
filter "attachments" "one" {}
receive "smtp" "b" {
  listen  = ["127.0.0.1:2626"]
  filters = [filter.attachments.one]
}
`)
	if len(diags) != 0 || cfg.Instance("filter.attachments.one").Sandbox != nil {
		t.Errorf("%+v\n%s", cfg.Instance("filter.attachments.one").Sandbox, render(t, diags))
	}
}
