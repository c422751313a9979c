package config

import (
	"fmt"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
)

// secret marks what came from file() or env(): it is never printed.
type secret struct{}

// envFunc is env(name) or env(name, default).
func envFunc(getenv func(string) (string, bool)) function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "default", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if v, ok := getenv(args[0].AsString()); ok {
				return cty.StringVal(v).Mark(secret{}), nil
			}
			if len(args) > 1 {
				return args[1], nil
			}
			name := args[0].AsString()
			return cty.NilVal, expression.Remedied{Text: fmt.Sprintf("The environment variable %s is not set", name),
				Remedy: fmt.Sprintf("Set it, or give a default: env(%q, \"…\").", name)}
		},
	})
}

// fileFunc is file(path): the file's text without its last line end, which an
// editor added. A relative path begins where the configuration file lies.
func fileFunc(read func(path string) ([]byte, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			b, err := read(args[0].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			s := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
			return cty.StringVal(s).Mark(secret{}), nil
		},
	})
}
