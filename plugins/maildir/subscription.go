package maildir

import (
	"maps"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// keep keeps the subscription of a name without a mailbox, or ends it.
func (a *account) keep(name string, on bool) {
	a.step()
	a.rec.list = true
	if a.rec.Kept == nil {
		a.rec.Kept = map[string]bool{}
	}
	a.rec.Kept[name] = on
	a.applyKept(a.rec.Kept)
}

func (st *state) applyKept(kept map[string]bool) {
	for name, on := range kept {
		if on {
			st.kept[name] = true
		} else {
			delete(st.kept, name)
		}
	}
}

// inherit gives a mailbox the subscription that was kept for its name.
func (a *account) inherit(b *box) {
	if a.kept[b.Name] {
		b.Subscribed = true
		a.keep(b.Name, false)
	}
}

// keptSubscriptions are sorted; name: only that one.
func (a *account) keptSubscriptions(name string) []string {
	out := slices.Sorted(maps.Keys(a.kept))
	if name != "" {
		out = slices.DeleteFunc(out, func(n string) bool { return n != name })
	}
	return out
}

// updateByName is Update where the request names the mailbox.
func (a *account) updateByName(name string, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	if b := a.byName(name); b != nil {
		err := a.update(b, req)
		return b.proto(), err
	}
	if !a.kept[name] || req.Subscribed == nil || req.GetSubscribed() {
		return nil, fail.New(fail.NotFound, "there is no mailbox %q", name)
	}
	a.keep(name, false)
	return &v1.Mailbox{Name: name}, nil
}
