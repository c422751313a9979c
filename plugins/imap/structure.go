package imap

import (
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// envelope makes imapserver's struct of the rendered summary. imapserver encodes
// only text that is not printable ASCII, so a raw header value (with its encoded
// words) comes out as it stands in the message.
func envelope(s *v1.Summary) *imap.Envelope {
	return &imap.Envelope{
		Date:      sentTime(s),
		Subject:   string(s.GetSubject()),
		From:      addresses(s.GetFrom()),
		Sender:    addresses(s.GetSender()),
		ReplyTo:   addresses(s.GetReplyTo()),
		To:        addresses(s.GetTo()),
		Cc:        addresses(s.GetCc()),
		Bcc:       addresses(s.GetBcc()),
		InReplyTo: unbracket(s.GetInReplyTo()),
		MessageID: strings.Join(unbracket(s.GetMessageId()), ""),
	}
}

// sentTime keeps the zone that the sender wrote, which sent_ms does not.
func sentTime(s *v1.Summary) time.Time {
	if t, err := mail.ParseDate(string(s.GetDate())); err == nil {
		return t
	}
	if ms := s.GetSentMs(); ms != 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// unbracket takes off the outer brackets that imapserver puts around.
func unbracket(id []byte) []string {
	v := strings.TrimSpace(string(id))
	v = strings.TrimSuffix(strings.TrimPrefix(v, "<"), ">")
	if v == "" {
		return nil
	}
	return []string{v}
}

// addresses: a group is an address without a host that has the group's name,
// and ends with one that has nothing (RFC 9051 section 7.5.2).
func addresses(list []*v1.MailAddress) []imap.Address {
	var out []imap.Address
	for _, a := range list {
		switch a.GetGroup() {
		case v1.MailAddress_START:
			out = append(out, imap.Address{Mailbox: string(a.GetLocalPart())})
		case v1.MailAddress_END:
			out = append(out, imap.Address{})
		default:
			out = append(out, imap.Address{
				Name:    string(a.GetName()),
				Mailbox: string(a.GetLocalPart()),
				Host:    string(a.GetDomain()),
			})
		}
	}
	return out
}

// bodyStructure makes imapserver's tree of the rendered one.
func bodyStructure(p *v1.Part) imap.BodyStructure {
	var disposition *imap.BodyStructureDisposition
	if p.GetDisposition() != "" {
		disposition = &imap.BodyStructureDisposition{Value: p.GetDisposition(), Params: parameters(p.GetDispositionParams())}
	}
	if isMultipart(p) {
		m := &imap.BodyStructureMultiPart{
			Subtype: p.GetSubtype(),
			Extended: &imap.BodyStructureMultiPartExt{
				Params:      parameters(p.GetParams()),
				Disposition: disposition,
				Language:    p.GetLanguage(),
				Location:    string(p.GetLocation()),
			},
		}
		for _, c := range p.GetChildren() {
			m.Children = append(m.Children, bodyStructure(c))
		}
		return m
	}
	s := &imap.BodyStructureSinglePart{
		Type:        p.GetType(),
		Subtype:     p.GetSubtype(),
		Params:      parameters(p.GetParams()),
		ID:          string(p.GetId()),
		Description: string(p.GetDescription()),
		Encoding:    p.GetEncoding(),
		Size:        uint32(min(p.GetSize(), 1<<32-1)),
		Extended: &imap.BodyStructureSinglePartExt{
			Disposition: disposition,
			Language:    p.GetLanguage(),
			Location:    string(p.GetLocation()),
		},
	}
	switch {
	case strings.EqualFold(p.GetType(), "multipart"):
		// A multipart without parts cannot be said in IMAP: body-type-mpart has
		// at least one body (RFC 9051 section 9).
		s.Type, s.Subtype = "application", "octet-stream"
	case isMessage(p):
		s.MessageRFC822 = &imap.BodyStructureMessageRFC822{
			Envelope:      envelope(p.GetMessage()),
			BodyStructure: bodyStructure(p.GetChildren()[0]),
			NumLines:      p.GetLines(),
		}
	case strings.EqualFold(p.GetType(), "message") && strings.EqualFold(p.GetSubtype(), "rfc822"):
		// Without the message inside it has not the fields that this type needs.
		s.Type, s.Subtype = "application", "octet-stream"
	case strings.EqualFold(p.GetType(), "text"):
		s.Text = &imap.BodyStructureText{NumLines: p.GetLines()}
	}
	return s
}

func parameters(list []*v1.Param) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, p := range list {
		m[p.GetName()] = string(p.GetValue())
	}
	return m
}
