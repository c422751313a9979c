package schema

import (
	"fmt"
	"strings"

	"github.com/zclconf/go-cty/cty"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Markdown writes the table of a README's Syntax section: every attribute, and
// every nested block with its own table under it.
func Markdown(s *v1.Schema) string {
	var b strings.Builder
	writeBlock(&b, s.GetBlock())
	return b.String()
}

func writeBlock(b *strings.Builder, block *v1.Schema_Block) {
	if len(block.GetAttributes()) == 0 && len(block.GetBlocks()) == 0 {
		b.WriteString("No attributes.\n")
		return
	}
	if len(block.GetAttributes()) > 0 {
		b.WriteString("| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n")
	}
	for _, a := range block.GetAttributes() {
		def := "none"
		switch {
		case a.GetRequired():
			def = "required"
		case len(a.GetDefaultJson()) > 0:
			def = "`" + string(a.GetDefaultJson()) + "`"
		}
		doc := a.GetDoc()
		if len(a.GetOneOf()) > 0 {
			doc += " One of `" + strings.Join(a.GetOneOf(), "`, `") + "`."
		}
		if a.GetExample() != "" {
			doc += " Example: `" + a.GetExample() + "`."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", a.GetName(), typeName(a), cell(def), cell(strings.TrimSpace(doc)))
	}
	for _, nb := range block.GetBlocks() {
		title := nb.GetName()
		for _, l := range nb.GetLabels() {
			title += fmt.Sprintf(" %q", strings.ToUpper(l))
		}
		often := "any number"
		switch {
		case nb.GetMax() == 1 && nb.GetMin() == 1:
			often = "exactly one"
		case nb.GetMax() == 1:
			often = "at most one"
		case nb.GetMin() > 0 || nb.GetMax() > 0:
			often = fmt.Sprintf("at least %d", nb.GetMin())
			if nb.GetMax() > 0 {
				often += fmt.Sprintf(", at most %d", nb.GetMax())
			}
		}
		fmt.Fprintf(b, "\nBlock `%s { }` (%s). %s\n\n", title, often, nb.GetBlock().GetDoc())
		writeBlock(b, nb.GetBlock())
	}
}

// typeName is the type in an operator's words.
func typeName(a *v1.Schema_Attribute) string {
	t := AttributeType(a)
	element := t
	if t.IsListType() || t.IsMapType() {
		element = t.ElementType()
	}
	name := element.FriendlyName()
	if a.GetSemantic() != "" && element == cty.String {
		name = a.GetSemantic()
	}
	switch {
	case t.IsListType():
		return "list of " + name
	case t.IsMapType():
		return "map of " + name
	}
	return name
}

// cell keeps a text within its cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}
