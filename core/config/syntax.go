package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format lays src out in the one canonical form (stagecoach fmt). It changes
// blanks only; what is no HCL comes back as it was.
func Format(src []byte) []byte {
	if Syntax("-", src).HasErrors() {
		return src
	}
	out := hclwrite.Format(src)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return out
}

// Syntax is what is wrong with a file before anything is asked of its meaning.
func Syntax(name string, src []byte) Diagnostics {
	l := &loader{complaints: complaints{src: sources{name: src}, stumbled: map[string]int{}}}
	l.parse(name, src)
	return l.sorted()
}

// parse reads one file's syntax. What could be parsed comes back even when
// something could not.
func (l *loader) parse(name string, src []byte) *hclsyntax.Body {
	if l.noText(name, src) {
		return nil
	}
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	first, told := 0, map[int]bool{}
	for _, d := range diags {
		r := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
		if d.Subject != nil {
			r = *d.Subject
		}
		// One mistake makes the parser stumble several times.
		if told[r.Start.Line] {
			continue
		}
		x := l.syntaxError(d, r)
		if d.Summary == "Attribute redefined" {
			continue // all of it was read
		}
		told[r.Start.Line] = true
		if first == 0 || x.Place.Line < first {
			first = x.Place.Line
		}
		if x.Text == openString {
			break // what follows was read the wrong way round
		}
	}
	if first > 0 {
		l.half, l.stumbled[name] = true, first
	}
	if file == nil {
		return nil
	}
	body, _ := file.Body.(*hclsyntax.Body)
	return body
}

