package block

import (
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

type config struct {
	Forbid []string          `hcl:"forbid"`
	Code   float64           `hcl:"code,optional"`
	Set    map[string]string `hcl:"set,optional"`
	Limits []limit           `hcl:"limit,block"`
}

type limit struct {
	Domain string `hcl:"domain,label"`
	Max    int    `hcl:"max,optional"`
}

func TestTextBecomesBothForms(t *testing.T) {
	s, err := schema.FromStruct(config{Code: 550})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Decode(s, "my.hcl", "forbid = [\"a\"]\nlimit \"ryan.example\" { max = 3 }\n")
	if err != nil {
		t.Fatal(err)
	}
	js, pack, err := Wire(s, v)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"code":550,"forbid":["a"],"limit":[{"domain":"ryan.example","max":3}],"set":null}`; string(js) != want {
		t.Errorf("JSON %s\nwant %s", js, want)
	}
	var got config
	if err := schema.Decode(js, &got); err != nil || got.Code != 550 || got.Limits[0].Domain != "ryan.example" {
		t.Errorf("decoded %+v %v", got, err)
	}
	want := "\x84\xa4code\xd3\x00\x00\x00\x00\x00\x00\x02\x26\xa6forbid\x91\xa1a" +
		"\xa5limit\x91\x82\xa6domain\xacryan.example\xa3max\x03\xa3set\xc0"
	if string(pack) != want {
		t.Errorf("msgpack %q\nwant    %q", pack, want)
	}
	g, err := FromGo(s, map[string]any{"forbid": []string{"a"}, "code": 1.5, "set": nil, "limit": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	if js, _, err = Wire(s, g); err != nil || !strings.Contains(string(js), `"code":1.5`) {
		t.Errorf("from Go: %s %v", js, err)
	}
}

func TestMistakesNameTheLine(t *testing.T) {
	s, err := schema.FromStruct(config{})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"forbid = [":                   "my.hcl line 1",
		"forbid = []\nforbidden = 1":   "my.hcl line 2",
		"code = 5":                     "forbid",
		"forbid = []\ncode = \"five\"": "my.hcl line 2",
	} {
		if _, err := Decode(s, "my.hcl", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestConditionIsItsText: the plugin evaluates it.
func TestConditionIsItsText(t *testing.T) {
	s, err := schema.FromStruct(struct {
		When string `hcl:"when" semantic:"condition"`
		Also string `hcl:"also,optional" semantic:"condition"`
	}{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Decode(s, "my.hcl", "when = (tags.spf == \"fail\" &&\n  !client.tls)\n")
	if err != nil {
		t.Fatal(err)
	}
	js, _, err := Wire(s, v)
	if want := `{"also":"","when":"(tags.spf == \"fail\" \u0026\u0026\n  !client.tls)"}`; err != nil || string(js) != want {
		t.Errorf("%s %v", js, err)
	}
	if _, err := schema.FromStruct(struct {
		When []string `hcl:"when" semantic:"condition"`
	}{}); err == nil {
		t.Error("a list of conditions is a schema")
	}
}
