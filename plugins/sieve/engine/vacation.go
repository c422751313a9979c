package engine

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"
)

// VacationAction is RFC 5230's and 6131's.
type VacationAction struct {
	Reason, Subject, From, Handle string
	Mime                          bool
	Addresses                     []string
	Period                        time.Duration
}

func vacationCommands() []*spec {
	return []*spec{{
		name: "vacation", exts: []string{"vacation", "vacation-seconds"}, args: []param{{"reason", wantString}},
		tags: []*tag{
			{name: "days", group: "period", param: &param{"days", wantNumber}},
			{name: "seconds", ext: "vacation-seconds", group: "period", param: &param{"seconds", wantNumber}},
			{name: "subject", param: &param{"subject", wantString}},
			{name: "from", param: &param{"address", wantString}, check: func(v *validator, _ *node, t *tagged) bool {
				if s, ok := t.value.constant(); ok {
					if _, mistake := outgoingMailbox(s); mistake != "" {
						return v.errorf(t.pos, "specified :from address '%s' is invalid for vacation: %s", clip(s, 128), mistake)
					}
				}
				return true
			}},
			{name: "addresses", param: &param{"addresses", wantList}},
			{name: "mime"},
			{name: "handle", param: &param{"handle", wantString}},
		},
		run: vacation,
	}}
}

func vacation(m *machine, n *node) error {
	a := &VacationAction{Reason: n.text(m, 0), Mime: n.has("mime"), Period: m.c.VacationDefault, Addresses: n.tagList(m, "addresses")}
	a.Subject, _ = n.tagText(m, "subject")
	a.From, _ = n.tagText(m, "from")
	if a.From != "" {
		if _, mistake := outgoingMailbox(a.From); mistake != "" {
			return n.errorf("specified :from address '%s' is invalid for vacation: %s", clip(a.From, 128), mistake)
		}
	}
	if t := n.tags["period"]; t != nil {
		unit := 24 * time.Hour
		if t.name == "seconds" {
			unit = time.Second
		}
		a.Period = time.Duration(min(t.value.number, uint64(m.c.VacationMax/unit))) * unit
	}
	// What is said to be 0 s is every time (RFC 6131 section 2); days are one at least.
	if a.Period = min(max(a.Period, m.c.VacationMin), m.c.VacationMax); a.Period < 0 {
		a.Period = 0
	}
	handle, given := n.tagText(m, "handle")
	if !given {
		sum := sha256.Sum256([]byte(strings.Join([]string{a.Reason, a.Subject, a.From, strings.Join(a.Addresses, "\x01")}, "\x00")))
		handle = base64.RawStdEncoding.EncodeToString(sum[:])
	}
	a.Handle = handle
	return m.result.add(m, &Action{Kind: Vacation, Vacation: a})
}

// replyTo decides whether a vacation reply is sent (RFC 5230 section 4.5,
// RFC 3834 section 2), and from which of the user's addresses.
func (c *Config) replyTo(in *Input, a *Action) (own string, why string) {
	sender, ok := parsePath(in.Envelope.From)
	if !ok || sender.local == "" {
		return "", "the null sender gets no reply"
	}
	if systemAddress(sender.local) {
		return "", "the sender is a program"
	}
	var mine []string
	add := func(s string) {
		if p, ok := parsePath(s); ok && p.domain != "" {
			mine = append(mine, p.String())
		}
	}
	add(in.Envelope.Address)
	add(in.Envelope.To)
	if c.VacationOriginal {
		add(in.Envelope.Original)
	}
	for _, s := range a.Vacation.Addresses {
		if box, mistake := outgoingMailbox(s); mistake == "" {
			mine = append(mine, box.Address)
		}
	}
	if containsFold(mine, sender.String()) {
		return "", "the sender is the user"
	}
	for i := range a.Message.Fields {
		f := &a.Message.Fields[i]
		name, value := strings.ToLower(f.Name), strings.ToLower(f.value())
		switch {
		case strings.HasPrefix(name, "list-"):
			return "", "it comes from a mailing list"
		case name == "auto-submitted" && value != "no":
			return "", "it was sent by a program"
		case name == "precedence" && (value == "bulk" || value == "list" || value == "junk"):
			return "", "it is bulk mail"
		case name == "x-auto-response-suppress" && suppressed(value):
			return "", "it wants no automatic reply"
		}
	}
	named := ""
	for _, name := range []string{"to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc"} {
		for _, f := range fieldsNamed(a.Message.Fields, name) {
			for _, addr := range parseAddresses(f.value()) {
				if addr.valid && named == "" {
					if i := slices.IndexFunc(mine, func(s string) bool { return strings.EqualFold(s, addr.String()) }); i >= 0 {
						named = mine[i]
					}
				}
			}
		}
	}
	if named == "" {
		if !c.VacationAnyRecipient {
			return "", "it does not name the user"
		}
		if len(mine) > 0 {
			named = mine[0]
		}
	}
	return named, ""
}

func suppressed(value string) bool {
	for _, w := range strings.Split(value, ",") {
		if w = strings.TrimSpace(w); w == "all" || w == "oof" {
			return true
		}
	}
	return false
}

// systemAddress tells the addresses of programs (RFC 5230 section 4.5).
func systemAddress(local string) bool {
	l := strings.ToLower(local)
	return l == "mailer-daemon" || l == "listserv" || l == "majordomo" || l == "noreply" || l == "no-reply" ||
		strings.HasPrefix(l, "owner-") || strings.HasSuffix(l, "-request") || strings.HasSuffix(l, "-owner")
}

// vacationKey is what a reply is remembered by.
func vacationKey(a *VacationAction, sender string) string {
	return "vacation\x00" + a.Handle + "\x00" + strings.ToLower(sender)
}
