package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// longestReply keeps a reply within an SMTP line (RFC 5321 section 4.5.3.1.5).
const longestReply = 450

// action is what the server decided (access(5) of Postfix).
type action struct {
	// word in capitals; of a reply with a code of its own it is REPLY.
	word     string
	code     int
	enhanced string
	// text of a reply, a hold or a log entry.
	text string
	// name and value of PREPEND, target of REDIRECT and BCC.
	name, value, target string
}

// words that there are, with the code that a refusal has in Postfix.
var words = map[string]struct {
	code     int
	enhanced string
}{
	"OK": {}, "DUNNO": {}, "PERMIT": {}, "WARN": {}, "INFO": {}, "PREPEND": {}, "HOLD": {}, "DISCARD": {}, "REDIRECT": {}, "BCC": {},
	"DEFER_IF_REJECT": {}, "REJECT": {554, "5.7.1"}, "DEFER": {450, "4.7.1"}, "DEFER_IF_PERMIT": {450, "4.7.1"},
}

// parse reads what stands after "action=".
func parse(said string) (*action, error) {
	word, rest, _ := strings.Cut(strings.TrimSpace(said), " ")
	rest = strings.TrimSpace(rest)
	a := &action{word: strings.ToUpper(word)}
	if code, err := strconv.Atoi(word); err == nil && len(word) == 3 && (word[0] == '4' || word[0] == '5') && word[1] <= '5' {
		a.word, a.code = "REPLY", code
		a.enhanced, a.text = enhanced(rest, code)
		return a, nil
	} else if err == nil && !strings.ContainsAny(word, "+-") {
		a.word = "OK" // all digits: what a table of relays has
		return a, nil
	}
	usual, known := words[a.word]
	switch {
	case a.word == "FILTER":
		return nil, fmt.Errorf("it answers FILTER %s, and there are no content filters to name: send the mail to that hop with a route block, by a tag", printable(rest))
	case !known:
		return nil, fmt.Errorf("it answers %q: known are OK, DUNNO, REJECT, DEFER, DEFER_IF_PERMIT, DEFER_IF_REJECT, 4xx, 5xx, PREPEND, HOLD, DISCARD, REDIRECT, BCC, WARN and INFO", printable(said))
	case usual.code > 0:
		a.code = usual.code
		if a.enhanced, a.text = enhanced(rest, a.code); a.enhanced == "" {
			a.enhanced = usual.enhanced
		}
		return a, nil
	case a.word == "PREPEND":
		return a, a.field(rest)
	case a.word == "REDIRECT" || a.word == "BCC":
		a.target = strings.TrimSuffix(strings.TrimPrefix(rest, "<"), ">")
		if _, err := address.Parse(a.target, true); err != nil {
			return nil, fmt.Errorf("it answers %s %s, which is no address: %w", a.word, printable(rest), err)
		}
		return a, nil
	}
	a.text = printable(rest)
	return a, nil
}

func (a *action) field(rest string) error {
	name, value, ok := strings.Cut(rest, ":")
	for _, c := range []byte(name) {
		ok = ok && c > ' ' && c < 0x7f
	}
	if !ok || name == "" {
		return fmt.Errorf("it answers PREPEND %s, which is no header field", printable(rest))
	}
	value = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, value))
	a.name, a.value = name, fold(value)
	return nil
}

// fold keeps lines within RFC 5322's 998 octets; a server's answer is one line,
// however long the field.
func fold(value string) string {
	const most = 900
	var b strings.Builder
	for len(value) > most {
		at := strings.LastIndexByte(value[:most], ' ')
		if at <= 0 {
			return b.String() + value[:most] // nothing to fold at: cut
		}
		b.WriteString(value[:at] + "\r\n")
		value = value[at:]
	}
	return b.String() + value
}

// enhanced takes the status code off a text, if it fits the reply's.
func enhanced(text string, code int) (status, rest string) {
	word, rest, _ := strings.Cut(text, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(code/100) {
		return "", printable(text)
	}
	for _, p := range parts[1:] {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil || len(p) > 3 {
			return "", printable(text)
		}
	}
	return word, printable(rest)
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	return s[:min(len(s), longestReply)]
}

// refuses tells whether the command is not accepted.
func (a *action) refuses() bool { return a.code > 0 }

// disconnects: Postfix ends the connection after these.
func (a *action) disconnects() bool { return a.code == 421 || a.code == 521 }

func (a *action) changes() bool {
	return a.word == "PREPEND" || a.word == "REDIRECT" || a.word == "BCC"
}

// early is the verdict before the message. What Postfix does to the mail as a
// whole is done there, for at RCPT it would be for the recipient alone.
func (a *action) early() *filter.Verdict {
	text := a.text
	switch {
	case a.disconnects():
		return filter.Disconnect(421, "", text)
	case a.code/100 == 5:
		if text == "" {
			text = "Access denied"
		}
		return filter.Reject(a.code, a.enhanced, text)
	case a.code/100 == 4:
		if text == "" {
			text = "Try again later"
		}
		return filter.Defer(a.code, a.enhanced, text)
	}
	return filter.Accept()
}

// now is the verdict where there is no mail yet.
func (a *action) now() (*filter.Verdict, error) {
	switch a.word {
	case "HOLD":
		return filter.Hold(a.reason()), nil
	case "DISCARD":
		return filter.Discard().Reason(a.text), nil
	}
	if a.changes() {
		return nil, fmt.Errorf("the policy server answers %s where there is no mail yet: ask it at RCPT", a.word)
	}
	return a.early(), nil
}

func (a *action) reason() string {
	if a.text == "" {
		return "held by a policy server"
	}
	return a.text
}

// carryOut does to the mail what was decided about it.
func (f *Filter) carryOut(decided []*action, e *v1.Envelope) (*filter.Verdict, error) {
	v := filter.Accept()
	var redirect *action
	for _, a := range decided {
		switch a.word {
		case "DISCARD":
			return filter.Discard().Reason(a.text), nil
		case "HOLD":
			v = filter.Hold(a.reason())
		case "REDIRECT":
			redirect = a
		}
	}
	var done []action
	for _, a := range decided {
		// The same answer for several recipients is one field, and one copy.
		if !a.changes() || slices.Contains(done, *a) {
			continue
		}
		done = append(done, *a)
		switch a.word {
		case "PREPEND":
			v.AddHeader(a.name, a.value)
		case "BCC":
			// The sender shall not hear of it.
			v.AddRecipientDSN(&v1.Recipient{Address: a.target, Notify: []string{"NEVER"}})
		}
	}
	if redirect != nil {
		for _, r := range e.GetRecipients() {
			v.DeleteRecipient(r.GetIndex())
		}
		v.AddRecipient(redirect.target)
	}
	return v, nil
}
