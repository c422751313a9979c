package policy

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// ask puts one question.
func (f *Filter) ask(ctx context.Context, state string, e *v1.Envelope, r *v1.Recipient) (*action, error) {
	begin := time.Now()
	said, err := f.conns.exchange(ctx, f.request(state, e, r))
	f.metrics.Histogram("answer_seconds", "Time that an answer takes.", sdk.Seconds(), "state", state).Since(begin)
	if err != nil {
		f.count("fail")
		return nil, fail.Wrap(fail.Unavailable, err, "the policy server at "+f.Address)
	}
	a, err := parse(said)
	if err != nil {
		f.count("fail")
		return nil, fail.Wrap(fail.Unsupported, err, "the policy server at "+f.Address)
	}
	f.count(strings.ToLower(a.word))
	log := f.log.Debug()
	switch a.word {
	case "WARN":
		log = f.log.Warn()
	case "INFO":
		log = f.log.Info()
	}
	log.Str("transaction", e.GetTransaction()).Str("state", state).Str("from", e.GetSender()).Str("to", r.GetAddress()).
		Str("client", e.GetClient().GetIp()).Str("action", a.word).Msg(a.text)
	if !f.Modify && a.changes() {
		return nil, fail.New(fail.Unsupported, "the policy server at %s answers %s, and modify = false forbids it to change mail", f.Address, a.word)
	}
	return a, nil
}

func (f *Filter) count(word string) {
	f.metrics.Counter("answers_total", "Questions to the policy server, by its action.", "action", word).Add(1)
}

// request has the attributes of Postfix 3.x in its order. What is not known is
// empty, as there.
func (f *Filter) request(state string, e *v1.Envelope, r *v1.Recipient) []byte {
	c := e.GetClient()
	name := c.GetRdns()
	if name == "" {
		name = "unknown"
	}
	protocol := "SMTP"
	if strings.HasPrefix(c.GetProtocol(), "E") || strings.HasPrefix(c.GetProtocol(), "UTF8") {
		protocol = "ESMTP"
	} else if strings.HasPrefix(c.GetProtocol(), "LMTP") {
		protocol = "LMTP"
	}
	if state == "EHLO" && protocol == "SMTP" {
		state = "HELO"
	}
	count, size := 0, e.GetParameters().GetDeclaredSize()
	if state == "DATA" || state == "END-OF-MESSAGE" {
		count = len(e.GetRecipients())
		if count == 1 {
			r = e.GetRecipients()[0]
		}
	}
	if e.GetSize() > 0 {
		size = e.GetSize()
	}
	port := ""
	if c.GetPort() > 0 {
		port = strconv.Itoa(int(c.GetPort()))
	}
	var b strings.Builder
	for _, a := range [][2]string{
		{"request", "smtpd_access_policy"}, {"protocol_state", state}, {"protocol_name", protocol},
		{"client_address", c.GetIp()}, {"client_name", name}, {"client_port", port}, {"reverse_client_name", name},
		{"server_address", ""}, {"server_port", ""}, {"helo_name", c.GetHello()},
		{"sender", e.GetSender()}, {"recipient", r.GetAddress()}, {"recipient_count", strconv.Itoa(count)},
		{"queue_id", e.GetQueueId()}, {"instance", e.GetTransaction()}, {"size", strconv.FormatInt(size, 10)},
		{"etrn_domain", ""}, {"stress", ""},
		{"sasl_method", c.GetAuthMechanism()}, {"sasl_username", c.GetUser()}, {"sasl_sender", e.GetParameters().GetAuth()},
		{"ccert_subject", ""}, {"ccert_issuer", ""}, {"ccert_fingerprint", ""}, {"ccert_pubkey_fingerprint", ""},
		{"encryption_protocol", strings.Replace(c.GetTlsVersion(), "TLS ", "TLSv", 1)}, {"encryption_cipher", c.GetTlsCipher()}, {"encryption_keysize", keySize(c.GetTlsCipher())},
		{"policy_context", f.Context},
	} {
		b.WriteString(a[0] + "=" + oneLine(a[1]) + "\n")
	}
	b.WriteByte('\n')
	return []byte(b.String())
}

// oneLine: a value ends at its line's end, and a NUL would end it for some servers.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == 0 {
			return '?'
		}
		return r
	}, s)
}

func keySize(cipher string) string {
	switch {
	case cipher == "":
		return "0"
	case strings.Contains(cipher, "AES_128"):
		return "128"
	}
	return "256"
}
