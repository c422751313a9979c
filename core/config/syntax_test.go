package config

import (
	"strings"
	"testing"
)

// TestSyntax: one slip of a writing hand is one complaint, in words that say
// what to write.
func TestSyntax(t *testing.T) {
	for _, c := range []struct{ src, text, remedy string }{
		{`when = sender.null & client.tls`, `There is no operator "&"`, `Write "&&".`},
		{`when = sender.domain =~ "x"`, `There is no operator =~`, `Write matches("pattern", sender.domain).`},
		{`when = sender.domain = "x"`, `A second "="`, `To compare write "=="`},
		{`when = sender.null and client.tls`, `There is no operator "and"`, `Write &&`},
		{`when = sender.null OR client.tls`, `There is no operator "or"`, `Write ||`},
		{`when = recipient.domain in ["a"]`, `There is no operator "in"`, `contains(["a", "b"], recipient.domain)`},
		{`when = message.subject contains "a"`, `There is no operator "contains"`, `strcontains(text, part)`},
		{`when = sender.domain ~ "x"`, `There is no operator "~"`, `Operators are: ==`},
		{`when = sender.domain == 'x'`, `A string in wrong quotes`, `Write double quotes`},
		{`when = sender.domain == “x”`, `A string in curly quotes`, `Write straight ones`},
		{`when = directory.file.rest.has(recipient)`, `Something follows the value`, `has is a function: write has(`},
		{`hold = "x";`, `";" has no meaning here`, `Leave it out`},
		{`hold = "x",`, `A comma after an attribute`, `one per line, without commas`},
		{`hold = "x" # yes` + "\n}\n}", `An attribute (name = value) or a block`, `This "}" closes nothing`},
		{`hold =`, `A value is expected here`, `Write a string in quotes, a number`},
		{`hold = "a\.b"`, `There is no escape \. in a string`, `A backslash is written twice: "\\".`},
		{`hold = lower("x" "y")`, `A comma is missing between two arguments`, ``},
		{`hold = ("x"`, `A parenthesis is never closed`, `Write the missing ")".`},
		{`copy = ["a@x.example" "b@x.example"]`, `The list lacks a comma, or its closing bracket`, `Write ["one", "two"].`},
		{`copy = ["a@x.example"`, `The list lacks a comma, or its closing bracket`, `Write ["one", "two"].`},
		{"hold\u00a0= \"x\"", `A blank that is no space: U+00A0`, `Write a plain space.`},
		{`hold: "x"`, `An attribute (name = value) or a block`, `Write "=" between name and value, not ":".`},
		{`hold "x"`, `"=" is missing between name and value`, `Write hold = "x"`},
		{`"hold" = "x"`, `An attribute's name in quotes`, `Leave the quotes out.`},
		{`-- a comment`, `An attribute (name = value) or a block`, `A comment begins with "#".`},
		{`[main]`, `An attribute (name = value) or a block`, `A block is written: queue { … }`},
		{`@`, `The character "@" cannot stand here`, ``},
		{`hold = <<-EOT`, `A text that begins with << is never closed`, `Write its closing word alone on a line`},
		{`hold = "${sender.local"`, `A string without its closing quote`, `Write the missing ".`},
		{`hold = "x`, `A string without its closing quote`, `Write the missing ".`},
		{"hold = \"x\"\n}\nroute \"b\"\n{", `This block has no body in braces on its own line`, `Write the "{" behind it: route "b" {`},
		{"hold = \"x\"\n}\nroute \"b\" = {", `"=" between a block's labels and its body`, `Leave the "=" out.`},
		{"hold = \"x\"\n} route \"b\" {", `Something follows the closing brace`, `Begin a new line after "}".`},
	} {
		src := "route \"a\" {\n  " + c.src + "\n}\n"
		_, diags := load(t, map[string]string{"a.hcl": src, "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
		if len(diags) != 1 || !strings.HasPrefix(diags[0].Text, c.text) || !strings.Contains(diags[0].Remedy, c.remedy) || diags[0].Place == nil || diags[0].Source == "" {
			t.Errorf("%s\n%s", src, render(t, diags))
		}
	}
}
