package expression

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// withDirectory is an expression with a directory to ask.
func withDirectory(t testing.TB, source string) *Expr {
	t.Helper()
	x, diags := hclsyntax.ParseExpression([]byte(source), "x", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", source, diags)
	}
	people := cty.CapsuleVal(ReferenceType, &Reference{Kind: "directory", Ref: "directory.file.people"})
	return New(x, &hcl.EvalContext{
		Functions: Functions(),
		Variables: map[string]cty.Value{"directory": cty.ObjectVal(map[string]cty.Value{"file": cty.ObjectVal(map[string]cty.Value{"people": people})})},
	}, source)
}

// byHCL evaluates as HCL does, but for the logical operators.
func (e *Expr) byHCL(x hclsyntax.Expression, env *Env) (bool, error) {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return e.byHCL(x.Expression, env)
	case *hclsyntax.UnaryOpExpr:
		if x.Op == Not {
			v, err := e.byHCL(x.Val, env)
			return !v, err
		}
	case *hclsyntax.BinaryOpExpr:
		if x.Op == And || x.Op == Or {
			left, err := e.byHCL(x.LHS, env)
			if err != nil || left == (x.Op == Or) {
				return left, err
			}
			return e.byHCL(x.RHS, env)
		}
	}
	return truth(x, e.child(env))
}

var errDown = errors.New("it is down")

func envs() []*Env {
	tag := func(s string) *v1.Tag { return &v1.Tag{Value: &v1.Tag_Text{Text: s}} }
	return []*Env{
		{},
		{
			Sender: "Tom@Hanks.example", Recipient: "meg+lists@ryan.example", Account: "meg", Detail: "lists",
			Client: &v1.Client{Ip: "192.0.2.7", User: "tom", Tls: true, Listener: "receive.smtp.mx", Hello: "mx.hanks.example"},
			Tags: map[string]*v1.Tag{
				"a": tag("fail"), "b": {Value: &v1.Tag_Number{Number: 7.5}}, "c": {Value: &v1.Tag_Flag{Flag: true}},
				"d": {Value: &v1.Tag_List{List: &v1.TagList{Values: []string{"A", "B"}}}},
				"e": {Value: &v1.Tag_Map{Map: &v1.TagMap{Entries: map[string]*v1.Tag{"x": tag("true"), "y": {Value: &v1.Tag_Number{Number: 5}}, "z": {Value: &v1.Tag_Map{}}}}}},
			},
			Message: Message{Size: 2048, Subject: "=?utf-8?q?He=C3=A9?=", From: "Tom <tom@hanks.example>", MessageID: "<1@x>", Headers: map[string][]string{"list-id": {"<x>", "=?utf-8?q?=C3=A9?="}}},
			Has: func(ref, a string) (bool, error) {
				return ref == "directory.file.people" && strings.HasPrefix(a, "meg"), nil
			},
		},
		{
			Sender: "no address", Recipient: "\"a b\"@ryan.example", Client: &v1.Client{Ip: "fe80::1", Protocol: "LMTP"},
			Tags: map[string]*v1.Tag{
				"a": tag("true"), "b": tag("5"), "c": tag("0"), "d": tag("A"), "e": tag("x"),
			},
			Message: Message{Subject: "A", Headers: map[string][]string{"LIST-ID": {}}},
			Has:     func(string, string) (bool, error) { return true, errDown },
		},
	}
}

