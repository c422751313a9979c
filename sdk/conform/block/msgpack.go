package block

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/zclconf/go-cty/cty"
)

// appendMsgpack writes a value as cty's msgpack form, in the widest heads there
// are: cty's own package would bring a library along for these few lines.
func appendMsgpack(b []byte, v cty.Value) ([]byte, error) {
	t := v.Type()
	var err error
	switch {
	case v.IsNull():
		return append(b, 0xc0), nil
	case t == cty.Bool && v.True():
		return append(b, 0xc3), nil
	case t == cty.Bool:
		return append(b, 0xc2), nil
	case t == cty.String:
		return appendText(b, v.AsString()), nil
	case t == cty.Number:
		f, _ := v.AsBigFloat().Float64()
		if i := int64(f); float64(i) == f && math.Abs(f) < 1<<53 {
			return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(i)), nil
		}
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(f)), nil
	case t.IsMapType() || t.IsObjectType():
		m := v.AsValueMap()
		b = binary.BigEndian.AppendUint32(append(b, 0xdf), uint32(len(m)))
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if b, err = appendMsgpack(appendText(b, k), m[k]); err != nil {
				return nil, err
			}
		}
		return b, nil
	case t.IsListType() || t.IsSetType() || t.IsTupleType():
		list := v.AsValueSlice()
		b = binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(len(list)))
		for _, x := range list {
			if b, err = appendMsgpack(b, x); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, fmt.Errorf("a value of type %s cannot be in a configuration", t.FriendlyName())
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(len(s))), s...)
}
