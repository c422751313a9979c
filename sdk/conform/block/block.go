// Package block reads the text of a plugin's HCL block by the plugin's schema,
// for tests and conformance: one block without the pipeline around it. The core
// reads whole configurations.
package block

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Decode reads the attributes and blocks that stand between a block's braces.
// file names the text in the errors, which point at the line. Defaults are not
// filled in.
func Decode(s *v1.Schema, file, text string) (cty.Value, error) {
	f, diags := hclsyntax.ParseConfig([]byte(text), file, hcl.InitialPos)
	if diags.HasErrors() {
		return cty.NilVal, explained(diags, file, text)
	}
	v, diags := hcldec.Decode(f.Body, spec(s.GetBlock(), nil, []byte(text)), &hcl.EvalContext{})
	if diags.HasErrors() {
		return cty.NilVal, explained(diags, file, text)
	}
	return v, nil
}

// explained renders diagnostics as a person reads them.
func explained(diags hcl.Diagnostics, file, text string) error {
	var b bytes.Buffer
	w := hcl.NewDiagnosticTextWriter(&b, map[string]*hcl.File{file: {Bytes: []byte(text)}}, 0, false)
	if err := w.WriteDiagnostics(diags); err != nil {
		return diags
	}
	return fmt.Errorf("%s", bytes.TrimSpace(b.Bytes()))
}

// FromGo makes a value of a Go map, as an author's test writes it; nil is empty.
func FromGo(s *v1.Schema, config any) (cty.Value, error) {
	if config == nil {
		config = map[string]any{}
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return cty.NilVal, err
	}
	return ctyjson.Unmarshal(raw, schema.ImpliedType(s))
}

// Wire makes both of Configure's forms of a value, defaults filled in.
func Wire(s *v1.Schema, v cty.Value) (asJSON, asMsgpack []byte, err error) {
	typ := schema.ImpliedType(s)
	v = schema.ApplyDefaults(v, s)
	if asJSON, err = ctyjson.Marshal(v, typ); err != nil {
		return nil, nil, err
	}
	asMsgpack, err = schema.Msgpack(v)
	return asJSON, asMsgpack, err
}

// spec reads a block's HCL, which is in text, into the type that
// schema.ImpliedType says.
func spec(b *v1.Schema_Block, labels []string, text []byte) hcldec.Spec {
	out := hcldec.ObjectSpec{}
	for i, l := range labels {
		out[l] = &hcldec.BlockLabelSpec{Index: i, Name: l}
	}
	for _, a := range b.GetAttributes() {
		attr := &hcldec.AttrSpec{Name: a.GetName(), Type: schema.AttributeType(a), Required: a.GetRequired()}
		out[a.GetName()] = attr
		if a.GetSemantic() == "condition" {
			attr.Type = customdecode.ExpressionType
			out[a.GetName()] = &hcldec.TransformFuncSpec{Wrapped: attr, Func: sourceOf(text)}
		}
	}
	for _, nb := range b.GetBlocks() {
		inner := spec(nb.GetBlock(), nb.GetLabels(), text)
		if nb.GetMax() == 1 {
			out[nb.GetName()] = &hcldec.BlockSpec{TypeName: nb.GetName(), Nested: inner, Required: nb.GetMin() > 0}
		} else {
			out[nb.GetName()] = &hcldec.BlockListSpec{TypeName: nb.GetName(), Nested: inner, MinItems: int(nb.GetMin()), MaxItems: int(nb.GetMax())}
		}
	}
	return out
}

// sourceOf makes a condition's text of its expression: the plugin evaluates it.
func sourceOf(text []byte) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "condition", Type: customdecode.ExpressionType, AllowNull: true}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if args[0].IsNull() {
				return cty.NullVal(cty.String), nil
			}
			return cty.StringVal(string(customdecode.ExpressionFromVal(args[0]).Range().SliceBytes(text))), nil
		},
	})
}
