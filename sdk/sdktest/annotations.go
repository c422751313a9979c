package sdktest

import (
	"context"
	"maps"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// notes are the annotations of a mailbox or an account, with the memory of those that
// were removed.
type notes struct {
	byName map[string]note
	last   uint64 // modseq of the last change
}

type note struct {
	modseq  uint64
	removed bool
	value   []byte
}

func (n *notes) live() int {
	live := 0
	for _, x := range n.byName {
		if !x.removed {
			live++
		}
	}
	return live
}

func (n *notes) since(modseq uint64, mailbox string) []*v1.Annotation {
	var out []*v1.Annotation
	for name, x := range n.byName {
		if x.modseq > modseq {
			out = append(out, &v1.Annotation{Name: name, Removed: x.removed, Size: int64(len(x.value)), MailboxId: mailbox})
		}
	}
	return out
}

// notesOf the mailbox with that id; "": the account's own.
func (a *account) notesOf(id string) (*notes, error) {
	if id == "" {
		return &a.notes, nil
	}
	b, err := a.byID(id)
	if err != nil {
		return nil, err
	}
	return &b.notes, nil
}

var _ storage.Annotator = (*account)(nil)

// Annotations implements storage.Annotator.
func (a *account) Annotations(_ context.Context, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
	req, err := storage.CheckAnnotations(req)
	if err != nil {
		return nil, err
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	resp := &v1.AnnotationsResponse{Modseq: a.modseq}
	if since := req.GetSinceModseq(); since > 0 {
		resp.Annotations = a.notes.since(since, "")
		for _, b := range a.boxes {
			resp.Annotations = append(resp.Annotations, b.notes.since(since, b.id)...)
		}
		return resp, nil
	}
	n, err := a.notesOf(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(n.byName)) {
		if x := n.byName[name]; !x.removed && storage.WantsAnnotation(req, name) {
			resp.Annotations = append(resp.Annotations, storage.FoundAnnotation(req, name, x.value))
		}
	}
	return resp, nil
}

// SetAnnotations implements storage.Annotator.
func (a *account) SetAnnotations(_ context.Context, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
	list, err := storage.CheckSetAnnotations(req)
	if err != nil {
		return nil, err
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	n, err := a.notesOf(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	resp := &v1.SetAnnotationsResponse{}
	err = a.change(func() error {
		now := maps.Clone(n.byName)
		if now == nil {
			now = map[string]note{}
		}
		for _, x := range list {
			was, is := now[x.GetName()]
			if x.GetRemoved() {
				if is && !was.removed {
					now[x.GetName()] = note{removed: true}
				}
				continue
			}
			now[x.GetName()] = note{value: slices.Clone(x.GetValue())}
		}
		after := notes{byName: now}
		if most := int(req.GetMaxAnnotations()); most > 0 && after.live() > most && after.live() > n.live() {
			return fail.New(fail.OverQuota, "%d annotations would be there: %d at most", after.live(), most)
		}
		for name, x := range now {
			if x.modseq == 0 {
				x.modseq = a.step()
				n.last, now[name] = x.modseq, x
			}
		}
		n.byName = now
		resp.Modseq = a.modseq
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}
