package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
)

// reader takes the attributes of one block by name and type. What nobody asked
// for when done is called is unknown. A method leaves its target alone when the
// attribute is missing, null or wrong (after a complaint).
type reader struct {
	l      *loader
	body   *hclsyntax.Body
	what   string    // receive "smtp" "mx"
	head   hcl.Range // for what is missing
	names  []string
	blocks []string
	// missing are the complaints of need, made by done.
	missing []missing
}

type missing struct{ name, example string }

func (l *loader) reader(b *hclsyntax.Block) *reader {
	return &reader{l: l, body: b.Body, what: blockName(b), head: header(b)}
}

// expr returns an attribute's expression; nil if it is missing or null.
func (r *reader) expr(name string) hclsyntax.Expression {
	r.names = append(r.names, name)
	a := r.body.Attributes[name]
	if a == nil || a.Expr == nil {
		return nil
	}
	if lit, ok := a.Expr.(*hclsyntax.LiteralValueExpr); ok && lit.Val.IsNull() {
		return nil
	}
	return a.Expr
}

// set reports whether the attribute is there, null or not.
func (r *reader) set(name string) bool { return r.body.Attributes[name] != nil }

// need complains about missing attributes; remedy is an example line.
func (r *reader) need(name, example string) {
	if !slices.Contains(r.names, name) {
		r.names = append(r.names, name)
	}
	if !r.set(name) {
		r.missing = append(r.missing, missing{name, example})
	}
}

// value evaluates an attribute as a type. secret values leave no trace in complaints.
func (r *reader) value(name string, want cty.Type) (v cty.Value, at hcl.Range, ok bool) {
	x := r.expr(name)
	if x == nil {
		return cty.NilVal, hcl.Range{}, false
	}
	if v, ok = r.l.constant(x); !ok {
		return cty.NilVal, x.Range(), false
	}
	v, ok = r.convert(name, v, want, x)
	return v, x.Range(), ok
}

func (r *reader) convert(name string, v cty.Value, want cty.Type, x hclsyntax.Expression) (cty.Value, bool) {
	v, marks := v.UnmarkDeep()
	got, err := convert.Convert(v, want)
	// HCL would take "5" for a number and 5 for a string. The first hides slips.
	if err == nil && want == cty.Bool && v.Type() != cty.Bool && len(marks) == 0 {
		err = fmt.Errorf("no bool")
	}
	if err != nil || !got.IsWhollyKnown() {
		remedy := ""
		switch {
		case want == cty.Bool:
			remedy = "Write true or false, without quotes."
		case want == cty.Number && v.Type() == cty.String:
			remedy = "Write digits, without quotes."
		case want.IsMapType():
			remedy = fmt.Sprintf("Write %s = { name = \"value\" }.", name)
		case want == cty.String && v.Type() == expression.ReferenceType:
			remedy = "Write it in quotes."
		case want.IsListType() && (v.Type() == cty.String || v.Type() == cty.Number):
			remedy = fmt.Sprintf("Write it in brackets: %s = [%s].", name, r.l.text(x.Range()))
		}
		r.l.err(x.Range(), fmt.Sprintf("%s must be %s, not %s", name, expression.TypeName(want), expression.TypeName(v.Type())), remedy)
		return cty.NilVal, false
	}
	return got, !got.IsNull()
}

func (r *reader) str(name string, into *string) (hcl.Range, bool) {
	v, at, ok := r.value(name, cty.String)
	if ok {
		*into = v.AsString()
	}
	return at, ok
}

// oneOf is a string of a fixed choice.
func (r *reader) oneOf(name string, into *string, choice ...string) {
	var s string
	if x := r.expr(name); x != nil {
		if t, diags := hcl.AbsTraversalForExpr(x); !diags.HasErrors() && referable[t.RootName()] > 0 {
			r.l.err(x.Range(), fmt.Sprintf("%s cannot be a reference", name), orKnown("", choice, "It is one of: "))
			return
		}
	}
	at, ok := r.str(name, &s)
	if !ok {
		return
	}
	if !slices.Contains(choice, s) {
		r.l.err(at, fmt.Sprintf("%s cannot be %s", name, r.l.shown(s, at)), orKnown(s, choice, "It is one of: "))
		return
	}
	*into = s
}

func (r *reader) boolean(name string, into *bool) bool {
	v, _, ok := r.value(name, cty.Bool)
	if ok {
		*into = v.True()
	}
	return ok
}

// integer within low and high.
func (r *reader) integer(name string, into *int, low, high int) {
	v, at, ok := r.value(name, cty.Number)
	if !ok {
		return
	}
	f, _ := v.AsBigFloat().Float64()
	if f != float64(int(f)) || f < float64(low) || f > float64(high) {
		r.l.err(at, fmt.Sprintf("%s must be a whole number from %d to %d", name, low, high), "")
		return
	}
	*into = int(f)
}

