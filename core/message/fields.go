package message

import (
	"crypto/rand"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Received is the trace field of one hop (RFC 5321 section 4.4).
type Received struct {
	Helo string
	RDNS string // verified; "": not known
	IP   netip.Addr
	By   string
	// With is the protocol: "ESMTPSA" (RFC 3848, RFC 6531).
	With string
	ID   string
	// For is set with a single recipient only: it would tell each of the others.
	For                   string
	TLSVersion, TLSCipher string
	// Priority that the mail came with (RFC 6710); 0: none.
	Priority int
	Date     time.Time
}

// Field is the whole field with its final CRLF, folded.
func (r Received) Field() []byte {
	var b strings.Builder
	b.WriteString("Received: from ")
	b.WriteString(atom(r.Helo, "unknown"))
	if tcp := r.tcpInfo(); tcp != "" {
		b.WriteString(" (" + tcp + ")")
	}
	b.WriteString("\r\n\tby " + atom(r.By, "localhost"))
	if r.With != "" {
		b.WriteString(" with " + atom(r.With, "SMTP"))
	}
	if r.TLSVersion != "" {
		// RFC 8314 section 4.3 has a clause for it; as a comment it also tells the
		// version, and every parser can pass over it.
		b.WriteString("\r\n\t(" + comment(strings.TrimSpace(r.TLSVersion+" "+r.TLSCipher)) + ")")
	}
	if r.ID != "" {
		b.WriteString("\r\n\tid " + atom(r.ID, "unknown"))
	}
	if r.For != "" {
		b.WriteString("\r\n\tfor <" + path(r.For) + ">")
	}
	if r.Priority != 0 {
		b.WriteString("\r\n\tPRIORITY " + strconv.Itoa(r.Priority)) // RFC 6710 section 9
	}
	b.WriteString(";\r\n\t" + FormatDate(r.Date) + "\r\n")
	return []byte(b.String())
}

// tcpInfo: RFC 5321 section 4.4, TCP-info.
func (r Received) tcpInfo() string {
	var parts []string
	if r.RDNS != "" {
		parts = append(parts, atom(strings.TrimSuffix(r.RDNS, "."), "unknown"))
	}
	switch ip := r.IP.Unmap().WithZone(""); {
	case ip.Is4():
		parts = append(parts, "["+ip.String()+"]")
	case ip.Is6():
		parts = append(parts, "[IPv6:"+ip.String()+"]") // section 4.1.3
	}
	return strings.Join(parts, " ")
}

// atom keeps what a name may hold: the client chose its HELO, and must not end
// the field or begin a clause with it.
func atom(s, otherwise string) string {
	s = strings.Map(func(c rune) rune {
		if c <= ' ' || c == 0x7f || strings.ContainsRune(`()<>";,\`, c) {
			return '?'
		}
		return c
	}, cutTo(s, 255))
	if s == "" {
		return otherwise
	}
	return s
}

func comment(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || strings.ContainsRune(`()\`, c) {
			return '?'
		}
		return c
	}, s)
}

// path drops what could end the path or the line.
func path(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '<' || c == '>' {
			return '?'
		}
		return c
	}, cutTo(s, 320))
}

func cutTo(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// FormatDate writes a date-time (RFC 5322 section 3.3).
func FormatDate(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") }

// NewMessageID makes a msg-id with its angle brackets (RFC 5322 section 3.6.4).
func NewMessageID(hostname string) string {
	return "<" + strings.ToLower(rand.Text()) + "@" + path(atom(hostname, "localhost")) + ">"
}
