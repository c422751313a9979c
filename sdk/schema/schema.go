// Package schema turns a plugin's config struct into the contract's Schema and
// a decoded HCL block back into the struct. It does not read HCL: the core does,
// and checks it against the schema before the plugin is started.
//
// A config is a plain struct. Its value gives the defaults, its tags the rest:
//
//	type Config struct {
//		Delay  time.Duration `hcl:"delay,optional" doc:"How long a new sender waits." example:"2m"`
//		Allow  []string      `hcl:"allow,optional" doc:"Networks that never wait." semantic:"cidr"`
//		Limits []Limit       `hcl:"limit,block" doc:"Limits per domain."`
//	}
//	type Limit struct {
//		Domain string `hcl:"domain,label"`
//		Max    int    `hcl:"max" doc:"Mails per hour."`
//	}
//
// The hcl tag names the attribute and says what it is:
//
//   - hcl:"name": required; a configuration without it is refused.
//   - hcl:"name,optional": the field's value in Plugin.Config is the default. A
//     nil slice, map or pointer has none; with a pointer a plugin can tell "not
//     written" from zero.
//   - hcl:"name,block": a nested block, its fields tagged in the same way. A
//     struct is there exactly once, a pointer to one at most once, a slice any
//     number of times. The defaults of a slice's blocks are those of its first
//     element in Plugin.Config.
//   - hcl:"name,label": the block's label, a string; in the order of the fields.
//     An instance's own block has no labels to give.
//
// A field without the hcl tag, or not exported, is the plugin's own. The names
// that the core reads itself are taken: on_failure, timeout and max_concurrent of
// filters; filters, timeout and max_concurrent of deliveries; listen, tls,
// storage, auth and insecure_auth of access plugins.
//
// Further tags:
//
//   - doc: what it does, in sentences an operator understands. It stands in
//     `stagecoach plugin describe` and in the README's table. Say what zero or
//     empty means.
//   - example: a value as HCL has it: example:"2m" for a string, a duration and a
//     size (quotes may be left out), example:"[\"From\"]" for a list. `validate`
//     shows it where the attribute is missing.
//   - oneof:"a,b": the only values allowed, of a string or of a list's elements.
//   - semantic: what a string means, checked by `stagecoach validate` before the
//     plugin runs: "duration" and "size" (they come with the types below), "path"
//     (relative ones begin where the file lies that they stand in; the plugin
//     gets it absolute), "address" (a mail address, or an IP address), "cidr" (a
//     network, or one IP address), "hostport", "regexp" (RE2). A list's or map's
//     elements are checked one by one. "condition" is an expression over the mail
//     as a route's when is: the plugin gets its text, for sdk/expression.
//   - sensitive:"true": never printed, in no diagnostic and no log of the core.
//   - live:"true": the plugin could take a new value without a new process. The
//     core makes no use of it: whatever changes, it starts a new one and lets the
//     old one end.
//
// Types: string, bool, integers and floats of any size (what does not fit is a
// mistake at that attribute), time.Duration ("90s", "2m", "1h30m", "5d", "2w"),
// Size ("25MB", "64KiB"; units are powers of 1024), pointers to these, []T and
// map[string]T of these.
//
// What tags cannot say is checked by a method Validate on the pointer: see
// sdk.Validator and Errorf. An attribute may hold a reference to another block
// (directory.file.people): the plugin gets its text, and a client for it in
// sdk.Instance.Peers.
//
// Markdown and HCL write a README's Syntax section from the schema.
package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// FromStruct makes the schema of a struct (or a pointer to one); its values are
// the defaults. nil makes the empty schema.
func FromStruct(v any) (*v1.Schema, error) {
	if v == nil {
		return &v1.Schema{Block: &v1.Schema_Block{}}, nil
	}
	rv := reflect.Indirect(reflect.ValueOf(v))
	if rv.Kind() != reflect.Struct {
		return nil, fmt.Errorf("a config must be a struct, not %T", v)
	}
	b, _, err := blockOf(rv)
	if err != nil {
		return nil, err
	}
	return &v1.Schema{Block: b}, nil
}

// field is a struct field with its hcl tag read.
type field struct {
	reflect.StructField
	name string
	mode string // "", "optional", "block", "label"
}

