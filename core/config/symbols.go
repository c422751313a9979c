package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// symbol is a block that others may refer to.
type symbol struct {
	kind, ref string // "filter", "filter.greylist.calm"
	block     *hclsyntax.Block
	used      bool
	// One of these, by kind; filled in by decode.
	instance *Instance
	deliver  *Deliver
	tls      *TLS
	binary   *Binary
	receive  *Receive
	route    *Route
	test     *Test
}

// blockLabels names the labels of every block type.
var blockLabels = map[string][]string{
	"log": {}, "dns": {}, "admin": {}, "metrics": {}, "observe": {}, "queue": {},
	"tls": {"NAME"}, "plugin": {"NAME"}, "route": {"NAME"}, "test": {"TEXT"},
	"directory": {"PLUGIN", "NAME"}, "storage": {"PLUGIN", "NAME"}, "filter": {"PLUGIN", "NAME"},
	"access": {"PLUGIN", "NAME"}, "receive": {"PROTOCOL", "NAME"}, "deliver": {"TYPE", "NAME"},
}

var kinds = map[string]v1.Kind{
	"directory": v1.Kind_KIND_DIRECTORY, "storage": v1.Kind_KIND_STORAGE, "filter": v1.Kind_KIND_FILTER,
	"access": v1.Kind_KIND_ACCESS, "deliver": v1.Kind_KIND_DELIVER,
}

// kindWord is the block type of a plugin kind.
func kindWord(k v1.Kind) string {
	for word, kind := range kinds {
		if kind == k {
			return word
		}
	}
	return "plugin of an unknown kind"
}

// referable are the block types that stand in references, with the number of steps.
var referable = map[string]int{
	"directory": 3, "storage": 3, "filter": 3, "access": 3, "deliver": 3, "receive": 3, "tls": 2, "route": 2,
}

// declare registers every block by its reference, so that order does not matter.
func (l *loader) declare() {
	for _, body := range l.bodies {
		if isPeople(body) {
			l.err(body.Blocks[0].TypeRange, "This is a people file, not a configuration",
				`Name the configuration with -c; in it, directory "file" "people" { path = "people.hcl" } names this file.`)
			continue
		}
		for _, b := range body.Blocks {
			l.declareBlock(b)
		}
	}
}

// isPeople tells whether a file was meant for directory "file".
func isPeople(body *hclsyntax.Body) bool {
	for _, b := range body.Blocks {
		if b.Type != "domain" && b.Type != "user" && b.Type != "alias" {
			return false
		}
	}
	return len(body.Blocks) > 0 && len(body.Attributes) == 0
}

func (l *loader) declareBlock(b *hclsyntax.Block) {
	labels, known := blockLabels[b.Type]
	if !known {
		remedy := orKnown(b.Type, slices.Collect(maps.Keys(blockLabels)), "Blocks are: ")
		l.err(b.TypeRange, fmt.Sprintf("There is no block type %q", b.Type), remedy)
		return
	}
	if len(b.Labels) != len(labels) {
		l.wrongLabels(b, labels)
		return
	}
	for i, label := range b.Labels {
		if b.Type != "test" && !hclsyntax.ValidIdentifier(label) {
			l.err(b.LabelRanges[i], fmt.Sprintf("%q is no name that a reference could hold", label),
				"Use letters, digits, \"_\" and \"-\", and begin with a letter.")
			return
		}
	}
	s := &symbol{kind: b.Type, ref: strings.Join(append([]string{b.Type}, b.Labels...), "."), block: b}
	if first, twice := l.symbols[s.ref]; twice {
		what, remedy := "block "+blockName(b), "Give one of the two another name."
		if len(labels) == 0 {
			remedy = "Keep one of the two."
		}
		d := l.err(header(b), fmt.Sprintf("A second %s; the first is at %s:%d", what,
			first.block.TypeRange.Filename, first.block.TypeRange.Start.Line), remedy)
		d.Also = place(header(first.block))
		return
	}
	r := header(b)
	switch b.Type {
	case "tls":
		s.tls = &TLS{Ref: s.ref, Name: b.Labels[0], Range: r}
		l.cfg.TLS = append(l.cfg.TLS, s.tls)
	case "plugin":
		s.binary = &Binary{Name: b.Labels[0], Range: r}
		l.cfg.Binaries = append(l.cfg.Binaries, s.binary)
	case "directory", "storage", "filter", "access":
		s.instance = l.newInstance(s, b)
	case "deliver":
		s.deliver = &Deliver{Ref: s.ref, Type: b.Labels[0], Name: b.Labels[1], Range: r}
		l.cfg.Delivers = append(l.cfg.Delivers, s.deliver)
		if !slices.Contains(deliverTypes, s.deliver.Type) {
			s.instance = l.newInstance(s, b)
			s.deliver.Instance = s.instance
		}
	case "receive":
		s.receive = &Receive{Ref: s.ref, Protocol: b.Labels[0], Name: b.Labels[1], Range: r}
		l.cfg.Receives = append(l.cfg.Receives, s.receive)
	case "route":
		s.route = &Route{Name: b.Labels[0], Range: r}
		l.cfg.Routes = append(l.cfg.Routes, s.route)
	case "test":
		s.test = &Test{Name: b.Labels[0], Range: r}
		l.cfg.Tests = append(l.cfg.Tests, s.test)
	}
	l.symbols[s.ref] = s
	l.order = append(l.order, s)
}

