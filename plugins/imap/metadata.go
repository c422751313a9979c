package imap

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// METADATA (RFC 5464). Of a mailbox the storage keeps everything; of the server
// what is private to the account. What is shared by all users of the server is the
// administrator's to say, in the block.

const (
	// specialUseEntry is a mailbox's role (RFC 6154 section 4).
	specialUseEntry = "/private/specialuse"
	adminEntry      = "/shared/admin"
	// maxEntries bounds what one GETMETADATA asks for.
	maxEntries = 100
)

// annotates tells whether the storage keeps annotations: METADATA is announced then.
func (ss *session) annotates() bool {
	return ss.s.annotates.Made(ss.ctx, func(ctx context.Context) error {
		_, err := storage.Annotations(ctx, ss.store, &v1.AnnotationsRequest{Names: []string{"/private/comment"}})
		return err
	})
}

// metadataQuery is one GETMETADATA.
type metadataQuery struct {
	entries []string
	// maxSize of values, if limited.
	maxSize int64
	limited bool
	depth   string
}

// options of GETMETADATA stand before the mailbox by the grammar and behind it in the
// RFC's examples; both are taken.
func (q *metadataQuery) options(p *wire.Parser) {
	p.List(func() {
		switch option := p.Word(); option {
		case "MAXSIZE":
			p.SP()
			q.maxSize, q.limited = int64(p.Number()), true
		case "DEPTH":
			p.SP()
			if q.depth = p.Word(); q.depth != "0" && q.depth != "1" && q.depth != "INFINITY" {
				p.Fail("DEPTH is 0, 1 or infinity")
			}
		default:
			p.Fail("GETMETADATA knows MAXSIZE and DEPTH, not %s", option)
		}
	})
}

func (q *metadataQuery) deep() bool { return q.depth == "1" || q.depth == "INFINITY" }

// entry takes the name of an entry, which is compared without case.
func entry(p *wire.Parser, top bool) string {
	name := p.AString()
	lower, err := storage.AnnotationName(name, top)
	if err != nil {
		p.Fail("An entry begins with /private/ or /shared/ and is ASCII without blanks, * and %%, not %.100q", name)
	}
	return lower
}

