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

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/expression"
)

// constant evaluates an attribute whose value is the same for every mail. ok is
// false after a complaint.
func (l *loader) constant(x hclsyntax.Expression) (v cty.Value, ok bool) {
	if !l.checkNames(x, false) {
		return cty.NilVal, false
	}
	v, diags := x.Value(l.scope(x.Range().Filename))
	l.keepSecret(v, x)
	return v, l.evalErrors(diags, x)
}

// cover remembers that x is a secret: no text shows its value, and no source
// line the expression, unless that only says where the secret lies.
func (l *loader) cover(x hclsyntax.Expression) {
	l.secrets = append(l.secrets, x.Range())
	if call, ok := x.(*hclsyntax.FunctionCallExpr); ok && len(call.Args) == 1 && (call.Name == "env" || call.Name == "file") {
		return
	}
	l.covered = append(l.covered, x.Range())
}

// keepSecret remembers that x's value came from file() or env().
func (l *loader) keepSecret(v cty.Value, x hclsyntax.Expression) {
	if v.ContainsMarked() {
		l.secrets = append(l.secrets, x.Range())
	}
}

// compile type-checks an expression over the mail, with unknown values, and
// keeps it for run time. want is cty.Bool, or cty.String for a string or, with
// list, a list of strings too. nil after a complaint.
func (l *loader) compile(x hclsyntax.Expression, what string, want cty.Type, list bool) *Expr {
	if !l.checkNames(x, true) {
		return nil
	}
	e := expression.New(x, l.scope(x.Range().Filename), l.text(x.Range()))
	if !l.compared(x, e.Unknown()) {
		return nil
	}
	v, diags := x.Value(e.Unknown())
	l.keepSecret(v, x)
	if !l.evalErrors(diags, x) {
		return nil
	}
	t := v.Type()
	if t == cty.DynamicPseudoType {
		return e
	}
	isText := t == cty.String || t == cty.Number
	if list && (t.IsListType() || t.IsTupleType() || t.IsSetType()) {
		_, err := convert.Convert(v, cty.List(cty.String))
		isText = err == nil
	}
	switch {
	case want == cty.Bool && t != cty.Bool:
		l.err(x.Range(), fmt.Sprintf("%s must be true or false, and this is %s", what, expression.TypeName(t)),
			"Compare something: recipient.domain == \"ryan.example\".")
		return nil
	case want == cty.String && !isText:
		remedy := "Write it in quotes; \"${recipient.local}\" puts a value into a string."
		if t.Equals(expression.MailboxType) {
			remedy = fmt.Sprintf("Write %s.address.", e.Source())
		}
		l.err(x.Range(), fmt.Sprintf("%s must be a string, and this is %s", what, expression.TypeName(t)), remedy)
		return nil
	}
	return e
}

// text is the source of a range, to be shown.
func (l *loader) text(r hcl.Range) string {
	if slices.Contains(l.covered, r) {
		return "…"
	}
	return string(r.SliceBytes(l.src[r.Filename]))
}

// checkNames complains about expression.Variables, attributes and references that do not
// exist. mail says whether the expression sees one.
func (l *loader) checkNames(x hclsyntax.Expression, mail bool) bool {
	ok := true
	for _, t := range x.Variables() {
		root, r := t.RootName(), t.SourceRange()
		if referable[root] > 0 {
			ok = l.resolve(t) != nil && ok
			continue
		}
		typ, known := expression.Variables[root]
		switch {
		case !known:
			ok = false
			names := slices.Collect(maps.Keys(referable))
			if mail {
				names = append(names, slices.Collect(maps.Keys(expression.Variables))...)
			}
			remedy := didYouMean(root, names)
			switch {
			case slices.Contains([]string{"yes", "no", "on", "off", "True", "False", "TRUE", "FALSE"}, root):
				remedy = "Write true or false."
			case remedy != "":
			case len(t) == 1 && strings.ToUpper(root) == root && strings.ToLower(root) != root:
				remedy = fmt.Sprintf("The environment is read with env(%q); a string stands in quotes.", root)
			case len(t) == 1 && !mail:
				remedy = fmt.Sprintf("A string stands in quotes: %q.", root)
			case mail:
				remedy = "Known are: " + strings.Join(slices.Sorted(maps.Keys(expression.Variables)), ", ") + "; a string stands in quotes."
			}
			l.err(t[0].SourceRange(), fmt.Sprintf("There is no variable %q", root), remedy)
		case !mail:
			ok = false
			l.err(r, fmt.Sprintf("%s is not known here: no mail is there yet", root),
				"It can stand in a route's when, redirect, copy and hold.")
		case typ != cty.DynamicPseudoType:
			ok = l.checkAttributes(t, typ) && ok
		}
	}
	return ok
}

