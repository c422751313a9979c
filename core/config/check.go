package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// check looks at the configuration as a whole.
func (l *loader) check() {
	if len(l.cfg.Files) == 0 {
		return
	}
	l.checkTop()
	l.checkListeners()
	l.checkRoutes()
	l.checkRedirects()
	l.checkCycles()
	l.checkUnused()
	l.checkSandboxUsers()
}

func (l *loader) checkTop() {
	none := hcl.Range{}
	top := "Add at the top of " + l.cfg.Files[0] + ": "
	if l.cfg.Hostname == "" && !l.topSet("hostname") {
		l.err(none, "There is no hostname", top+`hostname = "mx.ryan.example"`)
	}
	if l.cfg.DataDir == "" && !l.topSet("data_dir") {
		l.err(none, "There is no data_dir", top+`data_dir = "/var/lib/stagecoach"`)
	}
	if !l.has("receive") {
		l.err(none, "There is no receive block: no mail could come in", "Add: receive \"smtp\" \"mx\" {\n      listen = [\":25\"]\n    }")
	}
	if l.has("receive") && !l.has("route") {
		l.err(none, "There is no route block: no mail would know where to go", "Add: route \"all\" {\n      deliver = deliver.storage.mail\n    }")
	}
}

func (l *loader) topSet(name string) bool {
	for _, b := range l.bodies {
		if b.Attributes[name] != nil {
			return true
		}
	}
	return false
}

// has reports a block of that type, be it a wrong one.
func (l *loader) has(kind string) bool {
	for _, b := range l.bodies {
		for _, block := range b.Blocks {
			if block.Type == kind {
				return true
			}
		}
	}
	return false
}

// listener is a listen address with what stands around it.
type listener struct {
	Listen
	ref string
}

func (l *loader) checkListeners() {
	var all []listener
	for _, c := range l.cfg.Receives {
		auth := c.Auth != nil
		l.checkTLS(c.Ref, c.Listen, c.TLS, c.Range, auth && !c.InsecureAuth, c.RequireTLS)
		l.checkInsecure(c.Ref, c.Listen, c.InsecureAuth)
		l.checkRelay(c)
		for _, a := range c.Listen {
			all = append(all, listener{a, c.Ref})
		}
	}
	for _, i := range l.cfg.Instances {
		if i.Kind != v1.Kind_KIND_ACCESS {
			continue
		}
		l.checkTLS(i.Ref, i.Listen, i.TLS, i.Range, !i.InsecureAuth, false)
		l.checkInsecure(i.Ref, i.Listen, i.InsecureAuth)
		for _, a := range i.Listen {
			all = append(all, listener{a, i.Ref})
		}
	}
	if m := l.cfg.Metrics.Listen; m != nil {
		all = append(all, listener{*m, "metrics"})
		l.checkMetrics()
	}
	if a := l.cfg.Admin; a.Socket != "" && a.Range.Filename != "" {
		all = append([]listener{{Listen{Network: "unix", Address: a.Socket, Range: a.Range}, "admin"}}, all...)
	}
	for n, a := range all {
		for _, b := range all[:n] {
			if overlap(a.Listen, b.Listen) {
				text := fmt.Sprintf("The listen address %s is taken by %s at %s:%d", a.Address, b.ref, b.Range.Filename, b.Range.Start.Line)
				if a.Address != b.Address {
					text = fmt.Sprintf("The listen address %s overlaps with %s of %s at %s:%d", a.Address, b.Address, b.ref, b.Range.Filename, b.Range.Start.Line)
				}
				remedy := "Use another port, or different addresses on both sides."
				if a.Network == "unix" {
					remedy = "Use another path."
				}
				l.err(a.Range, text, remedy).Also = place(b.Range)
				break
			}
		}
	}
}

