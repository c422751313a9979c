// Package engine checks and runs Sieve scripts (RFC 5228 and its extensions) on
// a message. What a script decides comes out as a Result, and what that makes of
// mail (replies, forwarded copies) as Outgoing. It delivers, sends and keeps
// nothing by itself: a Host answers what it must know of the outside.
package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
)

// Config is what the operator allows; DefaultConfig has the usual.
type Config struct {
	// MaxScript in octets; MaxSteps of one run, a step being about what a
	// comparison of 64 octets costs: some 100 ns.
	MaxScript int
	MaxSteps  int64
	// MaxActions of a script in all, MaxRedirects and MaxNotifies of them.
	MaxActions, MaxRedirects, MaxNotifies int
	// MaxIncludes in all, MaxIncludeDepth of one in another.
	MaxIncludes, MaxIncludeDepth int
	// MaxVariables of a script, MaxVariable octets of one's value.
	MaxVariables, MaxVariable int
	// MaxHeader octets of a field that addheader adds.
	MaxHeader int
	// Protected names of fields that editheader leaves alone, lower case:
	// Received and Auto-Submitted may not be deleted, others neither added.
	ForbidAdd, ForbidDelete []string
	// Delimiter between a local part and its detail.
	Delimiter string
	// Vacation's days, and what is said where a script says nothing.
	VacationMin, VacationMax, VacationDefault time.Duration
	VacationSubject, VacationTemplate         string
	// VacationAnyRecipient replies to mail that does not name the user.
	VacationAnyRecipient, VacationOriginal, VacationIgnoreEnvelope, VacationFromRecipient bool
	// RedirectFrom: "sender", "recipient", "orig_recipient", "user_email",
	// "postmaster" or "<address>".
	RedirectFrom string
	// NotifyFrom, as RedirectFrom; empty: postmaster.
	NotifyFrom string
	// DuplicateDefault and DuplicateMax are how long an id is remembered.
	DuplicateDefault, DuplicateMax time.Duration
	// Name and Version for the environment test.
	Name, Version string
	// Hostname for ids and the postmaster's address.
	Hostname string
	// Without are extensions that are not offered.
	Without []string
}

// DefaultConfig is what a configuration that says nothing allows.
func DefaultConfig() Config {
	const day = 24 * time.Hour
	return Config{
		MaxScript: 1 << 20, MaxSteps: 10_000_000, MaxActions: 32, MaxRedirects: 4, MaxNotifies: 10,
		MaxIncludes: 255, MaxIncludeDepth: 10, MaxVariables: 255, MaxVariable: 4 << 10, MaxHeader: 2 << 10,
		ForbidDelete: []string{"received", "auto-submitted"}, Delimiter: "+",
		VacationMin: day, VacationMax: 60 * day, VacationDefault: 7 * day, RedirectFrom: "sender",
		DuplicateDefault: 7 * day, DuplicateMax: 30 * day, Name: "Stagecoach Sieve", Version: "1", Hostname: "localhost",
	}
}

// Host answers a script's questions about the outside.
type Host interface {
	// Script is another script of the user, or a global one, for include; nil if
	// there is none of that name.
	Script(ctx context.Context, global bool, name string) ([]byte, error)
	// Mailbox tells whether there is one of that name that mail can go to.
	Mailbox(ctx context.Context, name string) (bool, error)
	// SpecialUse tells which mailbox has a special use ("\Sent"); "" if none has.
	SpecialUse(ctx context.Context, use string) (string, error)
	// Seen tells whether a key (of duplicate or vacation) was remembered, and its
	// time is not over. What a run wants remembered is in its Result.
	Seen(ctx context.Context, key string) (bool, error)
}

// Extensions that this engine knows, sorted, as require names them.
func (c *Config) Extensions() []string {
	var out []string
	for name := range extensions {
		if !strings.HasPrefix(name, "vnd.dovecot.") && !slices.Contains(c.Without, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// NotifyMethods are the schemes that notify takes.
func NotifyMethods() []string { return []string{"mailto"} }

// Script is a checked script. It does not change: many runs may share it.
type Script struct {
	name  string
	block []*node
	// requires are the extensions that it asked for.
	requires map[string]bool
	global   bool
	included map[string]*Script
}

// Error is what went wrong in a run.
type Error struct {
	Script string
	script.Position
	Message string
}

// Error is "main, line 3: …".
func (e *Error) Error() string {
	name := e.Script
	if name == "" {
		name = "script"
	}
	return name + ", line " + itoa(e.Line) + ", column " + itoa(e.Column) + ": " + e.Message
}

// Includes tells whether the script includes others, so that it is to be checked
// again when those change.
func (s *Script) Includes() bool { return s.requires["include"] }
