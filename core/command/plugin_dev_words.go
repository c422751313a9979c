package command

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/tryout"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// said is a word and what belongs to it.
type said struct{ word, text string }

// asked tells in a person's words what a call says.
func asked(x *tryout.Exchange) []said {
	switch c := x.Call.GetRequest().(type) {
	case *v1.Call_Filter:
		return askedFilter(c.Filter)
	case *v1.Call_Deliver:
		return []said{
			{"asked", envelopeWords(c.Deliver.GetEnvelope()) + ", " + messageWords(c.Deliver.GetMessage())},
			{"key", c.Deliver.GetIdempotencyKey()},
		}
	case *v1.Call_Directory:
		return opWords(c.Directory)
	case *v1.Call_Storage:
		out := opWords(c.Storage)
		if d := c.Storage.GetDeposit(); d != nil {
			var to []string
			for _, t := range d.GetTargets() {
				to = append(to, t.GetAccount())
			}
			out = []said{{"asked", messageWords(d.GetMessage()) + " for " + strings.Join(to, ", ")}}
		}
		return out
	}
	return nil
}

func askedFilter(c *v1.FilterCall) []said {
	env := c.GetEnvelope()
	var parts []string
	switch c.GetEvent() {
	case v1.FilterEvent_CONNECT:
		parts = []string{fmt.Sprintf("client %s [%s]", env.GetClient().GetRdns(), env.GetClient().GetIp())}
	case v1.FilterEvent_HELLO:
		parts = []string{"hello " + env.GetClient().GetHello()}
	case v1.FilterEvent_AUTH:
		parts = []string{"user " + env.GetClient().GetUser() + " logged in"}
	case v1.FilterEvent_MAIL:
		parts = []string{"from <" + env.GetSender() + ">"}
	case v1.FilterEvent_OBSERVE:
		for _, o := range c.GetObservations() {
			parts = append(parts, strings.ToLower(o.GetWhat().String()))
		}
	case v1.FilterEvent_RCPT, v1.FilterEvent_RCPT_REJECTED:
		for _, r := range env.GetRecipients() {
			if r.GetIndex() == c.GetRecipient() {
				parts = append(parts, "recipient <"+r.GetAddress()+">")
			}
		}
	default:
		parts = []string{envelopeWords(env)}
	}
	for _, r := range c.GetResults() {
		parts = append(parts, r.GetState()+" "+replyWords(r.GetReply()))
	}
	if c.GetMessage() != nil {
		parts = append(parts, messageWords(c.GetMessage()))
	}
	out := []said{{"asked", strings.Join(parts, ", ")}}
	if len(env.GetTags()) > 0 {
		out = append(out, said{"tags", tagWords(env.GetTags())})
	}
	// All of a long header tells less than its beginning.
	const most = 12
	for i, f := range c.GetHeader() {
		word := map[bool]string{true: "header"}[i == 0]
		if i == most {
			out = append(out, said{"", fmt.Sprintf("… and %d more fields", len(c.GetHeader())-most)})
			break
		}
		out = append(out, said{word, short(f.GetName()+": "+strings.Join(strings.Fields(mail.Unfold(f.GetValue())), " "), 100)})
	}
	return out
}

func envelopeWords(e *v1.Envelope) string {
	var to []string
	for _, r := range e.GetRecipients() {
		to = append(to, "<"+r.GetAddress()+">")
	}
	return fmt.Sprintf("from <%s> to %s", e.GetSender(), strings.Join(to, ", "))
}

func messageWords(m *v1.MessageRef) string {
	how := "inline"
	if m.GetPath() != "" {
		how = "as a file"
	}
	return fmt.Sprintf("message of %d octets %s", m.GetSize(), how)
}

func replyWords(r *v1.SMTPReply) string {
	return strings.Join(strings.Fields(fmt.Sprintf("%d %s %s", r.GetCode(), r.GetEnhanced(), r.GetText())), " ")
}

// opWords are the fields of the operation that is set in a call or a reply.
func opWords(m proto.Message) []said {
	r := m.ProtoReflect()
	f := r.WhichOneof(r.Descriptor().Oneofs().ByName("op"))
	if f == nil {
		return nil
	}
	text := fields(r.Get(f).Message().Interface())
	if text == "" {
		return nil
	}
	return []said{{"asked", text}}
}

// fields is a message in protobuf's text form, in one line.
func fields(m proto.Message) string {
	b, err := prototext.MarshalOptions{}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return short(strings.Join(strings.Fields(string(b)), " "), 400)
}

