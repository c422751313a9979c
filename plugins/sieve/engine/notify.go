package engine

import (
	"net/url"
	"slices"
	"strings"
)

// NotifyAction is RFC 5435's, by mailto (RFC 5436).
type NotifyAction struct {
	From, Message string
	// Importance "1" is high, "3" low.
	Importance string
	Options    []string
	URI        string
	mailto     *mailto
}

func notifyCommands() []*spec {
	return []*spec{
		{
			name: "notify", exts: []string{"enotify"}, args: []param{{"method", wantString}},
			tags: []*tag{
				{name: "from", param: &param{"address", wantString}}, {name: "importance", param: &param{"importance", wantString}, check: checkImportance},
				{name: "options", param: &param{"options", wantList}, check: checkOptions}, {name: "message", param: &param{"message", wantString}},
			},
			check: checkNotify, run: notify,
		},
		{
			name: "valid_notify_method", exts: []string{"enotify"}, test: true, args: []param{{"methods", wantList}},
			eval: func(m *machine, n *node) (bool, error) {
				for _, s := range n.list(m, 0) {
					if _, mistake := parseMailto(s); mistake != "" {
						return false, nil
					}
				}
				return true, nil
			},
		},
		{
			name: "notify_method_capability", exts: []string{"enotify"}, test: true,
			args: []param{{"method", wantString}, {"capability", wantString}, {"key list", wantList}}, tags: matchTags(),
			check: func(v *validator, n *node) bool { return checkMatch(v, n, &n.args[2]) },
			eval: func(m *machine, n *node) (bool, error) {
				if _, mistake := parseMailto(n.text(m, 0)); mistake != "" || !strings.EqualFold(n.text(m, 1), "online") {
					return false, nil
				}
				// Of a mailbox nobody knows whether somebody sees it (RFC 5436 section 4).
				return m.matchAny(n, []string{"maybe"}, n.list(m, 2))
			},
		},
	}
}

func checkImportance(v *validator, _ *node, t *tagged) bool {
	if s, ok := t.value.constant(); ok && s != "1" && s != "2" && s != "3" {
		return v.errorf(t.pos, "the importance of notify is \"1\", \"2\" or \"3\", and not '%s'", clip(s, 20))
	}
	return true
}

func checkOptions(v *validator, _ *node, t *tagged) bool {
	good := true
	for i := range t.value.strs {
		s, ok := t.value.strs[i].constant()
		if !ok {
			continue
		}
		name, value, is := strings.Cut(s, "=")
		switch {
		case !is || name == "" || name[0] == '_' || !isFieldName(name):
			good = v.errorf(t.value.strs[i].pos, "an option of notify is name=value, and not '%s'", printable(s))
		case strings.ContainsAny(value, "\r\n\x00"):
			good = v.errorf(t.value.strs[i].pos, "the value of the option '%s' has a line end", clip(name, 40))
		}
	}
	return good
}

func checkNotify(v *validator, n *node) bool {
	if v.config.MaxNotifies == 0 {
		return v.errorf(n.pos, "local policy prohibits the use of a notify action")
	}
	good := true
	if t := n.tags["from"]; t != nil {
		if s, ok := t.value.constant(); ok {
			if _, mistake := outgoingMailbox(s); mistake != "" {
				good = v.errorf(t.pos, "specified :from address '%s' is invalid for notify: %s", clip(s, 128), mistake)
			}
		}
	}
	if s, ok := n.args[0].constant(); ok {
		if _, mistake := parseMailto(s); mistake != "" {
			good = v.errorf(n.args[0].pos, "the notify method '%s' cannot be used: %s", printable(s), mistake)
		}
	}
	return good
}

func notify(m *machine, n *node) error {
	if m.c.MaxNotifies == 0 {
		return n.errorf("local policy prohibits the use of a notify action")
	}
	a := &NotifyAction{URI: n.text(m, 0), Importance: "2", Options: n.tagList(m, "options")}
	to, mistake := parseMailto(a.URI)
	if mistake != "" {
		return n.errorf("the notify method '%s' cannot be used: %s", printable(a.URI), mistake)
	}
	a.mailto = to
	a.Message, _ = n.tagText(m, "message")
	a.From, _ = n.tagText(m, "from")
	if a.From != "" {
		if _, mistake := outgoingMailbox(a.From); mistake != "" {
			m.warn(n, "the :from address '%s' is invalid and is not used: %s", clip(a.From, 128), mistake)
			a.From = ""
		}
	}
	if s, ok := n.tagText(m, "importance"); ok {
		a.Importance = s
	}
	return m.result.add(m, &Action{Kind: Notify, Notify: a})
}

