package imap

import (
	"slices"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// annotationsWatch is what a session that wants to hear of changed annotations knows:
// after ENABLE METADATA (RFC 5464 section 4.4) of all, after NOTIFY of those in its
// groups (RFC 5465 sections 5.7 and 5.8).
type annotationsWatch struct {
	changes *subscription
	since   uint64
}

// watchAnnotations begins to look for changes.
func (ss *session) watchAnnotations() error {
	if ss.annotations != nil {
		return nil
	}
	w := &annotationsWatch{changes: ss.s.feeds.subscribe(ss.account, ss.store, "", ss.wake)}
	ctx, cancel := ss.call()
	defer cancel()
	now, err := storage.Annotations(ctx, ss.store, &v1.AnnotationsRequest{Names: []string{"/private/comment"}})
	if err != nil {
		ss.s.feeds.leave(w.changes)
		return ss.refusal(err)
	}
	w.since = now.GetModseq()
	ss.annotations = w
	return nil
}

func (ss *session) unwatchAnnotations() {
	if ss.annotations != nil {
		ss.s.feeds.leave(ss.annotations.changes)
		ss.annotations = nil
	}
}

// tellAnnotations tells the names of what changed, without the values.
func (ss *session) tellAnnotations() {
	w := ss.annotations
	if w == nil || !w.changes.pending.Swap(false) {
		return
	}
	ctx, cancel := ss.call()
	defer cancel()
	resp, err := storage.Annotations(ctx, ss.store, &v1.AnnotationsRequest{SinceModseq: w.since})
	if err == nil && len(resp.GetAnnotations()) > 0 {
		err = ss.tellChanged(resp.GetAnnotations())
	}
	if err != nil {
		if ss.ctx.Err() == nil {
			ss.log.Warn().Err(err).Str("account", ss.account).Msg("cannot look for changed annotations")
		}
		w.changes.pending.Store(true)
		return
	}
	w.since = max(w.since, resp.GetModseq())
}

func (ss *session) tellChanged(changed []*v1.Annotation) error {
	ctx, cancel := ss.call()
	defer cancel()
	list, err := ss.store.List(ctx, &v1.ListMailboxesRequest{})
	if err != nil {
		return err
	}
	names := map[string][]string{}
	for _, x := range changed {
		names[x.GetMailboxId()] = append(names[x.GetMailboxId()], x.GetName())
	}
	for _, box := range append([]*v1.Mailbox{nil}, list.GetMailboxes()...) {
		entries := names[box.GetId()]
		if box != nil && box.GetContainer() || len(entries) == 0 || !ss.wantsAnnotations(box) {
			continue
		}
		slices.Sort(entries)
		ss.out.raw("* METADATA ")
		ss.metadataBox(box.GetName())
		for _, name := range entries {
			ss.out.raw(" ")
			ss.out.b = wire.AppendAString(ss.out.b, name, false)
		}
		ss.out.end()
	}
	return nil
}

// wantsAnnotations of a mailbox, or of the server: NOTIFY says of which, and without
// it ENABLE of all.
func (ss *session) wantsAnnotations(box *v1.Mailbox) bool {
	w := ss.watching
	switch {
	case w == nil:
		return ss.metadata
	case box == nil:
		return slices.ContainsFunc(w.groups, func(g group) bool { return g.events.server })
	}
	e := ss.eventsOf(w, box)
	return e != nil && e.annotations
}
