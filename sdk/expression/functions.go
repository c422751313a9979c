package expression

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Reference is the value of directory.file.people in an expression: its block type
// and the whole.
type Reference struct {
	// Kind is "directory", Ref "directory.file.people".
	Kind, Ref string
}

// ReferenceType is what an expression holds a *Reference as.
var ReferenceType = cty.Capsule("reference", reflect.TypeFor[Reference]())

// Remedied is a function's error that knows what to write instead.
type Remedied struct {
	// Text says what is wrong, Remedy what to write.
	Text, Remedy string
}

func (e Remedied) Error() string { return e.Text }

// Functions are those that every expression may call, new at each call; has is
// added by each evaluation.
func Functions() map[string]function.Function {
	return map[string]function.Function{
		"lower": stdlib.LowerFunc, "upper": stdlib.UpperFunc, "title": stdlib.TitleFunc,
		"trim": stdlib.TrimFunc, "trimspace": stdlib.TrimSpaceFunc,
		"trimprefix": stdlib.TrimPrefixFunc, "trimsuffix": stdlib.TrimSuffixFunc,
		"split": stdlib.SplitFunc, "join": stdlib.JoinFunc, "replace": stdlib.ReplaceFunc,
		"format": stdlib.FormatFunc, "substr": stdlib.SubstrFunc, "strlen": stdlib.StrlenFunc,
		"regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc,
		"startswith":  stringTest("prefix", strings.HasPrefix),
		"endswith":    stringTest("suffix", strings.HasSuffix),
		"strcontains": stringTest("part", strings.Contains),
		"matches":     matchesFunc,

		"contains": orNull(listed(stdlib.ContainsFunc), cty.False), "length": orNull(stdlib.LengthFunc, cty.Zero), "concat": stdlib.ConcatFunc,
		"distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc, "flatten": stdlib.FlattenFunc,
		"keys": stdlib.KeysFunc, "values": stdlib.ValuesFunc, "lookup": stdlib.LookupFunc,
		"merge": stdlib.MergeFunc, "range": stdlib.RangeFunc, "reverse": stdlib.ReverseListFunc,
		"sort": stdlib.SortFunc, "slice": stdlib.SliceFunc,
		"anytrue": boolList(true), "alltrue": boolList(false),
		"min": stdlib.MinFunc, "max": stdlib.MaxFunc, "abs": stdlib.AbsoluteFunc,
		"floor": stdlib.FloorFunc, "ceil": stdlib.CeilFunc,

		"cidr_contains": cidrContainsFunc,
		"is_private":    addressTest(func(a netip.Addr) bool { return a.IsPrivate() }),
		"is_loopback":   addressTest(func(a netip.Addr) bool { return a.IsLoopback() }),

		"try": tryfunc.TryFunc, "can": tryfunc.CanFunc, "coalesce": stdlib.CoalesceFunc,
		"tostring": stdlib.MakeToFunc(cty.String), "tonumber": stdlib.MakeToFunc(cty.Number),
		"tobool": stdlib.MakeToFunc(cty.Bool), "tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
	}
}

// stringTest is false for null: an unset tag has no suffix.
func stringTest(what string, test func(s, part string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{nullable("string", cty.String), {Name: what, Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if args[0].IsNull() {
				return cty.False, nil
			}
			return cty.BoolVal(test(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

// listed is f, which looks into a list. That a text is none is told of a text that is not
// known yet too: of another mail it would be no list either.
func listed(f function.Function) function.Function {
	return function.New(&function.Spec{
		Params: f.Params(),
		Type: func(args []cty.Value) (cty.Type, error) {
			if args[0].Type() == cty.String {
				return cty.Bool, function.NewArgErrorf(0, "this is a text, not a list: strcontains(text, part) looks into a text")
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}

// orNull is f, but of an unset tag: that has no elements, and is none.
func orNull(f function.Function, of cty.Value) function.Function {
	params := slices.Clone(f.Params())
	for i := range params {
		params[i].AllowNull, params[i].AllowDynamicType = true, true
	}
	unset := func(v cty.Value) bool { return v.IsKnown() && v.IsNull() }
	return function.New(&function.Spec{
		Params: params,
		Type: func(args []cty.Value) (cty.Type, error) {
			if slices.ContainsFunc(args, unset) {
				return of.Type(), nil
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if slices.ContainsFunc(args, unset) {
				return of, nil
			}
			return f.Call(args)
		},
	})
}

// matches(pattern, string) with Go's RE2 syntax, anywhere in the string.
var matchesFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "pattern", Type: cty.String}, nullable("string", cty.String)},
	Type: func(args []cty.Value) (cty.Type, error) {
		// A literal pattern is checked even while the string is unknown.
		if args[0].IsKnown() && !args[0].IsMarked() {
			if _, err := regexp.Compile(args[0].AsString()); err != nil {
				return cty.Bool, function.NewArgError(0, RegexpError(err))
			}
		}
		return cty.Bool, nil
	},
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		re, err := regexp.Compile(args[0].AsString())
		if err != nil {
			return cty.False, function.NewArgError(0, RegexpError(err))
		}
		return cty.BoolVal(!args[1].IsNull() && re.MatchString(args[1].AsString())), nil
	},
})

// RegexpError is what is wrong with a regular expression, without the package's name.
func RegexpError(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "error parsing regexp: "))
}

func boolList(wanted bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.List(cty.Bool)}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for _, v := range args[0].AsValueSlice() {
				if !v.IsKnown() {
					return cty.UnknownVal(cty.Bool), nil
				}
				if !v.IsNull() && v.True() == wanted || v.IsNull() && !wanted {
					return cty.BoolVal(wanted), nil
				}
			}
			return cty.BoolVal(!wanted), nil
		},
	})
}

