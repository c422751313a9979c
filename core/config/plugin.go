package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// instance reads a plugin's block: the core's own attributes first, the rest by
// the plugin's schema. r may have read some attributes already (deliver).
func (l *loader) instance(i *Instance, r *reader) {
	switch i.Kind {
	case v1.Kind_KIND_FILTER:
		i.OnFailure = "defer"
		r.oneOf("on_failure", &i.OnFailure, "defer", "accept", "hold")
		r.timeout("timeout", &i.Timeout)
		r.integer("max_concurrent", &i.MaxConcurrent, 1, 1e6)
	case v1.Kind_KIND_DELIVER:
		r.timeout("timeout", &i.Timeout)
		r.integer("max_concurrent", &i.MaxConcurrent, 1, 1e6)
	case v1.Kind_KIND_ACCESS:
		l.access(i, r)
	}
	i.Binary = l.binaryFor(i.Plugin)
	box := l.sandboxBlock(r)
	d := l.describe(i)
	if d == nil {
		r.lacking()
		return // the plugin's attributes are unknown: complaining about them would be noise
	}
	i.Describe = d
	for _, a := range d.GetSchema().GetBlock().GetAttributes() {
		if slices.Contains(r.names, a.GetName()) {
			l.err(i.Range, fmt.Sprintf("The plugin %s names an attribute %q, which is the core's own", i.Plugin, a.GetName()), "Ask the plugin's author to rename it.")
			return
		}
	}
	before := len(l.list)
	v := l.pluginBlock(i, r, d.GetSchema().GetBlock(), nil)
	r.done()
	if l.list[before:].HasErrors() {
		return
	}
	i.Config = schema.ApplyDefaults(v, d.GetSchema())
	var err error
	if i.ConfigMsgpack, err = schema.Msgpack(i.Config); err == nil {
		i.ConfigJSON, err = ctyjson.Marshal(i.Config, i.Config.Type())
	}
	if err != nil {
		l.err(i.Range, fmt.Sprintf("The configuration of %s cannot be handed to its plugin: %s", i.Ref, err), "")
	}
	i.Sandbox = l.sandbox(i, box)
}

func (l *loader) access(i *Instance, r *reader) {
	r.listen(&i.Listen)
	r.need("listen", `listen = [":993"]`)
	i.TLS = l.useTLS(r)
	if s := r.ref("storage", "storage"); s != nil {
		i.Storage = s.instance
	}
	r.need("storage", "storage = storage.local.mail")
	if s := r.ref("auth", "directory"); s != nil {
		i.Auth = s.instance
	}
	r.need("auth", "auth = directory.file.people")
	r.boolean("insecure_auth", &i.InsecureAuth)
}

func (l *loader) binaryFor(name string) *Binary {
	s := l.symbols["plugin."+name]
	if s == nil {
		return nil
	}
	s.used = true
	return s.binary
}

// describe asks the plugin once per kind and name.
func (l *loader) describe(i *Instance) *v1.DescribeResponse {
	key := kindWord(i.Kind) + "." + i.Plugin
	if d, asked := l.describes[key]; asked {
		return d
	}
	l.describes[key] = nil
	at := l.symbols[i.Ref].block.LabelRanges[0]
	word := kindWord(i.Kind)
	bundled := l.opts.Bundled[i.Kind]
	if i.Binary == nil && l.opts.Bundled != nil && !slices.Contains(bundled, i.Plugin) {
		l.unknownPlugin(i, at, bundled)
		return nil
	}
	if i.Binary != nil && i.Binary.unfit {
		return nil // complained about already
	}
	if l.opts.Schemas == nil {
		l.err(at, fmt.Sprintf("The plugin %s cannot be asked for its attributes", i.Plugin), "")
		return nil
	}
	d, err := l.opts.Schemas(l.ctx, Plugin{Name: i.Plugin, Kind: i.Kind, Binary: i.Binary})
	switch {
	case err != nil:
		l.err(at, fmt.Sprintf("The plugin %s cannot be asked for its attributes: %s", i.Plugin, err), pluginRemedy(i))
	case d.GetKind() != i.Kind:
		other := kindWord(d.GetKind())
		l.err(l.symbols[i.Ref].block.TypeRange, fmt.Sprintf("The plugin %s is %s, not %s", i.Plugin, article(other), article(word)),
			fmt.Sprintf("Write: %s %q %q { … }", other, i.Plugin, i.Name))
	default:
		if bad := cmp.Or(schemaMistake(d.GetSchema().GetBlock()), noSandboxOfItsOwn(d)); bad != "" {
			l.err(at, fmt.Sprintf("The plugin %s describes itself wrongly: %s", i.Plugin, bad), "Ask the plugin's author.")
			return nil
		}
		l.describes[key] = d
		return d
	}
	return nil
}

func pluginRemedy(i *Instance) string {
	if i.Binary != nil {
		return fmt.Sprintf("Is %s a Stagecoach plugin? See what it says to: stagecoach plugin describe %s", i.Binary.Path, i.Binary.Path)
	}
	return fmt.Sprintf("Name an own one with: plugin %q { path = \"…\" }", i.Plugin)
}

