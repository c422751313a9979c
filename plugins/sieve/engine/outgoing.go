package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"mime/quotedprintable"
	"strings"
)

// Outgoing is a mail that a script sends.
type Outgoing struct {
	Action *Action
	// From is the reverse-path, "" the null one.
	From string
	To   []string
	// head comes before message, or is the whole.
	head    []byte
	message *Message
}

// Size in octets.
func (o *Outgoing) Size() int64 {
	n := int64(len(o.head))
	if o.message != nil {
		n += o.message.Size()
	}
	return n
}

// WriteTo writes the mail.
func (o *Outgoing) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(o.head)
	if err != nil || o.message == nil {
		return int64(n), err
	}
	rest, err := o.message.WriteTo(w)
	return int64(n) + rest, err
}

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// redirectedFrom marks a mail that a script sent on, so that it is not sent round
// and round.
const redirectedFrom = "X-Sieve-Redirected-From"

// Outgoing makes the mails of a result; what is remembered of them is added to
// its Remember. A mail that must not be sent is left out, and a redirect that
// would be a loop becomes a keep: no mail is lost.
func (c *Compiler) Outgoing(ctx context.Context, in *Input, r *Result) ([]*Outgoing, error) {
	var out []*Outgoing
	told := map[string]bool{}
	r.settle()
	for _, a := range r.Actions {
		if a.Done {
			continue
		}
		switch a.Kind {
		case Redirect:
			if o := c.redirected(in, a); o != nil {
				out = append(out, o)
			} else {
				r.keepInstead(a)
			}
		case Reject:
			if o := c.refused(in, a); o != nil {
				out = append(out, o)
			}
		case Vacation:
			o, err := c.replied(ctx, in, r, a)
			if err != nil {
				return nil, err
			}
			if o != nil {
				out = append(out, o)
			}
		case Notify:
			out = append(out, c.notified(in, a, told)...)
		}
	}
	return out, nil
}

// keepInstead stores the message where nothing else of the result does.
func (r *Result) keepInstead(a *Action) {
	for _, have := range r.Actions {
		if have.stores() {
			return
		}
	}
	a.Kind = Keep
}

// pathFor is the reverse-path of what a script sends, as the operator chose it.
func (c *Config) pathFor(in *Input, how string) string {
	if in.Envelope.From == "" || in.Envelope.From == "<>" {
		return "" // nothing is ever sent back to the null sender
	}
	var s string
	switch how = strings.TrimSpace(how); how {
	case "sender", "":
		s = in.Envelope.From
	case "recipient":
		s = in.Envelope.To
	case "orig_recipient":
		if s = in.Envelope.Original; s == "" {
			s = in.Envelope.To
		}
	case "user_email":
		if s = in.Envelope.Address; s == "" {
			s = in.Envelope.To
		}
	case "postmaster":
		s = "postmaster@" + c.Hostname
	default:
		s = how
	}
	p, ok := parsePath(s)
	if !ok {
		return ""
	}
	return p.String()
}

// user is the address that the user has in this delivery.
func (in *Input) user() string {
	for _, s := range []string{in.Envelope.Address, in.Envelope.To} {
		if p, ok := parsePath(s); ok && p.local != "" {
			return p.String()
		}
	}
	return ""
}

func (c *Compiler) redirected(in *Input, a *Action) *Outgoing {
	for _, f := range fieldsNamed(a.Message.Fields, redirectedFrom) {
		to, _ := parsePath(in.Envelope.To)
		if v := f.value(); strings.EqualFold(v, in.user()) || strings.EqualFold(v, to.String()) {
			return nil
		}
	}
	var head []byte
	if own := in.user(); own != "" {
		head = makeField(redirectedFrom, own)
	}
	return &Outgoing{Action: a, From: c.Config.pathFor(in, c.Config.RedirectFrom), To: []string{a.Address}, head: head, message: a.Message}
}

// letter is a mail that is written here.
type letter struct{ bytes.Buffer }

func (l *letter) field(name, value string) { l.Write(makeField(name, value)) }

// address fields are encoded already.
func (l *letter) raw(name, value string) { l.WriteString(name + ": " + value + "\r\n") }

// text is a body of plain text.
func (l *letter) text(s string) {
	l.raw("MIME-Version", "1.0")
	l.entity(s)
}

func (l *letter) entity(s string) {
	l.raw("Content-Type", "text/plain; charset=utf-8")
	s = crlf(s)
	if isASCII(s) && !longLine(s) {
		l.raw("Content-Transfer-Encoding", "7bit")
		l.WriteString("\r\n" + s)
		return
	}
	l.raw("Content-Transfer-Encoding", "quoted-printable")
	l.WriteString("\r\n")
	w := quotedprintable.NewWriter(l)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
}

func longLine(s string) bool {
	for line := range strings.Lines(s) {
		if len(line) > 900 {
			return true
		}
	}
	return false
}

