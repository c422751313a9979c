package expression_test

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestParse: what a plugin was handed by the core is evaluated as the core does it:
// an unset tag is no error, a field that is not there is an empty list.
func TestParse(t *testing.T) {
	env := &expression.Env{
		Sender: "tom@hanks.example", Recipient: "meg+lists@ryan.example",
		Client: &v1.Client{Ip: "192.0.2.7"},
		Tags:   map[string]*v1.Tag{"spf": {Value: &v1.Tag_Text{Text: "fail"}}},
		Message: expression.Message{
			Size: 2048, Subject: "=?utf-8?q?He=C3=A9?=", Headers: map[string][]string{"list-id": {"<x>"}, "comments": {"=?utf-8?q?=C3=A9?="}},
		},
	}
	for source, want := range map[string]bool{
		`tags.spf == "fail" && !client.authenticated`:                     true,
		`tags.dmarc.policy == "reject"`:                                   false,
		`recipient.detail == "lists" && sender.domain == "hanks.example"`: true,
		`length(message.headers["x-none"]) == 0`:                          true,
		"(message.size > 1024 &&\n  startswith(message.subject, \"He\"))": true,
		`message.subject == "Heé" && message.headers.comments[0] == "é"`:  true,
		`contains(tags.unset, "a") || length(tags.unset) > 0`:             false,
		`cidr_contains(["192.0.2.0/24"], client.ip)`:                      true,
		`anytrue([for v in message.headers["list-id"] : v == "<x>"])`:     true,
	} {
		e, err := expression.Parse(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, err := e.Bool(env); err != nil || got != want {
			t.Errorf("%s = %v, %v", source, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for source, want := range map[string]string{
		`tags.spf ==`:                           "is no expression",
		`weather == "fine"`:                     `no variable "weather"`,
		`sender.domain`:                         "is a string, not true or false",
		`has(directory.file.people, recipient)`: `no variable "directory"`,
		`env("SECRET") == "x"`:                  "env",
		`matches("(", sender.domain)`:           "matches",
		`startswith(message.subject)`:           "startswith",
		`contains(message.subject, "sale")`:     "strcontains(text, part)",
	} {
		if _, err := expression.Parse(source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
	}
}

// TestDecided: what is known before any mail came.
func TestDecided(t *testing.T) {
	meg := "meg@ryan.example"
	for source, want := range map[string][2]bool{
		`true`:                               {true, true},
		`sender.null && false`:               {true, false},
		`recipient.domain == "ryan.example"`: {true, true},
		`recipient.account == "meg"`:         {false, false},
	} {
		e, err := expression.Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		if known, value := e.Decided(&meg); known != want[0] || value != want[1] {
			t.Errorf("%s: %v %v", source, known, value)
		}
		if e.Constant() != (source == "true") {
			t.Errorf("%s: constant %v", source, e.Constant())
		}
	}
}