// checkAttributes follows a traversal as far as the types are objects.
func (l *loader) checkAttributes(t hcl.Traversal, typ cty.Type) bool {
	steps := expression.StepNames(t)
	for i := 1; i < len(steps); i++ {
		path := strings.Join(steps[:i], ".")
		if !typ.IsObjectType() {
			if path == "message.headers" && steps[i] != strings.ToLower(steps[i]) {
				l.err(t[i].SourceRange(), "Header field names are in lower case here",
					fmt.Sprintf("Write message.headers[%q].", strings.ToLower(steps[i])))
				return false
			}
			return true
		}
		if !typ.HasAttribute(steps[i]) {
			names := slices.Collect(maps.Keys(typ.AttributeTypes()))
			l.err(t[i].SourceRange(), fmt.Sprintf("%s has no attribute %q", path, steps[i]), orKnown(steps[i], names, "It has: "))
			return false
		}
		typ = typ.AttributeType(steps[i])
	}
	return true
}

// evalErrors says HCL's complaints in our words.
func (l *loader) evalErrors(diags hcl.Diagnostics, x hclsyntax.Expression) bool {
	for _, d := range diags {
		r := x.Range()
		if d.Subject != nil {
			r = *d.Subject
		}
		text, remedy := expression.Explain(d)
		call, inCall := d.Expression.(*hclsyntax.FunctionCallExpr)
		switch {
		case inCall && strings.HasSuffix(d.Summary, "enough function arguments"), inCall && d.Summary == "Too many function arguments":
			text, remedy = l.wrongCount(call)
		case strings.HasPrefix(text, "Wrong directory in has()"):
			text, remedy = "has() asks a directory, by its reference", "Write has(directory.file.people, recipient)."
			if refs := l.refsOf("directory"); len(refs) > 0 {
				remedy = fmt.Sprintf("Write has(%s, recipient).", strings.Join(refs, ", recipient) or has("))
			}
		case strings.HasPrefix(text, "Wrong address in has()"):
			remedy = "Write recipient, sender, or a string."
		case strings.HasPrefix(text, "Wrong pattern in "):
			remedy = regexpRemedy
		}
		if d.Summary == "Call to unknown function" {
			if inCall {
				names := append(slices.Collect(maps.Keys(l.functions)), "file", "has")
				text, remedy = fmt.Sprintf("There is no function %q", call.Name), orKnown(call.Name, names, "Functions are: ")
			}
		}
		if remedy == "" {
			remedy = bareMailbox(d.Expression)
		}
		l.err(r, text, remedy)
	}
	return !diags.HasErrors()
}

// bareMailbox is the remedy for lower(recipient) and its like.
func bareMailbox(x hcl.Expression) string {
	if t, ok := x.(*hclsyntax.ScopeTraversalExpr); ok && len(t.Traversal) == 1 && expression.Variables[t.Traversal.RootName()].Equals(expression.MailboxType) {
		return fmt.Sprintf("Write %s.address.", t.Traversal.RootName())
	}
	return ""
}

// checkAddress complains about a redirect or copy to what is no address.
func (l *loader) checkAddress(e *Expr) {
	if e == nil || !e.Constant() {
		return
	}
	list, err := e.Strings(&Env{})
	if err != nil {
		return // calls a function that needs the mail
	}
	for _, a := range list {
		if _, err := address.Parse(a, true); err != nil {
			l.err(e.Range(), fmt.Sprintf("%s is no mail address: %s", l.shown(a, e.Range()), trimAddress(err)), "Write \"meg@ryan.example\".")
		}
	}
}

func trimAddress(err error) string {
	return strings.TrimPrefix(err.Error(), address.ErrSyntax.Error()+": ")
}
