package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var errNoAddress = errors.New("is no address")

func quote(s string) string { return strconv.Quote(s) }

func (l *loader) route(c *Route, r *reader) {
	if x := r.expr("when"); x != nil {
		c.When = l.compile(x, "when", cty.Bool, false)
		if c.When == nil {
			// A wrong condition must not look like an always-true one.
			c.When, c.broken = expression.New(x, l.scope(x.Range().Filename), l.text(x.Range())), true
		}
	}
	c.Filters = r.refs("filters", "filter")
	if s := r.ref("deliver", "deliver"); s != nil {
		c.Deliver = s.deliver
	}
	c.Redirect = l.addresses(r, "redirect")
	c.Copy = l.addresses(r, "copy")
	if x := r.expr("hold"); x != nil {
		c.Hold = l.compile(x, "hold", cty.String, false)
	}
	if x := r.expr("reject"); x != nil {
		c.Reject = l.reply(x)
	}
	discardRead := r.boolean("discard", &c.Discard)

	var final []string
	for _, name := range []string{"deliver", "redirect", "hold", "reject", "discard"} {
		if r.expr(name) != nil && (name != "discard" || c.Discard) {
			final = append(final, name)
		}
	}
	switch {
	case len(final) > 1:
		l.err(r.attrRange(final[1]), fmt.Sprintf("route %q has two ends: %s and %s", c.Name, final[0], final[1]),
			"Keep one of them; copy may stand beside it.")
	case len(final) == 0 && !r.set("copy") && r.expr("discard") != nil && discardRead:
		l.err(r.attrRange("discard"), fmt.Sprintf("route %q says nothing of what becomes of the mail: discard is false", c.Name),
			"Remove it, and add one of: deliver, redirect, hold, reject.")
	case len(final) == 0 && !r.set("copy") && r.expr("discard") == nil:
		l.lacks(r.head, fmt.Sprintf("route %q says nothing of what becomes of the mail", c.Name),
			"Add one of: deliver, redirect, hold, reject, discard; or copy, to go on with the next route.")
	}
}

// addresses is one address or a list, each an expression.
func (l *loader) addresses(r *reader, name string) []*Expr {
	x := r.expr(name)
	if x == nil {
		return nil
	}
	list := []hclsyntax.Expression{x}
	if tuple, ok := x.(*hclsyntax.TupleConsExpr); ok {
		list = tuple.Exprs
		if len(list) == 0 {
			l.err(x.Range(), name+" is empty", "Write an address: \"meg@ryan.example\".")
		}
	}
	out := []*Expr{}
	for _, one := range list {
		if e := l.compile(one, name, cty.String, true); e != nil {
			l.checkAddress(e)
			out = append(out, e)
		}
	}
	return out
}