func (l *loader) unknownPlugin(i *Instance, at hcl.Range, bundled []string) {
	word := kindWord(i.Kind)
	for kind, names := range l.opts.Bundled {
		if slices.Contains(names, i.Plugin) {
			l.err(l.symbols[i.Ref].block.TypeRange, fmt.Sprintf("The plugin %s is %s, not %s", i.Plugin, article(kindWord(kind)), article(word)),
				fmt.Sprintf("Write: %s %q %q { … }", kindWord(kind), i.Plugin, i.Name))
			return
		}
	}
	names := slices.Clone(bundled)
	for _, b := range l.cfg.Binaries {
		names = append(names, b.Name)
	}
	if i.Kind == v1.Kind_KIND_DELIVER {
		names = append(names, deliverTypes...)
	}
	remedy := didYouMean(i.Plugin, names)
	if remedy == "" {
		remedy = orKnown("", names, "Bundled are: ")
		if remedy != "" {
			remedy += " "
		}
		remedy += fmt.Sprintf("Name an own one with: plugin %q { path = \"…\" }", i.Plugin)
	}
	l.err(at, fmt.Sprintf("There is no %s plugin %q", word, i.Plugin), remedy)
}

// schemaMistake looks for types that no value could be made of.
func schemaMistake(b *v1.Schema_Block) string {
	for _, a := range b.GetAttributes() {
		t, err := ctyjson.UnmarshalType(a.GetType())
		if err != nil || t.HasDynamicTypes() {
			return fmt.Sprintf("the type of %q is %s", a.GetName(), a.GetType())
		}
		if a.GetSemantic() == conditionSemantic && t != cty.String {
			return fmt.Sprintf("%q is a condition, and no string", a.GetName())
		}
		if len(a.GetDefaultJson()) > 0 {
			if _, err := ctyjson.Unmarshal(a.GetDefaultJson(), t); err != nil {
				return fmt.Sprintf("the default of %q is %s", a.GetName(), a.GetDefaultJson())
			}
		}
	}
	for _, n := range b.GetBlocks() {
		if bad := schemaMistake(n.GetBlock()); bad != "" {
			return n.GetName() + ": " + bad
		}
	}
	return ""
}

// pluginBlock reads a block by its schema, nested ones too; labels are the
// block's own labels' values.
func (l *loader) pluginBlock(i *Instance, r *reader, b *v1.Schema_Block, labels map[string]cty.Value) cty.Value {
	out := map[string]cty.Value{}
	for name, v := range labels {
		out[name] = v
	}
	for _, a := range b.GetAttributes() {
		t := schema.AttributeType(a)
		out[a.GetName()] = cty.NullVal(t)
		if a.GetRequired() {
			example := a.GetExample()
			if example == "" {
				example = "…"
			}
			if t == cty.String && !strings.HasPrefix(example, `"`) {
				example = quote(example)
			}
			r.need(a.GetName(), a.GetName()+" = "+example)
		}
		if v, ok := l.pluginAttribute(i, r, a, t); ok {
			out[a.GetName()] = v
		}
	}
	for _, n := range b.GetBlocks() {
		out[n.GetName()] = l.nestedBlocks(i, r, n)
	}
	return cty.ObjectVal(out)
}

func (l *loader) nestedBlocks(i *Instance, r *reader, n *v1.Schema_NestedBlock) cty.Value {
	r.blocks = append(r.blocks, n.GetName())
	var values []cty.Value
	for _, b := range r.body.Blocks {
		if b.Type != n.GetName() {
			continue
		}
		if len(b.Labels) != len(n.GetLabels()) {
			l.wrongLabels(b, n.GetLabels())
			continue
		}
		labels := map[string]cty.Value{}
		for k, name := range n.GetLabels() {
			labels[name] = cty.StringVal(b.Labels[k])
		}
		inner := l.reader(b)
		v := l.pluginBlock(i, inner, n.GetBlock(), labels)
		inner.done()
		values = append(values, v)
		if most := int(n.GetMax()); most > 0 && len(values) == most+1 {
			l.err(header(b), fmt.Sprintf("%s has at most %d block %s", r.what, most, n.GetName()), "Remove this one.")
		}
	}
	if len(values) < int(n.GetMin()) {
		l.err(r.head, fmt.Sprintf("%s lacks a block %s", r.what, n.GetName()), fmt.Sprintf("Add: %s { … }", n.GetName()))
	}
	t := schema.ImpliedType(&v1.Schema{Block: &v1.Schema_Block{Blocks: []*v1.Schema_NestedBlock{n}}}).AttributeType(n.GetName())
	switch {
	case n.GetMax() == 1 && len(values) > 0:
		return values[0]
	case n.GetMax() == 1:
		return cty.NullVal(t)
	case len(values) == 0:
		return cty.ListValEmpty(t.ElementType())
	}
	return cty.ListVal(values)
}