// getMetadata is GETMETADATA.
func (ss *session) getMetadata(cmd *command) error {
	p := cmd.p
	q := &metadataQuery{}
	p.SP()
	if p.Peek() == '(' {
		q.options(p)
		p.SP()
	}
	name := ss.mailbox(p)
	p.SP()
	if mark := p.Mark(); p.Try('(') {
		options := !p.IsString() && p.Peek() != '/'
		p.Return(mark)
		if options {
			q.options(p)
			p.SP()
		}
	}
	if p.Peek() == '(' {
		p.List(func() { q.entries = append(q.entries, entry(p, q.deep())) })
	} else {
		q.entries = append(q.entries, entry(p, q.deep()))
	}
	if len(q.entries) == 0 || len(q.entries) > maxEntries {
		p.Fail("GETMETADATA takes 1 to %d entries", maxEntries)
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if !ss.annotates() {
		return errNoMetadata
	}
	ctx, cancel := ss.call()
	defer cancel()
	box, err := ss.annotated(ctx, name)
	if err != nil {
		return err
	}
	found, err := ss.lookUp(ctx, box, q)
	if err != nil {
		return ss.refusal(err)
	}
	ss.tellMetadata(box, q, found)
	return nil
}

var errNoMetadata = no(imap.ResponseCodeCannot, "The storage keeps no annotations")

// annotated is the mailbox of that name; nil for "", the server.
func (ss *session) annotated(ctx context.Context, name string) (*v1.Mailbox, error) {
	if name == "" {
		return nil, nil
	}
	return ss.find(ctx, name)
}

// lookUp returns what there is of the entries, by name.
func (ss *session) lookUp(ctx context.Context, box *v1.Mailbox, q *metadataQuery) ([]*v1.Annotation, error) {
	req := &v1.AnnotationsRequest{MailboxId: box.GetId(), Names: q.entries, Below: q.deep()}
	if q.limited {
		req.MaxBytes = max(1, q.maxSize)
	}
	resp, err := storage.Annotations(ctx, ss.store, req)
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(resp.GetAnnotations(), func(x *v1.Annotation) bool {
		return x.GetName() == specialUseEntry || box == nil && strings.HasPrefix(x.GetName(), "/shared/")
	})
	add := func(name, value string) {
		if value != "" && storage.WantsAnnotation(req, name) {
			list = append(list, storage.FoundAnnotation(req, name, []byte(value)))
		}
	}
	if box == nil {
		add(adminEntry, ss.s.config.Admin)
	} else {
		add(specialUseEntry, specialUse[box.GetRole()])
	}
	if q.depth == "1" {
		list = slices.DeleteFunc(list, func(x *v1.Annotation) bool { return !q.near(x.GetName()) })
	}
	slices.SortFunc(list, func(a, b *v1.Annotation) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return list, nil
}

// near: the name was asked for, or stands immediately below one that was.
func (q *metadataQuery) near(name string) bool {
	return slices.ContainsFunc(q.entries, func(e string) bool {
		below, ok := strings.CutPrefix(name, e+"/")
		return name == e || ok && !strings.Contains(below, "/")
	})
}

// tellMetadata writes the response, and NIL for an entry that is not there.
func (ss *session) tellMetadata(box *v1.Mailbox, q *metadataQuery, found []*v1.Annotation) {
	longest := int64(0)
	told := false
	begin := func(name string) {
		if told {
			ss.out.raw(" ")
		} else {
			ss.out.raw("* METADATA ")
			ss.metadataBox(box.GetName())
			ss.out.raw(" (")
			told = true
		}
		ss.out.b = wire.AppendAString(ss.out.b, name, false)
		ss.out.raw(" ")
	}
	there := map[string]bool{}
	for _, x := range found {
		there[x.GetName()] = true
		if q.limited && x.GetSize() > q.maxSize {
			longest = max(longest, x.GetSize())
			continue
		}
		begin(x.GetName())
		ss.out.b = wire.AppendValue(ss.out.b, x.GetValue(), ss.out.utf8)
	}
	for _, name := range q.entries {
		if !q.deep() && !there[name] {
			there[name] = true
			begin(name)
			ss.out.raw("NIL")
		}
	}
	if told {
		ss.out.raw(")")
		ss.out.end()
	}
	if longest > 0 {
		ss.code = fmt.Sprintf("METADATA LONGENTRIES %d", longest)
	}
}

func (ss *session) metadataBox(name string) {
	if name == "" {
		ss.out.raw(`""`)
		return
	}
	ss.out.mailbox(name)
}

// setMetadata is SETMETADATA.
func (ss *session) setMetadata(cmd *command) error {
	p := cmd.p
	p.SP()
	name := ss.mailbox(p)
	p.SP()
	req := &v1.SetAnnotationsRequest{MaxAnnotations: int32(ss.s.config.MaxAnnotations)}
	limit := int(ss.s.config.MaxAnnotation)
	large := false
	p.List(func() {
		x := &v1.Annotation{Name: entry(p, false)}
		p.SP()
		value, is := p.NValue()
		x.Value, x.Removed = []byte(value), !is
		large = large || len(value) > limit
		req.Annotations = append(req.Annotations, x)
	})
	if len(req.Annotations) == 0 {
		p.Fail("SETMETADATA takes entries with their values")
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if large {
		return no(imap.ResponseCode(fmt.Sprintf("METADATA MAXSIZE %d", limit)), "A value is too long")
	}
	if !ss.annotates() {
		return errNoMetadata
	}
	ctx, cancel := ss.call()
	defer cancel()
	box, err := ss.annotated(ctx, name)
	if err != nil {
		return err
	}
	req.MailboxId = box.GetId()
	for _, x := range req.GetAnnotations() {
		switch {
		case box == nil && strings.HasPrefix(x.GetName(), "/shared/"):
			return no(imap.ResponseCodeNoPerm, "What all users of the server share is the administrator's")
		case box != nil && x.GetName() == specialUseEntry && len(req.GetAnnotations()) > 1:
			return no(imap.ResponseCodeCannot, "The special use is set by a command of its own")
		case box != nil && x.GetName() == specialUseEntry:
			return ss.setSpecialUse(ctx, box, x)
		}
	}
	_, err = storage.SetAnnotations(ctx, ss.store, req)
	switch {
	case fail.Is(err, fail.OverQuota):
		return no("METADATA TOOMANY", fmt.Sprintf("A mailbox has at most %d entries", ss.s.config.MaxAnnotations))
	case fail.Is(err, fail.TooLarge):
		return no(imap.ResponseCode(fmt.Sprintf("METADATA MAXSIZE %d", min(limit, storage.MaxAnnotation))), "A value is too long")
	case fail.Is(err, fail.Invalid):
		return no(imap.ResponseCodeCannot, "An entry stands there twice")
	}
	return ss.refusal(err)
}

// setSpecialUse gives a mailbox a role, or takes it away.
func (ss *session) setSpecialUse(ctx context.Context, box *v1.Mailbox, x *v1.Annotation) error {
	role := ""
	for r, attribute := range specialUse {
		if strings.EqualFold(attribute, string(x.GetValue())) {
			role = r
		}
	}
	if role == "" && !x.GetRemoved() {
		return no("USEATTR", "A mailbox cannot have that use")
	}
	_, err := ss.store.Update(ctx, &v1.UpdateMailboxRequest{Id: box.GetId(), Role: &role})
	switch {
	case fail.Is(err, fail.Exists):
		return no("USEATTR", "Another mailbox has that use")
	case fail.Is(err, fail.Invalid):
		return no("USEATTR", "This mailbox cannot have another use")
	}
	return ss.refusal(err)
}
