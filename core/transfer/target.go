package transfer

import (
	"context"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// goesTo is the name of the mailbox that takes the place of one of the source's.
func (im *Import) goesTo(m Mailbox) string {
	if name := im.Map[m.Name]; name != "" {
		return name
	}
	if im.Prefix != "" {
		return im.Prefix + "/" + m.Name
	}
	if b := im.ofRole(m.Role); b != nil {
		return b.GetName()
	}
	return m.Name
}

func (im *Import) ofRole(role string) *v1.Mailbox {
	if role == "" {
		return nil
	}
	if n := slices.IndexFunc(im.boxes, func(b *v1.Mailbox) bool { return b.GetRole() == role }); n >= 0 {
		return im.boxes[n]
	}
	return nil
}

// open finds or makes the mailbox that m goes to.
func (im *Import) open(ctx context.Context, m Mailbox) (*target, error) {
	name := im.goesTo(m)
	t := &target{im: im, from: m.Name, row: &Row{From: m.Name, To: name}}
	if im.DryRun {
		return t, nil
	}
	box, err := im.ensure(ctx, name, m)
	if err != nil {
		return nil, err
	}
	t.row.To, t.box, t.uidNext = box.GetName(), box.GetId(), box.GetUidNext()
	for _, b := range slices.Clone(im.Ledger.doubt) {
		switch {
		case b.from != t.from:
		case b.box == t.box:
			t.again = append(t.again, &repeat{batch: b, messages: make([]*Message, len(b.items)), missing: len(b.items)})
		default: // it goes elsewhere now
			if err := im.Ledger.void(b); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

func (im *Import) ensure(ctx context.Context, name string, m Mailbox) (*v1.Mailbox, error) {
	for try := 0; ; try++ {
		r, err := im.Account.List(ctx, &v1.ListMailboxesRequest{Name: name})
		if err != nil {
			return nil, err
		}
		if list := r.GetMailboxes(); len(list) > 0 && !list[0].GetContainer() {
			return im.subscribe(ctx, list[0], m)
		}
		role := m.Role
		if im.Prefix != "" || im.Map[m.Name] != "" || im.ofRole(role) != nil {
			role = ""
		}
		box, err := im.Account.Create(ctx, &v1.CreateMailboxRequest{Name: name, Role: role, Unsubscribed: !m.Subscribed})
		switch {
		case err == nil:
			im.boxes = append(im.boxes, box)
			return box, nil
		case !fail.Is(err, fail.Exists) || try > 0:
			return nil, err
		}
	}
}

// subscribe keeps the subscription that the mailbox had at its source.
func (im *Import) subscribe(ctx context.Context, box *v1.Mailbox, m Mailbox) (*v1.Mailbox, error) {
	if !m.Subscribed || box.GetSubscribed() {
		return box, nil
	}
	on := true
	return im.Account.Update(ctx, &v1.UpdateMailboxRequest{Id: box.GetId(), Subscribed: &on})
}
