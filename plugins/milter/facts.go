package milter

import (
	"maps"
	"net/netip"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/protocol"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// facts are Sendmail's macros, as far as the envelope knows them. What is not
// known is no macro, as in Sendmail.
func (f *Filter) facts(ev *filter.Event) protocol.Macros {
	e, c := ev.Envelope, ev.Envelope.GetClient()
	host, family, port, address := where(c)
	resolve := "OK"
	if strings.HasPrefix(host, "[") {
		resolve = "FAIL"
	}
	shown := address
	if family == protocol.Inet6 {
		shown = "IPv6:" + address
	}
	m := protocol.Macros{
		"j": f.hostname, "v": "Stagecoach", "_": host + " [" + shown + "]",
		"{daemon_name}": c.GetListener(), "{client_addr}": shown, "{client_name}": host, "{client_ptr}": host,
		"{client_port}": strconv.Itoa(int(port)), "{client_resolve}": resolve, "{client_connections}": "1",
		"i": id(e), "{mail_addr}": e.GetSender(), "{mail_host}": domain(e.GetSender()), "{mail_mailer}": "esmtp",
	}
	if strings.HasPrefix(host, "[") {
		m["{client_name}"], m["{client_ptr}"] = "unknown", "unknown"
	}
	if _, ok := strings.CutPrefix(c.GetProtocol(), "LMTP"); ok {
		m["r"] = "LMTP"
	} else if c.GetProtocol() != "" {
		m["r"] = c.GetProtocol()
	}
	for name, value := range map[string]string{
		"s": c.GetHello(), "{auth_authen}": c.GetUser(), "{auth_type}": c.GetAuthMechanism(), "{auth_author}": e.GetParameters().GetAuth(),
		"{tls_version}": strings.Replace(c.GetTlsVersion(), "TLS ", "TLSv", 1), "{cipher}": c.GetTlsCipher(), "{cipher_bits}": bits(c.GetTlsCipher()),
	} {
		if value != "" {
			m[name] = value
		}
	}
	maps.Copy(m, f.Macros)
	return m
}

// id is what the log calls the mail.
func id(e *v1.Envelope) string {
	if q := e.GetQueueId(); q != "" {
		return q
	}
	return e.GetTransaction()
}

func recipientFacts(r *v1.Recipient) protocol.Macros {
	return protocol.Macros{"{rcpt_addr}": r.GetAddress(), "{rcpt_host}": domain(r.GetAddress()), "{rcpt_mailer}": "esmtp"}
}

// where is the client as a milter hears of it. A mail that the server made itself
// comes from the server itself, as Postfix says it.
func where(c *v1.Client) (host string, family protocol.Family, port uint16, address string) {
	if c.GetIp() == "" {
		return "localhost", protocol.Inet, 0, "127.0.0.1"
	}
	ip, err := netip.ParseAddr(c.GetIp())
	if err != nil {
		return "unknown", protocol.Unknown, 0, c.GetIp()
	}
	ip = ip.Unmap().WithZone("")
	address, family = ip.String(), protocol.Inet6
	host = "[IPv6:" + address + "]"
	if ip.Is4() {
		family, host = protocol.Inet, "["+address+"]"
	}
	if c.GetRdns() != "" {
		host = strings.TrimSuffix(c.GetRdns(), ".")
	}
	return host, family, uint16(c.GetPort()), address
}

func domain(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// bits of a cipher suite's key, from its name (RFC 8446, IANA's list).
func bits(cipher string) string {
	switch {
	case strings.Contains(cipher, "AES_128"):
		return "128"
	case strings.Contains(cipher, "AES_256"), strings.Contains(cipher, "CHACHA20"):
		return "256"
	}
	return ""
}

// mailArgs are the parameters of MAIL as a client writes them (RFC 5321, 1870,
// 6152, 6531, 3461).
func mailArgs(e *v1.Envelope) (out []string) {
	p := e.GetParameters()
	add := func(name, value string) {
		if value != "" {
			out = append(out, name+"="+value)
		}
	}
	if n := p.GetDeclaredSize(); n > 0 {
		add("SIZE", strconv.FormatInt(n, 10))
	}
	add("BODY", p.GetBody())
	if p.GetSmtputf8() {
		out = append(out, "SMTPUTF8")
	}
	if p.GetRequireTls() {
		out = append(out, "REQUIRETLS")
	}
	add("RET", p.GetDsnReturn())
	add("ENVID", xtext(p.GetEnvelopeId()))
	add("AUTH", xtext(p.GetAuth()))
	return out
}

// rcptArgs are those of RCPT (RFC 3461).
func rcptArgs(r *v1.Recipient) (out []string) {
	if n := r.GetNotify(); len(n) > 0 {
		out = append(out, "NOTIFY="+strings.Join(n, ","))
	}
	if o := r.GetOriginalRecipient(); o != "" {
		kind, address, _ := strings.Cut(o, ";")
		out = append(out, "ORCPT="+kind+";"+xtext(address))
	}
	return out
}

// xtext is RFC 3461 section 4.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			const hex = "0123456789ABCDEF"
			b.Write([]byte{'+', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unxtext reads xtext; what is none stays as it is.
func unxtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '+' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
