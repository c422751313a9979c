package schema

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

type config struct {
	Delay   time.Duration     `hcl:"delay,optional" doc:"How long | to wait." example:"2m" live:"true"`
	Max     Size              `hcl:"max,optional"`
	Mode    string            `hcl:"mode" oneof:"a,b" doc:"Which way."`
	Secret  string            `hcl:"secret,optional" sensitive:"true"`
	Count   uint8             `hcl:"count,optional" example:"7"`
	Ratio   float64           `hcl:"ratio,optional"`
	On      bool              `hcl:"on,optional"`
	Nets    []string          `hcl:"nets,optional" semantic:"cidr" example:"[\"192.0.2.0/24\"]"`
	Retry   []time.Duration   `hcl:"retry,optional"`
	Map     map[string]string `hcl:"map,optional"`
	Maybe   *int              `hcl:"maybe,optional"`
	One     *inner            `hcl:"one,block"`
	Many    []inner           `hcl:"many,block" doc:"Any number of them."`
	private int
}

type inner struct {
	Domain string `hcl:"domain,label"`
	Limit  int    `hcl:"limit,optional"`
}

var defaults = config{Delay: 2 * time.Minute, Max: 25 << 20, On: true, Retry: []time.Duration{time.Minute, 24 * time.Hour}, Map: map[string]string{"k": "${v}"}, Many: []inner{{Limit: 5}}}

