package expression

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// HCL's evaluation makes values of everything that an expression might read, at each
// mail. What conditions are mostly made of is evaluated directly here: comparisons
// of what a mail has with what was written, and the tests of strings, lists and
// networks. Whatever is not known to come out the same goes HCL's way.

// direct is a part that needs no HCL; ok is false where HCL must be asked after all.
type direct func(l *look) (v val, ok bool)

// look is one evaluation.
type look struct {
	env               *Env
	sender, recipient *parsed
	// problem of a directory that was asked.
	problem error
}

type parsed struct {
	whole string
	address.Address
}

type kind uint8

const (
	null kind = iota
	text
	number
	flag
	list
)

// val is a value of an expression.
type val struct {
	kind kind
	s    string
	n    float64
	b    bool
	l    []string
}

func textVal(s string) val { return val{kind: text, s: s} }
func flagVal(b bool) val   { return val{kind: flag, b: b} }

// condition is a part whose value is true or false.
type condition func(l *look, ctx func() *hcl.EvalContext) (bool, error)

// conditionOf evaluates the logical operators itself: HCL always evaluates both
// sides, and the right one may be a look-up in a directory.
func (e *Expr) conditionOf(x hclsyntax.Expression) condition {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return e.conditionOf(x.Expression)
	case *hclsyntax.UnaryOpExpr:
		if x.Op == Not {
			inner := e.conditionOf(x.Val)
			return func(l *look, ctx func() *hcl.EvalContext) (bool, error) {
				b, err := inner(l, ctx)
				return !b, err
			}
		}
	case *hclsyntax.BinaryOpExpr:
		if x.Op == And || x.Op == Or {
			left, right, decides := e.conditionOf(x.LHS), e.conditionOf(x.RHS), x.Op == Or
			return func(l *look, ctx func() *hcl.EvalContext) (bool, error) {
				b, err := left(l, ctx)
				if err != nil || b == decides {
					return b, err
				}
				return right(l, ctx)
			}
		}
	}
	d := e.directOf(x)
	return func(l *look, ctx func() *hcl.EvalContext) (bool, error) {
		if d != nil {
			v, ok := d(l)
			switch {
			case l.problem != nil:
				return false, l.problem
			case ok && v.kind == null:
				return false, nil
			case ok && v.kind == flag:
				return v.b, nil
			}
		}
		return truth(x, ctx())
	}
}

// directOf is nil for what HCL evaluates.
func (e *Expr) directOf(x hclsyntax.Expression) direct {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return e.directOf(x.Expression)
	case *hclsyntax.LiteralValueExpr:
		return constant(x.Val)
	case *hclsyntax.TemplateExpr:
		if len(x.Parts) == 1 {
			if lit, ok := x.Parts[0].(*hclsyntax.LiteralValueExpr); ok {
				return constant(lit.Val)
			}
		}
		if len(x.Parts) == 0 {
			return constant(cty.StringVal(""))
		}
	case *hclsyntax.ScopeTraversalExpr:
		return variable(x.Traversal)
	case *hclsyntax.BinaryOpExpr:
		left, right := e.directOf(x.LHS), e.directOf(x.RHS)
		if left == nil || right == nil {
			return nil
		}
		return comparison(x.Op, left, right)
	case *hclsyntax.FunctionCallExpr:
		if !x.ExpandFinal {
			return e.call(x)
		}
	}
	return nil
}

func constant(v cty.Value) direct {
	var out val
	switch {
	case v.IsMarked() || !v.IsKnown():
		return nil
	case v.IsNull():
	case v.Type() == cty.String:
		out = textVal(v.AsString())
	case v.Type() == cty.Bool:
		out = flagVal(v.True())
	case v.Type() == cty.Number:
		out.kind = number
		out.n, _ = v.AsBigFloat().Float64()
	default:
		return nil
	}
	return func(*look) (val, bool) { return out, true }
}

