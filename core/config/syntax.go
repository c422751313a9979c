package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format lays src out in the one canonical form (stagecoach fmt). It changes
// blanks only; what is no HCL comes back as it was.
func Format(src []byte) []byte {
	if _, diags := hclsyntax.ParseConfig(src, "", hcl.InitialPos); diags.HasErrors() {
		return src
	}
	return hclwrite.Format(src)
}

// parse reads one file's syntax. What could be parsed comes back even when
// something could not.
func (l *loader) parse(name string, src []byte) *hclsyntax.Body {
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	for _, d := range diags {
		l.syntaxError(d)
	}
	if file == nil {
		return nil
	}
	body, _ := file.Body.(*hclsyntax.Body)
	return body
}

const multiLine = "Write one attribute per line, without commas:\n    %s {\n      name = value\n      name = value\n    }"

// syntaxError says the parser's complaint in a mail admin's words.
func (l *loader) syntaxError(d *hcl.Diagnostic) {
	var r hcl.Range
	if d.Subject != nil {
		r = *d.Subject
	}
	text, remedy := strings.TrimSuffix(d.Summary, "."), d.Detail
	line := l.src.line(r.Filename, r.Start.Line)
	switch d.Summary {
	case "Invalid single-argument block definition":
		text = "A block written on one line can hold only one attribute"
		head, _, _ := strings.Cut(strings.TrimSpace(line), "{")
		remedy = strings.Replace(strings.ReplaceAll(multiLine, "%s", strings.TrimSpace(head)), "  ", "  ", 1)
		if strings.Contains(d.Detail, "closed on the same line") {
			text = "The first attribute stands on the block's own line, the next ones below it"
		}
	case "Argument definition required":
		text, remedy = "A block inside of a one-line block", "Write the outer block on several lines."
	case "Unexpected comma after argument":
		text, remedy = "A comma after an attribute", "Attributes of a block stand one per line, without commas."
	case "Missing newline after argument":
		text, remedy = "Something follows the value on the same line", "Write one attribute per line."
		if strings.Contains(line, ".has(") {
			remedy = "has is a function: write has(directory.file.people, recipient)."
		}
	case "Missing newline after block definition":
		text, remedy = "Something follows the closing brace", "Begin a new line after \"}\"."
	case "Attribute redefined":
		text = "This attribute is set twice in one block"
		remedy = "Keep one of the two."
	case "Unclosed configuration block":
		text, remedy = "This block is never closed", "Write the missing \"}\"."
	case "Argument or block definition required":
		text, remedy = "An attribute (name = value) or a block (name { … }) is expected here", ""
		if strings.Contains(line, ":") && !strings.Contains(line, "=") {
			remedy = "Write \"=\" between name and value, not \":\"."
		}
	case "Invalid block definition":
		text = "This block has no body in braces on its own line"
		remedy = "Write: receive \"smtp\" \"mx\" {"
		if strings.Contains(d.Detail, "equals sign") {
			text, remedy = "\"=\" between a block's labels and its body", "Leave the \"=\" out."
		}
	case "Invalid argument name":
		text, remedy = "An attribute's name in quotes", "Leave the quotes out."
	case "Unterminated template string", "Invalid multi-line string", "Unterminated string literal":
		text, remedy = "A string without its closing quote", "Write the missing \"."
	}
	l.err(r, text, remedy)
}
