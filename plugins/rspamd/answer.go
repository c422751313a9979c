package rspamd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"mime"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/foreign"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
)

const (
	// mostSymbols become tags; a mail has some dozens.
	mostSymbols = 500
	// mostChanges and longestValue bound what is done to a header.
	mostChanges  = 200
	longestValue = 32 << 10
)

// answer is rspamd's JSON, as far as it is of use.
type answer struct {
	Error    string            `json:"error"`
	Action   string            `json:"action"`
	Score    float64           `json:"score"`
	Required float64           `json:"required_score"`
	Skipped  bool              `json:"is_skipped"`
	Subject  string            `json:"subject"`
	DKIM     oneOrMany[string] `json:"dkim-signature"`
	Messages json.RawMessage   `json:"messages"`
	Symbols  map[string]symbol `json:"symbols"`
	Milter   struct {
		Add    map[string]oneOrMany[addition] `json:"add_headers"`
		Remove map[string]oneOrMany[int]      `json:"remove_headers"`
	} `json:"milter"`
}

type symbol struct {
	Score float64 `json:"score"`
}

// addition is a value alone, or with its place in the header.
type addition struct {
	Value string
	Order *int
}

// UnmarshalJSON reads both forms.
func (a *addition) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &a.Value) == nil {
		return nil
	}
	var x struct {
		Value *string `json:"value"`
		Order *int    `json:"order"`
	}
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	if x.Value == nil {
		return errors.New("a header field to be added has no value")
	}
	a.Value, a.Order = *x.Value, x.Order
	return nil
}

// oneOrMany reads a list, or what stands alone.
type oneOrMany[T any] []T

// UnmarshalJSON reads both forms.
func (l *oneOrMany[T]) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(l))
	}
	var one T
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*l = oneOrMany[T]{one}
	return nil
}

// parse refuses what is no answer of rspamd's to a mail.
func parse(body []byte) (*answer, error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("its answer is not rspamd's JSON: %w", err)
	}
	if a.Error != "" {
		return nil, fmt.Errorf("it could not look at the message: %s", foreign.Text(a.Error))
	}
	if a.Action == "" {
		return nil, errors.New("its answer names no action: is it rspamd that listens there?")
	}
	return &a, nil
}

// said is the reply's text that a rule of rspamd's wants.
func (a *answer) said() string {
	var m map[string]any // a list of lines in versions before 1.5
	_ = json.Unmarshal(a.Messages, &m)
	text, _ := m["smtp_message"].(string)
	return text
}

// known is the action, by a name that a metric may have.
func (a *answer) known() string {
	switch a.Action {
	case "reject", "soft reject", "greylist", "add header", "rewrite subject", "no action", "quarantine", "discard":
		return a.Action
	}
	return "other"
}

// named are the symbols, the weightiest first.
func (a *answer) named() []string {
	names := slices.Sorted(maps.Keys(a.Symbols))
	slices.SortStableFunc(names, func(x, y string) int {
		switch dx, dy := math.Abs(a.Symbols[x].Score), math.Abs(a.Symbols[y].Score); {
		case dx > dy:
			return -1
		case dx < dy:
			return 1
		}
		return 0
	})
	return names[:min(len(names), mostSymbols)]
}

func (a *answer) tags() map[string]any {
	names := a.named()
	for i, name := range names {
		names[i] = foreign.Text(name)
	}
	return map[string]any{
		"action": foreign.Text(a.Action), "score": a.Score, "required": a.Required, "skipped": a.Skipped, "symbols": names,
	}
}

// symbols by name, with their scores.
func (a *answer) symbols() map[string]any {
	out := map[string]any{}
	for _, name := range a.named() {
		out[foreign.Text(name)] = a.Symbols[name].Score
	}
	return out
}

// change puts into the mail what rspamd wants changed. Its counts are of the
// message as it was, as the contract's are.
func (a *answer) change(v *filter.Verdict, header mail.Header) error {
	left := mostChanges
	for _, name := range slices.Sorted(maps.Keys(a.Milter.Remove)) {
		if !foreign.FieldName(name) {
			return fmt.Errorf("%q is no name of a header field", foreign.Text(name))
		}
		for _, index := range a.Milter.Remove[name] {
			if left--; left < 0 {
				return fmt.Errorf("there are more than %d changes", mostChanges)
			}
			if index < 0 { // from the last one
				if index += len(header.Values(name)) + 1; index <= 0 {
					continue
				}
			}
			if index > math.MaxInt32 {
				continue
			}
			v.DeleteHeader(name, index)
		}
	}
	if a.Action == "rewrite subject" && a.Subject != "" {
		subject := encoded(a.Subject)
		if header.Has("Subject") {
			v.ReplaceHeader("Subject", 1, subject)
		} else {
			v.InsertHeader(-1, "Subject", subject)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Milter.Add)) {
		for _, x := range a.Milter.Add[name] {
			if left--; left < 0 {
				return fmt.Errorf("there are more than %d changes", mostChanges)
			}
			if err := add(v, name, x); err != nil {
				return err
			}
		}
	}
	for _, signature := range a.DKIM {
		if left--; left < 0 {
			return fmt.Errorf("there are more than %d changes", mostChanges)
		}
		top := 0
		if err := add(v, "DKIM-Signature", addition{signature, &top}); err != nil {
			return err
		}
	}
	return nil
}

func add(v *filter.Verdict, name string, x addition) error {
	if !foreign.FieldName(name) {
		return fmt.Errorf("%q is no name of a header field", foreign.Text(name))
	}
	if len(x.Value) > longestValue {
		return fmt.Errorf("the field %s has %d octets: at most %d are taken", name, len(x.Value), longestValue)
	}
	position := -1
	if x.Order != nil && *x.Order >= 0 && *x.Order <= math.MaxInt32 {
		position = *x.Order
	}
	v.InsertHeader(position, name, foreign.FieldValue(x.Value))
	return nil
}

// encoded is a subject in encoded words where it must be (RFC 2047).
func encoded(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	s = strings.ReplaceAll(mime.QEncoding.Encode("utf-8", s[:min(len(s), 2000)]), "?= =?", "?=\r\n =?")
	return foreign.FieldValue(s)
}
