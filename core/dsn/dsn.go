// Package dsn writes delivery status notifications (RFC 3464): what becomes of
// a message, in words for its sender and in fields for programs. It decides who
// is to be told (RFC 3461), not when: that is the caller's.
package dsn

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Action is what happened to a recipient (RFC 3464 section 2.3.3).
type Action string

// The actions. Relayed: handed to a host that does not know DSNs.
const (
	Failed    Action = "failed"
	Delayed   Action = "delayed"
	Delivered Action = "delivered"
	Relayed   Action = "relayed"
	Expanded  Action = "expanded"
)

// Report is one notification: recipients of one message with the same action.
type Report struct {
	// Hostname of this server: Reporting-MTA and the sender's domain.
	Hostname string
	Action   Action
	Envelope *queue.Envelope
	// Body of the message; nil when nobody can read it any more: the report goes
	// without its last part, which it may (RFC 6522 section 3).
	Body       spool.Body
	Recipients []Recipient
	Now        time.Time
	// Unique makes boundary and Message-ID; "": random.
	Unique string
}

// Recipient is one that the report is about.
type Recipient struct {
	*queue.Recipient
	// Attempt is the last one; nil: there was none.
	Attempt *queue.Attempt
	// RetryUntil is when a delayed message is given up; zero: not known.
	RetryUntil time.Time
}

// maxReturn is the largest message that comes back whole, in octets.
const maxReturn = 1 << 20

// ActionOf is what a notification that Build made tells; "" for any other message.
func ActionOf(env *queue.Envelope) Action {
	if env.Origin != origin || env.Sender != "" {
		return ""
	}
	for a, t := range texts {
		if t.subject == env.Subject {
			return a
		}
	}
	return ""
}

// origin of the messages that Build makes.
const origin = "dsn"

// ShouldNotify tells whether the sender asked for a notice of this action for r
// (RFC 3461 section 4.1); without NOTIFY failures and delays are told.
func ShouldNotify(r *queue.Recipient, a Action) bool {
	has := func(word string) bool {
		return slices.ContainsFunc(r.Notify, func(n string) bool { return strings.EqualFold(n, word) })
	}
	switch {
	case len(r.Notify) == 0:
		return a == Failed || a == Delayed
	case has("NEVER"):
		return false
	case a == Failed:
		return has("FAILURE")
	case a == Delayed:
		return has("DELAY")
	}
	return has("SUCCESS")
}

// traced: who wants a mail delivered by a time hears of its relay whether or not
// success is to be told; only NEVER is in the way (RFC 2852 section 4.1.4).
func traced(r *Report, c *queue.Recipient) bool {
	never := slices.ContainsFunc(c.Notify, func(n string) bool { return strings.EqualFold(n, "NEVER") })
	return r.Action == Relayed && r.Envelope.Parameters.GetDeliverByMode() != "" && !never
}

// Build makes the message, ready for the queue; nil when nobody is to be told:
// the reverse-path is null (RFC 5321 section 4.5.5) or no recipient asked.
func Build(r Report) (*queue.NewMessage, error) {
	if r.Envelope.Sender == "" {
		return nil, nil
	}
	r.Recipients = slices.DeleteFunc(slices.Clone(r.Recipients), func(c Recipient) bool {
		return !ShouldNotify(c.Recipient, r.Action) && !traced(&r, c.Recipient)
	})
	if len(r.Recipients) == 0 {
		return nil, nil
	}
	if texts[r.Action].subject == "" {
		return nil, fmt.Errorf("no notification is known for the action %q", r.Action)
	}
	if r.Unique == "" {
		r.Unique = strings.ToLower(rand.Text())
	}
	w := &writer{Report: r}
	if err := w.all(); err != nil {
		return nil, fmt.Errorf("write a delivery status notification: %w", err)
	}
	text := w.b.String()
	// RFC 8689 section 5: a notice needs the same protection as what it is about.
	params := &v1.MailParameters{Smtputf8: !ascii(r.Envelope.Sender), RequireTls: r.Envelope.Parameters.GetRequireTls()}
	if !ascii(text) {
		params.Body = "8BITMIME"
	}
	return &queue.NewMessage{
		Body: spool.FromBytes([]byte(text)),
		Envelope: &queue.Envelope{
			Received: r.Now, Parameters: params, Origin: origin, Size: int64(len(text)),
			MessageID: w.messageID(), From: w.from(), Subject: texts[r.Action].subject,
			Recipients: []*queue.Recipient{{
				// RFC 3461 section 6.2: nothing is sent about a notification.
				Address: r.Envelope.Sender, Notify: []string{"NEVER"}, Parent: -1,
			}},
		},
	}, nil
}

