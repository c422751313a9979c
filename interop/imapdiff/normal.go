package main

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// node is a value in a response: an atom, a string, or a list.
type node struct {
	text   string
	quoted bool
	list   []node
	isList bool
}

// parse reads the values of a response. Strings are the same whether they are
// quoted or literals.
func parse(s string) []node {
	list, _ := parseList(s, 0)
	return list
}

func parseList(s string, at int) (list []node, end int) {
	for at < len(s) {
		switch s[at] {
		case ' ':
			at++
		case ')':
			return list, at + 1
		case '(':
			inner, next := parseList(s, at+1)
			list = append(list, node{list: inner, isList: true})
			at = next
		case '"':
			var b strings.Builder
			at++
			for at < len(s) && s[at] != '"' {
				if s[at] == '\\' && at+1 < len(s) {
					at++
				}
				b.WriteByte(s[at])
				at++
			}
			at++
			list = append(list, node{text: b.String(), quoted: true})
		default:
			begin := at
			depth := 0
			for at < len(s) && (depth > 0 || s[at] != ' ' && s[at] != ')' && s[at] != '(') {
				switch s[at] { // BODY[HEADER.FIELDS (A B)] is one word
				case '[':
					depth++
				case ']':
					depth--
				}
				at++
			}
			word := s[begin:at]
			if n, ok := literalSize(word); ok {
				// The line end is in the response, behind it the octets.
				from := begin + len(word)
				if i := strings.Index(s[begin:], "}\r\n"); i >= 0 {
					from = begin + i + 3
				}
				list = append(list, node{text: s[from : from+n], quoted: true})
				at = from + n
				continue
			}
			list = append(list, node{text: word})
		}
	}
	return list, at
}

// literalSize of a word that begins like a literal: {12}CRLF… or ~{12}CRLF….
func literalSize(word string) (int, bool) {
	word = strings.TrimPrefix(word, "~")
	if !strings.HasPrefix(word, "{") {
		return 0, false
	}
	digits, _, ok := strings.Cut(word[1:], "}\r\n")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil
}

func (n node) String() string {
	switch {
	case n.isList:
		parts := make([]string, len(n.list))
		for i, c := range n.list {
			parts[i] = c.String()
		}
		return "(" + strings.Join(parts, " ") + ")"
	case n.quoted:
		return strconv.Quote(n.text)
	case strings.EqualFold(n.text, "NIL"):
		return "NIL"
	}
	return n.text
}

// flags in order and without \Recent, which is of each session's own.
func flags(n node) string {
	var out []string
	for _, f := range n.list {
		if !strings.EqualFold(f.text, `\Recent`) {
			out = append(out, f.text)
		}
	}
	sort.Strings(out)
	return "(" + strings.Join(out, " ") + ")"
}

// normal makes of responses what servers that do the same say alike. grown tells
// that there are new messages.
func (c *conn) normal(untagged []string, last string) (out []string, grown bool) {
	fetched := map[string]map[string]string{}
	for _, line := range untagged {
		rest := strings.TrimPrefix(line, "* ")
		word, tail, _ := strings.Cut(rest, " ")
		switch strings.ToUpper(word) {
		case "OK", "NO", "BAD":
			if code := codeOf(tail); code != "" {
				out = append(out, "* "+word+" ["+code+"]")
			}
			continue
		case "FLAGS", "BYE", "CAPABILITY":
			continue // FLAGS: what keywords a mailbox may come to have
		case "SEARCH", "SORT":
			out = append(out, "* "+word+" "+numbers(tail, word == "SEARCH"))
			continue
		case "ESEARCH":
			out = append(out, "* "+esearch(tail))
			continue
		case "LIST", "LSUB":
			out = append(out, "* "+listed(word, tail))
			continue
		case "STATUS":
			out = append(out, "* "+counters(tail))
			continue
		}
		number, err := strconv.Atoi(word)
		if err != nil {
			out = append(out, "* "+strings.TrimSpace(rest))
			continue
		}
		what, items, _ := strings.Cut(tail, " ")
		switch strings.ToUpper(what) {
		case "RECENT":
		case "EXISTS":
			grown = true
			out = append(out, fmt.Sprintf("* %d EXISTS", number))
		case "EXPUNGE":
			uid := "?"
			if number >= 1 && number <= len(c.uids) {
				uid = c.uids[number-1]
				c.uids = slices.Delete(c.uids, number-1, number)
			}
			out = append(out, "* EXPUNGE of UID "+uid)
		case "FETCH":
			key := fmt.Sprintf("%06d", number)
			if fetched[key] == nil {
				fetched[key] = map[string]string{}
			}
			fetchItems(items, fetched[key])
		default:
			out = append(out, "* "+rest)
		}
	}
	for number, items := range fetched {
		// A line for each item: so it is seen what differs.
		for name, value := range items {
			out = append(out, "* "+strings.TrimLeft(number, "0")+" FETCH "+name+" "+value)
		}
	}
	sort.Strings(out)
	state, rest, _ := strings.Cut(last, " ")
	if code := codeOf(rest); code != "" {
		state += " [" + code + "]"
	}
	return append(out, state), grown
}

