package local

import (
	"cmp"
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// keptRemovals of annotations of one mailbox, so that who was away hears of them.
const keptRemovals = 100

// annotation is a record: its MODSEQ, whether it was removed, and the value.
type annotation struct {
	modseq  uint64
	removed bool
	value   []byte
}

func (a *annotation) encode() []byte {
	b := append(be.AppendUint64(nil, a.modseq), 0)
	if a.removed {
		b[8] = 1
	}
	return append(b, a.value...)
}

// decode keeps a slice of b.
func (a *annotation) decode(b []byte) error {
	if len(b) < 9 {
		return errTorn
	}
	a.modseq, a.removed, a.value = be.Uint64(b), b[8] == 1, b[9:]
	return nil
}

// eachAnnotation calls f for the annotations, removed ones too, of a mailbox; 0: the
// account's own. The value is valid until f returns.
func eachAnnotation(r pebble.Reader, account uint64, box uint32, f func(name string, a *annotation) error) error {
	prefix := keyAnnotation(account, box, "")
	return scan(r, prefix, func(k, v []byte) error {
		a := &annotation{}
		if err := a.decode(v); err != nil {
			return err
		}
		return f(string(k[len(prefix):]), a)
	})
}

var _ storage.Annotator = (*handle)(nil)

// Annotations implements storage.Annotator.
func (h *handle) Annotations(ctx context.Context, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
	req, err := storage.CheckAnnotations(req)
	if err != nil {
		return nil, err
	}
	v, err := h.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	resp := &v1.AnnotationsResponse{Modseq: v.rec.modseq}
	if req.GetSinceModseq() > 0 {
		resp.Annotations, err = annotationsSince(v, h.a.num, req.GetSinceModseq())
		return resp, h.s.wrap(err, "read annotations")
	}
	num := uint32(0)
	if id := req.GetMailboxId(); id != "" {
		n, ok := parseBoxID(id)
		if !ok {
			return nil, noMailbox(id)
		}
		if _, err := readMailbox(v, h.a.num, n); err != nil {
			return nil, h.s.wrap(err, "read mailbox")
		}
		num = n
	}
	err = eachAnnotation(v, h.a.num, num, func(name string, a *annotation) error {
		if !a.removed && storage.WantsAnnotation(req, name) {
			resp.Annotations = append(resp.Annotations, storage.FoundAnnotation(req, name, slices.Clone(a.value)))
		}
		return nil
	})
	return resp, h.s.wrap(err, "read annotations")
}

// annotationsSince are the names that changed after a MODSEQ, in all of the account.
func annotationsSince(r pebble.Reader, account, since uint64) ([]*v1.Annotation, error) {
	last, err := get(r, key8(tabAnnotated, account))
	if err != nil || len(last) != 8 || be.Uint64(last) <= since {
		return nil, err
	}
	var out []*v1.Annotation
	prefix := key8(tabAnnotation, account)
	err = scan(r, prefix, func(k, v []byte) error {
		var a annotation
		if err := a.decode(v); err != nil || a.modseq <= since {
			return err
		}
		x := &v1.Annotation{Name: string(k[len(prefix)+4:]), Removed: a.removed, Size: int64(len(a.value))}
		if num := be.Uint32(k[len(prefix):]); num != 0 {
			x.MailboxId = boxID(num)
		}
		out = append(out, x)
		return nil
	})
	return out, err
}

// SetAnnotations implements storage.Annotator.
func (h *handle) SetAnnotations(_ context.Context, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
	list, err := storage.CheckSetAnnotations(req)
	if err != nil {
		return nil, err
	}
	size := int64(0)
	for _, x := range list {
		size += int64(len(x.GetValue()))
	}
	if size > 0 {
		if err := h.s.room(size); err != nil {
			return nil, err
		}
	}
	resp := &v1.SetAnnotationsResponse{}
	err = h.write(func(c *change) error {
		num := uint32(0)
		if id := req.GetMailboxId(); id != "" {
			x, err := c.byID(id)
			if err != nil {
				return err
			}
			num = x.num
		}
		if err := c.annotate(num, list, int(req.GetMaxAnnotations())); err != nil {
			return err
		}
		resp.Modseq = c.rec.modseq
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// annotate changes the annotations of a mailbox; 0: the account's own.
func (c *change) annotate(num uint32, list []*v1.Annotation, most int) error {
	type removal struct {
		modseq uint64
		name   string
	}
	there := map[string]bool{} // false: removed
	var removals []removal
	err := eachAnnotation(c.s.db, c.a.num, num, func(name string, a *annotation) error {
		there[name] = !a.removed
		if a.removed {
			removals = append(removals, removal{a.modseq, name})
		}
		return nil
	})
	if err != nil {
		return err
	}
	before, after := 0, 0
	for _, is := range there {
		if is {
			before++
		}
	}
	after = before
	for _, x := range list {
		switch {
		case x.GetRemoved() && there[x.GetName()]:
			after--
		case !x.GetRemoved() && !there[x.GetName()]:
			after++
		}
	}
	if most > 0 && after > most && after > before {
		return fail.New(fail.OverQuota, "%d annotations would be there: %d at most", after, most)
	}
	for _, x := range list {
		if x.GetRemoved() && !there[x.GetName()] {
			continue
		}
		a := annotation{modseq: c.step(), removed: x.GetRemoved()}
		if a.removed {
			removals = append(removals, removal{a.modseq, x.GetName()})
		} else {
			a.value = x.GetValue()
			removals = slices.DeleteFunc(removals, func(r removal) bool { return r.name == x.GetName() })
		}
		c.b.Set(keyAnnotation(c.a.num, num, x.GetName()), a.encode(), nil)
	}
	if !c.stepped {
		return nil
	}
	slices.SortFunc(removals, func(a, b removal) int { return cmp.Compare(a.modseq, b.modseq) })
	for len(removals) > keptRemovals {
		c.b.Delete(keyAnnotation(c.a.num, num, removals[0].name), nil)
		removals = removals[1:]
	}
	c.b.Set(key8(tabAnnotated, c.a.num), be.AppendUint64(nil, c.rec.modseq), nil)
	if num != 0 {
		c.annotated = append(c.annotated, boxID(num))
	}
	return nil
}

// dropAnnotations of a mailbox that is removed.
func (c *change) dropAnnotations(num uint32) {
	prefix := keyAnnotation(c.a.num, num, "")
	c.b.DeleteRange(prefix, after(prefix), nil)
}