func TestRoundTripFillsDefaults(t *testing.T) {
	s, err := FromStruct(defaults)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ctyjson.Unmarshal([]byte(`{"mode":"a","count":7,"nets":["192.0.2.0/24"],"map":{"k":"v"},"maybe":0,
		"many":[{"domain":"ryan.example","limit":9},{"domain":"hanks.example"}]}`), ImpliedType(s))
	if err != nil {
		t.Fatal(err)
	}
	filled := ApplyDefaults(v, s)
	if got := filled.GetAttr("delay"); !got.RawEquals(cty.StringVal("2m")) {
		t.Errorf("delay is %#v", got)
	}
	if got := filled.GetAttr("max"); !got.RawEquals(cty.StringVal("25MB")) {
		t.Errorf("max is %#v", got)
	}
	wire, err := ctyjson.Marshal(filled, ImpliedType(s))
	if err != nil {
		t.Fatal(err)
	}
	got := defaults
	if err := Decode(wire, &got); err != nil {
		t.Fatal(err)
	}
	zero := 0
	want := defaults
	want.Mode, want.Count, want.Nets, want.Map, want.Maybe = "a", 7, []string{"192.0.2.0/24"}, map[string]string{"k": "v"}, &zero
	want.Many = []inner{{"ryan.example", 9}, {"hanks.example", 5}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !reflect.DeepEqual(defaults.Many, []inner{{Limit: 5}}) {
		t.Error("decoding changed the defaults")
	}
}

func TestSchemaSaysWhatTheTagsSay(t *testing.T) {
	s, err := FromStruct(&defaults)
	if err != nil {
		t.Fatal(err)
	}
	a := s.GetBlock().GetAttributes()
	if a[0].GetSemantic() != "duration" || !a[0].GetLiveReload() || a[1].GetSemantic() != "size" || !a[2].GetRequired() ||
		len(a[2].GetOneOf()) != 2 || !a[3].GetSensitive() || a[7].GetSemantic() != "cidr" || len(a[7].GetDefaultJson()) != 0 ||
		string(a[8].GetDefaultJson()) != `["1m","1d"]` || string(a[8].GetType()) != `["list","string"]` {
		t.Errorf("attributes %v", a)
	}
	b := s.GetBlock().GetBlocks()
	if len(b) != 2 || b[0].GetMax() != 1 || b[0].GetMin() != 0 || b[1].GetMax() != 0 || b[1].GetLabels()[0] != "domain" {
		t.Errorf("blocks %v", b)
	}
	md := Markdown(s)
	want := "| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n" +
		"| `delay` | duration | `\"2m\"` | How long \\| to wait. |\n" +
		"| `max` | size | `\"25MB\"` |  |\n" +
		"| `mode` | string | **required** | Which way. One of `\"a\"`, `\"b\"`. |\n" +
		"| `secret` | string | `\"\"` | A secret: write `env(\"NAME\")` or `file(\"PATH\")`. |\n" +
		"| `count` | number | `0` | For example `7`. |\n" +
		"| `ratio` | number | `0` |  |\n" +
		"| `on` | true or false | `true` |  |\n" +
		"| `nets` | list of networks | — | For example `[\"192.0.2.0/24\"]`. |\n" +
		"| `retry` | list of durations | `[\"1m\", \"1d\"]` |  |\n" +
		"| `map` | map of strings | `{ \"k\" = \"$${v}\" }` |  |\n" +
		"| `maybe` | number | — |  |\n" +
		"\nBlock `one \"DOMAIN\" { … }`, at most one. \n\n" +
		"| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n| `limit` | number | `0` |  |\n" +
		"\nBlock `many \"DOMAIN\" { … }`, any number. Any number of them.\n\n" +
		"| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n| `limit` | number | `5` |  |\n"
	if md != want {
		t.Errorf("got\n%s\nwant\n%s", md, want)
	}
	if md := Markdown(nil); md != "No attributes of its own.\n" {
		t.Errorf("nothing is %q", md)
	}
	skeleton := HCL(`filter "x" "NAME"`, s)
	want = `filter "x" "NAME" {
  mode   = "a"
  delay  = "2m"
  max    = "25MB"
  secret = ""
  count  = 0
  ratio  = 0
  on     = true
  retry  = ["1m", "1d"]
  map    = { "k" = "$${v}" }
  # nets  = ["192.0.2.0/24"]
  # maybe = 0

  # at most one
  one "DOMAIN" {
    limit = 0
  }

  # any number
  many "DOMAIN" {
    limit = 5
  }
}
`
	if skeleton != want {
		t.Errorf("got\n%s\nwant\n%s", skeleton, want)
	}
	if s := HCL(`storage "y" "NAME"`, nil); s != "storage \"y\" \"NAME\" {}\n" {
		t.Errorf("nothing is %q", s)
	}
}

func TestMistakesPointAtTheirAttribute(t *testing.T) {
	c := defaults
	err := Decode([]byte(`{"mode":"a","delay":"soon","max":"big","count":999}`), &c)
	var paths []string
	for _, d := range Diagnostics(err) {
		paths = append(paths, pathString(d.GetPath()))
	}
	if strings.Join(paths, " ") != "delay max count" {
		t.Errorf("paths %q of %v", paths, err)
	}
	d := Diagnostics(errors.Join(Errorf(Path("many", 1, "limit"), "too %s", "many"), errors.New("and more")))
	if len(d) != 2 || pathString(d[0].GetPath()) != "many[1].limit" || d[0].GetSummary() != "too many" || len(d[1].GetPath()) != 0 {
		t.Errorf("diagnostics %v", d)
	}
}

func TestStructsThatCannotBeAConfig(t *testing.T) {
	for what, v := range map[string]any{
		"no struct": 7,
		"a channel": struct {
			C chan int `hcl:"c"`
		}{},
		"no name": struct {
			C int `hcl:",optional"`
		}{},
		"bad option": struct {
			C int `hcl:"c,maybe"`
		}{},
		"bad meaning": struct {
			C string `hcl:"c" semantic:"colour"`
		}{},
		"number label": struct {
			C int `hcl:"c,label"`
		}{},
	} {
		if _, err := FromStruct(v); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if s, err := FromStruct(nil); err != nil || !ImpliedType(s).Equals(cty.EmptyObject) {
		t.Errorf("nil: %v, %v", s, err)
	}
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "5d": 120 * time.Hour, "1w2d3h": 219 * time.Hour, "0s": 0, "10ms": 10 * time.Millisecond} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
		if back, err := ParseDuration(FormatDuration(want)); err != nil || back != want {
			t.Errorf("%s: written as %s", s, FormatDuration(want))
		}
	}
	for _, s := range []string{"", "soon", "-5m", "5", "-1d", "1d-2h", "1000000w", "d", "NaNd"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
	for s, want := range map[string]Size{"0": 0, "1000": 1000, "25MB": 25 << 20, "64KiB": 64 << 10, "1.5g": 3 << 29, "7 B": 7, "1tb": 1 << 40} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
		if back, err := ParseSize(want.String()); err != nil || back != want {
			t.Errorf("%s: written as %s", s, want)
		}
	}
	for _, s := range []string{"", "MB", "-1KB", "9999999999TB", "NaN", "InfMB", "1 apple"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
}