// codeOf a status response: its name, and what of it has to be the same.
func codeOf(text string) string {
	if !strings.HasPrefix(text, "[") {
		return ""
	}
	code, _, _ := strings.Cut(text[1:], "]")
	f := strings.Fields(code)
	if len(f) == 0 {
		return ""
	}
	switch name := strings.ToUpper(f[0]); name {
	case "UIDVALIDITY", "HIGHESTMODSEQ", "PERMANENTFLAGS", "UNSEEN", "RECENT", "CLOSED", "NOMODSEQ", "MAILBOXID":
		return ""
	case "APPENDUID", "COPYUID":
		return name + " " + strings.Join(f[2:], " ")
	default:
		return strings.Join(append([]string{name}, f[1:]...), " ")
	}
}

// numbers of a result; the order counts but for SEARCH.
func numbers(text string, sorted bool) string {
	f := strings.Fields(text)
	if sorted {
		sort.Slice(f, func(i, j int) bool {
			a, _ := strconv.Atoi(f[i])
			b, _ := strconv.Atoi(f[j])
			return a < b
		})
	}
	return strings.Join(f, " ")
}

func esearch(text string) string {
	var parts []string
	nodes := parse(text)
	for i := 0; i < len(nodes); i++ {
		switch n := nodes[i]; {
		case n.isList: // (TAG "t7")
		case strings.EqualFold(n.text, "UID"):
			parts = append(parts, "UID")
		case i+1 < len(nodes):
			i++
			parts = append(parts, strings.ToUpper(n.text)+" "+nodes[i].String())
		}
	}
	sort.Strings(parts)
	return "ESEARCH " + strings.Join(parts, " ")
}

func listed(word, text string) string {
	nodes := parse(text)
	if len(nodes) < 3 {
		return word + " " + text
	}
	var attributes []string
	for _, a := range nodes[0].list {
		switch strings.ToLower(a.text) {
		case `\hasnochildren`, `\noinferiors`, `\unmarked`, `\marked`:
		default:
			attributes = append(attributes, strings.ToLower(a.text))
		}
	}
	sort.Strings(attributes)
	return fmt.Sprintf("%s (%s) %s %s", word, strings.Join(attributes, " "), nodes[1].text, nodes[2].text)
}

func counters(text string) string {
	nodes := parse(text)
	if len(nodes) < 2 {
		return "STATUS " + text
	}
	var parts []string
	for i := 0; i+1 < len(nodes[1].list); i += 2 {
		switch name := strings.ToUpper(nodes[1].list[i].text); name {
		case "UIDVALIDITY", "RECENT", "HIGHESTMODSEQ":
		default:
			parts = append(parts, name+" "+nodes[1].list[i+1].text)
		}
	}
	sort.Strings(parts)
	return "STATUS " + nodes[0].text + " " + strings.Join(parts, " ")
}

// fetchItems adds a FETCH response's items.
func fetchItems(text string, into map[string]string) {
	nodes := parse(text)
	if len(nodes) != 1 || !nodes[0].isList {
		into["?"] = text
		return
	}
	items := nodes[0].list
	for i := 0; i+1 < len(items); i += 2 {
		name, value := strings.ToUpper(items[i].text), items[i+1]
		switch name {
		case "FLAGS":
			into[name] = flags(value)
		case "MODSEQ":
		case "INTERNALDATE":
			t, err := time.Parse("_2-Jan-2006 15:04:05 -0700", value.text)
			if err != nil {
				into[name] = value.String()
				continue
			}
			into[name] = t.UTC().Format(time.RFC3339)
		case "BODY", "BODYSTRUCTURE":
			into[name] = structure(value).String()
		default:
			into[name] = value.String()
		}
	}
}

// structure with what is compared without regard to case in capitals: types,
// parameter names, encodings.
func structure(n node) node {
	if !n.isList {
		return n
	}
	if len(n.list) > 0 && n.list[0].isList { // multipart: its parts, its subtype, and what extends it
		out := node{isList: true}
		parts := true
		for _, c := range n.list {
			switch {
			case parts && c.isList:
				c = structure(c)
			case parts:
				parts = false
				c = upper(c)
			case c.isList:
				c = parameters(c)
			}
			out.list = append(out.list, c)
		}
		return out
	}
	out := node{isList: true}
	nested := len(n.list) > 1 && strings.EqualFold(n.list[0].text, "MESSAGE") && strings.EqualFold(n.list[1].text, "RFC822")
	for i, c := range n.list {
		switch {
		case i == 2:
			c = parameters(c)
		case i == 8 && nested:
			c = structure(c)
		case i > 7 && c.isList && len(c.list) == 2 && !c.list[0].isList: // disposition
			c = node{isList: true, list: []node{upper(c.list[0]), parameters(c.list[1])}}
		case i < 2 || i == 5:
			c = upper(c)
		}
		out.list = append(out.list, c)
	}
	return out
}

func upper(n node) node {
	n.text = strings.ToUpper(n.text)
	return n
}

func parameters(n node) node {
	if !n.isList {
		return n
	}
	type pair struct{ name, value node }
	var pairs []pair
	for i := 0; i+1 < len(n.list); i += 2 {
		name := n.list[i]
		name.text = strings.ToUpper(name.text)
		pairs = append(pairs, pair{name, n.list[i+1]})
	}
	sort.SliceStable(pairs, func(i, j int) bool { return pairs[i].name.text < pairs[j].name.text })
	out := node{isList: true}
	for _, p := range pairs {
		out.list = append(out.list, p.name, p.value)
	}
	return out
}
