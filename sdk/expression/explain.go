package expression

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

var functionArgument = regexp.MustCompile(`(?s)^Invalid value for "(\w+)" parameter: (.*?)\.?$`)

// Explain is one of HCL's complaints, shorter.
func Explain(d *hcl.Diagnostic) (text, remedy string) {
	text = strings.TrimSuffix(d.Detail, ".")
	extra, inCall := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](d)
	if !inCall {
		return text, ""
	}
	name := extra.CalledFunctionName()
	if m := functionArgument.FindStringSubmatch(d.Detail); m != nil {
		return fmt.Sprintf("Wrong %s in %s(): %s", m[1], name, m[2]), ""
	}
	var known Remedied
	err := extra.FunctionCallError()
	if errors.As(err, &known) {
		return known.Text, known.Remedy
	}
	if err != nil {
		return fmt.Sprintf("%s(): %s", name, err), ""
	}
	return text, ""
}

// TypeName is a type in an operator's words.
func TypeName(t cty.Type) string {
	switch {
	case t == cty.String:
		return "a string"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t == ReferenceType:
		return "a reference"
	case t.IsListType() || t.IsSetType():
		switch t.ElementType() {
		case cty.String:
			return "a list of strings"
		case cty.Number:
			return "a list of numbers"
		}
		return "a list"
	case t.IsTupleType():
		return "a list"
	case t.IsMapType() || t.IsObjectType():
		return "an object { … }"
	}
	return "a value"
}