func (l *loader) newInstance(s *symbol, b *hclsyntax.Block) *Instance {
	i := &Instance{Ref: s.ref, Kind: kinds[b.Type], Plugin: b.Labels[0], Name: b.Labels[1], Range: header(b), body: b.Body}
	l.cfg.Instances = append(l.cfg.Instances, i)
	return i
}

func (l *loader) wrongLabels(b *hclsyntax.Block, labels []string) {
	usage := b.Type
	for _, name := range labels {
		usage += fmt.Sprintf(" %q", name)
	}
	count := []string{"no labels", "one label", "two labels"}[len(labels)]
	l.err(header(b), fmt.Sprintf("A %s block has %s, not %d", b.Type, count, len(b.Labels)), "Write: "+usage+" { … }")
}

// header is the range of a block's type and labels.
func header(b *hclsyntax.Block) hcl.Range {
	r := b.TypeRange
	if n := len(b.LabelRanges); n > 0 {
		r = hcl.RangeBetween(r, b.LabelRanges[n-1])
	}
	return r
}

// blockName is a block as an operator would name it: receive "smtp" "mx".
func blockName(b *hclsyntax.Block) string {
	s := b.Type
	for _, label := range b.Labels {
		s += fmt.Sprintf(" %q", label)
	}
	return s
}

// references are the values of directory.file.people and its like.
func (l *loader) references() map[string]cty.Value {
	tree := map[string]map[string]map[string]cty.Value{}
	short := map[string]map[string]cty.Value{} // tls.default, route.here
	for _, s := range l.order {
		steps := strings.SplitN(s.ref, ".", 3)
		if referable[s.kind] == 2 {
			if short[s.kind] == nil {
				short[s.kind] = map[string]cty.Value{}
			}
			short[s.kind][steps[1]] = cty.CapsuleVal(expression.ReferenceType, &expression.Reference{Kind: s.kind, Ref: s.ref})
		}
		if referable[s.kind] != 3 {
			continue
		}
		if tree[s.kind] == nil {
			tree[s.kind] = map[string]map[string]cty.Value{}
		}
		if tree[s.kind][steps[1]] == nil {
			tree[s.kind][steps[1]] = map[string]cty.Value{}
		}
		tree[s.kind][steps[1]][steps[2]] = cty.CapsuleVal(expression.ReferenceType, &expression.Reference{Kind: s.kind, Ref: s.ref})
	}
	out := map[string]cty.Value{}
	for kind, names := range short {
		out[kind] = cty.ObjectVal(names)
	}
	for kind, plugins := range tree {
		m := map[string]cty.Value{}
		for plugin, names := range plugins {
			m[plugin] = cty.ObjectVal(names)
		}
		out[kind] = cty.ObjectVal(m)
	}
	return out
}

// resolve finds the block that a traversal refers to, of one of the kinds
// wanted (any, if none), or complains.
func (l *loader) resolve(t hcl.Traversal, wanted ...string) *symbol {
	steps, r := expression.StepNames(t), t.SourceRange()
	n := referable[steps[0]]
	ref := strings.Join(steps, ".")
	if n == 0 {
		remedy := didYouMean(ref, l.refsOf(wanted...))
		if remedy == "" && len(wanted) > 0 {
			remedy = fmt.Sprintf("Write a reference: %s.", refShape(wanted[0]))
		}
		l.err(r, fmt.Sprintf("%q refers to nothing", ref), remedy)
		return nil
	}
	if len(wanted) > 0 && !slices.Contains(wanted, steps[0]) {
		l.err(r, fmt.Sprintf("%s is %s, and %s is wanted here", ref, article(steps[0]), article(wanted[0])),
			listRefs(l.refsOf(wanted...)))
		return nil
	}
	if len(steps) != len(t) || len(steps) != n {
		if steps[len(steps)-1] == "has" {
			if !l.complainedOn(r) { // the parser stumbles over its "(" already
				l.err(r, "has is a function", "Write has(directory.file.people, recipient).")
			}
			return nil
		}
		l.err(r, fmt.Sprintf("A reference to %s has %d parts: %s", article(steps[0]), n, refShape(steps[0])),
			orKnown(ref, l.refsOf(steps[0]), "There are: "))
		return nil
	}
	s := l.symbols[ref]
	if s == nil && l.half {
		return nil // it may stand where the parser did not come
	}
	if s == nil {
		remedy := orKnown(ref, l.refsOf(steps[0]), "There are: ")
		if remedy == "" {
			remedy = fmt.Sprintf("Add a block: %s", steps[0])
			for _, label := range steps[1:] {
				remedy += fmt.Sprintf(" %q", label)
			}
			remedy += " { … }"
		}
		l.err(r, fmt.Sprintf("There is no %s", ref), remedy)
		return nil
	}
	s.used = true
	return s
}

// article is a block type with its article: "an access".
func article(kind string) string {
	if kind == "access" {
		return "an " + kind
	}
	return "a " + kind
}

func refShape(kind string) string {
	if referable[kind] == 2 {
		return kind + ".NAME"
	}
	return kind + "." + blockLabels[kind][0] + ".NAME"
}

func (l *loader) refsOf(kinds ...string) []string {
	var out []string
	for _, s := range l.order {
		if referable[s.kind] > 0 && (len(kinds) == 0 || slices.Contains(kinds, s.kind)) {
			out = append(out, s.ref)
		}
	}
	return out
}

func listRefs(refs []string) string {
	if len(refs) == 0 {
		return ""
	}
	return "There are: " + strings.Join(refs, ", ") + "."
}
