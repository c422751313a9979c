// Package script reads the language Sieve (RFC 5228 sections 2 and 8): text to a
// tree of commands, or diagnostics with line and column. It knows no command and
// no extension: what they mean is package engine's.
package script

import (
	"fmt"
	"slices"
)

// Limits of a script; what is over one of them is a Diagnostic.
const (
	// MaxNesting of blocks, and of tests.
	MaxNesting = 32
	// MaxArguments of one command or test.
	MaxArguments = 32
	// MaxIdentifier in octets.
	MaxIdentifier = 32
	// MaxDiagnostics after which no further one is kept.
	MaxDiagnostics = 100
)

// Position in a script; both count from 1, columns in octets.
type Position struct{ Line, Column int }

// String is "3:14".
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }

// Diagnostic tells what is wrong, and where.
type Diagnostic struct {
	Position
	Message string
	// Warning does not keep the script from being run.
	Warning bool
}

// Error is "line 3, column 14: …".
func (d Diagnostic) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", d.Line, d.Column, d.Message)
}

// Kind of an argument.
type Kind uint8

// The kinds of arguments (RFC 5228 section 2.6).
const (
	Number Kind = iota
	Text
	List
	Tag
)

// String is the kind in words.
func (k Kind) String() string {
	return [...]string{"number", "string", "string list", "tag"}[k]
}

// String is a string with its place.
type String struct {
	Position
	Text string
}

// Argument of a command or a test.
type Argument struct {
	Position
	Kind Kind
	// Number with its quantifier multiplied in.
	Number uint64
	// Strings: one for Text, any number for List.
	Strings []String
	// Name of a Tag, lower case, without its colon.
	Name string
}

// Node is a command, or a test.
type Node struct {
	Position
	// Name in lower case.
	Name string
	Args []*Argument
	// Tests of it; List tells that they stood in parentheses.
	Tests []*Node
	List  bool
	// Block of a command; HasBlock tells an empty one from none.
	Block    []*Node
	HasBlock bool
}

// Parse reads a script. With any diagnostic the nodes are not to be run: they
// lack what could not be read.
func Parse(text []byte) ([]*Node, []Diagnostic) {
	p := &parser{lexer: lexer{text: text, line: 1}}
	p.advance()
	var nodes []*Node
	for {
		nodes = append(nodes, p.commands(0)...)
		if p.kind == tokenEnd {
			break
		}
		p.fail("this '}' closes no block")
		p.advance()
	}
	slices.SortStableFunc(p.diagnostics, func(a, b Diagnostic) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return nodes, p.diagnostics
}
