package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Expr is an expression that is evaluated per recipient. It was type-checked
// when the files were loaded. Safe for concurrent use.
type Expr struct {
	syntax hclsyntax.Expression
	// scope holds functions and references; the variables come with each Env.
	scope  *hcl.EvalContext
	uses   []hcl.Traversal
	source string
	// broken: a complaint was made of it; nothing may be concluded from its value.
	broken bool
}

// Env is what an expression may ask of one recipient's mail.
type Env struct {
	Sender    string // reverse-path without brackets; "" is the null one
	Recipient string
	// Account and Detail as the directory resolved the recipient; "" if not.
	Account, Detail string
	Client          *v1.Client
	Tags            map[string]*v1.Tag
	Message         Message
	// Has asks the directory ref for an address, for has(). nil: has() fails.
	Has func(ref, address string) (bool, error)
}

// Message is what expressions read of the message.
type Message struct {
	Size                     int64
	Subject, From, MessageID string // decoded
	// Headers by lower-case field name, in order, decoded. Needed only if an
	// expression Uses("message.headers").
	Headers map[string][]string
}

// Range is where the expression stands.
func (e *Expr) Range() hcl.Range { return e.syntax.Range() }

// Source is the expression as it was written, for explain and logs.
func (e *Expr) Source() string { return e.source }

// Uses reports whether the expression reads root or anything below it:
// "message.headers", "tags.spam", "recipient".
func (e *Expr) Uses(root string) bool {
	want := strings.Split(root, ".")
	for _, t := range e.uses {
		steps := stepNames(t)
		n := min(len(steps), len(want))
		// A shorter reading ("message") reads everything below it too.
		if strings.Join(steps[:n], ".") == strings.Join(want[:n], ".") {
			return true
		}
	}
	return false
}

// Bool evaluates a condition. A condition whose value is null (an unset tag) is
// false. && and || ask their right side only when the left has not decided.
func (e *Expr) Bool(env *Env) (bool, error) {
	return truth(e.syntax, e.child(env))
}

// truth descends the logical operators itself: HCL always evaluates both sides,
// and the right one may be a look-up in a directory.
func truth(x hclsyntax.Expression, ctx *hcl.EvalContext) (bool, error) {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return truth(x.Expression, ctx)
	case *hclsyntax.UnaryOpExpr:
		if x.Op == opNot {
			v, err := truth(x.Val, ctx)
			return !v, err
		}
	case *hclsyntax.BinaryOpExpr:
		if x.Op == opAnd || x.Op == opOr {
			left, err := truth(x.LHS, ctx)
			if err != nil || left == (x.Op == opOr) {
				return left, err
			}
			return truth(x.RHS, ctx)
		}
	}
	v, err := value(x, ctx)
	if err != nil || v.IsNull() {
		return false, err
	}
	if v, err = convert.Convert(v, cty.Bool); err != nil {
		return false, fmt.Errorf("%s: this is %s, not true or false", at(x.Range()), typeName(v.Type()))
	}
	return v.True(), nil
}

// String evaluates to one string; null is "".
func (e *Expr) String(env *Env) (string, error) {
	v, err := value(e.syntax, e.child(env))
	if err != nil || v.IsNull() {
		return "", err
	}
	if v, err = convert.Convert(v, cty.String); err != nil {
		return "", fmt.Errorf("%s: this is no string", at(e.Range()))
	}
	return v.AsString(), nil
}

// Strings evaluates to a string or a list of them; null is none.
func (e *Expr) Strings(env *Env) ([]string, error) {
	v, err := value(e.syntax, e.child(env))
	if err != nil || v.IsNull() {
		return nil, err
	}
	if one, err := convert.Convert(v, cty.String); err == nil {
		return []string{one.AsString()}, nil
	}
	v, err = convert.Convert(v, cty.List(cty.String))
	if err != nil {
		return nil, fmt.Errorf("%s: this is neither a string nor a list of strings", at(e.Range()))
	}
	var out []string
	for _, x := range v.AsValueSlice() {
		if !x.IsNull() {
			out = append(out, x.AsString())
		}
	}
	return out, nil
}

// value evaluates, unmarked and known.
func value(x hclsyntax.Expression, ctx *hcl.EvalContext) (cty.Value, error) {
	v, diags := x.Value(ctx)
	if diags.HasErrors() {
		text, _ := explainEval(diags[0])
		r := x.Range()
		if diags[0].Subject != nil {
			r = *diags[0].Subject
		}
		return cty.NilVal, fmt.Errorf("%s: %s", at(r), text)
	}
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		return cty.NilVal, fmt.Errorf("%s: %w", at(x.Range()), errNoValue)
	}
	return v, nil
}

var (
	errNoValue     = errors.New("the expression has no value")
	errNoDirectory = errors.New("no directory can be asked here")
)

func at(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}

// child makes the scope of one evaluation; only what is used is built.
func (e *Expr) child(env *Env) *hcl.EvalContext {
	ctx := e.scope.NewChild()
	ctx.Variables = map[string]cty.Value{}
	ask := env.Has
	if ask == nil {
		ask = func(string, string) (bool, error) { return false, errNoDirectory }
	}
	ctx.Functions = map[string]functionType{"has": hasFunc(ask)}
	for _, t := range e.uses {
		root := t.RootName()
		if _, done := ctx.Variables[root]; done {
			continue
		}
		switch root {
		case "sender":
			ctx.Variables[root] = mailbox(env.Sender, "", "")
		case "recipient":
			ctx.Variables[root] = mailbox(env.Recipient, env.Account, env.Detail)
		case "client":
			ctx.Variables[root] = client(env.Client)
		case "message":
			ctx.Variables[root] = e.message(&env.Message)
		case "tags":
			ctx.Variables[root] = e.tags(env.Tags)
		}
	}
	return ctx
}
