package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
)

// compared looks at both sides of every operator: HCL converts what it can, and
// finds out with the mail at hand that "ryan.example" is not true or false.
// ctx holds unknown values.
func (l *loader) compared(x hclsyntax.Expression, ctx *hcl.EvalContext) bool {
	good := true
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.UnaryOpExpr:
			if n.Op == expression.Not {
				good = l.logical(n.Val, "!", ctx) && good
			}
		case *hclsyntax.BinaryOpExpr:
			switch n.Op {
			case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
				good = l.equal(n, ctx) && good
			case expression.And, expression.Or:
				word := map[*hclsyntax.Operation]string{expression.And: "&&", expression.Or: "||"}[n.Op]
				good = l.logical(n.LHS, word, ctx) && good
				good = l.logical(n.RHS, word, ctx) && good
			case expression.Operators[hclsyntax.OpGreaterThan], expression.Operators[hclsyntax.OpGreaterThanOrEqual],
				expression.Operators[hclsyntax.OpLessThan], expression.Operators[hclsyntax.OpLessThanOrEqual]:
				good = l.numeric(n.LHS, ctx) && good
				good = l.numeric(n.RHS, ctx) && good
			}
		}
		return nil
	})
	return good
}

// operand is a side's value where its type is known; false for what is not:
// tags, null, the variable of a for.
func operand(x hclsyntax.Expression, ctx *hcl.EvalContext) (cty.Value, bool) {
	v, diags := x.Value(ctx)
	if diags.HasErrors() || v.Type() == cty.DynamicPseudoType {
		return cty.NilVal, false
	}
	v, _ = v.UnmarkDeep()
	return v, true
}

func (l *loader) logical(x hclsyntax.Expression, op string, ctx *hcl.EvalContext) bool {
	v, ok := operand(x, ctx)
	if !ok || v.Type() == cty.Bool {
		return true
	}
	l.err(x.Range(), fmt.Sprintf("%s wants true or false beside it, and this is %s", op, expression.TypeName(v.Type())),
		"Compare it with something: recipient.domain == \"ryan.example\".")
	return false
}

func (l *loader) numeric(x hclsyntax.Expression, ctx *hcl.EvalContext) bool {
	v, ok := operand(x, ctx)
	if !ok || v.Type() == cty.Number {
		return true
	}
	remedy := "Compare numbers: message.size > 1048576."
	if v.Type() == cty.String && v.IsKnown() && !v.IsNull() {
		if _, err := convert.Convert(v, cty.Number); err == nil {
			return true
		}
		if n, err := parseSize(v.AsString()); err == nil && !slices.Contains(l.secrets, x.Range()) {
			remedy = fmt.Sprintf("Sizes are octets here: write %d.", n)
		}
	}
	l.err(x.Range(), fmt.Sprintf("< and > compare numbers, and this is %s", expression.TypeName(v.Type())), remedy)
	return false
}

// equal complains about what never is: sender == "tom@hanks.example", or a list
// and a string.
func (l *loader) equal(n *hclsyntax.BinaryOpExpr, ctx *hcl.EvalContext) bool {
	for _, side := range []hclsyntax.Expression{n.LHS, n.RHS} {
		t, ok := side.(*hclsyntax.ScopeTraversalExpr)
		if !ok || len(t.Traversal) != 1 || !expression.Variables[t.Traversal.RootName()].IsObjectType() {
			continue
		}
		name := t.Traversal.RootName()
		remedy := fmt.Sprintf("Compare one of its attributes: %s.", strings.Join(slices.Sorted(maps.Keys(expression.Variables[name].AttributeTypes())), ", "))
		if expression.Variables[name].Equals(expression.MailboxType) {
			remedy = fmt.Sprintf("Write %s.address or %s.domain.", name, name)
		}
		l.err(side.Range(), fmt.Sprintf("%s is an object and never equals anything", name), remedy)
		return false
	}
	a, aok := operand(n.LHS, ctx)
	b, bok := operand(n.RHS, ctx)
	if !aok || !bok || a.Type().Equals(b.Type()) {
		return true
	}
	x, y := a.Type(), b.Type()
	remedy := "Compare values of one kind."
	switch isList := func(t cty.Type) bool { return t.IsListType() || t.IsTupleType() || t.IsSetType() }; {
	case isList(x) && isList(y):
		remedy = "Write length(…) == 0 to ask for an empty list, or contains(list, value)."
	case isList(x) && y.IsPrimitiveType():
		remedy = fmt.Sprintf("Write contains(%s, %s).", l.text(n.LHS.Range()), l.text(n.RHS.Range()))
	case isList(y) && x.IsPrimitiveType():
		remedy = fmt.Sprintf("Write contains(%s, %s).", l.text(n.RHS.Range()), l.text(n.LHS.Range()))
	case x == cty.Number && y == cty.String, x == cty.String && y == cty.Number:
		remedy = "Write a number without quotes, a string with them."
	case x == cty.Bool || y == cty.Bool:
		remedy = "Write true and false without quotes."
	}
	l.err(n.Range(), fmt.Sprintf("%s never equals %s", capital(expression.TypeName(x)), expression.TypeName(y)), remedy)
	return false
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// wrongCount says how a function is called.
func (l *loader) wrongCount(call *hclsyntax.FunctionCallExpr) (text, remedy string) {
	if call.Name == "has" {
		return "has() takes a directory and an address", "Write has(directory.file.people, recipient)."
	}
	f, ok := l.scope(call.Range().Filename).Functions[call.Name]
	if !ok {
		return fmt.Sprintf("%s() is called with %d arguments", call.Name, len(call.Args)), ""
	}
	var names []string
	for _, p := range f.Params() {
		names = append(names, p.Name)
	}
	text = fmt.Sprintf("%s() takes %d argument(s), not %d", call.Name, len(names), len(call.Args))
	if f.VarParam() != nil {
		names = append(names, f.VarParam().Name+"…")
		text = fmt.Sprintf("%s() takes other arguments than these %d", call.Name, len(call.Args))
	}
	return text, fmt.Sprintf("Write %s(%s).", call.Name, strings.Join(names, ", "))
}
