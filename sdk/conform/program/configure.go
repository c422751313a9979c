package program

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/conform/block"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// maxWrong bounds how many wrong configurations are tried, each on a process of
// its own.
const maxWrong = 12

// decode reads the configuration that the plugin runs with. A text that does not
// fit the schema is not the plugin's fault: the run cannot be made.
func (s *suite) decode(t conform.T) {
	t.Helper()
	var err error
	if s.value, err = block.Decode(s.describe.GetSchema(), s.opts.ConfigFile, s.opts.Config); err == nil {
		s.js, s.pack, err = block.Wire(s.describe.GetSchema(), s.value)
	}
	if err != nil {
		t.Fatalf("the configuration does not fit the schema of the plugin %q; name a file with one that does (--config FILE):\n%v", s.describe.GetName(), err)
	}
}

func (s *suite) configuring(t conform.T) {
	s.check(t, "it takes no configuration", conform.Check{
		Name: "configure: takes the configuration", Contract: "plugin.proto, Plugin.Configure, ConfigureResponse.diagnostics",
		Remedy: "look at the diagnostics; give another configuration if they are right", Do: s.configures,
	})
	s.check(t, "", conform.Check{
		Name: "configure: mistakes point at their attribute", Contract: "plugin.proto, Diagnostic.path",
		Remedy: "answer a wrong value with a diagnostic of severity ERROR, a summary, and the path to the attribute: not with an RPC error, not by ending", Do: s.mistakes,
	})
	s.check(t, "", conform.Check{
		Name: "configure: a second time is refused or obeyed", Contract: "plugin.proto, Plugin.Configure: once",
		Remedy: "answer a second Configure with FAILED_PRECONDITION (or take it), and go on with the first", Do: s.configuresTwice,
	})
	s.check(t, "it does not get ready", conform.Check{
		Name: "ready: returns when the plugin can serve", Contract: "plugin.proto, Plugin.Ready",
		Remedy: "return when files are open and caches loaded; an error says what is missing", Do: s.readies,
	})
}

func (s *suite) configures(t conform.T) {
	p, pl := s.bare(t)
	resp, err := p.api.Configure(t.Context(), s.request(pl))
	if err != nil {
		t.Fatalf("Configure: %v; %s", err, p.state())
	}
	for _, d := range resp.GetDiagnostics() {
		if d.GetSeverity() == v1.Diagnostic_ERROR {
			t.Errorf("%s", diagnostic(d))
		} else {
			t.Logf("warning: %s", diagnostic(d))
		}
	}
}

func diagnostic(d *v1.Diagnostic) string {
	text := (&schema.Error{Path: d.GetPath(), Summary: d.GetSummary()}).Error()
	if d.GetDetail() != "" {
		text += "; " + d.GetDetail()
	}
	return text
}

// bare starts a process with all that its kind needs, not configured yet.
func (s *suite) bare(t conform.T) (*process, *place) {
	t.Helper()
	pl, err := s.newPlace()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(pl.close)
	p, err := s.launched(t, launch{files: pl.files})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p, pl
}

