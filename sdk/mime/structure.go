package mime

import (
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

type parser struct {
	s      *scanner
	bounds []string // of the multiparts we are in
	parts  int
	kept   int
	addrs  int
	text   sample // of the first text/plain
	html   sample // of the first text/html
}

// entity reads one MIME entity (RFC 2045 section 2.4) to the delimiter line or
// the end of input that ends it.
func (p *parser) entity(depth int, digest bool) (*v1.Part, fields, stop) {
	p.parts++
	part := &v1.Part{HeaderOffset: p.s.pos}
	f, end, ended := p.header()
	p.describe(part, f, digest)
	if ended {
		// A delimiter where the header should have gone on: no body.
		part.BodyOffset = end.start
		if part.Type == "multipart" {
			plain(part)
		}
		opaque(part)
		return part, f, end
	}
	part.BodyOffset = p.s.pos
	lf := p.s.lf
	switch boundary := param(part.Params, "boundary"); {
	case part.Type == "multipart" && boundary != "" && len(boundary) <= maxBoundary && depth < maxDepth && p.parts < maxParts:
		end = p.multipart(part, boundary, depth)
	case part.Type == "multipart":
		plain(part)
		end = p.leaf(part)
	case isMessage(part) && depth < maxDepth && p.parts < maxParts:
		var child *v1.Part
		var inner fields
		child, inner, end = p.entity(depth+1, false)
		part.Children = []*v1.Part{child}
		part.Message = p.summary(inner)
	default:
		opaque(part)
		end = p.leaf(part)
	}
	part.Lines = end.lf - lf
	if end.start > part.BodyOffset {
		part.Size = end.start - int64(end.prevEOL) - part.BodyOffset
		if end.prevEOL > 0 {
			part.Lines--
		}
	}
	if part.Message != nil {
		// A message whose header a delimiter ended: the line end before that is the
		// delimiter's, and not within this part.
		inner := part.Children[0]
		inner.BodyOffset = min(inner.BodyOffset, max(inner.HeaderOffset, part.BodyOffset+part.Size))
	}
	return part, f, end
}

func (p *parser) multipart(part *v1.Part, boundary string, depth int) stop {
	level := len(p.bounds)
	p.bounds = append(p.bounds, boundary)
	end := p.skip()
	for end.level == level && !end.final {
		if p.parts >= maxParts {
			end = p.skip()
			continue
		}
		var child *v1.Part
		child, _, end = p.entity(depth+1, part.Subtype == "digest")
		part.Children = append(part.Children, child)
	}
	p.bounds = p.bounds[:level]
	if end.level == level {
		end = p.skip() // the epilogue
	}
	if len(part.Children) == 0 {
		// A multipart has at least one part (RFC 2046 section 5.1); this is text.
		plain(part)
	}
	return end
}

// skip reads to the next delimiter line.
func (p *parser) skip() stop {
	for {
		if p.s.block(len(p.bounds) > 0) != nil {
			continue
		}
		l, ok := p.s.next()
		if !ok {
			return p.s.end()
		}
		if st, ok := p.delimiter(l); ok {
			return st
		}
	}
}

func (p *parser) leaf(part *v1.Part) stop {
	sample := p.sampleFor(part)
	for {
		if b := p.s.block(len(p.bounds) > 0); b != nil {
			sample.add(b)
			continue
		}
		l, ok := p.s.next()
		if !ok {
			return p.s.end()
		}
		if st, ok := p.delimiter(l); ok {
			return st
		}
		sample.add(l.data)
	}
}

// isMessage: an encoded message/rfc822 is forbidden (RFC 2046 section 5.2.1) and
// cannot be looked into; message/global may be encoded (RFC 6532 section 3.5).
func isMessage(p *v1.Part) bool {
	if p.Type != "message" || (p.Subtype != "rfc822" && p.Subtype != "global") {
		return false
	}
	switch p.Encoding {
	case "7bit", "8bit", "binary":
		return true
	}
	return false
}

// opaque: a message that was not looked into is shown as what it is then.
func opaque(p *v1.Part) {
	if p.Type == "message" && (p.Subtype == "rfc822" || p.Subtype == "global") {
		p.Type, p.Subtype, p.Params = "application", "octet-stream", nil
	}
}

func plain(p *v1.Part) {
	p.Type, p.Subtype = "text", "plain"
	p.Params = []*v1.Param{{Name: "charset", Value: []byte("us-ascii")}}
}

// describe fills what the header says of the entity.
func (p *parser) describe(part *v1.Part, f fields, digest bool) {
	typ, params := parseParams(f["content-type"])
	main, sub, ok := strings.Cut(typ, "/")
	main, sub = strings.TrimSpace(main), strings.TrimSpace(sub)
	switch {
	case ok && token(main) && token(sub):
		part.Type, part.Subtype, part.Params = main, sub, params
	case f["content-type"] == nil && digest:
		// RFC 2046 section 5.1.5.
		part.Type, part.Subtype = "message", "rfc822"
	default:
		// RFC 2045 section 5.2.
		plain(part)
	}
	part.Encoding, _ = parseParams(f["content-transfer-encoding"])
	if !token(part.Encoding) {
		part.Encoding = "7bit" // RFC 2045 section 6.1
	}
	part.Disposition, part.DispositionParams = parseParams(f["content-disposition"])
	if !token(part.Disposition) {
		part.Disposition, part.DispositionParams = "", nil
	}
	part.Id = f.bytes("content-id")
	part.Description = f.bytes("content-description")
	part.Md5 = f.bytes("content-md5")
	part.Location = f.bytes("content-location")
	for _, tag := range strings.Split(string(stripComments(f["content-language"])), ",") {
		if tag = strings.TrimSpace(tag); token(tag) {
			part.Language = append(part.Language, tag)
		}
	}
}
