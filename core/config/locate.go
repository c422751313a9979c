package config

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Locate turns a plugin's own complaint (of Configure) into a diagnostic at the
// line of HCL that it is about: as deep as the path can be followed.
func (c *Config) Locate(instance string, d *v1.Diagnostic) Diagnostics {
	l := &complaints{src: c.sources}
	severity := Error
	if d.GetSeverity() == v1.Diagnostic_WARNING {
		severity = Warning
	}
	var r hcl.Range
	if i := c.Instance(instance); i != nil {
		r = i.Range
		if i.body != nil {
			r = follow(i, i.body, d.GetPath(), r)
		}
		if i.Describe != nil && sensitivePath(i.Describe.GetSchema().GetBlock(), d.GetPath()) {
			l.covered = append(l.covered, r)
		}
	}
	l.add(severity, r, fmt.Sprintf("%s: %s", instance, d.GetSummary()), d.GetDetail())
	return l.sorted()
}

// LocateStart is Locate for an instance that did not come up: at the attribute
// whose value the complaint names, a file that is not there, or at the block.
func (c *Config) LocateStart(instance, complaint string) Diagnostics {
	d := &v1.Diagnostic{Summary: complaint}
	if i := c.Instance(instance); i != nil && i.Config.Type().IsObjectType() && !i.Config.IsNull() {
		for name, v := range i.Config.AsValueMap() {
			if v.Type() == cty.String && !v.IsNull() && len(v.AsString()) > 3 && strings.Contains(complaint, v.AsString()) {
				d.Path = []*v1.PathStep{{Step: &v1.PathStep_Name{Name: name}}}
			}
		}
	}
	return c.Locate(instance, d)
}

// LocatePin complains of an instance's program, which is not the one that is pinned,
// at the checksum.
func (c *Config) LocatePin(instance string) Diagnostics {
	l := &complaints{src: c.sources}
	if i := c.Instance(instance); i != nil && i.Binary != nil {
		l.otherProgram(i.Binary)
	}
	return l.sorted()
}

func (c *complaints) otherProgram(b *Binary) {
	c.err(b.sumAt, fmt.Sprintf("%s is not the program that sha256 pins", b.Path),
		fmt.Sprintf("If you replaced it on purpose, write what `sha256sum %s` prints; if not, find out who did.", b.Path))
}

// Diagnose is one error at a place of the files, for what only shows at the start.
func (c *Config) Diagnose(r hcl.Range, text, remedy string) Diagnostics {
	l := &complaints{src: c.sources}
	l.err(r, text, remedy)
	return l.sorted()
}

// follow walks a path of names and indexes through a block's body.
func follow(i *Instance, body *hclsyntax.Body, path []*v1.PathStep, r hcl.Range) hcl.Range {
	if len(path) == 0 {
		return r
	}
	name := path[0].GetName()
	if a := body.Attributes[name]; a != nil {
		return followValue(a.Expr, path[1:])
	}
	index, rest := 0, path[1:]
	if len(rest) > 0 {
		if step, ok := rest[0].GetStep().(*v1.PathStep_Index); ok {
			index, rest = int(step.Index), rest[1:]
		}
	}
	for _, b := range body.Blocks {
		if b.Type != name {
			continue
		}
		if index > 0 {
			index--
			continue
		}
		return follow(i, b.Body, rest, header(b))
	}
	return r
}

// followValue walks into lists and objects as they are written.
func followValue(x hclsyntax.Expression, path []*v1.PathStep) hcl.Range {
	for _, step := range path {
		switch s := step.GetStep().(type) {
		case *v1.PathStep_Index:
			tuple, ok := x.(*hclsyntax.TupleConsExpr)
			if !ok || s.Index < 0 || int(s.Index) >= len(tuple.Exprs) {
				return x.Range()
			}
			x = tuple.Exprs[s.Index]
		case *v1.PathStep_Name:
			object, ok := x.(*hclsyntax.ObjectConsExpr)
			if !ok {
				return x.Range()
			}
			found := false
			for _, item := range object.Items {
				if key, diags := item.KeyExpr.Value(nil); !diags.HasErrors() && key.Type() == cty.String && !key.IsNull() && key.IsKnown() && key.AsString() == s.Name {
					x, found = item.ValueExpr, true
					break
				}
			}
			if !found {
				return x.Range()
			}
		}
	}
	return x.Range()
}

func sensitivePath(b *v1.Schema_Block, path []*v1.PathStep) bool {
	for _, step := range path {
		name := step.GetName()
		for _, a := range b.GetAttributes() {
			if a.GetName() == name {
				return a.GetSensitive()
			}
		}
		for _, n := range b.GetBlocks() {
			if n.GetName() == name {
				b = n.GetBlock()
				break
			}
		}
	}
	return false
}