// writer puts one report together.
type writer struct {
	Report
	b      strings.Builder
	global bool // the original is one of RFC 6532: UTF-8 in addresses or header
}

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(&w.b, format, args...)
	w.b.WriteString("\r\n")
}

func (w *writer) boundary() string  { return "=_dsn_" + w.Unique }
func (w *writer) messageID() string { return "<" + w.Unique + "@" + clean(w.Hostname) + ">" }
func (w *writer) from() string {
	return "Mail Delivery System <MAILER-DAEMON@" + clean(w.Hostname) + ">"
}

func (w *writer) all() error {
	h, err := w.header()
	if err != nil {
		return err
	}
	if err := w.lookForUTF8(h); err != nil {
		return err
	}
	w.line("From: %s", w.from())
	w.line("To: <%s>", clean(w.Envelope.Sender))
	w.line("Subject: %s", texts[w.Action].subject)
	w.line("Date: %s", message.FormatDate(w.Now))
	w.line("Message-ID: %s", w.messageID())
	if id := clean(w.Envelope.MessageID); id != "" && ascii(id) {
		w.line("In-Reply-To: %s", id)
	}
	w.line("Auto-Submitted: auto-replied") // RFC 3834 section 5.1
	w.line("MIME-Version: 1.0")
	w.line("Content-Type: multipart/report; report-type=delivery-status;") // RFC 6522 section 3
	w.line("\tboundary=\"%s\"", w.boundary())
	w.line("")
	w.line("This is a delivery report in MIME format.")
	w.part("text/plain; charset=utf-8", w.human())
	status, kind := w.status(), "message/delivery-status"
	if !ascii(status) { // an address, or a peer's reply: RFC 6533 section 3
		kind = "message/global-delivery-status"
	}
	w.part(kind, status)
	if err := w.original(h); err != nil {
		return err
	}
	w.line("")
	w.line("--%s--", w.boundary())
	return nil
}

// header of the message; nil when there is none to give back.
func (w *writer) header() (*message.Header, error) {
	if w.Body == nil {
		return nil, nil
	}
	h, err := message.ReadHeader(w.Body)
	if errors.Is(err, message.ErrHeader) {
		err = nil
	}
	return h, err
}

// lookForUTF8 decides how the original comes back. A header in some older 8-bit
// encoding is none of RFC 6532, whatever the addresses are.
func (w *writer) lookForUTF8(h *message.Header) error {
	w.global = !ascii(w.Envelope.Sender)
	for _, r := range w.Recipients {
		w.global = w.global || !ascii(r.Address) || !ascii(r.Original)
	}
	if h == nil || !h.EightBit() {
		return nil
	}
	b, err := octets(w.Body, int64(h.Size()))
	w.global = utf8.ValidString(b)
	return err
}

func (w *writer) part(kind, content string) {
	w.line("")
	w.line("--%s", w.boundary())
	w.line("Content-Type: %s", kind)
	if !ascii(content) {
		w.line("Content-Transfer-Encoding: 8bit")
	}
	w.line("")
	w.b.WriteString(content)
}

// original returns the message or its header: the whole with RET=FULL, and for a
// failure also without RET (RFC 3461 section 4.3), as long as it is not too large.
// Of mail with REQUIRETLS never more than the header (RFC 8689 section 5).
func (w *writer) original(h *message.Header) error {
	if w.Body == nil {
		return nil
	}
	p := w.Envelope.Parameters
	full := w.Action == Failed && !strings.EqualFold(p.GetDsnReturn(), "HDRS") && p.GetBody() != "BINARYMIME"
	if (full || h == nil) && w.Body.Size() <= maxReturn && !p.GetRequireTls() {
		b, err := octets(w.Body, w.Body.Size())
		if err != nil {
			return err
		}
		kind := "message/rfc822"
		if w.global {
			kind = "message/global"
		}
		w.part(kind, b)
		return nil
	}
	if h == nil {
		return nil // a header beyond all limits, in a message too large
	}
	b, err := octets(w.Body, int64(h.Size()))
	if err != nil {
		return err
	}
	kind := "text/rfc822-headers"
	if w.global {
		kind = "message/global-headers"
	}
	w.part(kind, b)
	return nil
}

func octets(body spool.Body, n int64) (string, error) {
	r, err := body.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	b := make([]byte, n)
	if m, err := r.ReadAt(b, 0); int64(m) < n {
		return "", err
	}
	return string(b), nil
}

