package engine

import (
	"encoding/base64"
	"errors"
	"html"
	"net/url"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/mime"
)

// maxLoops of foreverypart within each other.
const maxLoops = 4

// mimeCommands are RFC 5703's.
func mimeCommands() []*spec {
	name := func() *tag { return &tag{name: "name", param: &param{"name", wantString}} }
	return []*spec{
		{
			name: "foreverypart", exts: []string{"foreverypart"}, block: true, tags: []*tag{name()},
			check: func(v *validator, n *node) bool {
				if len(v.loops) >= maxLoops {
					return v.errorf(n.pos, "foreverypart is nested too deeply: at most %d", maxLoops)
				}
				return true
			},
			run: everyPart,
		},
		{
			name: "break", exts: []string{"foreverypart"}, tags: []*tag{name()},
			check: func(v *validator, n *node) bool {
				if len(v.loops) == 0 {
					return v.errorf(n.pos, "break stands in no foreverypart")
				}
				if t := n.tags["name"]; t != nil {
					if s, _ := t.value.constant(); !slices.Contains(v.loops, s) {
						return v.errorf(n.pos, "break names '%s', and no foreverypart around it is named so", clip(s, 40))
					}
				}
				return true
			},
			run: func(m *machine, n *node) error {
				s, _ := n.tagText(m, "name")
				return &breaking{name: s}
			},
		},
		{
			name: "extracttext", exts: []string{"extracttext"}, args: []param{{"variable name", wantString}},
			tags: append(modifierTags(), &tag{name: "first", group: "first:", param: &param{"number", wantNumber}}),
			check: func(v *validator, n *node) bool {
				if len(v.loops) == 0 {
					return v.errorf(n.pos, "extracttext stands in no foreverypart")
				}
				return v.target(n, 0)
			},
			run: extractText,
		},
	}
}

func everyPart(m *machine, n *node) error {
	// Of the message all parts with itself, of a part those below it.
	var parts []*Part
	if len(m.parts) > 0 {
		parts = m.parts[len(m.parts)-1].all()[1:]
	} else {
		root, err := m.msg.root()
		if err != nil {
			return err
		}
		parts = root.all()
	}
	own := ""
	if t := n.tags["name"]; t != nil {
		own, _ = t.value.constant()
	}
	depth := len(m.parts)
	if depth >= maxLoops {
		return n.errorf("foreverypart is nested too deeply")
	}
	defer func() { m.parts = m.parts[:depth] }()
	for _, p := range parts {
		m.parts = append(m.parts[:depth], p)
		err := m.block(n.block)
		var b *breaking
		if errors.As(err, &b) {
			if b.name == "" || b.name == own {
				return nil
			}
			return err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func extractText(m *machine, n *node) error {
	p, err := m.part()
	if err != nil {
		return err
	}
	s := ""
	if strings.HasPrefix(p.Type, "text/") {
		m.spend(int64(len(p.Body)))
		if s = p.decoded(maxText); p.Type == "text/html" {
			s = plainHTML(s)
		}
	}
	if first, ok := n.tagNumber("first:"); ok {
		s = firstCharacters(s, first)
	}
	target := n.data.(part)
	m.set(target.namespace, target.name, m.modify(n, s))
	return nil
}

func firstCharacters(s string, n uint64) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

func unescapeHTML(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	return html.UnescapeString(s)
}

type parameter struct{ name, value string }

// parseStructured reads a field like Content-Type: its main value, lower case, and
// its parameters (RFC 2045 section 5.1).
func parseStructured(s string) (main string, params []parameter) {
	p := &scanner{s: s}
	token := func() string {
		p.blank()
		begin := p.at
		for p.at < len(p.s) && p.s[p.at] > ' ' && strings.IndexByte("()<>@,;:\\\"[]?=", p.s[p.at]) < 0 {
			p.at++
		}
		return p.s[begin:p.at]
	}
	main = token()
	for p.at < len(p.s) {
		p.blank()
		if p.peek() != ';' {
			if p.at == len(p.s) {
				break
			}
			p.at++
			continue
		}
		p.at++
		name := token()
		p.blank()
		if name == "" || p.peek() != '=' {
			continue
		}
		p.at++
		p.blank()
		value := ""
		if p.peek() == '"' {
			value, _, _ = p.word(false)
		} else {
			value = token()
		}
		params = append(params, parameter{strings.ToLower(name), value})
	}
	return strings.ToLower(main), joinParameters(params)
}

// joinParameters decodes what RFC 2231 encodes and puts together what it splits.
func joinParameters(in []parameter) []parameter {
	var out []parameter
	charsets := map[string]string{}
	for _, p := range in {
		name, encoded := strings.CutSuffix(p.name, "*")
		base, piece, split := strings.Cut(name, "*")
		if !encoded && !split {
			out = append(out, p)
			continue
		}
		if encoded {
			if !split || piece == "0" {
				if parts := strings.SplitN(p.value, "'", 3); len(parts) == 3 {
					charsets[base], p.value = parts[0], parts[2]
				}
			}
			if s, err := url.PathUnescape(p.value); err == nil {
				p.value = s
			}
			if cs := charsets[base]; cs != "" && !strings.EqualFold(cs, "utf-8") && !isASCII(p.value) {
				p.value = mime.DecodeHeader("=?" + cs + "?B?" + base64.StdEncoding.EncodeToString([]byte(p.value)) + "?=")
			}
		}
		i := slices.IndexFunc(out, func(have parameter) bool { return have.name == base })
		if i >= 0 && split && piece != "0" {
			out[i].value += p.value
		} else {
			out = append(out, parameter{base, p.value})
		}
	}
	return out
}
