package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Expr is an expression that is evaluated per recipient. It was type-checked
// when the files were loaded. Safe for concurrent use.
type Expr struct {
	syntax hclsyntax.Expression
	scope  *hcl.EvalContext
	uses   []hcl.Traversal
	source string
}

// Env is what an expression may ask of one recipient's mail.
type Env struct {
	Sender    string // reverse-path without brackets; "" is the null one
	Recipient string
	// Account and Detail as the directory resolved the recipient; "" if not.
	Account, Detail string
	Client          *v1.Client
	Tags            map[string]*v1.Tag
	Message         Message
	// Has asks the directory ref for an address, for has(). nil: has() fails.
	Has func(ref, address string) (bool, error)
}

// Message is what expressions read of the message.
type Message struct {
	Size                     int64
	Subject, From, MessageID string // decoded
	// Headers by lower-case field name, in order, decoded. Needed only if an
	// expression Uses("message.headers").
	Headers map[string][]string
}

// Range is where the expression stands.
func (e *Expr) Range() hcl.Range { return e.syntax.Range() }

// Source is the expression as it was written, for explain and logs.
func (e *Expr) Source() string { return e.source }

var errNoValue = fmt.Errorf("the expression has no value")