// status is the part for programs (RFC 3464 section 2).
func (w *writer) status() string {
	s := &writer{}
	p := w.Envelope.Parameters
	if id := clean(p.GetEnvelopeId()); id != "" {
		s.line("Original-Envelope-Id: %s", id)
	}
	s.line("Reporting-MTA: dns; %s", clean(w.Hostname))
	if hello := clean(w.Envelope.Client.GetHello()); hello != "" {
		s.line("Received-From-MTA: dns; %s", hello)
	}
	if !w.Envelope.Received.IsZero() {
		s.line("Arrival-Date: %s", message.FormatDate(w.Envelope.Received))
	}
	if p.GetDeliverByMode() != "" { // RFC 2852 section 5
		s.line("Deliver-By-Date: %s", message.FormatDate(time.UnixMilli(p.GetDeliverByMs()).UTC()))
	}
	if at := p.GetHoldUntilMs(); at > 0 { // RFC 4865 section 5
		s.line("Future-Release-Request: until;%s", time.UnixMilli(at).UTC().Format(time.RFC3339))
	}
	for _, r := range w.Recipients {
		s.line("")
		if o := clean(r.Original); o != "" {
			kind, address, typed := strings.Cut(o, ";")
			if !typed {
				kind, address = addressType(o), o
			}
			s.line("Original-Recipient: %s;%s", kind, strings.TrimSpace(address))
		}
		s.line("Final-Recipient: %s;%s", addressType(r.Address), clean(r.Address))
		s.line("Action: %s", w.Action)
		if p.GetDeliverByMode() == "N" && w.Action == Delayed {
			s.line("Status: 4.4.7") // RFC 2852 section 4.1.5
		} else {
			s.line("Status: %s", status(w.Action, r.Attempt))
		}
		if a := r.Attempt; a != nil {
			if a.RemoteMTA != "" {
				s.line("Remote-MTA: %s", mtaName(a.RemoteMTA))
			}
			switch {
			case a.Code == 0:
			case a.RemoteMTA != "":
				s.line("Diagnostic-Code: smtp; %s", words(a))
			case w.Action == Failed, w.Action == Delayed: // no server said so: RFC 3464 section 2.3.6
				s.line("Diagnostic-Code: X-Stagecoach; %s", words(a))
			}
			if !a.At.IsZero() {
				s.line("Last-Attempt-Date: %s", message.FormatDate(a.At))
			}
		}
		if w.Action == Delayed && !r.RetryUntil.IsZero() {
			s.line("Will-Retry-Until: %s", message.FormatDate(r.RetryUntil))
		}
	}
	return s.b.String()
}

// mtaName: RFC 3464 section 2.1.3; a host without a name is an address literal.
func mtaName(s string) string {
	if ip, err := netip.ParseAddr(s); err == nil {
		return "dns; [" + ip.String() + "]"
	}
	if p, err := netip.ParseAddrPort(s); err == nil {
		return "dns; [" + p.Addr().String() + "]"
	}
	if strings.HasPrefix(s, "/") {
		return "X-unix; " + clean(s)
	}
	return "dns; " + clean(s)
}

// addressType: RFC 3464 section 2.1.2, RFC 6533 section 3.
func addressType(address string) string {
	if ascii(address) {
		return "rfc822"
	}
	return "utf-8"
}

// status is the peer's own code, or the general one of the action's class.
func status(a Action, at *queue.Attempt) string {
	if at != nil && enhanced(at.Enhanced) {
		return at.Enhanced
	}
	switch {
	case a == Failed && at != nil && at.Code >= 400 && at.Code < 500:
		return "4.0.0"
	case a == Failed:
		return "5.0.0"
	case a == Delayed:
		return "4.0.0"
	}
	return "2.0.0"
}

// enhanced: RFC 3463 section 2.
func enhanced(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || (parts[0] != "2" && parts[0] != "4" && parts[0] != "5") {
		return false
	}
	for _, p := range parts {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// words are the peer's, as one line; what it said twice is said once.
func words(a *queue.Attempt) string {
	text := clean(a.Text)
	if a.Enhanced != "" && !strings.HasPrefix(text, a.Enhanced) {
		text = clean(a.Enhanced) + " " + text
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.Code, text))
}

// clean makes one line of bounded length of what others chose.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
	const limit = 800 // within the 998 octets of a line, with the field's name
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return strings.TrimSpace(s)
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