// comparison of two values. == and != know no conversion: other kinds are unequal.
func comparison(op *hclsyntax.Operation, left, right direct) direct {
	var numeric func(a, b float64) bool
	switch op {
	case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
		wanted := op == hclsyntax.OpEqual
		return func(l *look) (val, bool) {
			a, ok := left(l)
			if !ok || a.kind == list {
				return val{}, false
			}
			b, ok := right(l)
			if !ok || b.kind == list {
				return val{}, false
			}
			same := a.kind == b.kind && a.s == b.s && a.n == b.n && a.b == b.b
			return flagVal(same == wanted), true
		}
	case Operators[hclsyntax.OpGreaterThan]:
		numeric = func(a, b float64) bool { return a > b }
	case Operators[hclsyntax.OpGreaterThanOrEqual]:
		numeric = func(a, b float64) bool { return a >= b }
	case Operators[hclsyntax.OpLessThan]:
		numeric = func(a, b float64) bool { return a < b }
	case Operators[hclsyntax.OpLessThanOrEqual]:
		numeric = func(a, b float64) bool { return a <= b }
	default:
		return nil
	}
	return func(l *look) (val, bool) {
		a, aok := left(l)
		b, bok := right(l)
		switch {
		case !aok || !bok:
			return val{}, false
		case a.kind == number && b.kind == number:
			return flagVal(numeric(a.n, b.n)), true
		case (a.kind == null || a.kind == number) && (b.kind == null || b.kind == number):
			return flagVal(false), true
		}
		return val{}, false
	}
}

// call is a function that is known here.
func (e *Expr) call(x *hclsyntax.FunctionCallExpr) direct {
	if x.Name == "has" && len(x.Args) == 2 {
		return e.hasCall(x)
	}
	tests := map[string]func(s, part string) bool{"startswith": strings.HasPrefix, "endswith": strings.HasSuffix, "strcontains": strings.Contains}
	switch {
	case len(x.Args) == 1 && (x.Name == "lower" || x.Name == "upper"):
		change := strings.ToLower
		if x.Name == "upper" {
			change = strings.ToUpper
		}
		return ofText(e.directOf(x.Args[0]), func(s string) val { return textVal(change(s)) }, nil)
	case len(x.Args) == 1 && (x.Name == "is_private" || x.Name == "is_loopback"):
		test := netip.Addr.IsPrivate
		if x.Name == "is_loopback" {
			test = netip.Addr.IsLoopback
		}
		return ofText(e.directOf(x.Args[0]), func(s string) val {
			ip, err := netip.ParseAddr(s)
			return flagVal(err == nil && test(ip.Unmap()))
		}, &val{kind: flag})
	case len(x.Args) == 2 && tests[x.Name] != nil:
		if part, ok := literal(x.Args[1]); ok {
			return ofText(e.directOf(x.Args[0]), func(s string) val { return flagVal(tests[x.Name](s, part)) }, &val{kind: flag})
		}
	case len(x.Args) == 2 && x.Name == "matches":
		if pattern, ok := literal(x.Args[0]); ok {
			if re, err := regexp.Compile(pattern); err == nil {
				return ofText(e.directOf(x.Args[1]), func(s string) val { return flagVal(re.MatchString(s)) }, &val{kind: flag})
			}
		}
	case len(x.Args) == 2 && x.Name == "cidr_contains":
		if texts, ok := literals(x.Args[0]); ok {
			return ofText(e.directOf(x.Args[1]), inNetworks(texts), &val{kind: flag})
		}
	case len(x.Args) == 2 && x.Name == "contains":
		return e.contains(x)
	}
	return nil
}

// ofText calls f for a text, and answers absent (nil: HCL does) for null.
func ofText(d direct, f func(string) val, absent *val) direct {
	if d == nil || f == nil {
		return nil
	}
	return func(l *look) (val, bool) {
		v, ok := d(l)
		switch {
		case ok && v.kind == text:
			return f(v.s), true
		case ok && v.kind == null && absent != nil:
			return *absent, true
		}
		return val{}, false
	}
}

func inNetworks(texts []string) func(string) val {
	var nets []netip.Prefix
	for _, t := range texts {
		p, err := ParseNetwork(t)
		if err != nil {
			return nil
		}
		nets = append(nets, p)
	}
	return func(s string) val {
		ip, err := netip.ParseAddr(s)
		return flagVal(err == nil && slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) }))
	}
}