// overlap: the same port, and the same address or one that means all of them.
func overlap(a, b Listen) bool {
	if a.Network != b.Network {
		return false
	}
	if a.Network == "unix" {
		return a.Address == b.Address
	}
	ah, ap, _ := net.SplitHostPort(a.Address)
	bh, bp, _ := net.SplitHostPort(b.Address)
	if ap != bp || ap == "0" {
		return false
	}
	x, y := listenAddr(ah), listenAddr(bh)
	if x == y || !x.IsValid() || !y.IsValid() { // "" is all addresses of both families
		return true
	}
	// [::] takes IPv4 too, unless the system says otherwise.
	if x == netip.IPv6Unspecified() || y == netip.IPv6Unspecified() {
		return true
	}
	return x.Is4() == y.Is4() && (x.IsUnspecified() || y.IsUnspecified())
}

func listenAddr(host string) netip.Addr {
	if host == "localhost" {
		host = "127.0.0.1"
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}

func (l *loader) checkTLS(ref string, listen []Listen, t *TLS, r hcl.Range, passwords, required bool) {
	const remedy = "Add a block: tls \"default\" {\n      cert = \"…\"\n      key  = \"…\"\n    }"
	if t != nil || l.broken("tls") {
		return
	}
	plain := false
	for _, a := range listen {
		if a.ImplicitTLS {
			l.err(a.Range, fmt.Sprintf("%s begins with TLS, and %s has no certificate", a.Address, ref), remedy)
			return
		}
		plain = plain || a.Network == "tcp"
	}
	switch {
	case required:
		l.err(r, fmt.Sprintf("%s requires TLS and has no certificate", ref), remedy)
	case passwords && plain:
		l.err(r, fmt.Sprintf("%s checks passwords and has no certificate: nobody could log in", ref), remedy)
	}
}

// broken reports that blocks of a kind are there and none could be read: what
// they would have said is not missing.
func (l *loader) broken(kind string) bool {
	if !l.has(kind) {
		return false
	}
	for _, s := range l.order {
		if s.kind == kind {
			return false
		}
	}
	return true
}

// checkInsecure: passwords in plain text stay within the machine.
func (l *loader) checkInsecure(ref string, listen []Listen, insecure bool) {
	if !insecure {
		return
	}
	for _, a := range listen {
		if a.Network == "unix" {
			continue
		}
		host, _, _ := net.SplitHostPort(a.Address)
		if !listenAddr(host).IsLoopback() {
			l.err(a.Range, fmt.Sprintf("insecure_auth on %s: passwords would cross the network in plain text", a.Address),
				"Remove insecure_auth and give "+ref+" a tls block, or listen on 127.0.0.1.")
		}
	}
}

func (l *loader) checkRelay(c *Receive) {
	at := c.Range
	if s := l.symbols[c.Ref]; s != nil {
		if a := s.block.Body.Attributes["relay_from"]; a != nil {
			at = a.Expr.Range()
		}
	}
	for _, p := range c.RelayFrom {
		// No operator owns a /7; ::/0 and 2000::/3 are the internet.
		if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 && !p.Addr().IsPrivate() {
			l.warn(at, fmt.Sprintf("%s is an open relay: it sends mail of everybody in %s to everywhere", c.Ref, p),
				"Name your own networks, or let users log in with auth.")
		}
	}
}

func (l *loader) checkRoutes() {
	var always *Route
	asked := map[string]*Route{} // by condition: the first that ends the search
	for _, c := range l.cfg.Routes {
		if always != nil {
			l.err(c.Range, fmt.Sprintf("route %q is never reached: route %q at %s:%d takes every mail", c.Name, always.Name,
				always.Range.Filename, always.Range.Start.Line),
				fmt.Sprintf("Move it above route %q, or give that one a when.", always.Name)).Also = place(always.Range)
			continue
		}
		if c.When != nil && !c.broken {
			when := strings.Join(strings.Fields(c.When.Source()), " ")
			if first := asked[when]; first != nil {
				l.err(c.Range, fmt.Sprintf("route %q is never reached: route %q at %s:%d has the same when", c.Name, first.Name,
					first.Range.Filename, first.Range.Start.Line), "Remove one of the two, or change its when.").Also = place(first.Range)
				continue
			}
			if c.Final() {
				asked[when] = c
			}
		}
		known, taken := c.decided(nil)
		if known && !taken {
			l.warn(c.When.Range(), fmt.Sprintf("route %q is never taken: its when is always false", c.Name), "Remove the route, or correct its when.")
		}
		if known && taken && c.Final() {
			always = c
		}
	}
}

// decided is the route's condition with as much as is known: nothing, or the
// recipient. known is false if it depends on more.
func (r *Route) decided(recipient *string) (known, taken bool) {
	switch {
	case r.When == nil:
		return true, true
	case r.broken:
		return false, false
	}
	return r.When.Decided(recipient)
}

// checkRedirects follows redirects to fixed addresses: one that is certain to
// come back to its own route would go round for ever.
func (l *loader) checkRedirects() {
	told := map[string]bool{}
	for _, start := range l.cfg.Routes {
		if told[start.Name] {
			continue
		}
		for _, e := range start.Redirect {
			to, ok := l.fixedAddress(e)
			if !ok {
				continue
			}
			passed := []string{start.Name}
			for hop := 0; hop < len(l.cfg.Routes); hop++ {
				next := l.certainRoute(to)
				if next == nil || len(next.Redirect) != 1 {
					break
				}
				if next == start {
					for _, name := range passed {
						told[name] = true
					}
					l.err(e.Range(), fmt.Sprintf("This redirect never ends: mail to %s comes back to route %s", to,
						strings.Join(append(passed, start.Name), " → ")), "Exclude the target in the route's when: recipient.address != "+quote(to))
					break
				}
				passed = append(passed, next.Name)
				if to, ok = l.fixedAddress(next.Redirect[0]); !ok {
					break
				}
			}
		}
	}
}

// fixedAddress is a redirect's one address, if it is the same for every mail,
// and no secret that a complaint would tell.
func (l *loader) fixedAddress(e *Expr) (string, bool) {
	if !e.Constant() || slices.Contains(l.secrets, e.Range()) {
		return "", false
	}
	list, err := e.Strings(&Env{})
	if err != nil || len(list) != 1 {
		return "", false
	}
	if _, err := address.Parse(list[0], true); err != nil {
		return "", false
	}
	return list[0], true
}

// certainRoute is the route that surely takes a recipient; nil if it depends.
func (l *loader) certainRoute(recipient string) *Route {
	for _, c := range l.cfg.Routes {
		known, taken := c.decided(&recipient)
		if !known {
			return nil
		}
		if taken && c.Final() {
			return c
		}
	}
	return nil
}

// checkCycles: an instance is started after those that it uses.
func (l *loader) checkCycles() {
	const open, closed = 1, 2
	state := map[*Instance]int{}
	var path []*Instance
	var visit func(i *Instance)
	visit = func(i *Instance) {
		switch state[i] {
		case closed:
			return
		case open:
			from := slices.Index(path, i)
			var refs []string
			for _, x := range append(slices.Clone(path[from:]), i) {
				refs = append(refs, x.Ref)
			}
			l.err(i.Range, "These blocks wait for each other: "+strings.Join(refs, " → "), "Remove one of the references.")
			return
		}
		state[i] = open
		path = append(path, i)
		for _, next := range i.Uses {
			visit(next)
		}
		path = path[:len(path)-1]
		state[i] = closed
	}
	for _, i := range l.cfg.Instances {
		visit(i)
	}
}

func (l *loader) checkUnused() {
	if l.list.HasErrors() {
		return // a misspelt reference is the likelier reason
	}
	for _, s := range l.order {
		if s.used {
			continue
		}
		remedy := ""
		switch s.kind {
		case "deliver":
			remedy = "Name it in a route: deliver = " + s.ref
		case "filter":
			remedy = "Name it where it shall stand: filters = [" + s.ref + "] in a receive, a route or a deliver."
		case "directory":
			remedy = "Name it in a receive (auth, recipients) or in a when: has(" + s.ref + ", recipient)."
		case "storage":
			remedy = "Name it in a deliver or an access block: storage = " + s.ref
		case "tls":
			remedy = "Name it in a receive or an access block: tls = " + s.ref
		case "plugin":
			remedy = fmt.Sprintf("Add a block that it serves, such as: filter %q \"NAME\" { … }", s.binary.Name)
		default:
			continue
		}
		l.warn(header(s.block), "Nobody uses "+blockName(s.block), remedy)
	}
}
