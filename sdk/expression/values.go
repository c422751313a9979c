package expression

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Variables are what an expression may read, with their types. tags has none:
// filters decide at run time what they set.
var Variables = map[string]cty.Type{
	"sender":    MailboxType,
	"recipient": MailboxType,
	"client": cty.Object(map[string]cty.Type{
		"ip": cty.String, "hello": cty.String, "rdns": cty.String, "user": cty.String,
		"authenticated": cty.Bool, "tls": cty.Bool, "listener": cty.String, "protocol": cty.String,
	}),
	"message": cty.Object(map[string]cty.Type{
		"size": cty.Number, "subject": cty.String, "from": cty.String, "id": cty.String,
		"headers": cty.Map(cty.List(cty.String)),
	}),
	"tags": cty.DynamicPseudoType,
}

// MailboxType is that of sender and recipient.
var MailboxType = cty.Object(map[string]cty.Type{
	"address": cty.String, "local": cty.String, "domain": cty.String,
	"detail": cty.String, "account": cty.String, "null": cty.Bool,
})

// mailbox is sender or recipient. What is no address keeps its text.
func mailbox(text, account, detail string) cty.Value {
	a, whole := readMailbox(text)
	if detail == "" {
		detail = a.Detail("+")
	}
	return cty.ObjectVal(map[string]cty.Value{
		"address": cty.StringVal(whole), "local": cty.StringVal(a.Local), "domain": cty.StringVal(a.Domain),
		"detail": cty.StringVal(detail), "account": cty.StringVal(account), "null": cty.BoolVal(text == ""),
	})
}

func readMailbox(text string) (a address.Address, whole string) {
	a, err := address.Parse(text, true)
	if err == nil {
		return a, a.String()
	}
	a = address.Address{}
	a.Local, a.Domain, _ = strings.Cut(text, "@")
	return a, text
}

func client(c *v1.Client) cty.Value {
	return cty.ObjectVal(map[string]cty.Value{
		"ip": cty.StringVal(c.GetIp()), "hello": cty.StringVal(c.GetHello()), "rdns": cty.StringVal(c.GetRdns()),
		"user": cty.StringVal(c.GetUser()), "authenticated": cty.BoolVal(c.GetUser() != ""), "tls": cty.BoolVal(c.GetTls()),
		"listener": cty.StringVal(c.GetListener()), "protocol": cty.StringVal(c.GetProtocol()),
	})
}

func (e *Expr) message(m *Message) cty.Value {
	headers := map[string]cty.Value{}
	if e.Uses("message.headers") {
		for name, values := range m.Headers {
			headers[strings.ToLower(name)] = stringList(decoded(values))
		}
	}
	// A field that the message lacks is an empty list, not an error.
	for _, t := range e.uses {
		if steps := StepNames(t); len(steps) > 2 && steps[0] == "message" && steps[1] == "headers" {
			if _, there := headers[steps[2]]; !there {
				headers[steps[2]] = cty.ListValEmpty(cty.String)
			}
		}
	}
	all := cty.MapValEmpty(cty.List(cty.String))
	if len(headers) > 0 {
		all = cty.MapVal(headers)
	}
	return cty.ObjectVal(map[string]cty.Value{
		"size": cty.NumberIntVal(m.Size), "subject": cty.StringVal(mime.DecodeHeader(m.Subject)), "from": cty.StringVal(mime.DecodeHeader(m.From)),
		"id": cty.StringVal(m.MessageID), "headers": all,
	})
}

// tags holds what filters set, and null for every other tag that the expression
// names, or key of one.
func (e *Expr) tags(set map[string]*v1.Tag) cty.Value {
	out := map[string]cty.Value{}
	for name, t := range set {
		out[name] = tag(t)
	}
	for _, t := range e.uses {
		if len(t) < 2 || t.RootName() != "tags" {
			continue
		}
		steps := StepNames(t)
		if len(steps) < 2 {
			continue
		}
		if attr, ok := t[1].(hcl.TraverseAttr); ok && strings.Contains(attr.Name, keySeparator) {
			out[attr.Name] = tagKey(set[steps[1]], steps[2])
		} else if _, there := out[steps[1]]; !there {
			out[steps[1]] = cty.NullVal(cty.DynamicPseudoType)
		}
	}
	return cty.ObjectVal(out)
}

// keySeparator is between a tag's name and a key of it; neither has that octet.
const keySeparator = "\x00"

// joinTagKeys makes one step of a tag's name and its key: tags.dmarc.policy reads
// one value, null if any part of it is unset, where HCL fails at the first part
// that is null.
func joinTagKeys(x hclsyntax.Expression) {
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		s, ok := n.(*hclsyntax.ScopeTraversalExpr)
		if !ok || s.Traversal.RootName() != "tags" {
			return nil
		}
		if steps := StepNames(s.Traversal); len(steps) > 2 {
			one := hcl.TraverseAttr{Name: steps[1] + keySeparator + steps[2], SrcRange: hcl.RangeBetween(s.Traversal[1].SourceRange(), s.Traversal[2].SourceRange())}
			s.Traversal = append(hcl.Traversal{s.Traversal[0], one}, s.Traversal[3:]...)
		}
		return nil
	})
}

// tagKey is a value of a map; null if there is none, or the tag is no map.
func tagKey(t *v1.Tag, key string) cty.Value {
	v := t.GetMap().GetEntries()[key]
	if v.GetMap() != nil {
		return cty.NullVal(cty.DynamicPseudoType)
	}
	return tag(v)
}

func tag(t *v1.Tag) cty.Value {
	switch v := t.GetValue().(type) {
	case *v1.Tag_Text:
		return cty.StringVal(v.Text)
	case *v1.Tag_Number:
		if v.Number != v.Number { // NaN has no place in cty
			return cty.NullVal(cty.Number)
		}
		return cty.NumberFloatVal(v.Number)
	case *v1.Tag_Flag:
		return cty.BoolVal(v.Flag)
	case *v1.Tag_List:
		return stringList(v.List.GetValues())
	case *v1.Tag_Map:
		out := map[string]cty.Value{}
		for key := range v.Map.GetEntries() {
			out[key] = tagKey(t, key)
		}
		return cty.ObjectVal(out)
	}
	return cty.NullVal(cty.DynamicPseudoType)
}

func decoded(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = mime.DecodeHeader(v)
	}
	return out
}

func stringList(values []string) cty.Value {
	if len(values) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	out := make([]cty.Value, len(values))
	for i, v := range values {
		out[i] = cty.StringVal(v)
	}
	return cty.ListVal(out)
}

// StepNames are the names of a traversal, message.headers["x"] as
// message, headers, x; it ends at the first step that is no name.
func StepNames(t hcl.Traversal) []string {
	var out []string
	for _, s := range t {
		switch s := s.(type) {
		case hcl.TraverseRoot:
			out = append(out, s.Name)
		case hcl.TraverseAttr:
			out = append(out, strings.Split(s.Name, keySeparator)...)
		case hcl.TraverseIndex:
			if s.Key.Type() != cty.String || s.Key.IsNull() || !s.Key.IsKnown() {
				return out
			}
			key, _ := s.Key.Unmark()
			out = append(out, key.AsString())
		default:
			return out
		}
	}
	return out
}