// parsed is a string that parse understands; remedy tells how to write it.
func parsed[T any](r *reader, name string, into *T, parse func(string) (T, error), remedy string) (hcl.Range, bool) {
	var s string
	at, ok := r.str(name, &s)
	if !ok {
		return at, false
	}
	v, err := parse(s)
	if err != nil {
		r.l.err(at, fmt.Sprintf("%s = %s %s", name, r.l.shown(s, at), err), remedy)
		return at, false
	}
	*into = v
	return at, true
}

// item is one element of a list with its place.
type item struct {
	text string
	at   hcl.Range
}

// items is a list of strings, each with its place.
func (r *reader) items(name string) []item {
	x := r.expr(name)
	if x == nil {
		return nil
	}
	tuple, ok := x.(*hclsyntax.TupleConsExpr)
	if !ok {
		v, at, ok := r.value(name, cty.List(cty.String))
		if !ok {
			return nil
		}
		var out []item
		for _, s := range v.AsValueSlice() {
			if !s.IsNull() {
				out = append(out, item{s.AsString(), at})
			}
		}
		return out
	}
	var out []item
	for _, e := range tuple.Exprs {
		v, ok := r.l.constant(e)
		if !ok {
			continue
		}
		if v, ok = r.convert("an element of "+name, v, cty.String, e); ok {
			out = append(out, item{v.AsString(), e.Range()})
		}
	}
	return out
}

func (r *reader) strings(name string) []string {
	var out []string
	for _, i := range r.items(name) {
		out = append(out, i.text)
	}
	return out
}

// parsedList is a list of strings that parse understands.
func parsedList[T any](r *reader, name string, into *[]T, parse func(string) (T, error), remedy string) {
	if r.expr(name) == nil {
		return
	}
	out := []T{}
	for _, i := range r.items(name) {
		v, err := parse(i.text)
		if err != nil {
			r.l.err(i.at, fmt.Sprintf("%s %s", r.l.shown(i.text, i.at), err), remedy)
			continue
		}
		out = append(out, v)
	}
	*into = out
}

func (r *reader) duration(name string, into *time.Duration) {
	// A bare number is the commonest slip; say so instead of "not a string".
	if x := r.expr(name); x != nil {
		if lit, ok := x.(*hclsyntax.LiteralValueExpr); ok && lit.Val.Type() == cty.Number {
			text := r.l.text(x.Range())
			if text == "0" {
				*into = 0
				return
			}
			r.l.err(x.Range(), fmt.Sprintf("%s = %s has no unit", name, text), durationRemedy)
			return
		}
	}
	parsed(r, name, into, parseDuration, durationRemedy)
}

// timeout is a duration that cannot be 0.
func (r *reader) timeout(name string, into *time.Duration) {
	before := *into
	if r.duration(name, into); *into <= 0 && r.expr(name) != nil {
		*into = before
		r.l.err(r.expr(name).Range(), name+" = 0 would give up at once", "Leave it out for the default, or write a longer one.")
	}
}

func (r *reader) size(name string, into *int64) {
	parsed(r, name, into, parseSize, sizeRemedy)
}

func (r *reader) prefixes(name string, into *[]netip.Prefix) {
	parsedList(r, name, into, expression.ParseNetwork, prefixRemedy)
}

func (r *reader) listen(into *[]Listen) {
	r.names = append(r.names, "listen")
	var out []Listen
	for _, i := range r.items("listen") {
		a, err := parseListen(i.text)
		if err != nil {
			r.l.err(i.at, fmt.Sprintf("The listen address %s %s", r.l.shown(i.text, i.at), err), listenRemedy)
			continue
		}
		a.Range = i.at
		out = append(out, a)
	}
	if x := r.expr("listen"); x != nil && len(out) == 0 {
		if t, ok := x.(*hclsyntax.TupleConsExpr); ok && len(t.Exprs) == 0 {
			r.l.err(x.Range(), "listen is empty: nobody could connect", listenRemedy)
		}
	}
	*into = out
}

// path is a file name, absolute afterwards.
func (r *reader) path(name string, into *string) (hcl.Range, bool) {
	at, ok := r.str(name, into)
	if !ok {
		return at, false
	}
	if first := strings.SplitN(*into, "/", 2)[0]; strings.HasPrefix(first, "$") || first == "~" {
		variable := strings.Trim(strings.TrimPrefix(first, "$"), "{}")
		if first == "~" {
			variable = "HOME"
		}
		r.l.err(at, fmt.Sprintf("%s is taken literally here: there is no shell", first), fmt.Sprintf("Write \"${env(%q)}/…\".", variable))
		return at, false
	}
	*into = r.l.path(*into, at)
	return at, true
}

