package filtertest

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var (
	enhancedCode = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`)
	identifier   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)
)

// maxDelay of a reply, in milliseconds (filter.proto, Verdict.delay_ms).
const maxDelay = 60_000

// gist is what must be the same of a repeated answer: texts, times and
// signatures may differ.
func gist(r *v1.FilterReply) string {
	out := fmt.Sprintf("%s %d", r.GetVerdict().GetAction(), r.GetVerdict().GetReply().GetCode())
	for _, i := range slices.Sorted(maps.Keys(r.GetPerRecipient())) {
		out += fmt.Sprintf(", recipient %d %s", i, r.GetPerRecipient()[i].GetAction())
	}
	for _, e := range r.GetEdits() {
		out += fmt.Sprintf(", edit %s", strings.TrimPrefix(fmt.Sprintf("%T", e.GetEdit()), "*pluginv1.Edit_"))
	}
	if len(r.GetTags()) > 0 {
		out += fmt.Sprintf(", tags %v", slices.Sorted(maps.Keys(r.GetTags())))
	}
	if len(r.GetInject()) > 0 {
		out += fmt.Sprintf(", %d injections", len(r.GetInject()))
	}
	return out
}

func (s *suite) verdicts(t conform.T) {
	for _, a := range s.answers(t) {
		for _, fault := range verdictFaults(a.reply.GetVerdict()) {
			t.Errorf("%s, %s: %s", a.what, a.call.GetEvent(), fault)
		}
		for i, v := range a.reply.GetPerRecipient() {
			for _, fault := range verdictFaults(v) {
				t.Errorf("%s, %s, recipient %d: %s", a.what, a.call.GetEvent(), i, fault)
			}
		}
	}
}

func verdictFaults(v *v1.Verdict) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	r, code := v.GetReply(), v.GetReply().GetCode()
	switch v.GetAction() {
	case v1.Verdict_REJECT:
		if code != 0 && code/100 != 5 {
			say("REJECT with code %d", code)
		}
	case v1.Verdict_DEFER:
		if code != 0 && code/100 != 4 {
			say("DEFER with code %d", code)
		}
	case v1.Verdict_DISCONNECT:
		if code != 0 && code != 421 && code/100 != 5 {
			say("DISCONNECT with code %d", code)
		}
	case v1.Verdict_ACCEPT, v1.Verdict_DISCARD, v1.Verdict_HOLD:
	default:
		say("action %d, which there is not", v.GetAction())
	}
	if e := r.GetEnhanced(); e != "" && (!enhancedCode.MatchString(e) || code != 0 && int32(e[0]-'0') != code/100) {
		say("enhanced code %q with code %d", e, code)
	}
	if text := r.GetText(); strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		say("control characters in the text of the reply: %q", text)
	} else if len(text) > 500 {
		say("a reply of %d octets: a line has at most 512 (RFC 5321 section 4.5.3.1.5)", len(text))
	}
	if d := v.GetDelayMs(); d < 0 || d > maxDelay {
		say("a delay of %d ms", d)
	}
	return out
}

func (s *suite) effect(t conform.T) {
	for _, a := range s.answers(t) {
		if a.interest.GetEffect() != v1.FilterInterest_EDIT && len(a.reply.GetEdits()) > 0 {
			t.Errorf("%s, %s: %d edits, but its effect is not EDIT", a.what, a.call.GetEvent(), len(a.reply.GetEdits()))
		}
	}
}

func (s *suite) edits(t conform.T) {
	found := false
	for _, a := range s.answers(t) {
		for _, e := range a.reply.GetEdits() {
			found = true
			if fault := editFault(&a, e); fault != "" {
				t.Errorf("%s, %s: %s", a.what, a.call.GetEvent(), fault)
			}
		}
	}
	if !found {
		t.Skipf("it edited none of the mails; name some that it edits in the facts (messages)")
	}
}

// editFault says what is wrong with an edit; "" if nothing is.
func editFault(a *answer, e *v1.Edit) string {
	switch e := e.GetEdit().(type) {
	case *v1.Edit_SetSender_:
		return addressFault("set_sender", e.SetSender.GetAddress(), true)
	case *v1.Edit_AddRecipient_:
		return addressFault("add_recipient", e.AddRecipient.GetRecipient().GetAddress(), false)
	case *v1.Edit_DeleteRecipient_:
		// One that is not there is no mistake; an index that nobody can have is.
		if i := e.DeleteRecipient.GetIndex(); i < 0 {
			return fmt.Sprintf("delete_recipient %d: indexes are 0 or more", i)
		}
	case *v1.Edit_InsertHeader_:
		f := e.InsertHeader.GetField()
		if p := e.InsertHeader.GetPosition(); p < -1 {
			return fmt.Sprintf("insert_header at position %d", p)
		}
		return fieldFault("insert_header", f.GetName(), f.GetValue())
	case *v1.Edit_ReplaceHeader_:
		if fault := indexFault("replace_header", e.ReplaceHeader.GetName(), e.ReplaceHeader.GetIndex(), 1); fault != "" {
			return fault
		}
		return fieldFault("replace_header", e.ReplaceHeader.GetName(), e.ReplaceHeader.GetValue())
	case *v1.Edit_DeleteHeader_:
		if !fieldName(e.DeleteHeader.GetName()) {
			return fmt.Sprintf("delete_header of %q, which is no field name", e.DeleteHeader.GetName())
		}
		return indexFault("delete_header", e.DeleteHeader.GetName(), e.DeleteHeader.GetIndex(), 0)
	case *v1.Edit_ReplaceBody_:
		return refFault("replace_body", e.ReplaceBody.GetBody(), a.dirs)
	default:
		return "an edit that is empty, or of a later contract"
	}
	return ""
}

// indexFault: an index that is too high does nothing, and is no mistake.
func indexFault(what, name string, index, least int32) string {
	if index < least {
		return fmt.Sprintf("%s of the %d. %q: indexes count from %d", what, index, name, least)
	}
	return ""
}

func fieldFault(what, name string, value []byte) string {
	if !fieldName(name) {
		return fmt.Sprintf("%s: %q is no field name", what, name)
	}
	if bytes.IndexByte(value, 0) >= 0 {
		return fmt.Sprintf("%s: the value of %s has a NUL", what, name)
	}
	for i, line := range bytes.Split(value, []byte("\r\n")) {
		switch {
		case bytes.ContainsAny(line, "\r\n"):
			return fmt.Sprintf("%s: the value of %s has a bare CR or LF", what, name)
		case i > 0 && (len(line) == 0 || line[0] != ' ' && line[0] != '\t'):
			return fmt.Sprintf("%s: a line of the value of %s does not begin with a space: it would be a field of its own, or end the header", what, name)
		case len(line) > 998:
			return fmt.Sprintf("%s: a line of %d octets in %s", what, len(line), name)
		}
	}
	return ""
}

// fieldName is RFC 5322's ftext.
func fieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return s != ""
}

func addressFault(what, address string, null bool) string {
	if address == "" && null {
		return ""
	}
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || at == len(address)-1 || strings.ContainsAny(address, "<>\r\n\x00") {
		return fmt.Sprintf("%s: %q is no address without brackets", what, address)
	}
	return ""
}

func hasRecipient(call *v1.FilterCall, index int32) bool {
	return slices.ContainsFunc(call.GetEnvelope().GetRecipients(), func(r *v1.Recipient) bool { return r.GetIndex() == index })
}

// refFault says why the core could not read a message that the filter gave it.
func refFault(what string, ref *v1.MessageRef, dirs []string) string {
	path := ref.GetPath()
	if path == "" {
		if n := int64(len(ref.GetInline())); n != ref.GetSize() || n > mail.InlineLimit {
			return fmt.Sprintf("%s: size %d, and %d octets inline of at most %d", what, ref.GetSize(), n, mail.InlineLimit)
		}
		return ""
	}
	inside := slices.ContainsFunc(dirs, func(d string) bool {
		rel, err := filepath.Rel(d, path)
		return err == nil && filepath.IsLocal(rel)
	})
	if !inside {
		return fmt.Sprintf("%s: %s is not under one of %q", what, path, dirs)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Sprintf("%s: %v", what, err)
	}
	if fi.Size() != ref.GetSize() {
		return fmt.Sprintf("%s: size %d, but the file has %d octets", what, ref.GetSize(), fi.Size())
	}
	return ""
}

func (s *suite) perRecipient(t conform.T) {
	for _, a := range s.answers(t) {
		for i := range a.reply.GetPerRecipient() {
			if !hasRecipient(a.call, i) {
				t.Errorf("%s, %s: a verdict for recipient %d, and the envelope has none with that index", a.what, a.call.GetEvent(), i)
			}
		}
	}
}

func (s *suite) tags(t conform.T) {
	for _, a := range s.answers(t) {
		for name, tag := range a.reply.GetTags() {
			if !identifier.MatchString(name) {
				t.Errorf("%s, %s: tag %q cannot be written as tags.NAME", a.what, a.call.GetEvent(), name)
			}
			if n, ok := tag.GetValue().(*v1.Tag_Number); tag.GetValue() == nil || ok && !finite(n.Number) {
				t.Errorf("%s, %s: tag %q has no value, or none that can be compared", a.what, a.call.GetEvent(), name)
			}
		}
		if !finite(a.reply.GetScore()) {
			t.Errorf("%s, %s: the score is %v: it is added up with others", a.what, a.call.GetEvent(), a.reply.GetScore())
		}
	}
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func (s *suite) hints(t conform.T) {
	for _, a := range s.answers(t) {
		say := func(format string, args ...any) {
			t.Errorf("%s, %s: %s", a.what, a.call.GetEvent(), fmt.Sprintf(format, args...))
		}
		h := a.reply.GetHints()
		switch h.GetTlsLevel() {
		case "", "none", "opportunistic", "required", "verify":
		default:
			say("tls_level %q", h.GetTlsLevel())
		}
		if h.GetNextHop() != "" {
			if _, _, err := net.SplitHostPort(h.GetNextHop()); err != nil {
				say("next_hop %q: %v", h.GetNextHop(), err)
			}
		}
		if h.GetNotBeforeMs() < 0 || h.GetExpiresMs() < 0 {
			say("not_before_ms %d, expires_ms %d", h.GetNotBeforeMs(), h.GetExpiresMs())
		}
		for _, p := range a.reply.GetPlacements() {
			if len(p.GetCopies()) > 64 {
				say("%d copies for one recipient", len(p.GetCopies()))
			}
			for _, c := range p.GetCopies() {
				if c.GetMessage() != nil {
					if f := refFault("a copy for "+c.GetMailbox(), c.GetMessage(), a.dirs); f != "" {
						say("%s", f)
					}
				}
			}
		}
		for i, in := range a.reply.GetInject() {
			what := fmt.Sprintf("injection %d", i)
			faults := []string{addressFault(what+", sender", in.GetSender(), true), refFault(what, in.GetMessage(), a.dirs)}
			if len(in.GetRecipients()) == 0 {
				say("%s is for nobody", what)
			}
			for _, r := range in.GetRecipients() {
				faults = append(faults, addressFault(what, r.GetAddress(), false))
			}
			for _, f := range faults {
				if f != "" {
					say("%s", f)
				}
			}
		}
	}
}
