// Package mime renders a message once, when it is stored: the header's essence,
// the MIME structure with its offsets, and a preview; and it evaluates search
// criteria on what was stored. It never fails on malformed mail, it degrades.
// It is not a composer, and it keeps no message in memory.
package mime

import (
	"io"
	"net/mail"
	"strings"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"google.golang.org/protobuf/proto"
)

// Limits of one message; what lies beyond them is not rendered, but the sizes
// and offsets of what is rendered stay right.
const (
	maxDepth     = 64        // nested entities
	maxParts     = 1000      // entities in all
	maxField     = 64 << 10  // octets kept of one header field
	maxKept      = 256 << 10 // octets kept of all header fields
	maxAddresses = 10000     // addresses in all
	maxBoundary  = 256       // RFC 2046 section 5.1.1 allows 70
	previewRunes = 200       // RFC 8970 section 3.1
)

// Rendered is what Summarize found. Offsets in Structure count from the first
// octet read.
type Rendered struct {
	// Summary of the header, Structure of the whole; never nil.
	Summary   *v1.Summary
	Structure *v1.Part
	// HeaderLen is the length of the header with its final empty line.
	HeaderLen int64
	// Size of the message in octets.
	Size int64
	// Preview is the beginning of the text, decoded, on one line, at most 200
	// characters.
	Preview string
}

// Summarize reads a message to its end, once, in bounded memory (about 1 MiB
// for any size of message). The only error is the reader's.
func Summarize(r io.Reader) (*Rendered, error) {
	p := &parser{s: newScanner(r)}
	defer p.s.close()
	root, fields, _ := p.entity(0, false)
	if p.s.err != nil {
		return nil, p.s.err
	}
	return &Rendered{
		Summary:   p.summary(fields),
		Structure: root,
		HeaderLen: root.BodyOffset,
		Size:      p.s.pos,
		Preview:   p.preview(),
	}, nil
}

// Shift returns a copy of part with all offsets moved by n octets, for a message
// that is stored behind a prefix of header fields. The root's header begins at 0
// still: the prefix belongs to it.
func Shift(part *v1.Part, n int64) *v1.Part {
	if part == nil || n == 0 {
		return part
	}
	out := proto.CloneOf(part)
	shift(out, n)
	out.HeaderOffset -= n
	return out
}

func shift(p *v1.Part, n int64) {
	p.HeaderOffset += n
	p.BodyOffset += n
	for _, c := range p.Children {
		shift(c, n)
	}
}

func (p *parser) summary(f fields) *v1.Summary {
	s := &v1.Summary{
		Date:       f.bytes("date"),
		Subject:    f.bytes("subject"),
		From:       p.addresses(f["from"]),
		Sender:     p.addresses(f["sender"]),
		ReplyTo:    p.addresses(f["reply-to"]),
		To:         p.addresses(f["to"]),
		Cc:         p.addresses(f["cc"]),
		Bcc:        p.addresses(f["bcc"]),
		InReplyTo:  f.bytes("in-reply-to"),
		MessageId:  f.bytes("message-id"),
		References: f.bytes("references"),
	}
	if t, ok := parseDate(string(s.Date)); ok {
		s.SentMs = t.UnixMilli()
	}
	return s
}

func (p *parser) addresses(value []byte) []*v1.MailAddress {
	list := parseAddresses(value, maxAddresses-p.addrs)
	p.addrs += len(list)
	return list
}

// parseDate reads an RFC 5322 section 3.3 date and the commonest deviations.
func parseDate(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if t, err := mail.ParseDate(s); err == nil {
		return t, true
	}
	// A zone name or comment that net/mail does not know: read it as UTC.
	if i := strings.LastIndexByte(s, ' '); i > 0 {
		if t, err := mail.ParseDate(s[:i] + " +0000"); err == nil {
			return t, true
		}
	}
	t, err := mail.ParseDate(s + " +0000")
	return t, err == nil
}
