package engine

import (
	"slices"
	"strings"
	"time"
)

// Kind of an action.
type Kind uint8

// What a script can do with a message.
const (
	Keep Kind = iota
	FileInto
	Redirect
	Reject
	Ereject
	Discard
	Vacation
	Notify
)

// String is the action's name.
func (k Kind) String() string {
	return [...]string{"keep", "store", "redirect", "reject", "ereject", "discard", "vacation", "notify"}[k]
}

// Action is one that a script took, in its order.
type Action struct {
	Kind Kind
	// Mailbox, or the one of SpecialUse if there is one. Create it if it is
	// missing; else it must be there.
	Mailbox, SpecialUse string
	Create              bool
	Flags               []string
	// Address of a redirect.
	Address string
	// Reason of a refusal.
	Reason string
	// Vacation and notify have their own.
	Vacation *VacationAction
	Notify   *NotifyAction
	// Message as it was edited up to here.
	Message *Message
	// Done was carried out before a further script ran.
	Done bool
}

// Memory is a key to remember for a time.
type Memory struct {
	Key  string
	Keep time.Duration
}

// Result is what a script decided.
type Result struct {
	// ImplicitKeep stands until an action cancels it.
	ImplicitKeep bool
	Actions      []*Action
	// Remember these when the actions were carried out.
	Remember []Memory
	// Warnings did not stop the script.
	Warnings []error
	// final is the message as the script left it, with its flags.
	final   *Message
	flags   []string
	settled bool
}

func (r *Result) cancel() { r.ImplicitKeep = false }

// stores tells whether an action puts the message into a mailbox.
func (a *Action) stores() bool { return a.Kind == Keep || a.Kind == FileInto }

func (a *Action) box() string {
	if a.Kind == Keep || strings.EqualFold(a.Mailbox, "INBOX") {
		return "INBOX"
	}
	return a.Mailbox
}

// add takes an action, or tells why it cannot stand beside those there are. The
// same action twice is one.
func (r *Result) add(m *machine, a *Action) error {
	a.Message = m.msg
	if a.Kind == Discard {
		return nil // it has cancelled the implicit keep, and that is all
	}
	for i, have := range r.Actions {
		switch {
		case a.stores() && have.stores() && strings.EqualFold(a.box(), have.box()) && a.SpecialUse == have.SpecialUse && (a.Message == have.Message || have.Done):
			// The flags of the last one count (RFC 5232 section 3.2).
			have.Flags, have.Create = a.Flags, have.Create || a.Create
			if a.Kind == Keep {
				have.Kind = Keep
			}
			return nil
		case a.Kind == Redirect && have.Kind == Redirect && strings.EqualFold(a.Address, have.Address) && a.Message == have.Message:
			return nil
		case refuses(a.Kind) && refuses(have.Kind) && have.Done:
			return nil
		case a.Kind == Vacation && have.Kind == Vacation:
			return conflict("the vacation action is taken twice: once is allowed")
		case !have.Done && clash(a.Kind, have.Kind):
			return conflict("the " + a.Kind.String() + " action conflicts with the " + have.Kind.String() + " action that was taken before")
		}
		_ = i
	}
	redirects, notifies := 0, 0
	for _, have := range r.Actions {
		switch have.Kind {
		case Redirect:
			redirects++
		case Notify:
			notifies++
		}
	}
	switch {
	case len(r.Actions) >= m.c.MaxActions:
		return conflict("total number of actions exceeds policy limit: at most " + itoa(m.c.MaxActions))
	case a.Kind == Redirect && redirects >= m.c.MaxRedirects:
		return conflict("number of redirect actions exceeds policy limit: at most " + itoa(m.c.MaxRedirects))
	case a.Kind == Notify && notifies >= m.c.MaxNotifies:
		return conflict("number of notify actions exceeds policy limit: at most " + itoa(m.c.MaxNotifies))
	}
	r.Actions = append(r.Actions, a)
	return nil
}

func refuses(k Kind) bool { return k == Reject || k == Ereject }

// clash is RFC 5429 section 2.3 and RFC 5230 section 4.7.
func clash(a, b Kind) bool {
	other := func(k Kind) bool { return k == Keep || k == FileInto || k == Redirect || k == Vacation }
	return refuses(a) && (other(b) || refuses(b)) || refuses(b) && other(a)
}

type conflict string

func (c conflict) Error() string { return string(c) }

// settle makes an action of the implicit keep, once.
func (r *Result) settle() {
	if !r.ImplicitKeep || r.settled {
		return
	}
	r.settled = true
	if slices.ContainsFunc(r.Actions, func(a *Action) bool { return a.stores() && a.box() == "INBOX" && (a.Message == r.final || a.Done) }) {
		return
	}
	r.Actions = append(r.Actions, &Action{Kind: Keep, Flags: slices.Clone(r.flags), Message: r.final})
}

// fail leaves of a result the implicit keep of the message as it came.
func (r *Result) fail(m *machine) {
	r.Actions = slices.DeleteFunc(r.Actions, func(a *Action) bool { return !a.Done })
	r.Remember = nil
	r.ImplicitKeep, r.settled = true, false
	r.final, r.flags = m.original, nil
}