// contains of a list that was written, or of the mail's, and a text.
func (e *Expr) contains(x *hclsyntax.FunctionCallExpr) direct {
	item := e.directOf(x.Args[1])
	if item == nil {
		return nil
	}
	if texts, ok := literals(x.Args[0]); ok {
		return ofText(item, func(s string) val { return flagVal(slices.Contains(texts, s)) }, &val{kind: flag})
	}
	all := e.directOf(x.Args[0])
	if all == nil {
		return nil
	}
	return func(l *look) (val, bool) {
		v, ok := all(l)
		i, iok := item(l)
		switch {
		case !ok || !iok:
			return val{}, false
		case v.kind == null || i.kind == null:
			return flagVal(false), true
		case v.kind != list || i.kind != text:
			return val{}, false
		}
		return flagVal(slices.Contains(v.l, i.s)), true
	}
}

// hasCall is has(directory, address or recipient).
func (e *Expr) hasCall(x *hclsyntax.FunctionCallExpr) direct {
	t, ok := x.Args[0].(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return nil
	}
	v, diags := t.Value(e.scope)
	if diags.HasErrors() || v.IsMarked() || v.IsNull() || v.Type() != ReferenceType {
		return nil
	}
	ref := v.EncapsulatedValue().(*Reference)
	if ref.Kind != "directory" {
		return nil
	}
	whom := e.directOf(x.Args[1])
	if root, ok := x.Args[1].(*hclsyntax.ScopeTraversalExpr); ok && len(root.Traversal) == 1 {
		if name := root.Traversal.RootName(); name == "sender" || name == "recipient" {
			whom = mailboxPart(name, "address")
		}
	}
	if whom == nil {
		return nil
	}
	return func(l *look) (val, bool) {
		who, ok := whom(l)
		if !ok || who.kind != text && who.kind != null || l.env.Has == nil {
			return val{}, false
		}
		if who.kind == null {
			return flagVal(false), true
		}
		b, err := l.env.Has(ref.Ref, who.s)
		if err != nil {
			l.problem = complaint{x.Range(), "has(): " + err.Error(), err}
		}
		return flagVal(b), true
	}
}

// literal is a string that was written.
func literal(x hclsyntax.Expression) (string, bool) {
	if t, ok := x.(*hclsyntax.TemplateExpr); !ok || len(t.Parts) > 1 {
		return "", false
	} else if len(t.Parts) == 1 {
		if _, ok := t.Parts[0].(*hclsyntax.LiteralValueExpr); !ok {
			return "", false
		}
	}
	v, diags := x.Value(nil)
	if diags.HasErrors() || v.IsMarked() || v.IsNull() || v.Type() != cty.String {
		return "", false
	}
	return v.AsString(), true
}

