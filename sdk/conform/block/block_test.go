package block

import (
	"encoding/hex"
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
	want := "df00000004" + "db00000004636f6465" + "d30000000000000226" + "db00000006666f72626964" + "dd00000001db0000000161" +
		"db000000056c696d6974" + "dd00000001df00000002db00000006646f6d61696edb0000000c7279616e2e6578616d706c65db000000036d6178d30000000000000003" +
		"db00000003736574c0"
	if hex.EncodeToString(pack) != want {
		t.Errorf("msgpack %x\nwant    %s", pack, want)
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
