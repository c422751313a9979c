package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// condition loads one when among a whole configuration.
func condition(t *testing.T, when string) *Expr {
	t.Helper()
	c, diags := load(t, map[string]string{
		"a.hcl": fmt.Sprintf("route \"a\" {\n  when    = %s\n  discard = true\n}\n", when),
		// Without its when, which may be the one that is tested.
		"rest.hcl": strings.Replace(restOf(t), "when    = has(directory.file.rest, recipient)", "", 1)}, "a.hcl", "rest.hcl")
	if diags.HasErrors() {
		t.Fatalf("%s:\n%s", when, render(t, diags))
	}
	return c.Routes[0].When
}

func testEnv() *Env {
	return &Env{
		Sender: "Tom@Hanks.example", Recipient: "meg+lists@ryan.example", Account: "meg",
		Client: &v1.Client{Ip: "192.0.2.7", User: "tom", Tls: true, Listener: "receive.smtp.mx"},
		Tags: map[string]*v1.Tag{
			"dmarc": {Value: &v1.Tag_Text{Text: "fail"}}, "score": {Value: &v1.Tag_Number{Number: 7.5}},
			"dkim": {Value: &v1.Tag_Map{Map: &v1.TagMap{Entries: map[string]*v1.Tag{
				"hanks.example": {Value: &v1.Tag_Text{Text: "pass"}}, "aligned": {Value: &v1.Tag_Flag{Flag: true}},
				"inner": {Value: &v1.Tag_Map{Map: &v1.TagMap{}}},
			}}}},
			"spam": {Value: &v1.Tag_Flag{Flag: true}}, "rules": {Value: &v1.Tag_List{List: &v1.TagList{Values: []string{"A", "B"}}}},
		},
		Message: Message{Size: 2048, Subject: "Hello", Headers: map[string][]string{"list-id": {"<x>"}}},
		Has: func(ref, a string) (bool, error) {
			return ref == "directory.file.rest" && a == "meg+lists@ryan.example", nil
		},
	}
}

func TestConditions(t *testing.T) {
	for when, want := range map[string]bool{
		`sender.domain == "hanks.example" && sender.local == "Tom"`: true,
		`recipient.detail == "lists" && recipient.account == "meg"`: true,
		`sender.null`: false, `!sender.null`: true,
		`client.authenticated && client.tls && client.user == "tom"`: true,
		`cidr_contains("192.0.2.0/24", client.ip)`:                   true, `cidr_contains(["10.0.0.0/8", "::1"], client.ip)`: false,
		`is_private(client.ip) || is_loopback(client.ip)`:          false,
		`message.size > 1024 && startswith(message.subject, "He")`: true,
		`contains(message.headers["list-id"], "<x>")`:              true, `contains(message.headers["x-none"], "a")`: false,
		`length(message.headers.received) == 0`: true,
		`matches("^meg[+]", recipient.local)`:   true,
		`has(directory.file.rest, recipient)`:   true, `has(directory.file.rest, "tom@ryan.example")`: false,
		`tags.dmarc == "fail" && tags.dmarc_policy != "none"`: true,
		`tags.score > 5`: true, `tags.unset > 5`: false, `tags.unset < 5`: false, `tags.unset == "x"`: false,
		`tags.unset != "x"`: true, `tags.unset == null`: true, `tags.spam`: true, `tags.unset`: false, `!tags.unset`: true,
		`tags.unset && true`: false, `(tags.unset || tags.spam) == true`: true, `anytrue([tags.unset == "a", tags.spam])`: true,
		`tags.dkim["hanks.example"] == "pass" && tags.dkim.aligned`: true, `tags.dkim["ryan.example"] == "pass"`: false,
		`tags.dkim["ryan.example"] == null`: true, `tags.unset.policy == "reject"`: false, `tags.unset.policy != "reject"`: true,
		`tags.dmarc.policy == "reject"`: false, `tags.dmarc.policy == null && tags.dmarc == "fail"`: true, `tags.unset.score > 5`: false,
		`tags.dkim != null && tags.unset == null`: true, `tags.dkim.inner == null`: true,
		`try(tags.dkim[sender.domain], "none") == "pass"`: true, `try(tags.unset[sender.domain], "none") == "none"`: true,
		`anytrue([for d, r in tags.dkim : d == "hanks.example" && r == "pass"])`: true,
		`contains(tags.rules, "B")`: true, `endswith(tags.unset, "x")`: false,
		`alltrue([for r in tags.rules : strlen(r) == 1 || r != ""])`: true,
		`env("SECRET") == "sleepless" && tags.spam`:                  true,
		`try(tags.score > 5, false)`:                                 true,
	} {
		if got, err := condition(t, when).Bool(testEnv()); err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", when, got, err, want)
		}
	}
}