// mailto is RFC 6068's.
type mailto struct {
	to, cc        []mailbox
	subject, body string
	fields        []parameter
}

// maxNotified recipients of one notify.
const maxNotified = 8

func parseMailto(uri string) (*mailto, string) {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || !strings.EqualFold(scheme, "mailto") {
		return nil, "it is none of " + strings.Join(NotifyMethods(), ", ")
	}
	to, query, _ := strings.Cut(rest, "?")
	out := &mailto{}
	if mistake := out.recipients(&out.to, to, true); mistake != "" {
		return nil, mistake
	}
	if query != "" {
		for _, h := range strings.Split(query, "&") {
			name, value, ok := strings.Cut(h, "=")
			if !ok || !uriText(name, "") || !uriText(value, "") {
				return nil, "a header is name=value, with %-escapes for all but letters, digits and -._~!$'()*+,:@"
			}
			name, e1 := url.PathUnescape(name)
			value, e2 := url.PathUnescape(value)
			if e1 != nil || e2 != nil {
				return nil, "it has a broken %-escape"
			}
			if mistake := out.header(name, value); mistake != "" {
				return nil, mistake
			}
		}
	}
	if len(out.to)+len(out.cc) == 0 {
		return nil, "it names no recipient"
	}
	if len(out.to)+len(out.cc) > maxNotified {
		return nil, "it names too many recipients: at most " + itoa(maxNotified)
	}
	return out, ""
}

func (o *mailto) header(name, value string) string {
	if !isFieldName(name) {
		return "'" + printable(name) + "' is no name of a header field"
	}
	if strings.Contains(value, "\x00") {
		return "a header has a NUL octet"
	}
	name = strings.ToLower(name)
	oneLine := strings.Join(strings.FieldsFunc(value, func(r rune) bool { return r == '\r' || r == '\n' }), " ")
	switch name {
	case "to":
		return o.recipients(&o.to, value, false)
	case "cc":
		return o.recipients(&o.cc, value, false)
	case "subject":
		o.subject = oneLine
	case "body":
		o.body = value
	case "from", "sender", "bcc", "date", "message-id", "auto-submitted", "x-sieve", "received", "return-path", "x-sieve-redirected-from", "mime-version", "content-type", "content-transfer-encoding":
		// Ours to say (RFC 5436 section 2.7).
	default:
		if len(o.fields) < 16 && !strings.HasPrefix(name, "resent-") {
			o.fields = append(o.fields, parameter{name, oneLine})
		}
	}
	return ""
}

func (o *mailto) recipients(list *[]mailbox, s string, encoded bool) string {
	if encoded {
		if !uriText(s, "") {
			return "its recipients have a character that must be written as %-escape"
		}
		var err error
		if s, err = url.PathUnescape(s); err != nil {
			return "it has a broken %-escape"
		}
	}
	if strings.TrimSpace(s) == "" {
		return ""
	}
	for _, a := range parseAddresses(s) {
		if !a.valid || a.domain == "" {
			return "'" + printable(a.raw) + "' is no address"
		}
		box := mailbox{Name: decodeHeader(a.name), Address: a.String()}
		same := func(have mailbox) bool { return strings.EqualFold(have.Address, box.Address) }
		if !slices.ContainsFunc(o.to, same) && !slices.ContainsFunc(o.cc, same) {
			*list = append(*list, box)
		}
	}
	return ""
}

// uriText tells whether s has only what RFC 6068 allows unescaped, and escapes.
func uriText(s, more string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z', strings.IndexByte("-._~!$'()*+,:@", c) >= 0, strings.IndexByte(more, c) >= 0:
		case c == '%' && i+2 < len(s) && isHex(s[i+1:i+3]):
			i += 2
		default:
			return false
		}
	}
	return true
}