// crlf ends every line of s with CRLF, the last too.
func crlf(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return strings.ReplaceAll(s, "\n", "\r\n")
}

// maxSubject characters of a subject that is written here.
const maxSubject = 256

func subject(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > maxSubject {
		s = string(r[:maxSubject-1]) + "…"
	}
	return s
}

func (c *Config) common(l *letter, in *Input) {
	l.field("X-Sieve", c.Name)
	l.raw("Message-ID", "<"+randomID()+"@"+c.Hostname+">")
	l.raw("Date", in.Now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
}

func (c *Compiler) replied(ctx context.Context, in *Input, r *Result, a *Action) (*Outgoing, error) {
	own, why := c.Config.replyTo(in, a)
	if why != "" {
		return nil, nil
	}
	sender, _ := parsePath(in.Envelope.From)
	key := vacationKey(a.Vacation, sender.String())
	seen, err := c.Host.Seen(ctx, key)
	if err != nil || seen {
		return nil, err
	}
	if a.Vacation.Period > 0 {
		r.Remember = append(r.Remember, Memory{Key: key, Keep: a.Vacation.Period})
	}
	from := mailbox{Address: own}
	if a.Vacation.From != "" {
		box, _ := outgoingMailbox(a.Vacation.From)
		from = *box
	}
	to := mailbox{Address: sender.String()}
	for _, name := range []string{"sender", "resent-from", "from"} {
		for _, f := range fieldsNamed(a.Message.Fields, name) {
			for _, addr := range parseAddresses(f.value()) {
				if addr.valid && (strings.EqualFold(addr.String(), sender.String()) || c.Config.VacationIgnoreEnvelope) && to.Name == "" {
					to = mailbox{Name: addr.name, Address: addr.String()}
				}
			}
		}
	}
	from.Name, to.Name = decodeHeader(from.Name), decodeHeader(to.Name)
	var l letter
	c.Config.common(&l, in)
	l.raw("From", from.String())
	l.raw("To", to.String())
	l.field("Subject", subject(c.Config.vacationSubject(a)))
	references(&l, a.Message)
	l.raw("Auto-Submitted", "auto-replied (vacation)")
	l.raw("Precedence", "bulk")
	l.raw("X-Auto-Response-Suppress", "All")
	if a.Vacation.Mime {
		l.raw("MIME-Version", "1.0")
		l.WriteString(crlf(a.Vacation.Reason))
	} else {
		l.text(a.Vacation.Reason)
	}
	o := &Outgoing{Action: a, To: []string{sender.String()}, head: l.Bytes()}
	if c.Config.VacationFromRecipient {
		o.From = own
		if p, ok := parsePath(in.Envelope.To); ok {
			o.From = p.String()
		}
	}
	return o, nil
}

func (c *Config) vacationSubject(a *Action) string {
	if a.Vacation.Subject != "" {
		return decodeHeader(a.Vacation.Subject)
	}
	old := fieldsNamed(a.Message.Fields, "subject")
	if len(old) == 0 || old[0].value() == "" {
		if c.VacationSubject != "" {
			return c.VacationSubject
		}
		return "Automated reply"
	}
	s := decodeHeader(old[0].value())
	if c.VacationTemplate != "" {
		return strings.ReplaceAll(c.VacationTemplate, "%{subject}", s)
	}
	return "Auto: " + s
}

// maxReferences octets of what a reply refers to.
const maxReferences = 4 << 10

func references(l *letter, msg *Message) {
	ids := fieldsNamed(msg.Fields, "message-id")
	if len(ids) == 0 {
		return
	}
	id := ids[0].value()
	if len(id) > 900 || !isASCII(id) {
		return
	}
	l.field("In-Reply-To", id)
	refs := ""
	for _, name := range []string{"references", "in-reply-to"} {
		if f := fieldsNamed(msg.Fields, name); len(f) > 0 && isASCII(f[0].value()) {
			refs = f[0].value()
			break
		}
	}
	if len(refs) > maxReferences {
		refs = refs[len(refs)-maxReferences:]
		if i := strings.IndexByte(refs, '<'); i >= 0 {
			refs = refs[i:]
		}
	}
	l.field("References", strings.TrimSpace(refs+" "+id))
}

// refused is the notice that a message was not wanted (RFC 5429 section 2.2,
// RFC 8098).
func (c *Compiler) refused(in *Input, a *Action) *Outgoing {
	sender, ok := parsePath(in.Envelope.From)
	if !ok || sender.local == "" {
		return nil
	}
	boundary := randomID()
	var l letter
	c.Config.common(&l, in)
	l.raw("From", "Mail Delivery Subsystem (Postmaster) <postmaster@"+c.Config.Hostname+">")
	l.raw("To", "<"+sender.String()+">")
	l.raw("Subject", "Automatically rejected mail")
	references(&l, a.Message)
	l.raw("Auto-Submitted", "auto-replied (rejected)")
	l.raw("Precedence", "bulk")
	l.raw("MIME-Version", "1.0")
	l.raw("Content-Type", "multipart/report; report-type=disposition-notification;\r\n boundary=\""+boundary+"\"")
	l.WriteString("\r\n--" + boundary + "\r\n")
	l.entity("Your message to <" + in.user() + "> was automatically rejected:\r\n" + a.Reason)
	l.WriteString("\r\n--" + boundary + "\r\n")
	l.raw("Content-Type", "message/disposition-notification")
	l.WriteString("\r\n")
	l.field("Reporting-UA", c.Config.Hostname+"; "+c.Config.Name)
	if own := in.user(); own != "" {
		l.raw("Final-Recipient", "rfc822; "+own)
	}
	if ids := fieldsNamed(a.Message.Fields, "message-id"); len(ids) > 0 && len(ids[0].value()) < 900 {
		l.field("Original-Message-ID", ids[0].value())
	}
	l.raw("Disposition", "automatic-action/MDN-sent-automatically; deleted")
	l.WriteString("\r\n--" + boundary + "\r\n")
	l.raw("Content-Type", "text/rfc822-headers")
	l.WriteString("\r\n")
	n := 0
	for i := range a.Message.Fields {
		if n += len(a.Message.Fields[i].Raw); n < 64<<10 {
			l.Write(a.Message.Fields[i].Raw)
		}
	}
	l.WriteString("\r\n--" + boundary + "--\r\n")
	return &Outgoing{Action: a, To: []string{sender.String()}, head: l.Bytes()}
}

// notified are RFC 5436's mails: one for each recipient, none for a mail that a
// program sent (section 2.7).
func (c *Compiler) notified(in *Input, a *Action, told map[string]bool) []*Outgoing {
	for _, f := range fieldsNamed(a.Message.Fields, "auto-submitted") {
		if !strings.EqualFold(f.value(), "no") {
			return nil
		}
	}
	n := a.Notify
	drop := func(list []mailbox) []mailbox {
		var out []mailbox
		for _, b := range list {
			if key := strings.ToLower(b.Address); !told[key] {
				told[key] = true
				out = append(out, b)
			}
		}
		return out
	}
	to, cc := drop(n.mailto.to), drop(n.mailto.cc)
	if len(to)+len(cc) == 0 {
		return nil
	}
	from := mailbox{Name: "Postmaster", Address: "postmaster@" + c.Config.Hostname}
	path := c.Config.NotifyFrom
	if n.From != "" {
		box, _ := outgoingMailbox(n.From)
		from = *box
		if path == "" {
			path = box.Address
		}
	}
	if path == "" {
		path = "postmaster"
	}
	var l letter
	c.Config.common(&l, in)
	if from.Name = decodeHeader(from.Name); from.Name == "" {
		l.raw("From", from.Address)
	} else {
		l.raw("From", from.String())
	}
	l.addresses("To", to)
	l.addresses("Cc", cc)
	l.field("Subject", subject(n.subject(a.Message)))
	priority := map[string][2]string{"1": {"1 (Highest)", "high"}, "3": {"5 (Lowest)", "low"}}[n.Importance]
	if priority[0] == "" {
		priority = [2]string{"3 (Normal)", "normal"}
	}
	l.raw("X-Priority", priority[0])
	l.raw("Importance", priority[1])
	l.raw("Auto-Submitted", "auto-notified; owner-email=\""+strings.ReplaceAll(in.user(), `"`, "")+"\"")
	for _, f := range n.mailto.fields {
		l.field(f.name, f.value)
	}
	body := n.mailto.body
	if body == "" {
		body = n.Message
	}
	if body == "" {
		body = "Notification of new mail."
	}
	l.text(body)
	var out []*Outgoing
	path = c.Config.pathFor(in, path)
	for _, b := range append(to, cc...) {
		out = append(out, &Outgoing{Action: a, From: path, To: []string{b.Address}, head: l.Bytes()})
	}
	return out
}

func (l *letter) addresses(name string, list []mailbox) {
	if len(list) == 0 {
		return
	}
	var out []string
	for _, b := range list {
		out = append(out, b.String())
	}
	l.raw(name, strings.Join(out, ",\r\n "))
}

// subject of a notice (RFC 5436 section 2.3): its own, the script's, the mail's.
func (n *NotifyAction) subject(msg *Message) string {
	switch {
	case n.mailto.subject != "":
		return decodeHeader(n.mailto.subject)
	case n.Message != "":
		return n.Message
	}
	if f := fieldsNamed(msg.Fields, "subject"); len(f) > 0 {
		return decodeHeader(f[0].value())
	}
	return "New mail"
}