func TestConditionErrors(t *testing.T) {
	env := testEnv()
	if _, err := condition(t, `tags.dmarc > 5`).Bool(env); err == nil {
		t.Error("a text compared as a number is no error")
	}
	down := errors.New("the directory is down")
	env.Has = func(string, string) (bool, error) { return false, down }
	e := condition(t, `client.tls && has(directory.file.rest, recipient)`)
	if _, err := e.Bool(env); err == nil {
		t.Error("a directory that is down is no error")
	}
	// The right side is not asked when the left one decides.
	for _, when := range []string{`sender.null && has(directory.file.rest, recipient)`, `!sender.null || has(directory.file.rest, recipient)`} {
		if _, err := condition(t, when).Bool(env); err != nil {
			t.Errorf("%s asked the directory: %v", when, err)
		}
	}
	env.Has = nil
	if _, err := e.Bool(env); err == nil {
		t.Error("no directory at all is no error")
	}
}

func TestUses(t *testing.T) {
	e := condition(t, `contains(message.headers["list-id"], "x") || tags.spam`)
	for root, want := range map[string]bool{"message.headers": true, "message": true, "message.size": false,
		"tags": true, "tags.spam": true, "tags.score": false, "recipient": false} {
		if e.Uses(root) != want {
			t.Errorf("Uses(%q) = %v", root, !want)
		}
	}
	if e.Source() != `contains(message.headers["list-id"], "x") || tags.spam` {
		t.Error(e.Source())
	}
}

func TestAddressesAndTexts(t *testing.T) {
	c, diags := load(t, map[string]string{"a.hcl": `
route "a" {
  when     = sender.null
  redirect = ["archive+${recipient.local}@ryan.example", tags.rules]
  copy     = recipient.address
}
route "b" {
  when = tags.spam
  hold = "score ${tags.score}"
}
route "c" {
  when   = tags.late
  reject = { code = 450, text = "later" }
}
`, "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
	if diags.HasErrors() {
		t.Fatal(render(t, diags))
	}
	env := testEnv()
	a := c.Routes[0]
	if got, err := a.Redirect[0].Strings(env); err != nil || len(got) != 1 || got[0] != "archive+meg+lists@ryan.example" {
		t.Error(got, err)
	}
	if got, err := a.Redirect[1].Strings(env); err != nil || len(got) != 2 {
		t.Error(got, err)
	}
	if got, err := a.Copy[0].String(env); err != nil || got != "meg+lists@ryan.example" {
		t.Error(got, err)
	}
	if got, err := c.Routes[1].Hold.String(env); err != nil || got != "score 7.5" {
		t.Error(got, err)
	}
	if r := *c.Routes[2].Reject; r != (Reply{450, "4.7.1", "later"}) {
		t.Error(r)
	}
}

func BenchmarkBool(b *testing.B) {
	c, diags := Load(b.Context(), []string{"design.hcl"}, testOptions(designFiles(b)))
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	env := testEnv()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Routes[0].When.Bool(env); err != nil {
			b.Fatal(err)
		}
	}
}
