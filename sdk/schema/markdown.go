package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Markdown writes the table of a README's Syntax section: every attribute, and
// every nested block with its own table under it. Values stand as HCL has them.
func Markdown(s *v1.Schema) string {
	var b strings.Builder
	writeBlock(&b, s.GetBlock())
	return b.String()
}

func writeBlock(b *strings.Builder, block *v1.Schema_Block) {
	if len(block.GetAttributes()) == 0 && len(block.GetBlocks()) == 0 {
		b.WriteString("No attributes of its own.\n")
		return
	}
	if len(block.GetAttributes()) > 0 {
		b.WriteString("| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n")
	}
	for _, a := range block.GetAttributes() {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", a.GetName(), typeName(a), cell(defaultText(a)), cell(meaning(a)))
	}
	for i, nb := range block.GetBlocks() {
		if i > 0 || len(block.GetAttributes()) > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "Block `%s { … }`, %s. %s\n\n", blockTitle(nb), often(nb), nb.GetBlock().GetDoc())
		writeBlock(b, nb.GetBlock())
	}
}

func defaultText(a *v1.Schema_Attribute) string {
	switch {
	case a.GetRequired():
		return "**required**"
	case len(a.GetDefaultJson()) > 0:
		return "`" + defaultHCL(a) + "`"
	}
	return "—"
}

// meaning is the doc, with what the schema says beside it.
func meaning(a *v1.Schema_Attribute) string {
	doc := strings.TrimSpace(a.GetDoc())
	if len(a.GetOneOf()) > 0 {
		var all []string
		for _, v := range a.GetOneOf() {
			all = append(all, "`"+strconv.Quote(v)+"`")
		}
		doc += " One of " + strings.Join(all, ", ") + "."
	}
	if e := exampleHCL(a); e != "" && e != defaultHCL(a) {
		doc += " For example `" + e + "`."
	}
	if a.GetSensitive() {
		doc += " A secret: write `env(\"NAME\")` or `file(\"PATH\")`."
	}
	return strings.TrimSpace(doc)
}

// HCL writes a block of that header (`filter "headers" "NAME"`) with all its
// attributes: the required ones with their example, then the others with their
// default. Those that have none stand last, as comments, so that the block can be
// pasted as it is.
func HCL(header string, s *v1.Schema) string {
	var b strings.Builder
	writeHCL(&b, header, s.GetBlock(), "")
	return b.String()
}

func writeHCL(b *strings.Builder, header string, block *v1.Schema_Block, indent string) {
	if len(block.GetAttributes()) == 0 && len(block.GetBlocks()) == 0 {
		fmt.Fprintf(b, "%s%s {}\n", indent, header)
		return
	}
	var required, set, open [][2]string
	for _, a := range block.GetAttributes() {
		def, example := defaultHCL(a), exampleHCL(a)
		if example == "" {
			example = placeholder(a)
		}
		switch {
		case a.GetRequired():
			required = append(required, [2]string{a.GetName(), example})
		case def == "" || def == `""` && a.GetExample() != "":
			open = append(open, [2]string{"# " + a.GetName(), example})
		default:
			set = append(set, [2]string{a.GetName(), def})
		}
	}
	fmt.Fprintf(b, "%s%s {\n", indent, header)
	for _, group := range [][][2]string{append(required, set...), open} {
		width := 0
		for _, l := range group {
			width = max(width, len(l[0]))
		}
		for _, l := range group {
			fmt.Fprintf(b, "%s  %-*s = %s\n", indent, width, l[0], l[1])
		}
	}
	for i, nb := range block.GetBlocks() {
		if i > 0 || len(block.GetAttributes()) > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%s  # %s\n", indent, often(nb))
		writeHCL(b, blockTitle(nb), nb.GetBlock(), indent+"  ")
	}
	b.WriteString(indent + "}\n")
}

// placeholder is a value for an attribute that shows no example.
func placeholder(a *v1.Schema_Attribute) string {
	t := AttributeType(a)
	text := `"…"`
	if len(a.GetOneOf()) > 0 {
		text = strconv.Quote(a.GetOneOf()[0])
	}
	switch {
	case t == cty.Number:
		return "0"
	case t == cty.Bool:
		return "false"
	case t.IsMapType():
		return "{}"
	case t.IsListType():
		if t.ElementType() == cty.String {
			return "[" + text + "]"
		}
		return "[]"
	}
	return text
}

func blockTitle(nb *v1.Schema_NestedBlock) string {
	title := nb.GetName()
	for _, l := range nb.GetLabels() {
		title += fmt.Sprintf(" %q", strings.ToUpper(l))
	}
	return title
}

func often(nb *v1.Schema_NestedBlock) string {
	low, high := nb.GetMin(), nb.GetMax()
	switch {
	case high == 1 && low == 1:
		return "exactly one"
	case high == 1:
		return "at most one"
	case low > 0 && high > 0:
		return fmt.Sprintf("%d to %d", low, high)
	case low > 0:
		return fmt.Sprintf("at least %d", low)
	case high > 0:
		return fmt.Sprintf("at most %d", high)
	}
	return "any number"
}

// exampleHCL is the example as HCL has it; a string may be given without its
// quotes.
func exampleHCL(a *v1.Schema_Attribute) string {
	e := a.GetExample()
	if e != "" && AttributeType(a) == cty.String && a.GetSemantic() != "condition" && !strings.HasPrefix(e, `"`) && !strings.Contains(e, "(") {
		return strconv.Quote(e)
	}
	return e
}

// defaultHCL is the default as HCL has it; empty if there is none.
func defaultHCL(a *v1.Schema_Attribute) string {
	d := json.NewDecoder(bytes.NewReader(a.GetDefaultJson()))
	d.UseNumber()
	var v any
	if len(a.GetDefaultJson()) == 0 || d.Decode(&v) != nil {
		return ""
	}
	return valueHCL(v)
}

func valueHCL(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return quoteHCL(v)
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, valueHCL(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		if len(v) == 0 {
			return "{}"
		}
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, quoteHCL(k)+" = "+valueHCL(v[k]))
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return fmt.Sprint(v)
}

// quoteHCL quotes a string; ${ and %{ would be templates.
func quoteHCL(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(s))
}

// typeName is the type in an operator's words.
func typeName(a *v1.Schema_Attribute) string {
	t := AttributeType(a)
	element := t
	if t.IsListType() || t.IsMapType() {
		element = t.ElementType()
	}
	one, many := words(element, a.GetSemantic())
	switch {
	case t.IsListType():
		return "list of " + many
	case t.IsMapType():
		return "map of " + many
	}
	return one
}

// words for a type, one and many of it.
func words(t cty.Type, semantic string) (one, many string) {
	if t == cty.String {
		switch semantic {
		case "cidr":
			return "network", "networks"
		case "hostport":
			return "host:port", "host:port"
		case "regexp":
			return "regular expression", "regular expressions"
		case "address":
			return "address", "addresses"
		case "":
		default:
			return semantic, semantic + "s"
		}
	}
	switch t {
	case cty.Bool:
		return "true or false", "true or false"
	case cty.Number:
		return "number", "numbers"
	case cty.String:
		return "string", "strings"
	}
	return t.FriendlyName(), t.FriendlyName()
}

// cell keeps a text within its cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}
