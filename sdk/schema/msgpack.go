package schema

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"

	"github.com/zclconf/go-cty/cty"
)

// Msgpack writes a value that a schema describes as Configure's config_msgpack,
// cty's msgpack form: objects are maps with sorted keys, numbers the shortest
// form that keeps them whole, others a decimal string. Every part must be known.
func Msgpack(v cty.Value) ([]byte, error) {
	return appendMsgpack(nil, v)
}

func appendMsgpack(b []byte, v cty.Value) ([]byte, error) {
	t := v.Type()
	switch {
	case v.IsNull():
		return append(b, 0xc0), nil
	case !v.IsKnown():
		return nil, fmt.Errorf("an unknown value")
	case t == cty.Bool:
		if v.True() {
			return append(b, 0xc3), nil
		}
		return append(b, 0xc2), nil
	case t == cty.String:
		return appendText(b, v.AsString()), nil
	case t == cty.Number:
		return appendNumber(b, v.AsBigFloat()), nil
	case t.IsMapType() || t.IsObjectType():
		m := v.AsValueMap()
		b = appendHead(b, len(m), 0x80, 0xde)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			b = appendText(b, k)
			var err error
			if b, err = appendMsgpack(b, m[k]); err != nil {
				return nil, err
			}
		}
		return b, nil
	case t.IsListType() || t.IsSetType() || t.IsTupleType():
		list := v.AsValueSlice()
		b = appendHead(b, len(list), 0x90, 0xdc)
		for _, x := range list {
			var err error
			if b, err = appendMsgpack(b, x); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, fmt.Errorf("a value of type %s", t.FriendlyName())
}

// appendHead is the head of a map or an array: fixed form, 16 and 32 bits.
func appendHead(b []byte, n int, fixed, wide byte) []byte {
	switch {
	case n < 16:
		return append(b, fixed|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, wide), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, wide+1), uint32(n))
}

func appendText(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n <= math.MaxUint8:
		b = append(b, 0xd9, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

func appendNumber(b []byte, f *big.Float) []byte {
	if i, accuracy := f.Int64(); accuracy == big.Exact {
		switch {
		case i >= 0 && i < 128:
			return append(b, byte(i))
		case i < 0 && i >= -32:
			return append(b, byte(i))
		}
		return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(i))
	}
	if x, accuracy := f.Float64(); accuracy == big.Exact {
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(x))
	}
	return appendText(b, f.Text('f', -1))
}
