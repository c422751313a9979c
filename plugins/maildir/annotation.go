package maildir

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// keptRemovals of annotations of one mailbox, so that who was away hears of them.
const keptRemovals = 100

// annotation is a value that a client keeps with a mailbox, or the memory of one that
// was removed.
type annotation struct {
	Modseq  uint64
	Value   []byte `json:",omitempty"`
	Removed bool   `json:",omitempty"`
}

// annotations by mailbox and name; mailbox 0: the account's own.
type annotations struct {
	notes map[uint32]map[string]*annotation
}

// applyNotes takes what a record says of annotations; nil: no memory of it either.
func (n *annotations) applyNotes(r *record) {
	for num, list := range r.Notes {
		if n.notes == nil {
			n.notes = map[uint32]map[string]*annotation{}
		}
		if n.notes[num] == nil {
			n.notes[num] = map[string]*annotation{}
		}
		for name, x := range list {
			if x == nil {
				delete(n.notes[num], name)
			} else {
				n.notes[num][name] = x
			}
		}
	}
	for _, num := range r.Gone {
		delete(n.notes, num)
	}
}

// noted are the ids of the mailboxes whose annotations a record changes.
func (r *record) noted() []string {
	var ids []string
	for num := range r.Notes {
		if num != 0 {
			ids = append(ids, boxID(num))
		}
	}
	return ids
}

// notedSince tells whether annotations of a mailbox changed after a MODSEQ.
func (n *annotations) notedSince(num uint32, modseq uint64) bool {
	for _, x := range n.notes[num] {
		if x.Modseq > modseq {
			return true
		}
	}
	return false
}

var _ storage.Annotator = (*account)(nil)

// boxNum is the number of a mailbox, 0 for the account itself.
func (a *account) boxNum(id string) (uint32, error) {
	if id == "" {
		return 0, nil
	}
	b, err := a.byID(id)
	if err != nil {
		return 0, err
	}
	return b.Num, nil
}

// Annotations implements storage.Annotator.
func (a *account) Annotations(_ context.Context, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
	req, err := storage.CheckAnnotations(req)
	if err != nil {
		return nil, err
	}
	resp := &v1.AnnotationsResponse{}
	err = a.read(func() error {
		resp.Modseq = a.Modseq
		if since := req.GetSinceModseq(); since > 0 {
			for num, list := range a.notes {
				for name, x := range list {
					if x.Modseq > since {
						c := &v1.Annotation{Name: name, Removed: x.Removed, Size: int64(len(x.Value))}
						if num != 0 {
							c.MailboxId = boxID(num)
						}
						resp.Annotations = append(resp.Annotations, c)
					}
				}
			}
			return nil
		}
		num, err := a.boxNum(req.GetMailboxId())
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(a.notes[num])) {
			if x := a.notes[num][name]; !x.Removed && storage.WantsAnnotation(req, name) {
				resp.Annotations = append(resp.Annotations, storage.FoundAnnotation(req, name, x.Value))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// SetAnnotations implements storage.Annotator.
func (a *account) SetAnnotations(_ context.Context, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
	list, err := storage.CheckSetAnnotations(req)
	if err != nil {
		return nil, err
	}
	resp := &v1.SetAnnotationsResponse{}
	err = a.write(func() error {
		num, err := a.boxNum(req.GetMailboxId())
		if err != nil {
			return err
		}
		if err := a.annotate(num, list, int(req.GetMaxAnnotations())); err != nil {
			return err
		}
		resp.Modseq = a.Modseq
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (a *account) annotate(num uint32, list []*v1.Annotation, most int) error {
	is := func(name string) bool { x := a.notes[num][name]; return x != nil && !x.Removed }
	before := 0
	for name := range a.notes[num] {
		if is(name) {
			before++
		}
	}
	after := before
	for _, x := range list {
		switch {
		case x.GetRemoved() && is(x.GetName()):
			after--
		case !x.GetRemoved() && !is(x.GetName()):
			after++
		}
	}
	if most > 0 && after > most && after > before {
		return fail.New(fail.OverQuota, "%d annotations would be there: %d at most", after, most)
	}
	changed := map[string]*annotation{}
	for _, x := range list {
		switch {
		case !x.GetRemoved():
			changed[x.GetName()] = &annotation{Modseq: a.step(), Value: slices.Clone(x.GetValue())}
		case is(x.GetName()):
			changed[x.GetName()] = &annotation{Modseq: a.step(), Removed: true}
		}
	}
	if len(changed) == 0 {
		return nil
	}
	a.forgetRemovals(num, changed)
	a.rec.Notes = map[uint32]map[string]*annotation{num: changed}
	a.applyNotes(a.rec)
	return nil
}

// forgetRemovals adds to a change the oldest of too many removals.
func (a *account) forgetRemovals(num uint32, changed map[string]*annotation) {
	removed := map[string]uint64{}
	for _, list := range []map[string]*annotation{a.notes[num], changed} {
		for name, x := range list {
			if delete(removed, name); x.Removed {
				removed[name] = x.Modseq
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(removed), func(x, y string) int { return cmp.Compare(removed[x], removed[y]) })
	for _, name := range names[:max(0, len(names)-keptRemovals)] {
		changed[name] = nil
	}
}
