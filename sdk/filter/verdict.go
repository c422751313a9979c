package filter

import (
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Verdict is the answer; make one with Accept, Reject, Defer, Discard or Hold
// and add to it. The zero value accepts. The methods return the Verdict itself,
// so that calls can be chained. It is not for concurrent use.
type Verdict struct {
	reply v1.FilterReply
}

// Accept has nothing against the mail.
func Accept() *Verdict { return action(v1.Verdict_ACCEPT, nil, "") }

// Reject refuses the command, the recipient or the mail asked about, for good; at
// ROUTE and PRE_DELIVERY the recipients fail and the sender gets a notice. code is
// 5xx (another becomes 550); enhanced is the status code of RFC 3463 (empty:
// "5.7.1"); text, one line, is said to the client.
func Reject(code int, enhanced, text string) *Verdict {
	return action(v1.Verdict_REJECT, reply(code, enhanced, text), "")
}

// Defer refuses it for now: the client will try again; behind the queue the
// recipients wait for the next attempt. code is 4xx (another becomes 451), enhanced
// empty is "4.7.1".
func Defer(code int, enhanced, text string) *Verdict {
	return action(v1.Verdict_DEFER, reply(code, enhanced, text), "")
}

// Discard answers success, delivers to nobody and tells nobody; at RCPT this
// recipient only.
func Discard() *Verdict { return action(v1.Verdict_DISCARD, nil, "") }

// Hold accepts the mail and keeps it in the queue until an operator releases it;
// at RCPT this recipient only. The reason is shown to the operator.
func Hold(reason string) *Verdict { return action(v1.Verdict_HOLD, nil, reason) }

// Disconnect says the text and ends the connection. The client sees 421, whatever
// code is: the one after which SMTP lets a server go (RFC 5321 section 3.8).
// Behind the queue it is a Reject.
func Disconnect(code int, enhanced, text string) *Verdict {
	return action(v1.Verdict_DISCONNECT, reply(code, enhanced, text), "")
}

func action(a v1.Verdict_Action, r *v1.SMTPReply, reason string) *Verdict {
	v := &Verdict{}
	v.reply.Verdict = &v1.Verdict{Action: a, Reply: r, Reason: reason}
	return v
}

func reply(code int, enhanced, text string) *v1.SMTPReply {
	return &v1.SMTPReply{Code: int32(code), Enhanced: enhanced, Text: text}
}

// Reply is the contract's form. It is the Verdict's own memory.
func (v *Verdict) Reply() *v1.FilterReply {
	v.verdict()
	return &v.reply
}

func (v *Verdict) verdict() *v1.Verdict {
	if v.reply.Verdict == nil {
		v.reply.Verdict = &v1.Verdict{}
	}
	return v.reply.Verdict
}

// Reason is written into the mail's trace beside the verdict.
func (v *Verdict) Reason(reason string) *Verdict {
	v.verdict().Reason = reason
	return v
}

// Delay makes the client wait for the reply, with every verdict: at most 60 s.
// Behind the queue it does nothing.
func (v *Verdict) Delay(d time.Duration) *Verdict {
	v.verdict().DelayMs = d.Milliseconds()
	return v
}

// SkipRest lets no later filter of this stage be asked.
func (v *Verdict) SkipRest() *Verdict {
	v.verdict().SkipRest = true
	return v
}

// For sets another verdict for one recipient (Recipient.Index of the envelope),
// if this one accepts. Of other only the verdict itself counts, not what was added
// to it. SMTP has one reply for all recipients of a message: those rejected get
// the sender a notice, and one deferred defers all; LMTP tells of each.
func (v *Verdict) For(recipient int32, other *Verdict) *Verdict {
	if v.reply.PerRecipient == nil {
		v.reply.PerRecipient = map[int32]*v1.Verdict{}
	}
	v.reply.PerRecipient[recipient] = other.verdict()
	return v
}

// Score adds to the mail's score, which routes read as tags.score; negative
// speaks for the mail. The scores of all filters add up.
func (v *Verdict) Score(points float64) *Verdict {
	v.reply.Score += points
	return v
}

// Note goes into the mail's trace, which is the server's log.
func (v *Verdict) Note(text string) *Verdict {
	v.reply.Note = text
	return v
}

func (v *Verdict) tag(name string, t *v1.Tag) *Verdict {
	if v.reply.Tags == nil {
		v.reply.Tags = map[string]*v1.Tag{}
	}
	v.reply.Tags[name] = t
	return v
}

// Tag sets tags.NAME, which routes and later filters read, to a string. The name
// is letters, digits, _ and -; the last filter to set one has its way. What is set
// at CONNECT, HELLO or AUTH holds for all mails of the connection.
func (v *Verdict) Tag(name, value string) *Verdict {
	return v.tag(name, &v1.Tag{Value: &v1.Tag_Text{Text: value}})
}

// TagNumber sets tags.NAME to a number.
func (v *Verdict) TagNumber(name string, value float64) *Verdict {
	return v.tag(name, &v1.Tag{Value: &v1.Tag_Number{Number: value}})
}

// TagBool sets tags.NAME to true or false.
func (v *Verdict) TagBool(name string, value bool) *Verdict {
	return v.tag(name, &v1.Tag{Value: &v1.Tag_Flag{Flag: value}})
}

// TagList sets tags.NAME to a list of strings.
func (v *Verdict) TagList(name string, values ...string) *Verdict {
	return v.tag(name, &v1.Tag{Value: &v1.Tag_List{List: &v1.TagList{Values: values}}})
}

// TagMap sets tags.NAME to values by name, which routes read as tags.NAME.KEY or
// tags.NAME["key"]: a string, a float64, a bool or a []string each. A key may be
// any text, so that a domain can be one; a value of another type is left out.
func (v *Verdict) TagMap(name string, values map[string]any) *Verdict {
	entries := make(map[string]*v1.Tag, len(values))
	for key, value := range values {
		switch x := value.(type) {
		case string:
			entries[key] = &v1.Tag{Value: &v1.Tag_Text{Text: x}}
		case float64:
			entries[key] = &v1.Tag{Value: &v1.Tag_Number{Number: x}}
		case bool:
			entries[key] = &v1.Tag{Value: &v1.Tag_Flag{Flag: x}}
		case []string:
			entries[key] = &v1.Tag{Value: &v1.Tag_List{List: &v1.TagList{Values: x}}}
		}
	}
	return v.tag(name, &v1.Tag{Value: &v1.Tag_Map{Map: &v1.TagMap{Entries: entries}}})
}

func (v *Verdict) edit(e *v1.Edit) *Verdict {
	v.reply.Edits = append(v.reply.Edits, e)
	return v
}

// AddHeader puts a field at the top of the header, as a trace field stands
// (RFC 5321 section 4.4). The value has no final CRLF; a folded one keeps its
// folding. Edits count only from a filter that declared Effect EDIT.
func (v *Verdict) AddHeader(name, value string) *Verdict {
	return v.InsertHeader(0, name, value)
}

// InsertHeader puts a field at a position: 0 is the top, -1 the end.
func (v *Verdict) InsertHeader(position int, name, value string) *Verdict {
	return v.edit(&v1.Edit{Edit: &v1.Edit_InsertHeader_{InsertHeader: &v1.Edit_InsertHeader{
		Position: int32(position), Field: &v1.HeaderField{Name: name, Value: fieldValue(value)},
	}}})
}

// ReplaceHeader replaces the value of the index-th field of that name, counted
// from 1 and before this verdict's edits.
func (v *Verdict) ReplaceHeader(name string, index int, value string) *Verdict {
	return v.edit(&v1.Edit{Edit: &v1.Edit_ReplaceHeader_{ReplaceHeader: &v1.Edit_ReplaceHeader{
		Name: name, Index: int32(index), Value: fieldValue(value),
	}}})
}

// DeleteHeader deletes the index-th field of that name, counted as in
// ReplaceHeader; index 0: all of them.
func (v *Verdict) DeleteHeader(name string, index int) *Verdict {
	return v.edit(&v1.Edit{Edit: &v1.Edit_DeleteHeader_{DeleteHeader: &v1.Edit_DeleteHeader{
		Name: name, Index: int32(index),
	}}})
}

// fieldValue begins with the space that follows the colon of a field.
func fieldValue(value string) []byte {
	if value == "" || value[0] == ' ' || value[0] == '\t' || value[0] == '\r' {
		return []byte(value)
	}
	return []byte(" " + value)
}

// ReplaceBody replaces all after the header's empty line with a small body: at
// most mail.InlineLimit octets, lines ended by CRLF. A larger one is a file that
// ReplaceBodyFile names.
func (v *Verdict) ReplaceBody(body []byte) *Verdict {
	return v.replaceBody(mail.FromBytes(body))
}

// ReplaceBodyFile is ReplaceBody with a file under the instance's data
// directory or a spool directory.
func (v *Verdict) ReplaceBodyFile(path string, size int64) *Verdict {
	return v.replaceBody(mail.FromFile(path, size))
}

func (v *Verdict) replaceBody(m *mail.Message) *Verdict {
	return v.edit(&v1.Edit{Edit: &v1.Edit_ReplaceBody_{ReplaceBody: &v1.Edit_ReplaceBody{Body: m.Ref()}}})
}

// AddRecipient adds a forward-path without brackets, with no DSN parameters.
// Behind the queue that is done once, at the first attempt that the filter answers
// so.
func (v *Verdict) AddRecipient(address string) *Verdict {
	return v.AddRecipientDSN(&v1.Recipient{Address: address})
}

// AddRecipientDSN adds a recipient with its DSN parameters (RFC 3461).
func (v *Verdict) AddRecipientDSN(r *v1.Recipient) *Verdict {
	return v.edit(&v1.Edit{Edit: &v1.Edit_AddRecipient_{AddRecipient: &v1.Edit_AddRecipient{Recipient: r}}})
}

// DeleteRecipient removes the recipient with that index of the envelope; nobody
// is told.
func (v *Verdict) DeleteRecipient(index int32) *Verdict {
	return v.edit(&v1.Edit{Edit: &v1.Edit_DeleteRecipient_{DeleteRecipient: &v1.Edit_DeleteRecipient{Index: index}}})
}

// SetSender replaces the reverse-path; empty is the null one. parameters nil
// keeps those there are.
func (v *Verdict) SetSender(address string, parameters *v1.MailParameters) *Verdict {
	return v.edit(&v1.Edit{Edit: &v1.Edit_SetSender_{SetSender: &v1.Edit_SetSender{Address: address, Parameters: parameters}}})
}

// Hints steer the queue and the delivery; fields left unset say nothing, and of
// several filters' the last one set stands. Behind the queue they hold for the
// attempt; Priority and ExpiresMs count only before it.
func (v *Verdict) Hints(h *v1.RouteHints) *Verdict {
	v.reply.Hints = h
	return v
}

// Inject queues a further message: an auto-reply (its sender is empty, RFC 3834
// section 3.3), a copy. It is queued together with the mail, and not at all if
// that is refused; behind the queue once, at the first attempt that the filter
// answers so. m is small, or a file as in ReplaceBodyFile. At CONNECT, HELLO and
// AUTH there is no mail yet: nothing is queued.
func (v *Verdict) Inject(sender string, recipients []string, m *mail.Message) *Verdict {
	in := &v1.Injection{Sender: sender, Message: m.Ref()}
	for i, r := range recipients {
		in.Recipients = append(in.Recipients, &v1.Recipient{Address: r, Index: int32(i)})
	}
	v.reply.Inject = append(v.reply.Inject, in)
	return v
}

// Copy is one copy of a mail in a storage.
type Copy struct {
	// Mailbox by name, created if missing; "" is INBOX.
	Mailbox string
	// Flags that it begins with: "\\Seen" and the like, or keywords.
	Flags []string
	// Message is nil for the mail as it is, else an edited one: small, or a file as
	// in ReplaceBodyFile.
	Message *mail.Message
}

// Place says where a storage keeps a recipient's copies, at most 64, in place of
// what the deliver block says. It counts at PRE_DELIVERY of a delivery into a
// storage. A repeated delivery stores nothing twice if it gets the same list.
func (v *Verdict) Place(recipient int32, copies ...Copy) *Verdict {
	p := &v1.Placement{}
	for _, c := range copies {
		to := &v1.Placement_Copy{Mailbox: c.Mailbox, Flags: c.Flags}
		if c.Message != nil {
			to.Message = c.Message.Ref()
		}
		p.Copies = append(p.Copies, to)
	}
	if v.reply.Placements == nil {
		v.reply.Placements = map[int32]*v1.Placement{}
	}
	v.reply.Placements[recipient] = p
	return v
}