// cidr_contains(networks, ip): one network or a list of them.
var cidrContainsFunc = function.New(&function.Spec{
	Params: []function.Parameter{
		{Name: "networks", Type: cty.DynamicPseudoType},
		nullable("ip", cty.String),
	},
	Type: func(args []cty.Value) (cty.Type, error) {
		_, err := prefixesOf(args[0])
		return cty.Bool, err
	},
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		nets, err := prefixesOf(args[0])
		if err != nil || args[1].IsNull() {
			return cty.False, err
		}
		ip, err := netip.ParseAddr(args[1].AsString())
		if err != nil {
			// No address (a unix socket): it lies in no network.
			return cty.False, nil
		}
		for _, n := range nets {
			if n.Contains(ip.Unmap()) {
				return cty.True, nil
			}
		}
		return cty.False, nil
	},
})

func prefixesOf(v cty.Value) ([]netip.Prefix, error) {
	if !v.IsWhollyKnown() {
		return nil, nil
	}
	v, _ = v.UnmarkDeep()
	list := []cty.Value{v}
	if v.CanIterateElements() {
		list = v.AsValueSlice()
	}
	var out []netip.Prefix
	for _, x := range list {
		if x.IsNull() || x.Type() != cty.String {
			return nil, function.NewArgErrorf(0, "a network or a list of networks is wanted")
		}
		p, err := ParseNetwork(x.AsString())
		if err != nil {
			return nil, function.NewArgErrorf(0, "write 192.0.2.0/24 or 2001:db8::/32")
		}
		out = append(out, p)
	}
	return out, nil
}

func addressTest(test func(netip.Addr) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{nullable("ip", cty.String)},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if args[0].IsNull() {
				return cty.False, nil
			}
			ip, err := netip.ParseAddr(args[0].AsString())
			return cty.BoolVal(err == nil && test(ip.Unmap())), nil
		},
	})
}

// hasFunc is has(directory, address or recipient). ask nil: unknown, as when
// the files are checked: has() is then only type-checked.
func hasFunc(ask func(ref, address string) (bool, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "directory", Type: ReferenceType},
			{Name: "address", Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true},
		},
		Type: func(args []cty.Value) (cty.Type, error) {
			if args[0].IsKnown() {
				if r := args[0].EncapsulatedValue().(*Reference); r.Kind != "directory" {
					return cty.Bool, function.NewArgErrorf(0, "%s is no directory", r.Ref)
				}
			}
			if t := args[1].Type(); t != cty.String && t != cty.DynamicPseudoType && !t.Equals(MailboxType) {
				return cty.Bool, function.NewArgErrorf(1, "an address is wanted, such as recipient")
			}
			return cty.Bool, nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			whom := args[1]
			if ask == nil {
				return cty.UnknownVal(cty.Bool), nil
			}
			if !whom.IsNull() && whom.Type().Equals(MailboxType) {
				whom = whom.GetAttr("address")
			}
			if whom.IsNull() {
				return cty.False, nil
			}
			if whom.Type() != cty.String {
				return cty.False, function.NewArgErrorf(1, "an address is wanted, such as recipient")
			}
			ok, err := ask(args[0].EncapsulatedValue().(*Reference).Ref, whom.AsString())
			return cty.BoolVal(ok), err
		},
	})
}

// ParseNetwork reads a network or a single address.
func ParseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, errors.New("has a zone")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("is no network")
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("has bits set beyond its length: the network is %s", p.Masked())
	}
	return p, nil
}
