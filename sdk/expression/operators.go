package expression

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// An unset tag is null, and no condition fails because of one: it is false by
// itself and in && || !, a < > <= >= with it is false, and it equals nothing but
// null. (tags.x != "y" is the negation of ==, so it is true when x is unset.)
// HCL's own operators answer null with an error, or panic; these take their place.
var (
	And = &hclsyntax.Operation{Type: cty.Bool, Impl: nullIsFalse(cty.Bool, stdlib.AndFunc), ShortCircuit: decidedBy(false)}
	Or  = &hclsyntax.Operation{Type: cty.Bool, Impl: nullIsFalse(cty.Bool, stdlib.OrFunc), ShortCircuit: decidedBy(true)}
	Not = &hclsyntax.Operation{Type: cty.Bool, Impl: function.New(&function.Spec{
		Params: []function.Parameter{nullable("value", cty.Bool)},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return orFalse(args[0]).Not(), nil
		},
	})}

	Operators = map[*hclsyntax.Operation]*hclsyntax.Operation{
		hclsyntax.OpLogicalAnd:         And,
		hclsyntax.OpLogicalOr:          Or,
		hclsyntax.OpLogicalNot:         Not,
		hclsyntax.OpGreaterThan:        {Type: cty.Bool, Impl: nullIsFalse(cty.Number, stdlib.GreaterThanFunc)},
		hclsyntax.OpGreaterThanOrEqual: {Type: cty.Bool, Impl: nullIsFalse(cty.Number, stdlib.GreaterThanOrEqualToFunc)},
		hclsyntax.OpLessThan:           {Type: cty.Bool, Impl: nullIsFalse(cty.Number, stdlib.LessThanFunc)},
		hclsyntax.OpLessThanOrEqual:    {Type: cty.Bool, Impl: nullIsFalse(cty.Number, stdlib.LessThanOrEqualToFunc)},
	}
)

func useOwnOperators(x hclsyntax.Expression) {
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.BinaryOpExpr:
			if own, ok := Operators[n.Op]; ok {
				n.Op = own
			}
		case *hclsyntax.UnaryOpExpr:
			if own, ok := Operators[n.Op]; ok {
				n.Op = own
			}
		}
		return nil
	})
}

func nullable(name string, t cty.Type) function.Parameter {
	return function.Parameter{Name: name, Type: t, AllowNull: true, AllowDynamicType: true}
}

func nullIsFalse(t cty.Type, op function.Function) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{nullable("a", t), nullable("b", t)},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if t == cty.Bool {
				return op.Call([]cty.Value{orFalse(args[0]), orFalse(args[1])})
			}
			if args[0].IsNull() || args[1].IsNull() {
				return cty.False, nil
			}
			return op.Call(args)
		},
	})
}

func orFalse(v cty.Value) cty.Value {
	if v.IsNull() {
		return cty.False
	}
	return v
}

// decidedBy lets one known side decide a logical operator while the other is
// unknown, as it is when the files are checked.
func decidedBy(b bool) func(l, r cty.Value, ld, rd hcl.Diagnostics) (cty.Value, hcl.Diagnostics) {
	decides := func(v cty.Value, d hcl.Diagnostics) bool {
		return !d.HasErrors() && v.IsKnown() && !v.IsNull() && v.True() == b
	}
	return func(l, r cty.Value, ld, rd hcl.Diagnostics) (cty.Value, hcl.Diagnostics) {
		if !ld.HasErrors() && !rd.HasErrors() && (decides(l, ld) || decides(r, rd)) {
			return cty.BoolVal(b), nil
		}
		return cty.NilVal, nil
	}
}
