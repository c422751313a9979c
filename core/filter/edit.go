package filter

import (
	"fmt"
	"maps"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// ScoreTag is where the scores of all filters add up.
const ScoreTag = "score"

// edit applies tags, score and edits: all of a reply's, or, with ErrEdit, none.
// A judge's edits are ignored: it declared to make none.
func (out *Outcome) edit(ed Editing, m *Member, r *v1.FilterReply) (done []string, err error) {
	edits := r.GetEdits()
	if m.Interest().GetEffect() != v1.FilterInterest_EDIT {
		edits = nil
	}
	if len(r.GetTags()) == 0 && r.GetScore() == 0 && len(edits) == 0 && len(r.GetInject()) == 0 {
		return nil, nil
	}
	injected, err := inject(ed, m, r)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			Discard(injected)
		}
	}()
	env := proto.CloneOf(out.Envelope)
	mark(env, r)
	var content []*v1.Edit
	for _, e := range edits {
		word, err := editEnvelope(env, e)
		if err != nil {
			return nil, err
		}
		if word == "" {
			content = append(content, e)
			word = contentWord(e)
		}
		done = append(done, word)
	}
	body := out.Body
	if len(content) > 0 && body != nil {
		if body, err = apply(ed, m, body, content); err != nil {
			return nil, fmt.Errorf("apply the edits of %s: %w", m.Name, err)
		}
	}
	out.Envelope = env
	out.setBody(body)
	out.Inject = append(out.Inject, injected...)
	for _, in := range injected {
		done = append(done, fmt.Sprintf("inject a message to %d recipient(s)", len(in.Recipients)))
	}
	return done, nil
}

// apply edits the message; a new text comes out of the plugin's hands first.
func apply(ed Editing, m *Member, body spool.Body, edits []*v1.Edit) (spool.Body, error) {
	for i, e := range edits {
		replace, ok := e.GetEdit().(*v1.Edit_ReplaceBody_)
		if !ok {
			continue
		}
		text, err := ed.Adopt(replace.ReplaceBody.GetBody(), m.Dirs)
		if err != nil {
			return nil, err
		}
		defer text.Discard()
		edits[i] = &v1.Edit{Edit: &v1.Edit_ReplaceBody_{ReplaceBody: &v1.Edit_ReplaceBody{Body: text.Message().Ref()}}}
	}
	return ed.Apply(body, edits)
}

// inject takes the messages that a filter made. Any effect may make some: they
// do not change the mail.
func inject(ed Editing, m *Member, r *v1.FilterReply) (out []Injected, err error) {
	for _, in := range r.GetInject() {
		if err = checkInjection(in); err == nil {
			var body spool.Body
			if body, err = ed.Adopt(in.GetMessage(), m.Dirs); err == nil {
				out = append(out, Injected{By: m.Name, Sender: in.GetSender(), Recipients: in.GetRecipients(), Body: body})
			}
		}
		if err != nil {
			Discard(out)
			return nil, err
		}
	}
	return out, nil
}

func checkInjection(in *v1.Injection) error {
	if in.GetSender() != "" {
		if err := checkAddress(in.GetSender()); err != nil {
			return err
		}
	}
	if len(in.GetRecipients()) == 0 {
		return fmt.Errorf("%w: a message to nobody", message.ErrEdit)
	}
	for _, r := range in.GetRecipients() {
		if err := checkAddress(r.GetAddress()); err != nil {
			return err
		}
	}
	return nil
}

// Discard drops messages that nobody queued.
func Discard(injected []Injected) {
	for _, in := range injected {
		in.Body.Discard()
	}
}

func (out *Outcome) setBody(body spool.Body) {
	if body != out.Body && out.Body != out.asked {
		out.Body.Discard() // an edit of an edit: nobody needs the one between
	}
	out.Body = body
}

// mark sets the reply's tags and adds its score.
func mark(env *v1.Envelope, r *v1.FilterReply) {
	if env.Tags == nil {
		env.Tags = make(map[string]*v1.Tag)
	}
	sum := env.GetTags()[ScoreTag].GetNumber() + r.GetScore()
	maps.Copy(env.Tags, r.GetTags())
	if r.GetScore() != 0 {
		env.Tags[ScoreTag] = &v1.Tag{Value: &v1.Tag_Number{Number: sum}}
	}
}

// editEnvelope does one edit of the envelope and says what it did; "" for an
// edit of the message.
func editEnvelope(env *v1.Envelope, e *v1.Edit) (string, error) {
	switch e := e.GetEdit().(type) {
	case *v1.Edit_SetSender_:
		to := e.SetSender.GetAddress()
		if err := checkAddress(to); err != nil && to != "" {
			return "", err
		}
		env.Sender = to
		if p := e.SetSender.GetParameters(); p != nil {
			env.Parameters = p
		}
		return "set sender <" + to + ">", nil
	case *v1.Edit_AddRecipient_:
		add := proto.CloneOf(e.AddRecipient.GetRecipient())
		if err := checkAddress(add.GetAddress()); err != nil {
			return "", err
		}
		add.Index = NextIndex(env.GetRecipients())
		env.Recipients = append(env.Recipients, add)
		return "add recipient <" + add.GetAddress() + ">", nil
	case *v1.Edit_DeleteRecipient_:
		for i, r := range env.GetRecipients() {
			if r.GetIndex() == e.DeleteRecipient.GetIndex() {
				env.Recipients = append(env.Recipients[:i:i], env.Recipients[i+1:]...)
				return "delete recipient <" + r.GetAddress() + ">", nil
			}
		}
		return fmt.Sprintf("delete recipient %d, who is not there", e.DeleteRecipient.GetIndex()), nil
	}
	return "", nil
}

// checkAddress: what a filter puts into the envelope is sent on in SMTP commands.
func checkAddress(s string) error {
	if _, err := address.Parse(s, true); err != nil {
		return fmt.Errorf("%w: %q is no address: %w", message.ErrEdit, s, err)
	}
	return nil
}

func contentWord(e *v1.Edit) string {
	switch e := e.GetEdit().(type) {
	case *v1.Edit_InsertHeader_:
		return "insert " + e.InsertHeader.GetField().GetName()
	case *v1.Edit_ReplaceHeader_:
		return "replace " + e.ReplaceHeader.GetName()
	case *v1.Edit_DeleteHeader_:
		return "delete " + e.DeleteHeader.GetName()
	case *v1.Edit_ReplaceBody_:
		return fmt.Sprintf("replace the body by one of %d octets", e.ReplaceBody.GetBody().GetSize())
	}
	return "an edit that this version does not know"
}

// NextIndex is one that no recipient has.
func NextIndex(rs []*v1.Recipient) int32 {
	next := int32(0)
	for _, r := range rs {
		next = max(next, r.GetIndex()+1)
	}
	return next
}

// MergeHints lets later hints win field by field.
func MergeHints(a, b *v1.RouteHints) *v1.RouteHints {
	if b == nil {
		return a
	}
	if a == nil {
		return b
	}
	m := proto.CloneOf(a)
	proto.Merge(m, b)
	return m
}
