// Package expression evaluates what operators ask of a mail in HCL: a route's when,
// a rule's when. The core checks an expression where it is written; a plugin whose
// attribute has the semantic "condition" gets its text and evaluates it with Parse.
package expression

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Expr is an expression over one recipient's mail. Safe for concurrent use.
type Expr struct {
	syntax hclsyntax.Expression
	// scope holds functions and references; the variables come with each Env.
	scope  *hcl.EvalContext
	uses   []hcl.Traversal
	source string
	is     condition
}

// New makes an Expr of what was parsed: x, which is changed, and its text. scope
// holds the functions and what is known beside the mail.
func New(x hclsyntax.Expression, scope *hcl.EvalContext, source string) *Expr {
	useOwnOperators(x)
	joinTagKeys(x)
	e := &Expr{syntax: x, scope: scope, uses: x.Variables(), source: source}
	e.is = e.conditionOf(x)
	return e
}

// Parse reads an expression that the core has checked. has(), env() and file() are
// the core's alone; the error is for who did not come by it.
func Parse(source string) (*Expr, error) {
	x, diags := hclsyntax.ParseExpression([]byte(source), "expression", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, fmt.Errorf("%q is no expression: %s", source, diags[0].Detail)
	}
	e := New(x, &hcl.EvalContext{Functions: Functions()}, source)
	for _, t := range e.uses {
		if _, ok := Variables[t.RootName()]; !ok {
			return nil, fmt.Errorf("%q: there is no variable %q", source, t.RootName())
		}
	}
	if v, diags := x.Value(e.Unknown()); diags.HasErrors() {
		text, _ := Explain(diags[0])
		return nil, fmt.Errorf("%q: %s", source, text)
	} else if t := v.Type(); t != cty.Bool && t != cty.DynamicPseudoType {
		return nil, fmt.Errorf("%q is %s, not true or false", source, TypeName(t))
	}
	return e, nil
}

// Env is what an expression may ask of one recipient's mail.
type Env struct {
	// Sender is the reverse-path without brackets; "" is the null one.
	Sender string
	// Recipient is the forward-path without brackets; "" if none is asked for.
	Recipient string
	// Account and Detail as the directory resolved the recipient; "" if not.
	Account, Detail string
	// Client that brought the mail; nil: nothing is known of it.
	Client *v1.Client
	// Tags that filters set.
	Tags map[string]*v1.Tag
	// Message, once it is there.
	Message Message
	// Has asks the directory ref for an address, for has(). nil: has() fails.
	Has func(ref, address string) (bool, error)
}

// Message is what expressions read of the message: values unfolded, and not yet
// decoded (RFC 2047), which is done for those that an expression reads.
type Message struct {
	// Size in octets.
	Size int64
	// Subject, From and MessageID are the first fields of these names; "" if none.
	Subject, From, MessageID string
	// Headers by lower-case field name, in order. Needed only if an expression
	// Uses("message.headers").
	Headers map[string][]string
}

// Range is where the expression stands.
func (e *Expr) Range() hcl.Range { return e.syntax.Range() }

// Source is the expression as it was written, for explain and logs.
func (e *Expr) Source() string { return e.source }

// Constant reports whether it reads nothing of the mail.
func (e *Expr) Constant() bool { return len(e.uses) == 0 }

// Decided evaluates a condition with as much as is known: nothing, or the recipient.
// known is false if it depends on more.
func (e *Expr) Decided(recipient *string) (known, value bool) {
	ctx := e.Unknown()
	if recipient != nil {
		m := mailbox(*recipient, "", "").AsValueMap()
		m["account"] = cty.UnknownVal(cty.String)
		ctx.Variables["recipient"] = cty.ObjectVal(m)
	}
	v, diags := e.syntax.Value(ctx)
	v, _ = v.Unmark()
	if diags.HasErrors() || !v.IsKnown() || v.IsNull() || v.Type() != cty.Bool {
		return false, false
	}
	return true, v.True()
}

// Uses reports whether the expression reads root or anything below it:
// "message.headers", "tags.spam", "recipient".
func (e *Expr) Uses(root string) bool {
	want := strings.Split(root, ".")
	for _, t := range e.uses {
		steps := StepNames(t)
		n := min(len(steps), len(want))
		// A shorter reading ("message") reads everything below it too.
		if strings.Join(steps[:n], ".") == strings.Join(want[:n], ".") {
			return true
		}
	}
	return false
}

// Fields are the header fields that it reads, in lower case; all: it reads
// message.headers by a name that is not written there.
func (e *Expr) Fields() (names []string, all bool) {
	for _, t := range e.uses {
		steps := StepNames(t)
		switch {
		case steps[0] != "message" || len(steps) > 1 && steps[1] != "headers":
		case len(steps) < 3:
			all = true
		default:
			names = append(names, steps[2])
		}
	}
	return names, all
}

// Bool evaluates a condition. A condition whose value is null (an unset tag) is
// false. && and || ask their right side only when the left has not decided.
func (e *Expr) Bool(env *Env) (bool, error) {
	var built *hcl.EvalContext
	return e.is(&look{env: env}, func() *hcl.EvalContext {
		if built == nil {
			built = e.child(env)
		}
		return built
	})
}

// truth is HCL's answer.
func truth(x hclsyntax.Expression, ctx *hcl.EvalContext) (bool, error) {
	v, err := value(x, ctx)
	if err != nil || v.IsNull() {
		return false, err
	}
	if v, err = convert.Convert(v, cty.Bool); err != nil {
		return false, fmt.Errorf("%s: this is %s, not true or false", At(x.Range()), TypeName(v.Type()))
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
		return "", fmt.Errorf("%s: this is no string", At(e.Range()))
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
		return nil, fmt.Errorf("%s: this is neither a string nor a list of strings", At(e.Range()))
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
		text, _ := Explain(diags[0])
		r := x.Range()
		if diags[0].Subject != nil {
			r = *diags[0].Subject
		}
		return cty.NilVal, fmt.Errorf("%s: %s", At(r), text)
	}
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		return cty.NilVal, fmt.Errorf("%s: %w", At(x.Range()), errNoValue)
	}
	return v, nil
}

var (
	errNoValue     = errors.New("the expression has no value")
	errNoDirectory = errors.New("no directory can be asked here")
)

// At is a place as it stands before a complaint: FILE:LINE:COLUMN.
func At(r hcl.Range) string {
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
	ctx.Functions = map[string]function.Function{"has": hasFunc(ask)}
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

// Unknown is the scope in which an expression is checked: every variable with its
// type and without a value.
func (e *Expr) Unknown() *hcl.EvalContext {
	ctx := e.scope.NewChild()
	ctx.Variables = map[string]cty.Value{}
	for name, t := range Variables {
		ctx.Variables[name] = unknownOf(t)
	}
	ctx.Functions = map[string]function.Function{"has": hasFunc(nil)}
	return ctx
}

// unknownOf keeps an object's attributes, so that the check knows their types.
func unknownOf(t cty.Type) cty.Value {
	if !t.IsObjectType() {
		if t == cty.DynamicPseudoType {
			return cty.DynamicVal
		}
		return cty.UnknownVal(t).RefineNotNull()
	}
	m := map[string]cty.Value{}
	for name, at := range t.AttributeTypes() {
		m[name] = unknownOf(at)
	}
	return cty.ObjectVal(m)
}