// ref is a reference to a block of one of the kinds; nil if missing or wrong.
func (r *reader) ref(name string, kinds ...string) *symbol {
	x := r.expr(name)
	if x == nil {
		return nil
	}
	return r.l.reference(x, kinds...)
}

func (l *loader) reference(x hclsyntax.Expression, kinds ...string) *symbol {
	t, diags := hcl.AbsTraversalForExpr(x)
	if !diags.HasErrors() {
		return l.resolve(t, kinds...)
	}
	text := strings.Trim(l.text(x.Range()), `"`)
	remedy := fmt.Sprintf("Write %s.", refShape(kinds[0]))
	if l.symbols[text] != nil {
		remedy = fmt.Sprintf("Write it without quotes: %s.", text)
	} else if refs := l.refsOf(kinds...); len(refs) > 0 {
		remedy = listRefs(refs)
	}
	l.err(x.Range(), fmt.Sprintf("A reference to %s is wanted here", article(kinds[0])), remedy)
	return nil
}

// refs is a list of references to instances of one kind.
func (r *reader) refs(name, kind string) []*Instance {
	x := r.expr(name)
	if x == nil {
		return nil
	}
	tuple, ok := x.(*hclsyntax.TupleConsExpr)
	if !ok {
		r.l.err(x.Range(), fmt.Sprintf("%s must be a list of references", name),
			fmt.Sprintf("Write it in brackets: %s = [%s].", name, r.l.text(x.Range())))
		return nil
	}
	out := []*Instance{}
	for _, e := range tuple.Exprs {
		s := r.l.reference(e, kind)
		if s == nil {
			continue
		}
		if slices.Contains(out, s.instance) {
			r.l.err(e.Range(), fmt.Sprintf("%s stands twice in %s", s.ref, name), "Keep one of the two.")
			continue
		}
		out = append(out, s.instance)
	}
	return out
}

// block returns the nested block of that type; a second one is a mistake.
func (r *reader) block(name string) *hclsyntax.Block {
	r.blocks = append(r.blocks, name)
	var found *hclsyntax.Block
	for _, b := range r.body.Blocks {
		if b.Type != name {
			continue
		}
		if found != nil {
			r.l.err(header(b), fmt.Sprintf("A second block %s in %s", name, r.what), "Keep one of the two.")
			continue
		}
		found = b
	}
	return found
}

// done complains about everything that nobody asked for, and about what is
// missing unless a misspelt attribute was meant to be it.
func (r *reader) done() {
	r.unknown()
	r.lacking()
}

func (r *reader) lacking() {
	for _, m := range r.missing {
		meant := false
		for name := range r.body.Attributes {
			meant = meant || !slices.Contains(r.names, name) && nearest(name, r.names) == m.name
		}
		if !meant {
			r.l.lacks(r.head, fmt.Sprintf("%s lacks %s", r.what, m.name), "Add: "+m.example)
		}
	}
	r.missing = nil
}

func (r *reader) unknown() {
	for name, a := range r.body.Attributes {
		if slices.Contains(r.names, name) {
			continue
		}
		if slices.Contains(r.blocks, name) {
			r.l.err(a.NameRange, fmt.Sprintf("%s is a block, not an attribute", name), fmt.Sprintf("Leave the \"=\" out: %s { … }", name))
			continue
		}
		remedy := orKnown(name, r.names, "It has: ")
		if block, rest, _ := strings.Cut(name, "_"); rest != "" && slices.Contains(r.blocks, block) && nearest(name, r.names) == "" {
			remedy = fmt.Sprintf("Write it in its block:\n    %s {\n      %s = …\n    }", block, rest)
		}
		r.l.err(a.NameRange, fmt.Sprintf("%s has no attribute %q", r.what, name), remedy)
	}
	for _, b := range r.body.Blocks {
		if slices.Contains(r.blocks, b.Type) {
			continue
		}
		if slices.Contains(r.names, b.Type) {
			r.l.err(b.TypeRange, fmt.Sprintf("%s is an attribute, not a block", b.Type), fmt.Sprintf("Write an \"=\": %s = …", b.Type))
			continue
		}
		remedy := didYouMean(b.Type, append(r.blocks, r.names...))
		if remedy == "" && blockLabels[b.Type] != nil {
			remedy = "This block stands at the top of the file: a \"}\" may be missing above it."
		}
		r.l.err(b.TypeRange, fmt.Sprintf("%s has no block %q", r.what, b.Type), remedy)
	}
}
