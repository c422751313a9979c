package script

import "fmt"

// parser makes a tree (RFC 5228 section 8.2). After a mistake it goes on behind
// the command, so that one look shows all mistakes.
type parser struct{ lexer }

func (p *parser) fail(format string, args ...any) { p.report(p.pos, format, args...) }

// found is the current token in words.
func (p *parser) found() string {
	switch p.kind {
	case tokenEnd:
		return "the end of the script"
	case tokenIdentifier:
		return fmt.Sprintf("'%s'", p.word)
	case tokenTag:
		return fmt.Sprintf("':%s'", p.word)
	case tokenNumber:
		return "a number"
	case tokenString:
		return "a string"
	case tokenGarbage:
		return "something else"
	}
	for c, kind := range punctuation {
		if kind == p.kind {
			return fmt.Sprintf("'%c'", c)
		}
	}
	return "something else"
}

// commands up to the end of the block or of the script, neither of which is
// consumed.
func (p *parser) commands(depth int) []*Node {
	var out []*Node
	for p.kind != tokenEnd && p.kind != tokenCloseBlock {
		if p.kind != tokenIdentifier {
			p.fail("expected the name of a command, but found %s", p.found())
			p.recover()
			continue
		}
		n := &Node{Position: p.pos, Name: p.word}
		p.advance()
		if !p.rest(n, depth) {
			p.recover()
		}
		out = append(out, n)
	}
	return out
}

// rest of a command behind its name.
func (p *parser) rest(n *Node, depth int) bool {
	if !p.arguments(n, 0) {
		return false
	}
	switch p.kind {
	case tokenSemicolon:
		p.advance()
		return true
	case tokenOpenBlock:
		if depth+1 >= MaxNesting {
			p.fail("blocks are nested too deeply: at most %d", MaxNesting)
			return false
		}
		p.advance()
		n.HasBlock = true
		n.Block = p.commands(depth + 1)
		if p.kind != tokenCloseBlock {
			p.report(n.Position, "the block of '%s' is never closed: write } behind it", n.Name)
			return true
		}
		p.advance()
		return true
	}
	p.fail("expected ';' or a block after the command '%s', but found %s", n.Name, p.found())
	return false
}

// arguments and tests of a command or a test.
func (p *parser) arguments(n *Node, depth int) bool {
	for {
		a := &Argument{Position: p.pos}
		switch p.kind {
		case tokenNumber:
			a.Kind, a.Number = Number, p.number
		case tokenString:
			a.Kind, a.Strings = Text, []String{{p.pos, p.word}}
		case tokenTag:
			a.Kind, a.Name = Tag, p.word
		case tokenOpenList:
			if !p.list(a) {
				return false
			}
		case tokenIdentifier, tokenOpenTests:
			return p.tests(n, depth)
		default:
			return true
		}
		if len(n.Args) >= MaxArguments {
			p.report(a.Position, "'%s' has too many arguments: at most %d", n.Name, MaxArguments)
			return false
		}
		n.Args = append(n.Args, a)
		p.advance()
	}
}

// list of strings up to its bracket, which is the current token then.
func (p *parser) list(a *Argument) bool {
	a.Kind = List
	for {
		p.advance()
		if p.kind != tokenString {
			p.fail("a list has strings, but found %s", p.found())
			return false
		}
		a.Strings = append(a.Strings, String{p.pos, p.word})
		switch p.advance(); p.kind {
		case tokenComma:
		case tokenCloseList:
			return true
		default:
			p.fail("expected ',' or ']' in a list of strings, but found %s", p.found())
			return false
		}
	}
}

func (p *parser) tests(n *Node, depth int) bool {
	if depth+1 > MaxNesting {
		p.fail("tests are nested too deeply: at most %d", MaxNesting)
		return false
	}
	if p.kind == tokenIdentifier {
		return p.test(n, depth)
	}
	n.List = true
	for {
		p.advance()
		if p.kind != tokenIdentifier {
			p.fail("expected a test, but found %s", p.found())
			return false
		}
		if !p.test(n, depth) {
			return false
		}
		switch p.kind {
		case tokenComma:
		case tokenCloseTests:
			p.advance()
			return true
		default:
			p.fail("expected ',' or ')' in a list of tests, but found %s", p.found())
			return false
		}
	}
}

func (p *parser) test(n *Node, depth int) bool {
	t := &Node{Position: p.pos, Name: p.word}
	n.Tests = append(n.Tests, t)
	p.advance()
	return p.arguments(t, depth+1)
}

// recover goes behind the command that could not be read: its semicolon, its
// block, or up to the end of the block that it stands in.
func (p *parser) recover() {
	for depth := 0; p.kind != tokenEnd; p.advance() {
		switch p.kind {
		case tokenSemicolon:
			if depth == 0 {
				p.advance()
				return
			}
		case tokenOpenBlock:
			depth++
		case tokenCloseBlock:
			if depth == 0 {
				return
			}
			if depth--; depth == 0 {
				p.advance()
				return
			}
		}
	}
}