// noText complains, once, of a file that is not UTF-8 text with line ends.
func (l *loader) noText(name string, src []byte) bool {
	var (
		at           int
		text, remedy string
	)
	switch {
	case bytes.HasPrefix(src, []byte("\xff\xfe")), bytes.HasPrefix(src, []byte("\xfe\xff")):
		text, remedy = "This file is UTF-16", "Save it as UTF-8."
	case !utf8.Valid(src):
		for at = 0; ; {
			r, n := utf8.DecodeRune(src[at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		text, remedy = "This file is not UTF-8 text", "Save it as UTF-8."
	case bytes.IndexByte(src, 0) >= 0:
		at = bytes.IndexByte(src, 0)
		text, remedy = "A NUL byte: this file is no text", "Name a file in HCL with -c."
	case bytes.IndexByte(src, '\r') >= 0 && bytes.IndexByte(src, '\n') < 0:
		at = bytes.IndexByte(src, '\r')
		text, remedy = "The lines of this file end with CR alone", "Save it with LF or CRLF line ends."
	default:
		return false
	}
	before := src[:at]
	start := bytes.LastIndexByte(before, '\n') + 1
	pos := hcl.Pos{Line: bytes.Count(before, []byte("\n")) + 1, Column: utf8.RuneCount(before[start:]) + 1, Byte: at}
	l.err(hcl.Range{Filename: name, Start: pos, End: hcl.Pos{Line: pos.Line, Column: pos.Column + 1, Byte: at + 1}}, text, remedy)
	l.half = true
	return true
}

const (
	openString = "A string without its closing quote"
	multiLine  = "Write one attribute per line, without commas:\n    %s {\n      name = value\n      name = value\n    }"
)

var setBefore = regexp.MustCompile(`was already set at (.*):(\d+),`)

// syntaxError says the parser's complaint in a mail admin's words.
func (l *loader) syntaxError(d *hcl.Diagnostic, r hcl.Range) *Diagnostic {
	text, remedy := strings.TrimSuffix(d.Summary, "."), d.Detail
	line := l.src.line(r.Filename, r.Start.Line)
	switch d.Summary {
	case "Invalid single-argument block definition":
		text = "A block written on one line can hold only one attribute"
		head, _, _ := strings.Cut(strings.TrimSpace(line), "{")
		remedy = strings.ReplaceAll(multiLine, "%s", strings.TrimSpace(head))
		if strings.Contains(d.Detail, "closed on the same line") {
			text = "The first attribute stands on the block's own line, the next ones below it"
		}
	case "Argument definition required":
		text, remedy = "A block inside of a one-line block", "Write the outer block on several lines."
	case "Unexpected comma after argument":
		text, remedy = "A comma after an attribute", "Attributes of a block stand one per line, without commas."
	case "Missing newline after argument", "Unsupported operator", "Invalid character":
		text, remedy = strayToken(d, line, l.text(r), r.Start.Column)
	case "Missing newline after block definition":
		text, remedy = "Something follows the closing brace", "Begin a new line after \"}\"."
	case "Attribute redefined":
		text, remedy = "This attribute is set twice in one block", "Keep one of the two."
		if m := setBefore.FindStringSubmatch(d.Detail); m != nil {
			text = fmt.Sprintf("%s is set twice; the first is at %s:%s", l.text(r), m[1], m[2])
		}
	case "Unclosed configuration block":
		text, remedy = "This block is never closed", "Write the missing \"}\"."
	case "Argument or block definition required":
		text, remedy = "An attribute (name = value) or a block (name { … }) is expected here", startRemedy(line)
	case "Invalid block definition":
		text, remedy = l.noBody(d, line)
	case "Invalid argument name":
		text, remedy = "An attribute's name in quotes", "Leave the quotes out."
	case "Unterminated template string", "Invalid multi-line string", "Invalid string literal":
		text, remedy = openString, "Write the missing \"."
		if strings.TrimSpace(line) == "" { // at the file's end
			text, remedy = "A text that begins with << is never closed", "Write its closing word alone on a line below it."
			r = l.heredoc(r)
		}
	case "Unclosed template interpolation sequence":
		text, remedy = "A ${ is never closed", "Write the missing \"}\" before the closing quote; a literal ${ is written $${."
	case "Invalid escape sequence":
		text, remedy = fmt.Sprintf("There is no escape %s in a string", l.text(r)), "A backslash is written twice: \"\\\\\". Others are \\n, \\r, \\t and \\\"."
	case "Missing item separator":
		text, remedy = "The list lacks a comma, or its closing bracket", "Write [\"one\", \"two\"]."
	case "Missing argument separator":
		text, remedy = "A comma is missing between two arguments of a function", ""
	case "Unterminated function call", "Unbalanced parentheses":
		text, remedy = "A parenthesis is never closed", "Write the missing \")\"."
	case "Invalid expression", "Missing expression":
		text, remedy = "A value is expected here", "Write a string in quotes, a number, true or false, a list in brackets, or a reference."
	}
	return l.err(r, text, remedy)
}

// wordOperators are other languages' operators.
var wordOperators = map[string]string{
	"and": "Write && for \"and\".", "or": "Write || for \"or\".", "not": "Write ! for \"not\".", "is": "Write == for \"is\".",
	"in":       "in is a function: write contains([\"a\", \"b\"], recipient.domain).",
	"contains": "contains is a function: write contains(list, value), or strcontains(text, part).",
	"matches":  "matches is a function: write matches(\"pattern\", recipient.local).",
	"like":     "Write matches(\"pattern\", recipient.local), startswith or endswith.",
}

// strayToken explains what follows a value or cannot stand in a file at all.
func strayToken(d *hcl.Diagnostic, line, token string, column int) (text, remedy string) {
	text, remedy = "Something follows the value on the same line", "Write one attribute per line."
	runes := []rune(line)
	before, rest := string(runes[:min(column-1, len(runes))]), string(runes[min(column-1, len(runes)):])
	word := strings.ToLower(strings.TrimSpace(token))
	switch {
	case strings.HasPrefix(rest, "=~"), strings.HasSuffix(before, "=") && strings.HasPrefix(rest, "~"):
		text, remedy = "There is no operator =~", "Write matches(\"pattern\", sender.domain)."
	case wordOperators[word] != "":
		text, remedy = fmt.Sprintf("There is no operator %q", word), wordOperators[word]
	case token == "=":
		text, remedy = "A second \"=\"", "To compare write \"==\"; attributes stand one per line."
	case strings.Contains(line, ".has("):
		remedy = "has is a function: write has(directory.file.people, recipient)."
	case token == "&", token == "|":
		text, remedy = fmt.Sprintf("There is no operator %q", token), fmt.Sprintf("Write %q.", token+token)
	case d.Summary == "Unsupported operator":
		text, remedy = fmt.Sprintf("There is no operator %q", token), "Operators are: == != < > <= >= && || ! + - * / %."
	case token == ";":
		text, remedy = "\";\" has no meaning here", "Leave it out: the line's end ends the attribute."
	case token == "'" || token == "`":
		text, remedy = "A string in wrong quotes", "Write double quotes: \"text\"."
	case strings.Contains(d.Detail, "Curly quotes"):
		text, remedy = "A string in curly quotes", "Write straight ones: \"text\"."
	case d.Summary == "Invalid character":
		text, remedy = fmt.Sprintf("The character %s cannot stand here", strconv.QuoteToASCII(token)), ""
		if r, _ := utf8.DecodeRuneInString(token); unicode.IsSpace(r) {
			text, remedy = fmt.Sprintf("A blank that is no space: %U", r), "Write a plain space."
		}
	}
	return text, remedy
}

var yaml = regexp.MustCompile(`^\s*[\w-]+\s*:`)

// startRemedy looks at what stands where an attribute or a block should begin.
func startRemedy(line string) string {
	switch t := strings.TrimSpace(line); {
	case t == "}":
		return "This \"}\" closes nothing: remove it, or look for a block above that was closed too early."
	case strings.HasPrefix(t, "--"), strings.HasPrefix(t, ";"), strings.HasPrefix(t, "!"):
		return "A comment begins with \"#\"."
	case strings.HasPrefix(t, "["):
		return "A block is written: queue { … }"
	case yaml.MatchString(line):
		return "Write \"=\" between name and value, not \":\"."
	}
	return "Such as: hostname = \"mx.ryan.example\""
}

// noBody is a block, or what looks like one, without its braces.
func (l *loader) noBody(d *hcl.Diagnostic, line string) (text, remedy string) {
	if strings.Contains(d.Detail, "equals sign") {
		return "\"=\" between a block's labels and its body", "Leave the \"=\" out."
	}
	name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if rest = strings.TrimSpace(rest); blockLabels[name] == nil && rest != "" {
		return "\"=\" is missing between name and value", fmt.Sprintf("Write %s = %s", name, rest)
	}
	return "This block has no body in braces on its own line", fmt.Sprintf("Write the \"{\" behind it: %s {", strings.TrimSpace(line))
}

// heredoc is where the text that is open at r was begun.
func (l *loader) heredoc(r hcl.Range) hcl.Range {
	for n := r.Start.Line; n > 0; n-- {
		text := l.src.line(r.Filename, n)
		if at := strings.Index(text, "<<"); at >= 0 {
			column := utf8.RuneCountInString(text[:at]) + 1
			return hcl.Range{Filename: r.Filename, Start: hcl.Pos{Line: n, Column: column}, End: hcl.Pos{Line: n, Column: column + 2}}
		}
	}
	return r
}
