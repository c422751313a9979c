package imap

import (
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// renderer writes what the storage rendered at delivery as IMAP has it.
type renderer struct {
	// utf8: the client takes UTF-8 in quoted strings.
	utf8 bool
}

// envelope is RFC 9051 section 7.5.2. Text goes out as it stands in the header:
// encoded words are the client's to decode. Sender and
// Reply-To that are missing are From.
func (r renderer) envelope(b []byte, s *v1.Summary) []byte {
	b = append(b, '(')
	b = wire.AppendNString(b, s.GetDate(), r.utf8)
	b = append(b, ' ')
	b = wire.AppendNString(b, s.GetSubject(), r.utf8)
	sender, replyTo := s.GetSender(), s.GetReplyTo()
	if len(sender) == 0 {
		sender = s.GetFrom()
	}
	if len(replyTo) == 0 {
		replyTo = s.GetFrom()
	}
	for _, list := range [...][]*v1.MailAddress{s.GetFrom(), sender, replyTo, s.GetTo(), s.GetCc(), s.GetBcc()} {
		b = append(b, ' ')
		b = r.addresses(b, list)
	}
	b = append(b, ' ')
	b = wire.AppendNString(b, s.GetInReplyTo(), r.utf8)
	b = append(b, ' ')
	b = wire.AppendNString(b, s.GetMessageId(), r.utf8)
	return append(b, ')')
}

// addresses: a group is an address without a host that has the group's name, and
// ends with one that has nothing.
func (r renderer) addresses(b []byte, list []*v1.MailAddress) []byte {
	if len(list) == 0 {
		return append(b, "NIL"...)
	}
	b = append(b, '(')
	for _, a := range list {
		switch a.GetGroup() {
		case v1.MailAddress_START:
			b = append(b, "(NIL NIL "...)
			b = wire.AppendString(b, a.GetLocalPart(), r.utf8)
			b = append(b, " NIL)"...)
		case v1.MailAddress_END:
			b = append(b, "(NIL NIL NIL NIL)"...)
		default:
			b = append(b, '(')
			b = wire.AppendNString(b, a.GetName(), r.utf8)
			b = append(b, ' ')
			b = wire.AppendNString(b, a.GetRoute(), r.utf8)
			b = append(b, ' ')
			b = wire.AppendNString(b, a.GetLocalPart(), r.utf8)
			b = append(b, ' ')
			b = wire.AppendNString(b, a.GetDomain(), r.utf8)
			b = append(b, ')')
		}
	}
	return append(b, ')')
}

// structure is BODY, or with extended BODYSTRUCTURE (RFC 9051 section 7.5.2).
func (r renderer) structure(b []byte, p *v1.Part, extended bool) []byte {
	if isMultipart(p) {
		b = append(b, '(')
		for _, c := range p.GetChildren() {
			b = r.structure(b, c, extended)
		}
		b = append(b, ' ')
		b = r.word(b, p.GetSubtype())
		if extended {
			b = append(b, ' ')
			b = r.parameters(b, p.GetParams())
			b = r.tail(b, p)
		}
		return append(b, ')')
	}
	kind, subtype := p.GetType(), p.GetSubtype()
	message := isMessage(p)
	switch {
	case strings.EqualFold(kind, "multipart"), !message && strings.EqualFold(kind, "message") && strings.EqualFold(subtype, "rfc822"):
		// A multipart without parts, and a message that is none inside, cannot be
		// said in IMAP: their types have fields that there are not.
		kind, subtype = "application", "octet-stream"
	}
	b = append(b, '(')
	b = r.word(b, kind)
	b = append(b, ' ')
	b = r.word(b, subtype)
	b = append(b, ' ')
	b = r.parameters(b, p.GetParams())
	b = append(b, ' ')
	b = wire.AppendNString(b, p.GetId(), r.utf8)
	b = append(b, ' ')
	b = wire.AppendNString(b, p.GetDescription(), r.utf8)
	b = append(b, ' ')
	encoding := p.GetEncoding()
	if encoding == "" {
		encoding = "7bit"
	}
	b = r.word(b, encoding)
	b = append(b, ' ')
	b = strconv.AppendInt(b, min(max(0, p.GetSize()), 1<<32-1), 10)
	switch {
	case message:
		b = append(b, ' ')
		b = r.envelope(b, p.GetMessage())
		b = append(b, ' ')
		b = r.structure(b, p.GetChildren()[0], extended)
		b = append(b, ' ')
		b = strconv.AppendInt(b, p.GetLines(), 10)
	case strings.EqualFold(kind, "text"):
		b = append(b, ' ')
		b = strconv.AppendInt(b, p.GetLines(), 10)
	}
	if extended {
		b = append(b, ' ')
		b = wire.AppendNString(b, p.GetMd5(), r.utf8)
		b = r.tail(b, p)
	}
	return append(b, ')')
}

// tail is disposition, language and location.
func (r renderer) tail(b []byte, p *v1.Part) []byte {
	if p.GetDisposition() == "" {
		b = append(b, " NIL "...)
	} else {
		b = append(b, " ("...)
		b = r.word(b, p.GetDisposition())
		b = append(b, ' ')
		b = r.parameters(b, p.GetDispositionParams())
		b = append(b, ") "...)
	}
	switch languages := p.GetLanguage(); len(languages) {
	case 0:
		b = append(b, "NIL"...)
	case 1:
		b = wire.AppendString(b, languages[0], r.utf8)
	default:
		b = append(b, '(')
		for i, l := range languages {
			if i > 0 {
				b = append(b, ' ')
			}
			b = wire.AppendString(b, l, r.utf8)
		}
		b = append(b, ')')
	}
	b = append(b, ' ')
	return wire.AppendNString(b, p.GetLocation(), r.utf8)
}

func (r renderer) parameters(b []byte, list []*v1.Param) []byte {
	if len(list) == 0 {
		return append(b, "NIL"...)
	}
	b = append(b, '(')
	for i, p := range list {
		if i > 0 {
			b = append(b, ' ')
		}
		b = wire.AppendString(b, p.GetName(), r.utf8)
		b = append(b, ' ')
		b = wire.AppendString(b, p.GetValue(), r.utf8)
	}
	return append(b, ')')
}

func (r renderer) word(b []byte, word string) []byte { return wire.AppendString(b, word, r.utf8) }
