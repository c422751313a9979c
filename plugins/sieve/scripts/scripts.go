// Package scripts keeps users' Sieve scripts: in the storage, with the mailboxes, or
// in a folder of files. Several processes may have them open: the filter reads,
// ManageSieve and the command line write. A change is on stable storage when its call
// returns. It does not know what a script means.
package scripts

import (
	"context"
	"errors"
	"slices"
	"unicode/utf8"
)

// Limits of an account.
type Limits struct {
	// Scripts at most, and octets of one.
	Scripts, Size int
}

// DefaultLimits are enough for people.
func DefaultLimits() Limits { return Limits{Scripts: 32, Size: 1 << 20} }

// MaxName octets of a script's name; RFC 5804 section 1.6 asks for 128.
const MaxName = 160

// What a call may fail with.
var (
	ErrNotFound = errors.New("there is no such script")
	ErrExists   = errors.New("there is a script of that name")
	ErrActive   = errors.New("the script is active: activate another one, or none, first")
	ErrName     = errors.New("no script can have that name")
	ErrTooLarge = errors.New("the script is too large")
	ErrTooMany  = errors.New("there are too many scripts: delete one first")
)

// Store has the scripts of all accounts.
type Store interface {
	// Account of that name; nothing is made of it until a script is put.
	Account(name string) Account
	// Global is a script of the operator's; nil if there is none.
	Global(name string) ([]byte, error)
}

// Account has one user's scripts.
type Account interface {
	// List is the scripts by name.
	List(ctx context.Context) ([]Entry, error)
	// Get is a script's text; ErrNotFound.
	Get(ctx context.Context, name string) ([]byte, error)
	// Active is the script that is run, by name and text; "" and nil if there is none.
	Active(ctx context.Context) (string, []byte, error)
	// Space tells whether a script of that size may be put: nil, ErrName, ErrTooLarge
	// or ErrTooMany.
	Space(ctx context.Context, name string, size int64) error
	// Put stores a script, in place of one of that name.
	Put(ctx context.Context, name string, text []byte) error
	// Delete a script that is not active.
	Delete(ctx context.Context, name string) error
	// Rename a script; the active one stays active.
	Rename(ctx context.Context, from, to string) error
	// Activate a script, and no other; "" none.
	Activate(ctx context.Context, name string) error
	// Report keeps what went wrong in the last run for the user to read; "" takes it
	// away. It is no promise: a crash may lose it.
	Report(ctx context.Context, text string) error
	// Trouble is what was last reported; "" nothing.
	Trouble(ctx context.Context) (string, error)
}

// Entry of a list.
type Entry struct {
	Name   string
	Size   int64
	Active bool
}

// maxTrouble octets of a report are kept.
const maxTrouble = 4 << 10

func shortened(report string) string { return report[:min(len(report), maxTrouble)] }

// validName tells whether a script can have that name.
func validName(s string) bool {
	if s == "" || len(s) > MaxName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == '/' {
			return false
		}
	}
	return true
}

// space tells whether a script may be put beside those of the list.
func (l Limits) space(list []Entry, name string, size int64) error {
	switch {
	case !validName(name):
		return ErrName
	case size > int64(l.Size):
		return ErrTooLarge
	case len(list) >= l.Scripts && !slices.ContainsFunc(list, func(e Entry) bool { return e.Name == name }):
		return ErrTooMany
	}
	return nil
}