func fieldsOf(t reflect.Type) ([]field, error) {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("hcl")
		if !ok || !f.IsExported() {
			continue
		}
		name, mode, _ := strings.Cut(tag, ",")
		switch mode {
		case "", "optional", "block", "label":
		default:
			return nil, fmt.Errorf("%s.%s: unknown option %q in its hcl tag", t, f.Name, mode)
		}
		if name == "" {
			return nil, fmt.Errorf("%s.%s: the hcl tag has no name", t, f.Name)
		}
		out = append(out, field{f, name, mode})
	}
	return out, nil
}

func blockOf(rv reflect.Value) (*v1.Schema_Block, []string, error) {
	fields, err := fieldsOf(rv.Type())
	if err != nil {
		return nil, nil, err
	}
	b := &v1.Schema_Block{}
	var labels []string
	for _, f := range fields {
		switch f.mode {
		case "label":
			if f.Type.Kind() != reflect.String {
				return nil, nil, fmt.Errorf("%s.%s: a label must be a string", rv.Type(), f.Name)
			}
			labels = append(labels, f.name)
		case "block":
			nb, err := nested(f, rv.FieldByIndex(f.Index))
			if err != nil {
				return nil, nil, fmt.Errorf("%s.%w", f.Name, err)
			}
			b.Blocks = append(b.Blocks, nb)
		default:
			a, err := attribute(f, rv.FieldByIndex(f.Index))
			if err != nil {
				return nil, nil, fmt.Errorf("%s.%s: %w", rv.Type(), f.Name, err)
			}
			b.Attributes = append(b.Attributes, a)
		}
	}
	return b, labels, nil
}

func nested(f field, value reflect.Value) (*v1.Schema_NestedBlock, error) {
	nb := &v1.Schema_NestedBlock{Name: f.name}
	t := f.Type
	switch t.Kind() {
	case reflect.Slice:
		t = t.Elem()
	case reflect.Pointer:
		t, nb.Max = t.Elem(), 1
	default:
		nb.Min, nb.Max = 1, 1
	}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("a block must be a struct, not %s", t)
	}
	sample := reflect.New(t).Elem()
	switch {
	case f.Type.Kind() == reflect.Struct:
		sample = value
	case f.Type.Kind() == reflect.Pointer && !value.IsNil():
		sample = value.Elem()
	case f.Type.Kind() == reflect.Slice && value.Len() > 0:
		// The first element of a default slice says what each block begins with.
		sample = value.Index(0)
	}
	b, labels, err := blockOf(sample)
	if err != nil {
		return nil, err
	}
	b.Doc = f.Tag.Get("doc")
	nb.Block, nb.Labels = b, labels
	return nb, nil
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
)

func attribute(f field, value reflect.Value) (*v1.Schema_Attribute, error) {
	t, semantic, err := ctyType(f.Type)
	if err != nil {
		return nil, err
	}
	typeJSON, err := ctyjson.MarshalType(t)
	if err != nil {
		return nil, err
	}
	a := &v1.Schema_Attribute{
		Name: f.name, Type: typeJSON, Required: f.mode == "", Doc: f.Tag.Get("doc"), Example: f.Tag.Get("example"),
		Sensitive: f.Tag.Get("sensitive") == "true", LiveReload: f.Tag.Get("live") == "true", Semantic: semantic,
	}
	if s := f.Tag.Get("semantic"); s != "" {
		a.Semantic = s
	}
	switch a.Semantic {
	case "", "duration", "size", "path", "address", "cidr", "hostport", "regexp":
	case "condition":
		if t != cty.String {
			return nil, fmt.Errorf("a condition must be a string, not %s", f.Type)
		}
	default:
		return nil, fmt.Errorf("unknown semantic %q", a.Semantic)
	}
	if s := f.Tag.Get("oneof"); s != "" {
		a.OneOf = strings.Split(s, ",")
	}
	// A zero value is a default too, except where it means "none given".
	if !a.Required && !((value.Kind() == reflect.Slice || value.Kind() == reflect.Map || value.Kind() == reflect.Pointer) && value.IsNil()) {
		if a.DefaultJson, err = json.Marshal(plain(value)); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// ctyType is the HCL type of a Go type and the semantic that comes with it.
func ctyType(t reflect.Type) (cty.Type, string, error) {
	switch t {
	case durationType:
		return cty.String, "duration", nil
	case sizeType:
		return cty.String, "size", nil
	}
	switch t.Kind() {
	case reflect.String:
		return cty.String, "", nil
	case reflect.Bool:
		return cty.Bool, "", nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		return cty.Number, "", nil
	case reflect.Pointer:
		return ctyType(t.Elem())
	case reflect.Slice:
		e, s, err := ctyType(t.Elem())
		if err != nil {
			return cty.NilType, "", err
		}
		return cty.List(e), s, nil
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			e, s, err := ctyType(t.Elem())
			if err != nil {
				return cty.NilType, "", err
			}
			return cty.Map(e), s, nil
		}
	}
	return cty.NilType, "", fmt.Errorf("a config cannot have a %s", t)
}

// plain makes a Go value what it is in JSON: durations and sizes are strings.
func plain(v reflect.Value) any {
	switch v.Type() {
	case durationType:
		return FormatDuration(time.Duration(v.Int()))
	case sizeType:
		return Size(v.Int()).String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		return plain(v.Elem())
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[k.String()] = plain(v.MapIndex(k))
		}
		return out
	}
	return v.Interface()
}

