// Package route decides, per recipient, what becomes of a mail: the route blocks
// are asked from top to bottom. A decision is a value; nothing is done here.
package route

import (
	"fmt"

	"github.com/stagecoach-mta/stagecoach/core/config"
)

// Table is the route blocks of one configuration. It is safe for concurrent use.
type Table struct {
	routes      []*config.Route
	needsHeader bool
}

// NewTable takes the routes in the order of the files.
func NewTable(routes []*config.Route) *Table {
	t := &Table{routes: routes}
	for _, r := range routes {
		exprs := append(append([]*config.Expr{r.When, r.Hold}, r.Redirect...), r.Copy...)
		for _, e := range exprs {
			t.needsHeader = t.needsHeader || e != nil && e.Uses("message.headers")
		}
	}
	return t
}

// NeedsHeader tells whether any expression reads the message's header: only then
// does the caller have to open the message.
func (t *Table) NeedsHeader() bool { return t.needsHeader }

// Decision is what becomes of one recipient. One of Deliver, Redirect, Held,
// Reject, Discard and NoRoute holds; Copy may stand beside any of them.
type Decision struct {
	// Route that decided; "" with NoRoute.
	Route    string
	Deliver  *config.Deliver
	Redirect []string
	Held     bool
	Reason   string // of Held
	Reject   *config.Reply
	Discard  bool
	NoRoute  bool
	// Copy is where copies go, with the route that asked for each.
	Copy []Copy
	// Tried are the routes asked, in order, for explain and the trace.
	Tried []Tried
}

// Copy is an additional recipient.
type Copy struct{ Route, Address string }

// Tried is one route's part in a decision.
type Tried struct {
	Route string
	Taken bool
	When  string // the condition as written; "" if there is none
}

// Decide asks the routes. An error means that a condition could not be evaluated
// (a directory is down, a wrong type at run time): the mail waits.
func (t *Table) Decide(env *config.Env) (*Decision, error) { return t.decide(env, holds) }

// DecideReleased does so for mail that an operator released: routes that hold are
// not asked.
func (t *Table) DecideReleased(env *config.Env) (*Decision, error) { return t.decide(env, passHolds) }

// hold says what becomes of routes that hold.
type hold int

const (
	holds hold = iota
	passHolds
)

func (t *Table) decide(env *config.Env, h hold) (*Decision, error) {
	d := &Decision{}
	for _, r := range t.routes {
		if r.Hold != nil && h == passHolds {
			continue
		}
		taken, err := applies(r, env)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Name, err)
		}
		tried := Tried{Route: r.Name, Taken: taken}
		if r.When != nil {
			tried.When = r.When.Source()
		}
		d.Tried = append(d.Tried, tried)
		if !taken {
			continue
		}
		if err := d.take(r, env); err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Name, err)
		}
		if r.Final() {
			d.Route = r.Name
			return d, nil
		}
	}
	d.NoRoute = true
	return d, nil
}

func applies(r *config.Route, env *config.Env) (bool, error) {
	if r.When == nil {
		return true, nil
	}
	return r.When.Bool(env)
}

func (d *Decision) take(r *config.Route, env *config.Env) error {
	copies, err := addresses(r.Copy, env)
	if err != nil {
		return err
	}
	for _, a := range copies {
		d.Copy = append(d.Copy, Copy{Route: r.Name, Address: a})
	}
	d.Deliver, d.Reject, d.Discard = r.Deliver, r.Reject, r.Discard
	if d.Redirect, err = addresses(r.Redirect, env); err != nil {
		return err
	}
	if r.Hold != nil {
		d.Held = true
		if d.Reason, err = r.Hold.String(env); err != nil {
			return err
		}
	}
	return nil
}

func addresses(exprs []*config.Expr, env *config.Env) ([]string, error) {
	var out []string
	for _, e := range exprs {
		got, err := e.Strings(env)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}
