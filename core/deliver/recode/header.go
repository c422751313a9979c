package recode

import (
	"bytes"
	"mime"
	"strings"
)

// endHeader decides by a header that is whole what follows it.
func (m *machine) endHeader(separator []byte) error {
	h := m.header
	m.header = nil
	contentType, typed := field(h, "content-type")
	cte, _ := field(h, "content-transfer-encoding")
	cte = strings.ToLower(cte)
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case kind != "":
	case typed && err != nil && strings.HasPrefix(strings.ToLower(contentType), "multipart/"):
		return ErrPart // it has parts, who knows which
	case !typed && len(m.stack) > 0 && m.stack[len(m.stack)-1].digest && !m.root:
		kind = "message/rfc822" // RFC 2046 section 5.1.5
	default:
		kind = "text/plain"
	}
	if len(m.stack)+m.depth > maxDepth {
		return ErrShape
	}
	plain := cte == "" || cte == "7bit" || cte == "8bit" || cte == "binary"
	switch {
	case isType(kind, "multipart/") && params["boundary"] != "" && plain:
		m.stack = append(m.stack, multipart{
			boundary: params["boundary"], signed: kind == "multipart/signed", digest: kind == "multipart/digest", depth: m.depth,
		})
		m.state = inFiller
		return m.writeHeader(h, separator, m.composite(cte), true)
	case kind == "message/rfc822" && plain:
		if err := m.writeHeader(h, separator, m.composite(cte), true); err != nil {
			return err
		}
		m.depth++
		m.state, m.root = inHeader, true
		return nil
	}
	if m.survey {
		m.plan = append(m.plan, leaf{})
		m.leaf = &m.plan[len(m.plan)-1]
		m.beginBody(asIs)
		return nil
	}
	l := &leaf{}
	if m.next < len(m.plan) {
		l = &m.plan[m.next]
	}
	m.next++
	how, label, err := m.encoding(kind, cte, l)
	if err != nil {
		return err
	}
	m.beginBody(how)
	return m.writeHeader(h, separator, label, typed)
}

// composite is the label of what has parts, which are in the new form then
// (RFC 2045 section 6.4).
func (m *machine) composite(cte string) string {
	switch {
	case m.form == SevenBit && (cte == "8bit" || cte == "binary"):
		return "7bit"
	case cte == "binary":
		return "8bit"
	}
	return ""
}

// writeHeader writes a header whose encoding is label; "": as it was. What was
// 8-bit text without a word about MIME is called so (RFC 1428).
func (m *machine) writeHeader(h, separator []byte, label string, typed bool) error {
	if label != "" {
		h = setField(h, "Content-Transfer-Encoding", label)
		if !typed {
			h = setField(h, "Content-Type", "text/plain; charset=unknown-8bit")
		}
		if _, has := field(h, "mime-version"); m.root && !has {
			h = setField(h, "MIME-Version", "1.0")
		}
	}
	if m.survey {
		return nil
	}
	if err := m.write(h); err != nil {
		return err
	}
	m.out.Write(separator)
	return nil
}

// eachField calls f with the place of every field, folded lines with it, until it
// returns false.
func eachField(h []byte, f func(from, to int) bool) {
	for from := 0; from < len(h); {
		to := from
		for {
			n := bytes.IndexByte(h[to:], '\n')
			if n < 0 {
				to = len(h)
				break
			}
			to += n + 1
			if to >= len(h) || h[to] != ' ' && h[to] != '\t' {
				break
			}
		}
		if !f(from, to) {
			return
		}
		from = to
	}
}

// field is the value of the first field of that name, unfolded.
func field(h []byte, name string) (value string, ok bool) {
	eachField(h, func(from, to int) bool {
		n, v, found := bytes.Cut(h[from:to], []byte(":"))
		if !found || !strings.EqualFold(strings.TrimRight(string(n), " \t"), name) {
			return true
		}
		value, ok = strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(string(v))), true
		return false
	})
	return value, ok
}

// setField replaces the first field of that name, and drops the others; if there
// is none, it comes last.
func setField(h []byte, name, value string) []byte {
	line := name + ": " + value + "\r\n"
	out := make([]byte, 0, len(h)+len(line))
	set := false
	eachField(h, func(from, to int) bool {
		n, _, found := bytes.Cut(h[from:to], []byte(":"))
		switch {
		case !found || !strings.EqualFold(strings.TrimRight(string(n), " \t"), name):
			out = append(out, h[from:to]...)
		case !set:
			out = append(out, line...)
			set = true
		}
		return true
	})
	if !set {
		out = append(out, line...)
	}
	return out
}