// ImpliedType is the type of a decoded block: an object with every attribute
// under its name; a nested block with max 1 is an object (null if it is not
// there), any other a list of objects; labels are string attributes of their
// block's object.
func ImpliedType(s *v1.Schema) cty.Type {
	return impliedBlock(s.GetBlock(), nil)
}

func impliedBlock(b *v1.Schema_Block, labels []string) cty.Type {
	attrs := map[string]cty.Type{}
	for _, l := range labels {
		attrs[l] = cty.String
	}
	for _, a := range b.GetAttributes() {
		attrs[a.GetName()] = AttributeType(a)
	}
	for _, nb := range b.GetBlocks() {
		t := impliedBlock(nb.GetBlock(), nb.GetLabels())
		if nb.GetMax() != 1 {
			t = cty.List(t)
		}
		attrs[nb.GetName()] = t
	}
	return cty.Object(attrs)
}

// AttributeType is the attribute's type; any type if the plugin wrote nonsense.
func AttributeType(a *v1.Schema_Attribute) cty.Type {
	t, err := ctyjson.UnmarshalType(a.GetType())
	if err != nil {
		return cty.DynamicPseudoType
	}
	return t
}

// ApplyDefaults fills the null attributes of a value of ImpliedType(s) with
// their defaults, in nested blocks too. A missing block stays missing.
func ApplyDefaults(v cty.Value, s *v1.Schema) cty.Value {
	return applyBlock(v, s.GetBlock())
}

func applyBlock(v cty.Value, b *v1.Schema_Block) cty.Value {
	if v.IsNull() || !v.IsKnown() || !v.Type().IsObjectType() {
		return v
	}
	attrs := v.AsValueMap()
	if attrs == nil {
		return v
	}
	for _, a := range b.GetAttributes() {
		if old, ok := attrs[a.GetName()]; ok && old.IsNull() {
			attrs[a.GetName()] = Default(a)
		}
	}
	for _, nb := range b.GetBlocks() {
		old, ok := attrs[nb.GetName()]
		if !ok || old.IsNull() || !old.IsKnown() {
			continue
		}
		if nb.GetMax() == 1 {
			attrs[nb.GetName()] = applyBlock(old, nb.GetBlock())
			continue
		}
		if old.LengthInt() == 0 {
			continue
		}
		list := old.AsValueSlice()
		for i := range list {
			list[i] = applyBlock(list[i], nb.GetBlock())
		}
		attrs[nb.GetName()] = cty.ListVal(list)
	}
	return cty.ObjectVal(attrs)
}

// Default is the attribute's default value; null if it has none.
func Default(a *v1.Schema_Attribute) cty.Value {
	t := AttributeType(a)
	if len(a.GetDefaultJson()) > 0 {
		if v, err := ctyjson.Unmarshal(a.GetDefaultJson(), t); err == nil {
			return v
		}
	}
	return cty.NullVal(t)
}
