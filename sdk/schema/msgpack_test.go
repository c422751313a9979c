package schema

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

func TestMsgpackKeepsEveryValueWhole(t *testing.T) {
	long, longest := strings.Repeat("a", 300), strings.Repeat("a", 70000)
	many := make([]cty.Value, 20)
	for i := range many {
		many[i] = cty.True
	}
	for want, v := range map[string]cty.Value{
		"\xc0":                                 cty.NullVal(cty.String),
		"\xc2":                                 cty.False,
		"\x7f":                                 cty.NumberIntVal(127),
		"\xe0":                                 cty.NumberIntVal(-32),
		"\xd3\x00\x00\x00\x00\x00\x00\x00\x80": cty.NumberIntVal(128),
		"\xd3\x80\x00\x00\x00\x00\x00\x00\x00": cty.MustParseNumberVal("-9223372036854775808"),
		"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00": cty.NumberFloatVal(1.5),
		"\xb39223372036854775809":              cty.MustParseNumberVal("9223372036854775809"),
		"\xa30.1":                              cty.MustParseNumberVal("0.1"),
		"\xd9\x28" + long[:40]:                 cty.StringVal(long[:40]),
		"\xda\x01\x2c" + long:                  cty.StringVal(long),
		"\xdb\x00\x01\x11\x70" + longest:       cty.StringVal(longest),
		"\xdc\x00\x14" + strings.Repeat("\xc3", 20): cty.ListVal(many),
		"\x82\xa1a\x01\xa1b\x90":                    cty.ObjectVal(map[string]cty.Value{"b": cty.ListValEmpty(cty.Bool), "a": cty.NumberIntVal(1)}),
	} {
		got, err := Msgpack(v)
		if err != nil || string(got) != want {
			t.Errorf("%.80s: %.60q %v, want %.60q", fmt.Sprintf("%#v", v), got, err, want)
		}
	}
	if _, err := Msgpack(cty.ListVal([]cty.Value{cty.UnknownVal(cty.String)})); err == nil {
		t.Error("an unknown value was written")
	}
}