// pluginAttribute reads one attribute and checks what the schema says of it.
func (l *loader) pluginAttribute(i *Instance, r *reader, a *v1.Schema_Attribute, t cty.Type) (cty.Value, bool) {
	x := r.expr(a.GetName())
	if x == nil {
		return cty.NilVal, false
	}
	if a.GetSensitive() {
		l.cover(x)
	}
	if a.GetSemantic() == conditionSemantic {
		return l.pluginCondition(a.GetName(), x)
	}
	v, ok := l.constant(x)
	if !ok {
		return cty.NilVal, false
	}
	v = l.useReferences(i, v, x)
	// A bare number where a duration is wanted: say what is missing.
	if a.GetSemantic() == "duration" && t == cty.String && v.Type() == cty.Number && !v.RawEquals(cty.Zero) {
		l.err(x.Range(), fmt.Sprintf("%s = %s has no unit", a.GetName(), l.text(x.Range())), durationRemedy)
		return cty.NilVal, false
	}
	if v, ok = r.convert(a.GetName(), v, t, x); !ok {
		return cty.NilVal, false
	}
	good := true
	v, _ = cty.Transform(v, func(_ cty.Path, s cty.Value) (cty.Value, error) {
		if s.Type() != cty.String || s.IsNull() {
			return s, nil
		}
		if a.GetSemantic() == "path" {
			return cty.StringVal(l.path(s.AsString(), x.Range())), nil
		}
		good = l.checkText(a, s.AsString(), x) && good
		return s, nil
	})
	return v, good
}

const conditionSemantic = "condition"

// pluginCondition checks an expression over the mail and hands on its text: the
// plugin evaluates it, and has neither directories nor the core's environment.
func (l *loader) pluginCondition(name string, x hclsyntax.Expression) (cty.Value, bool) {
	good := true
	for _, t := range x.Variables() {
		if root := t.RootName(); referable[root] > 0 {
			l.err(t.SourceRange(), fmt.Sprintf("A plugin cannot ask %s", article(root)), "Ask it in a route's when; here stand sender, recipient, client, message and tags.")
			good = false
		}
	}
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok && slices.Contains([]string{"has", "env", "file"}, call.Name) && good {
			l.err(call.Range(), fmt.Sprintf("A plugin cannot call %s()", call.Name), "It can stand in a route's when.")
			good = false
		}
		return nil
	})
	if !good || l.compile(x, name, cty.Bool, false) == nil {
		return cty.NilVal, false
	}
	return cty.StringVal(string(x.Range().SliceBytes(l.src[x.Range().Filename]))), true
}

// checkText checks one string against the schema's one_of and semantic.
func (l *loader) checkText(a *v1.Schema_Attribute, s string, x hclsyntax.Expression) bool {
	shown := l.shown(s, x.Range())
	if one := a.GetOneOf(); len(one) > 0 && !slices.Contains(one, s) {
		remedy := orKnown(s, one, "It is one of: ")
		l.err(x.Range(), fmt.Sprintf("%s cannot be %s", a.GetName(), shown), remedy)
		return false
	}
	check, remedy := semanticCheck(a.GetSemantic())
	if check == nil {
		return true
	}
	if err := check(s); err != nil {
		l.err(x.Range(), fmt.Sprintf("%s = %s %s", a.GetName(), shown, err), remedy)
		return false
	}
	return true
}

const regexpRemedy = "The syntax is that of RE2; in HCL strings a backslash is written twice."

func semanticCheck(semantic string) (check func(string) error, remedy string) {
	switch semantic {
	case "duration":
		return func(s string) error { _, err := parseDuration(s); return err }, durationRemedy
	case "size":
		return func(s string) error { _, err := parseSize(s); return err }, sizeRemedy
	case "cidr":
		return func(s string) error { _, err := expression.ParseNetwork(s); return err }, prefixRemedy
	case "hostport":
		return func(s string) error { _, _, err := splitHostPort(s); return err }, `Write "host.ryan.example:783" or "127.0.0.1:783".`
	case "regexp":
		return func(s string) error {
			if _, err := regexp.Compile(s); err != nil {
				return fmt.Errorf("is no regular expression: %w", expression.RegexpError(err))
			}
			return nil
		}, regexpRemedy
	case "address":
		return func(s string) error {
			if _, err := address.Parse(s, true); err == nil {
				return nil
			}
			if _, err := netip.ParseAddr(s); err == nil {
				return nil
			}
			return errNoAddress
		}, `Write "meg@ryan.example".`
	}
	return nil, ""
}

// useReferences turns references within a plugin's attribute into their text and
// remembers whom the instance uses.
func (l *loader) useReferences(i *Instance, v cty.Value, x hclsyntax.Expression) cty.Value {
	if len(x.Variables()) == 0 {
		return v
	}
	out, err := cty.Transform(v, func(_ cty.Path, s cty.Value) (cty.Value, error) {
		if s.IsMarked() || s.Type() != expression.ReferenceType || s.IsNull() || !s.IsKnown() {
			return s, nil
		}
		ref := s.EncapsulatedValue().(*expression.Reference).Ref
		if sym := l.symbols[ref]; sym != nil && sym.instance != nil && !slices.Contains(i.Uses, sym.instance) {
			i.Uses = append(i.Uses, sym.instance)
		}
		return cty.StringVal(ref), nil
	})
	if err != nil {
		return v
	}
	return out
}