func tagWords(tags map[string]*v1.Tag) string {
	values := make(map[string]any, len(tags))
	for name, t := range tags {
		values[name] = admin.TagValue(t)
	}
	return valueWords(values)
}

func valueWords(values map[string]any) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch v := values[name].(type) {
		case map[string]any:
			for line := range strings.SplitSeq(valueWords(v), "\n") {
				if line != "" {
					out = append(out, name+"."+line)
				}
			}
		case string, []string:
			out = append(out, fmt.Sprintf("%s = %q", name, v))
		default:
			out = append(out, fmt.Sprintf("%s = %v", name, v))
		}
	}
	return strings.Join(out, "\n")
}

// answered tells in a person's words what came back.
func answered(x *tryout.Exchange) []said {
	if x.Err != nil {
		return []said{{"FAILED", strings.ToLower(fail.KindOf(x.Err).String()) + ": " + x.Err.Error()}}
	}
	if x.Call == nil {
		if x.Said == "" {
			return []said{{"answer", "connected; it waits for the client's first word"}}
		}
		return []said{{"answer", x.Said}}
	}
	var out []said
	for _, r := range x.Replies {
		switch c := r.GetResponse().(type) {
		case *v1.Reply_Filter:
			out = append(out, answeredFilter(x, c.Filter)...)
		case *v1.Reply_Deliver:
			for _, o := range c.Deliver.GetOutcomes() {
				out = append(out, said{"answer", fmt.Sprintf("recipient %d: %s", o.GetRecipient(), replyWords(o.GetReply()))})
			}
			if len(c.Deliver.GetOutcomes()) == 0 {
				out = append(out, said{"answer", "nothing about any recipient: all are tried again"})
			}
		case *v1.Reply_Directory:
			out = append(out, reply(opWords(c.Directory))...)
		case *v1.Reply_Storage:
			out = append(out, answeredStorage(c.Storage)...)
		}
	}
	return out
}

func reply(words []said) []said {
	if len(words) == 0 {
		return []said{{"answer", "(empty)"}}
	}
	words[0].word = "answer"
	return words
}

func answeredStorage(r *v1.StorageReply) []said {
	list := r.GetListMailboxes()
	if list == nil {
		return reply(opWords(r))
	}
	var b strings.Builder
	for _, m := range list.GetMailboxes() {
		fmt.Fprintf(&b, "%-12s %d message(s), %d unseen, %d octets, UID validity %d, next %d", m.GetName(), m.GetMessages(), m.GetUnseen(), m.GetSize(), m.GetUidValidity(), m.GetUidNext())
		if m.GetRole() != "" {
			fmt.Fprintf(&b, ", role %s", m.GetRole())
		}
		b.WriteByte('\n')
	}
	return []said{{"answer", b.String()}}
}

func answeredFilter(x *tryout.Exchange, r *v1.FilterReply) []said {
	v := r.GetVerdict()
	text := v.GetAction().String()
	if v.GetReply() != nil {
		text += " " + replyWords(v.GetReply())
	}
	if v.GetReason() != "" {
		text += " (" + v.GetReason() + ")"
	}
	if v.GetDelayMs() > 0 {
		text += fmt.Sprintf(", after %d ms", v.GetDelayMs())
	}
	if v.GetSkipRest() {
		text += ", and no later filter is asked"
	}
	out := []said{{"answer", text}}
	for _, i := range slices.Sorted(maps.Keys(r.GetPerRecipient())) {
		pv := r.GetPerRecipient()[i]
		out = append(out, said{"", fmt.Sprintf("recipient %d: %s %s", i, pv.GetAction(), tryout.VerdictText(pv))})
	}
	add := func(word, text string) {
		if text != "" {
			out = append(out, said{word, text})
		}
	}
	add("tags", tagWords(r.GetTags()))
	if r.GetScore() != 0 {
		add("score", strconv.FormatFloat(r.GetScore(), 'g', -1, 64))
	}
	add("edits", strings.Join(x.Edits, "\n"))
	add("mail", strings.Join(x.Changes, "\n"))
	if r.GetHints() != nil {
		add("hints", fields(r.GetHints()))
	}
	for _, in := range r.GetInject() {
		add("inject", fmt.Sprintf("from <%s> to %d recipient(s), %s", in.GetSender(), len(in.GetRecipients()), messageWords(in.GetMessage())))
	}
	add("note", r.GetNote())
	add("IGNORED", x.Ignored)
	return out
}