// literals are a string or a list of them that were written; not the empty list.
func literals(x hclsyntax.Expression) ([]string, bool) {
	if s, ok := literal(x); ok {
		return []string{s}, true
	}
	t, ok := x.(*hclsyntax.TupleConsExpr)
	if !ok || len(t.Exprs) == 0 {
		return nil, false
	}
	var out []string
	for _, item := range t.Exprs {
		s, ok := literal(item)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// variable is what the mail has under a name.
func variable(t hcl.Traversal) direct {
	steps := StepNames(t)
	n := len(t)
	if attr, ok := t[min(1, n-1)].(hcl.TraverseAttr); ok && strings.Contains(attr.Name, keySeparator) {
		n++ // a tag's name and its key are one step
	}
	if len(steps) != n {
		return nil // an index into a list
	}
	switch {
	case len(steps) == 2 && (steps[0] == "sender" || steps[0] == "recipient"):
		return mailboxPart(steps[0], steps[1])
	case len(steps) == 2 && steps[0] == "client":
		return clientPart(steps[1])
	case len(steps) == 2 && steps[0] == "message":
		return messagePart(steps[1])
	case len(steps) == 3 && steps[0] == "message" && steps[1] == "headers":
		return func(l *look) (val, bool) {
			return val{kind: list, l: decoded(field(l.env.Message.Headers, steps[2]))}, true
		}
	case len(steps) == 2 && steps[0] == "tags":
		return func(l *look) (val, bool) { return tagVal(l.env.Tags[steps[1]]) }
	case len(steps) == 3 && steps[0] == "tags":
		return func(l *look) (val, bool) {
			v := l.env.Tags[steps[1]].GetMap().GetEntries()[steps[2]]
			if v.GetMap() != nil {
				return val{}, true
			}
			return tagVal(v)
		}
	}
	return nil
}

// field of a header whose names may be written in any case.
func field(h map[string][]string, name string) []string {
	if values, ok := h[name]; ok {
		return values
	}
	for n, values := range h {
		if strings.ToLower(n) == name {
			return values
		}
	}
	return nil
}

func tagVal(t *v1.Tag) (val, bool) {
	switch v := t.GetValue().(type) {
	case nil:
		return val{}, true
	case *v1.Tag_Text:
		return textVal(v.Text), true
	case *v1.Tag_Number:
		if v.Number != v.Number {
			return val{}, true
		}
		return val{kind: number, n: v.Number}, true
	case *v1.Tag_Flag:
		return flagVal(v.Flag), true
	case *v1.Tag_List:
		return val{kind: list, l: v.List.GetValues()}, true
	}
	return val{}, false
}

func (l *look) mailbox(name string) *parsed {
	into, s := &l.sender, l.env.Sender
	if name == "recipient" {
		into, s = &l.recipient, l.env.Recipient
	}
	if *into == nil {
		a, whole := readMailbox(s)
		*into = &parsed{whole, a}
	}
	return *into
}

func mailboxPart(name, part string) direct {
	var of func(l *look, p *parsed) val
	switch part {
	case "address":
		of = func(_ *look, p *parsed) val { return textVal(p.whole) }
	case "local":
		of = func(_ *look, p *parsed) val { return textVal(p.Local) }
	case "domain":
		of = func(_ *look, p *parsed) val { return textVal(p.Domain) }
	case "detail":
		of = func(l *look, p *parsed) val {
			if name == "recipient" && l.env.Detail != "" {
				return textVal(l.env.Detail)
			}
			return textVal(p.Detail("+"))
		}
	case "account":
		of = func(l *look, _ *parsed) val {
			if name == "recipient" {
				return textVal(l.env.Account)
			}
			return textVal("")
		}
	case "null":
		return func(l *look) (val, bool) {
			return flagVal(name == "sender" && l.env.Sender == "" || name == "recipient" && l.env.Recipient == ""), true
		}
	default:
		return nil
	}
	return func(l *look) (val, bool) { return of(l, l.mailbox(name)), true }
}

func clientPart(part string) direct {
	texts := map[string]func(*v1.Client) string{
		"ip": (*v1.Client).GetIp, "hello": (*v1.Client).GetHello, "rdns": (*v1.Client).GetRdns, "user": (*v1.Client).GetUser,
		"listener": (*v1.Client).GetListener, "protocol": (*v1.Client).GetProtocol,
	}
	if get := texts[part]; get != nil {
		return func(l *look) (val, bool) { return textVal(get(l.env.Client)), true }
	}
	switch part {
	case "authenticated":
		return func(l *look) (val, bool) { return flagVal(l.env.Client.GetUser() != ""), true }
	case "tls":
		return func(l *look) (val, bool) { return flagVal(l.env.Client.GetTls()), true }
	}
	return nil
}

func messagePart(part string) direct {
	switch part {
	case "size":
		return func(l *look) (val, bool) { return val{kind: number, n: float64(l.env.Message.Size)}, true }
	case "id":
		return func(l *look) (val, bool) { return textVal(l.env.Message.MessageID), true }
	case "subject":
		return func(l *look) (val, bool) { return textVal(mime.DecodeHeader(l.env.Message.Subject)), true }
	case "from":
		return func(l *look) (val, bool) { return textVal(mime.DecodeHeader(l.env.Message.From)), true }
	}
	return nil
}

// complaint is an error with its place.
type complaint struct {
	at   hcl.Range
	text string
	err  error
}

func (c complaint) Error() string { return At(c.at) + ": " + c.text }
func (c complaint) Unwrap() error { return c.err }
