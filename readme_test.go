package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/plugins"
	"github.com/stagecoach-mta/stagecoach/sdk"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

var update = flag.Bool("update", false, "write the generated parts of the READMEs anew")

const (
	syntaxBegin = "<!-- Made by `make generate` from the plugin's config struct. -->\n"
	syntaxEnd   = "<!-- End of what is made. -->\n"
)

// coreLines are what a block of that kind needs beside the plugin's attributes.
func coreLines(kind v1.Kind, plugin string) string {
	if kind != v1.Kind_KIND_ACCESS {
		return ""
	}
	port := map[string]string{"imap": "993", "managesieve": "4190", "pop3": "995"}[plugin]
	return fmt.Sprintf("  listen  = [%q]\n  storage = storage.local.mail\n  auth    = directory.file.people\n", ":"+port)
}

// coreWords say what else the core reads in a block of that kind.
var coreWords = map[v1.Kind]string{
	v1.Kind_KIND_ACCESS:  "Every `access` block also has `listen`, `storage` and `auth` (all required), `tls` (default: `tls.default`) and `insecure_auth` (passwords without TLS, on loopback only).",
	v1.Kind_KIND_FILTER:  "Every `filter` block also has `on_failure` (`\"defer\"`, the default, `\"accept\"` or `\"hold\"`), `timeout` of a call, and `max_concurrent` calls at once.",
	v1.Kind_KIND_DELIVER: "Every `deliver` block of a plugin also has `filters`, `timeout` of a delivery, and `max_concurrent` deliveries at once.",
}

// syntax is the generated part of a plugin's README.
func syntax(p sdk.Plugin) (string, error) {
	d, err := sdk.Describe(p)
	if err != nil {
		return "", err
	}
	kind := strings.ToLower(strings.TrimPrefix(d.GetKind().String(), "KIND_"))
	block := schema.HCL(fmt.Sprintf("%s %q %q", kind, p.Name, "NAME"), d.GetSchema())
	if lines := coreLines(d.GetKind(), p.Name); lines != "" {
		head, rest, more := strings.Cut(block, "{\n")
		if !more {
			head, rest = strings.TrimSuffix(head, "{}\n"), "}\n"
		} else {
			rest = "\n" + rest
		}
		block = head + "{\n" + lines + rest
	}
	out := syntaxBegin + "```hcl\n" + block + "```\n\n" + schema.Markdown(d.GetSchema())
	if words := coreWords[d.GetKind()]; words != "" {
		out += "\n" + words + "\n"
	}
	return out + syntaxEnd, nil
}

// TestReadmeSyntax: the Syntax section of every bundled plugin's README is what
// its config struct says. `make generate` writes it.
func TestReadmeSyntax(t *testing.T) {
	for _, p := range plugins.Bundled() {
		t.Run(p.Name, func(t *testing.T) {
			path := filepath.Join("plugins", p.Name, "README.md")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			before, rest, begins := strings.Cut(string(b), syntaxBegin)
			_, after, ends := strings.Cut(rest, syntaxEnd)
			if !begins || !ends || !strings.Contains(before, "\n## Syntax\n") {
				t.Fatalf("%s: put these two lines under ## Syntax, and run `make generate`:\n%s%s", path, syntaxBegin, syntaxEnd)
			}
			want, err := syntax(p)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(path, []byte(before+want+after), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := syntaxBegin + strings.TrimSuffix(rest, after); got != want {
				t.Errorf("%s is behind the plugin's config struct: run `make generate`. It should say:\n%s", path, want)
			}
		})
	}
}

// TestConfigsAreExplained: every attribute that a bundled plugin has says what it
// does, and a required one shows how it is written.
func TestConfigsAreExplained(t *testing.T) {
	for _, p := range plugins.Bundled() {
		d, err := sdk.Describe(p)
		if err != nil {
			t.Fatal(err)
		}
		var look func(where string, b *v1.Schema_Block)
		look = func(where string, b *v1.Schema_Block) {
			for _, a := range b.GetAttributes() {
				if !strings.HasSuffix(a.GetDoc(), ".") {
					t.Errorf("%s.%s: its doc tag is no sentence: %q", where, a.GetName(), a.GetDoc())
				}
				if a.GetRequired() && a.GetExample() == "" {
					t.Errorf("%s.%s is required and has no example tag", where, a.GetName())
				}
			}
			for _, nb := range b.GetBlocks() {
				if nb.GetBlock().GetDoc() == "" {
					t.Errorf("%s.%s has no doc tag", where, nb.GetName())
				}
				look(where+"."+nb.GetName(), nb.GetBlock())
			}
		}
		look(p.Name, d.GetSchema().GetBlock())
		block := schema.HCL("filter \"x\" \"NAME\"", d.GetSchema())
		if formatted := config.Format([]byte(block)); !bytes.Equal(formatted, []byte(block)) {
			t.Errorf("%s's Syntax is not in the usual form:\n%s", p.Name, block)
		}
	}
}

// TestFiltersPage: docs/filters.md has every bundled filter.
func TestFiltersPage(t *testing.T) {
	page, err := os.ReadFile("docs/filters.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins.Bundled() {
		if p.Filter != nil && !strings.Contains(string(page), "| ["+p.Name+"](../plugins/"+p.Name+"/README.md) |") {
			t.Errorf("docs/filters.md does not tell of %s", p.Name)
		}
	}
}