// madeUp is a condition of a few thousand.
func madeUp(r *rand.Rand, depth int) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	value := func() string {
		return pick("sender.address", "sender.local", "sender.domain", "sender.detail", "sender.account", "sender.null", "recipient.address",
			"recipient.local", "recipient.domain", "recipient.detail", "recipient.account", "recipient.null", "client.ip", "client.hello",
			"client.user", "client.authenticated", "client.tls", "client.listener", "client.protocol", "client.rdns", "message.size", "message.subject",
			"message.from", "message.id", `message.headers["list-id"]`, `message.headers.received`, `message.headers["list-id"][0]`,
			"tags.a", "tags.b", "tags.c", "tags.d", "tags.e", "tags.e.x", "tags.e.y", "tags.e.z", "tags.unset", "tags.unset.x", "tags.a.x",
			`"fail"`, `"hanks.example"`, `"A"`, `"meg"`, `""`, `"Heé"`, "5", "7.5", "2048", "true", "false", "null", `"${tags.a}"`, `lower(sender.local)`, `upper(tags.a)`,
			"length(tags.d)", "tags.b + 1")
	}
	if depth > 0 {
		switch r.IntN(4) {
		case 0:
			return "(" + madeUp(r, depth-1) + ") && " + madeUp(r, depth-1)
		case 1:
			return madeUp(r, depth-1) + " || " + madeUp(r, depth-1)
		case 2:
			return "!(" + madeUp(r, depth-1) + ")"
		}
	}
	switch r.IntN(10) {
	case 0, 1, 2:
		return value() + pick(" == ", " != ") + value()
	case 3:
		return value() + pick(" < ", " > ", " <= ", " >= ") + value()
	case 4:
		return pick("startswith", "endswith", "strcontains") + "(" + value() + ", " + pick(`"h"`, `""`, `".example"`, "tags.a") + ")"
	case 5:
		return "matches(" + pick(`"^meg[+]"`, `"example$"`, `"."`) + ", " + value() + ")"
	case 6:
		return "cidr_contains(" + pick(`"192.0.2.0/24"`, `["10.0.0.0/8", "fe80::/10"]`, `"no network"`) + ", " + value() + ")"
	case 7:
		return "contains(" + pick(`["A", "hanks.example"]`, `["fail"]`, "tags.d", "tags.unset", `message.headers["list-id"]`, "message.headers.received", "tags.a", "[]") + ", " + value() + ")"
	case 8:
		return "has(directory.file.people, " + pick("recipient", "sender", `"meg@ryan.example"`, value()) + ")"
	}
	return pick(value(), "is_private(client.ip)", "is_loopback("+value()+")")
}

// TestDirectIsHCL: what is evaluated directly comes out as HCL has it, complaints
// too.
func TestDirectIsHCL(t *testing.T) {
	told, differ := 0, 0
	for seed := range uint64(2500) {
		r := rand.New(rand.NewPCG(seed, 1))
		source := madeUp(r, int(seed%3))
		e := withDirectory(t, source)
		for i, env := range envs() {
			got, gerr := e.Bool(env)
			want, werr := e.byHCL(e.syntax, env)
			if got != want && werr == nil || fmt.Sprint(gerr) != fmt.Sprint(werr) {
				t.Errorf("seed %d, env %d: %s is %v %v, and HCL's %v %v", seed, i, source, got, gerr, want, werr)
				if differ++; differ > 10 {
					return
				}
			}
			if werr == nil && want {
				told++
			}
		}
	}
	if told < 500 {
		t.Errorf("only %d conditions were true: the test is worth little", told)
	}
}

// TestDirectIsTaken: the usual conditions never ask HCL.
func TestDirectIsTaken(t *testing.T) {
	for _, source := range []string{
		`has(directory.file.people, recipient)`, `client.authenticated && !sender.null`, `recipient.domain == "ryan.example"`,
		`tags.spf == "fail" && tags.dmarc.policy == "reject" || tags.score > 5`, `endswith(sender.domain, ".example")`,
		`cidr_contains(["192.0.2.0/24"], client.ip)`, `contains(message.headers["list-id"], "<x>")`, `matches("^meg", recipient.local)`,
	} {
		e := withDirectory(t, source)
		_, err := e.is(&look{env: envs()[1]}, func() *hcl.EvalContext { t.Errorf("%s asks HCL", source); return e.child(envs()[1]) })
		if err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkBool(b *testing.B) {
	env := envs()[1]
	for name, source := range map[string]string{
		"directly": `tags.a == "fail" && recipient.domain == "ryan.example" && message.size > 1024`,
		"byHCL":    `tags.a == "fail" && "${recipient.domain}" == "ryan.example" && message.size > 1024`,
	} {
		e := withDirectory(b, source)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := e.Bool(env); err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
