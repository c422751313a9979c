package schema

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Error is a complaint about one attribute of the operator's block.
type Error struct {
	// Path to the attribute; empty for the block itself.
	Path []*v1.PathStep
	// Summary is what is wrong; Detail, if any, what to write instead.
	Summary, Detail string
}

func (e *Error) Error() string {
	if p := pathString(e.Path); p != "" {
		return p + ": " + e.Summary
	}
	return e.Summary
}

// Path makes a path of steps: strings are attribute and block names, ints are
// indexes of repeated blocks and list elements. It panics for anything else.
func Path(steps ...any) []*v1.PathStep {
	var out []*v1.PathStep
	for _, s := range steps {
		switch s := s.(type) {
		case string:
			out = append(out, &v1.PathStep{Step: &v1.PathStep_Name{Name: s}})
		case int:
			out = append(out, &v1.PathStep{Step: &v1.PathStep_Index{Index: int64(s)}})
		default:
			panic(fmt.Sprintf("schema.Path: a step is a string or an int, not %T", s))
		}
	}
	return out
}

// Errorf makes an error that the operator sees at the attribute named by path:
// schema.Errorf(schema.Path("limit", 0, "max"), "…"). Several are given with
// errors.Join.
func Errorf(path []*v1.PathStep, format string, args ...any) error {
	return &Error{Path: path, Summary: fmt.Sprintf(format, args...)}
}

// Diagnostics makes the contract's form of an error: one for each *Error joined
// in it, and one without a path for anything else. nil makes none.
func Diagnostics(err error) []*v1.Diagnostic {
	if err == nil {
		return nil
	}
	var e *Error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*v1.Diagnostic
		for _, one := range joined.Unwrap() {
			out = append(out, Diagnostics(one)...)
		}
		return out
	}
	if errors.As(err, &e) {
		return []*v1.Diagnostic{{Summary: e.Summary, Detail: e.Detail, Path: e.Path}}
	}
	return []*v1.Diagnostic{{Summary: err.Error()}}
}

func pathString(path []*v1.PathStep) string {
	s := ""
	for _, p := range path {
		switch p := p.GetStep().(type) {
		case *v1.PathStep_Index:
			s += fmt.Sprintf("[%d]", p.Index)
		case *v1.PathStep_Name:
			if s != "" {
				s += "."
			}
			s += p.Name
		}
	}
	return s
}

// Decode fills the struct that into points at from JSON of the type that the
// struct's schema implies (Configure's config_json). What is null or absent
// keeps the value that into has. Errors are *Error, joined.
func Decode(json []byte, into any) error {
	s, err := FromStruct(into)
	if err != nil || len(json) == 0 {
		return err
	}
	v, err := ctyjson.Unmarshal(json, ImpliedType(s))
	if err != nil {
		return fmt.Errorf("the configuration does not fit the schema: %w", err)
	}
	return DecodeValue(v, into)
}

// DecodeValue is Decode for a value at hand.
func DecodeValue(v cty.Value, into any) error {
	rv := reflect.ValueOf(into)
	if rv.Kind() != reflect.Pointer || rv.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("cannot decode into %T: a pointer to a struct is needed", into)
	}
	return errors.Join(decodeBlock(v, rv.Elem(), nil)...)
}

func decodeBlock(v cty.Value, into reflect.Value, path []any) []error {
	if v.IsNull() {
		return nil
	}
	fields, err := fieldsOf(into.Type())
	if err != nil {
		return []error{err}
	}
	var errs []error
	for _, f := range fields {
		if !v.Type().HasAttribute(f.name) {
			continue
		}
		fv := v.GetAttr(f.name)
		if fv.IsNull() {
			continue
		}
		here := append(path[:len(path):len(path)], f.name)
		target := into.FieldByIndex(f.Index)
		if f.mode != "block" {
			if err := set(fv, target); err != nil {
				errs = append(errs, Errorf(Path(here...), "%s", err))
			}
			continue
		}
		errs = append(errs, decodeNested(fv, target, here)...)
	}
	return errs
}

func decodeNested(v cty.Value, target reflect.Value, path []any) []error {
	switch target.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(target.Type().Elem())
		if !target.IsNil() {
			fresh.Elem().Set(target.Elem())
		}
		target.Set(fresh)
		return decodeBlock(v, fresh.Elem(), path)
	case reflect.Slice:
		var errs []error
		list := reflect.MakeSlice(target.Type(), 0, v.LengthInt())
		for i, ev := range v.AsValueSlice() {
			e := reflect.New(target.Type().Elem()).Elem()
			if target.Len() > 0 {
				e.Set(target.Index(0)) // the defaults of each, see nested
			}
			errs = append(errs, decodeBlock(ev, e, append(path[:len(path):len(path)], i))...)
			list = reflect.Append(list, e)
		}
		target.Set(list)
		return errs
	}
	return decodeBlock(v, target, path)
}

// set puts a value into a Go field.
func set(v cty.Value, into reflect.Value) error {
	switch into.Type() {
	case durationType:
		d, err := ParseDuration(v.AsString())
		into.Set(reflect.ValueOf(d))
		return err
	case sizeType:
		n, err := ParseSize(v.AsString())
		into.Set(reflect.ValueOf(n))
		return err
	}
	switch into.Kind() {
	case reflect.Pointer:
		p := reflect.New(into.Type().Elem())
		into.Set(p)
		return set(v, p.Elem())
	case reflect.Slice:
		list := reflect.MakeSlice(into.Type(), v.LengthInt(), v.LengthInt())
		for i, e := range v.AsValueSlice() {
			if err := set(e, list.Index(i)); err != nil {
				return err
			}
		}
		into.Set(list)
		return nil
	case reflect.Map:
		m := reflect.MakeMap(into.Type())
		for k, e := range v.AsValueMap() {
			x := reflect.New(into.Type().Elem()).Elem()
			if err := set(e, x); err != nil {
				return err
			}
			m.SetMapIndex(reflect.ValueOf(k).Convert(into.Type().Key()), x)
		}
		into.Set(m)
		return nil
	}
	t, _, err := ctyType(into.Type())
	if err != nil {
		return err
	}
	if v, err = convert.Convert(v, t); err != nil {
		return err
	}
	return gocty.FromCtyValue(v, into.Addr().Interface())
}