var enhancedCode = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`)

// reply is a text, or { code = 550, enhanced = "5.7.1", text = "…" }.
func (l *loader) reply(x hclsyntax.Expression) *Reply {
	v, ok := l.constant(x)
	if !ok {
		return nil
	}
	v, _ = v.UnmarkDeep()
	out := &Reply{Code: 550}
	if v.Type() == cty.String {
		out.Text = v.AsString()
	} else if !v.Type().IsObjectType() {
		l.err(x.Range(), "reject must be a text or an object", `Write reject = "not wanted here", or reject = { code = 550, enhanced = "5.7.1", text = "…" }.`)
		return nil
	} else if !l.replyObject(x, v, out) {
		return nil
	}
	if out.Code < 400 || out.Code > 599 {
		l.err(x.Range(), fmt.Sprintf("A reply code %d rejects nothing", out.Code), "Write a code of 400 to 599: 550 for good, 450 for now.")
		return nil
	}
	def(&out.Enhanced, fmt.Sprintf("%d.7.1", out.Code/100))
	def(&out.Text, "Message rejected")
	if !enhancedCode.MatchString(out.Enhanced) || int(out.Enhanced[0]-'0') != out.Code/100 {
		l.err(x.Range(), fmt.Sprintf("The enhanced code %s does not fit the code %d", l.shown(out.Enhanced, x.Range()), out.Code),
			fmt.Sprintf("Write %d.X.X (RFC 3463).", out.Code/100))
		return nil
	}
	if strings.ContainsAny(out.Text, "\r\n") {
		l.err(x.Range(), "The reply's text has a line end in it", "Write it on one line.")
	}
	return out
}

func (l *loader) replyObject(x hclsyntax.Expression, v cty.Value, out *Reply) bool {
	ok := true
	for name, a := range v.AsValueMap() {
		var (
			got cty.Value
			err error
		)
		switch name {
		case "code":
			got, err = convert.Convert(a, cty.Number)
			if err == nil && !got.IsNull() {
				code, _ := got.AsBigFloat().Int64()
				out.Code = int(code)
			}
		case "enhanced", "text":
			got, err = convert.Convert(a, cty.String)
			if err == nil && !got.IsNull() {
				*map[string]*string{"enhanced": &out.Enhanced, "text": &out.Text}[name] = got.AsString()
			}
		default:
			l.err(x.Range(), fmt.Sprintf("reject has no %q", name), orKnown(name, []string{"code", "enhanced", "text"}, "It has: "))
			ok = false
		}
		if err != nil {
			l.err(x.Range(), fmt.Sprintf("reject's %s cannot be %s", name, expression.TypeName(a.Type())),
				`Write reject = { code = 550, enhanced = "5.7.1", text = "…" }.`)
			ok = false
		}
	}
	return ok
}

func (r *reader) stringMap(name string) map[string]string {
	v, _, ok := r.value(name, cty.Map(cty.String))
	if !ok {
		return nil
	}
	out := map[string]string{}
	for k, s := range v.AsValueMap() {
		if !s.IsNull() {
			out[k] = s.AsString()
		}
	}
	return out
}

func (l *loader) test(t *Test, r *reader) {
	if at, ok := r.str("from", &t.From); ok && t.From != "" {
		l.mailAddress(t.From, at)
	}
	r.need("from", `from = "tom@hanks.example"`)
	if at, ok := r.str("to", &t.To); ok {
		l.mailAddress(t.To, at)
	}
	r.need("to", `to = "meg@ryan.example"`)
	if at, ok := r.str("client_ip", &t.ClientIP); ok {
		if _, err := netip.ParseAddr(t.ClientIP); err != nil {
			l.err(at, l.shown(t.ClientIP, at)+" is no address", `Write client_ip = "192.0.2.7".`)
		}
	}
	r.str("helo", &t.Helo)
	r.str("user", &t.User)
	r.boolean("tls", &t.TLS)
	if x := r.expr("tags"); x != nil {
		t.Tags = l.tags(x)
	}
	if x := r.expr("header"); x != nil {
		t.Header = l.header(x)
	}
	if at, ok := r.path("message", &t.Message); ok {
		l.mustExist(t.Message, "message", at)
		if t.Header != nil {
			l.err(at, "A test has a message file or header fields, not both", "Keep one of the two.")
		}
	}
	b := r.block("expect")
	if b == nil {
		l.lacks(r.head, fmt.Sprintf("test %q expects nothing", t.Name), "Add a block: expect { deliver = deliver.storage.mail }")
		return
	}
	l.expect(&t.Expect, l.reader(b))
}

func (l *loader) expect(e *Expect, r *reader) {
	e.Range = r.head
	if at, ok := r.str("route", &e.Route); ok && l.symbols["route."+e.Route] == nil {
		var names []string
		for _, c := range l.cfg.Routes {
			names = append(names, c.Name)
		}
		l.err(at, "There is no route "+l.shown(e.Route, at), orKnown(e.Route, names, "There are: "))
	}
	if s := r.refUnused("deliver", "deliver"); s != nil {
		e.Deliver = s.deliver
	}
	var s string
	if _, ok := r.str("hold", &s); ok {
		e.Hold = &s
	}
	code := 0
	if r.expr("reject") != nil {
		r.integer("reject", &code, 0, 599)
		e.Reject = &code
	}
	e.Redirect = r.strings("redirect")
	e.Copy = r.strings("copy")
	r.boolean("discard", &e.Discard)
	if len(r.body.Attributes) == 0 {
		l.err(r.head, "An expect block that expects nothing", "Add: deliver = deliver.storage.mail")
	}
	r.done()
}

// refUnused resolves without making the block count as used.
func (r *reader) refUnused(name, kind string) *symbol {
	before := map[*symbol]bool{}
	for _, s := range r.l.order {
		before[s] = s.used
	}
	s := r.ref(name, kind)
	if s != nil {
		s.used = before[s]
	}
	return s
}

func (l *loader) mailAddress(s string, at hcl.Range) {
	if _, err := address.Parse(s, true); err != nil {
		l.err(at, fmt.Sprintf("%s is no mail address: %s", l.shown(s, at), trimAddress(err)), "Write \"meg@ryan.example\".")
	}
}

func (l *loader) tags(x hclsyntax.Expression) map[string]*v1.Tag {
	v, ok := l.object(x, "tags")
	if !ok {
		return nil
	}
	return l.tagValues(v, "", x.Range())
}

// tagValues are tags, or the values by key of the tag within.
func (l *loader) tagValues(v map[string]cty.Value, within string, at hcl.Range) map[string]*v1.Tag {
	out := map[string]*v1.Tag{}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		a := v[name]
		switch t := a.Type(); {
		case a.IsNull():
		case within == "" && (t.IsObjectType() || t.IsMapType()):
			out[name] = &v1.Tag{Value: &v1.Tag_Map{Map: &v1.TagMap{Entries: l.tagValues(a.AsValueMap(), name, at)}}}
		case a.Type() == cty.String:
			out[name] = &v1.Tag{Value: &v1.Tag_Text{Text: a.AsString()}}
		case a.Type() == cty.Number:
			f, _ := a.AsBigFloat().Float64()
			out[name] = &v1.Tag{Value: &v1.Tag_Number{Number: f}}
		case a.Type() == cty.Bool:
			out[name] = &v1.Tag{Value: &v1.Tag_Flag{Flag: a.True()}}
		default:
			list, err := stringsOf(a)
			if err != nil {
				l.err(at, fmt.Sprintf("The tag %s cannot be %s", strings.TrimPrefix(within+"."+name, "."), expression.TypeName(a.Type())), "A tag is a string, a number, true or false, a list of strings, or an object of these.")
				continue
			}
			out[name] = &v1.Tag{Value: &v1.Tag_List{List: &v1.TagList{Values: list}}}
		}
	}
	return out
}

func (l *loader) header(x hclsyntax.Expression) map[string][]string {
	v, ok := l.object(x, "header")
	if !ok {
		return nil
	}
	out := map[string][]string{}
	for name, a := range v {
		list, err := stringsOf(a)
		if err != nil {
			l.err(x.Range(), fmt.Sprintf("The header field %s cannot be %s", name, expression.TypeName(a.Type())), "Write a string or a list of strings.")
			continue
		}
		out[name] = list
	}
	return out
}

func (l *loader) object(x hclsyntax.Expression, name string) (map[string]cty.Value, bool) {
	v, ok := l.constant(x)
	if !ok {
		return nil, false
	}
	v, _ = v.UnmarkDeep()
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		l.err(x.Range(), fmt.Sprintf("%s must be an object { … }, not %s", name, expression.TypeName(t)), fmt.Sprintf("Write %s = { name = \"value\" }.", name))
		return nil, false
	}
	return v.AsValueMap(), true
}

// stringsOf is a string or a list of strings.
func stringsOf(v cty.Value) ([]string, error) {
	if one, err := convert.Convert(v, cty.String); err == nil && !one.IsNull() {
		return []string{one.AsString()}, nil
	}
	list, err := convert.Convert(v, cty.List(cty.String))
	if err != nil {
		return nil, err
	}
	out := []string{}
	if !list.IsNull() {
		for _, s := range list.AsValueSlice() {
			if !s.IsNull() {
				out = append(out, s.AsString())
			}
		}
	}
	return out, nil
}