func (s *suite) configuresTwice(t conform.T) {
	p, pl := s.bare(t)
	if _, err := p.api.Configure(t.Context(), s.request(pl)); err != nil {
		t.Fatalf("Configure: %v; %s", err, p.state())
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
	defer cancel()
	_, err := p.api.Configure(ctx, s.request(pl))
	if ctx.Err() != nil {
		t.Fatalf("the second Configure was not answered within %s; %s", s.opts.Grace, p.state())
	}
	t.Logf("the second Configure was answered with: %v", err)
	if _, err := p.api.Ready(t.Context(), &v1.ReadyRequest{}); err != nil {
		t.Errorf("Ready after a second Configure: %v; %s", err, p.state())
	}
}

func (s *suite) readies(t conform.T) {
	p, pl := s.bare(t)
	if _, err := p.api.Configure(t.Context(), s.request(pl)); err != nil {
		t.Fatalf("Configure: %v; %s", err, p.state())
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Start)
	defer cancel()
	if _, err := p.api.Ready(ctx, &v1.ReadyRequest{}); err != nil {
		t.Errorf("Ready: %v; %s", err, p.state())
	}
}

// wrong is a configuration with a mistake in it.
type wrong struct {
	attribute string
	what      string
	js, pack  []byte
	// strict: a complaint must name the attribute; else it may name another
	// one that does not go with it.
	strict bool
	// must: it is known to be a mistake.
	must bool
}

func (s *suite) mistakes(t conform.T) {
	tries, err := s.wrongs()
	if err != nil {
		t.Fatalf("%v", err)
	}
	complaints := 0
	for _, w := range tries {
		p, pl := s.bare(t)
		req := s.request(pl)
		req.ConfigJson, req.ConfigMsgpack = w.js, w.pack
		resp, err := p.api.Configure(t.Context(), req)
		switch {
		case err != nil:
			t.Errorf("%s: Configure failed: %v; %s", w.what, err, p.state())
			complaints++
		case len(resp.GetDiagnostics()) > 0:
			complaints++
			if fault := s.pointless(w, resp.GetDiagnostics()); fault != "" {
				t.Errorf("%s: %s", w.what, fault)
			}
		case w.must:
			t.Errorf("%s: the facts say that this is wrong, and it was taken", w.what)
			complaints++
		}
		p.kill()
	}
	if complaints == 0 {
		t.Skipf("it took all %d configurations that were made wrong: the core checks types, one_of and semantics itself, and only the facts (wrong) know more", len(tries))
	}
	t.Logf("%d wrong configurations, %d complaints", len(tries), complaints)
}

// pointless says why diagnostics do not lead to the mistake; "" if they do.
func (s *suite) pointless(w wrong, ds []*v1.Diagnostic) string {
	named := false
	for _, d := range ds {
		switch {
		case d.GetSummary() == "":
			return "a diagnostic without a summary"
		case len(d.GetPath()) == 0:
			return fmt.Sprintf("%q has no path: the operator does not see which line", d.GetSummary())
		case !inSchema(s.describe.GetSchema().GetBlock(), d.GetPath()):
			return fmt.Sprintf("%q: the schema has no such attribute", diagnostic(d))
		}
		named = named || d.GetPath()[0].GetName() == w.attribute
	}
	if w.strict && !named {
		return fmt.Sprintf("%q does not point at %s", diagnostic(ds[0]), w.attribute)
	}
	return ""
}

// inSchema tells whether a path leads to an attribute or a block.
func inSchema(b *v1.Schema_Block, path []*v1.PathStep) bool {
	for _, a := range b.GetAttributes() {
		if a.GetName() == path[0].GetName() {
			return true // further steps are indexes and keys of its value
		}
	}
	for _, nb := range b.GetBlocks() {
		if nb.GetName() != path[0].GetName() {
			continue
		}
		rest := path[1:]
		if len(rest) > 0 {
			if _, index := rest[0].GetStep().(*v1.PathStep_Index); index {
				rest = rest[1:]
			}
		}
		return len(rest) == 0 || slices.Contains(nb.GetLabels(), rest[0].GetName()) || inSchema(nb.GetBlock(), rest)
	}
	return false
}

// misfits are values that the semantics refuse.
var misfits = map[string]string{
	"duration": "soon", "size": "huge", "cidr": "192.0.2.0/99", "hostport": "no port", "regexp": "(", "address": "no address", "condition": "tags.spf ==",
}

// wrongs makes mistakes of the configuration by the schema, after those that the
// facts know.
func (s *suite) wrongs() ([]wrong, error) {
	var out []wrong
	sch := s.describe.GetSchema()
	for _, attribute := range slices.Sorted(maps.Keys(s.opts.Facts.Wrong)) {
		text := s.opts.Facts.Wrong[attribute]
		v, err := block.Decode(sch, "wrong."+attribute, text)
		if err != nil {
			return nil, fmt.Errorf("a wrong configuration of the facts does not even fit the schema:\n%w", err)
		}
		w := wrong{attribute: attribute, what: strings.TrimSpace(text), strict: true, must: true}
		if w.js, w.pack, err = block.Wire(sch, v); err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	for _, a := range sch.GetBlock().GetAttributes() {
		typ := schema.AttributeType(a)
		try := func(what string, v cty.Value, strict bool) error {
			attrs := maps.Clone(s.value.AsValueMap())
			attrs[a.GetName()] = v
			w := wrong{attribute: a.GetName(), what: a.GetName() + " = " + what, strict: strict}
			var err error
			w.js, w.pack, err = block.Wire(sch, cty.ObjectVal(attrs))
			if len(out) < maxWrong {
				out = append(out, w)
			}
			return err
		}
		var errs []error
		if s := element(typ); s != cty.String && s != cty.Number || typ.IsSetType() {
			continue
		}
		if text, ok := misfits[a.GetSemantic()]; ok {
			errs = append(errs, try(fmt.Sprintf("%q", text), textOf(typ, text), true))
		} else if len(a.GetOneOf()) > 0 {
			errs = append(errs, try(`"none-of-these"`, textOf(typ, "none-of-these"), true))
		}
		switch {
		case typ == cty.Number:
			errs = append(errs, try("-1", cty.NumberIntVal(-1), false))
		case a.GetRequired():
			// The core never leaves it out; null is what a careless caller sends.
			errs = append(errs, try("null", cty.NullVal(typ), true))
		}
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// textOf is a text as a value of a string type, or of a list or map of them.
func textOf(typ cty.Type, text string) cty.Value {
	switch {
	case typ.IsListType():
		return cty.ListVal([]cty.Value{cty.StringVal(text)})
	case typ.IsMapType():
		return cty.MapVal(map[string]cty.Value{"x": cty.StringVal(text)})
	}
	return cty.StringVal(text)
}
