package mime

import (
	"fmt"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestFileNames(t *testing.T) {
	p := func(pairs ...string) []*v1.Param {
		var out []*v1.Param
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, &v1.Param{Name: pairs[i], Value: []byte(pairs[i+1])})
		}
		return out
	}
	for want, part := range map[string]*v1.Part{
		"[]":                    {},
		"[a.exe b.txt]":         {DispositionParams: p("filename", "a.exe"), Params: p("name", "b.txt")},
		"[Café.exe]":            {Params: p("name", "=?utf-8?q?Caf=C3=A9.exe?=")},
		"[report.exe]":          {DispositionParams: p("filename*", "utf-8'en'report%2eexe")},
		"[one two.exe]":         {DispositionParams: p("filename*0*", "utf-8''one%20", "filename*1", "two.exe", "filename*x", "y")},
		"[plain.txt trick.exe]": {DispositionParams: p("filename", "plain.txt", "filename*", "utf-8''trick.exe")},
		"[50%.exe]":             {DispositionParams: p("filename*", "50%.exe")},
	} {
		if got := fmt.Sprint(FileNames(part)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestPlainName(t *testing.T) {
	for name, want := range map[string]string{"Setup.EXE. . ": "setup.exe", "cod\u202eexe.doc": "codexe.doc", "a\tb\x00": "ab"} {
		if got := PlainName(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
