package maildir

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/maildir"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func boxID(num uint32) string { return "F" + strconv.FormatUint(uint64(num), 10) }

func objectID(kind byte, n uint64) string { return string(kind) + strconv.FormatUint(n, 10) }

func (a *account) byID(id string) (*box, error) {
	digits, _ := strings.CutPrefix(id, "F")
	n, err := strconv.ParseUint(digits, 10, 32)
	if b := a.boxes[uint32(n)]; err == nil && b != nil && boxID(b.Num) == id {
		return b, nil
	}
	return nil, fail.New(fail.NotFound, "there is no mailbox with id %q", id)
}

// proto is the contract's form, with the counters.
func (b *box) proto() *v1.Mailbox {
	m := &v1.Mailbox{
		Id: boxID(b.Num), Name: b.Name, Role: b.Role, Subscribed: b.Subscribed, UidValidity: b.UIDValidity,
		UidNext: b.UIDNext, HighestModseq: b.Modseq, Messages: uint32(len(b.msgs)), CreatedMs: b.Created,
	}
	for _, x := range b.msgs {
		m.Size += x.Size
		if x.Flags&uint32(v1.Flag_FLAG_SEEN) == 0 {
			m.Unseen++
		}
		if x.Flags&uint32(v1.Flag_FLAG_DELETED) != 0 {
			m.Deleted++
		}
	}
	return m
}

// List implements storage.Mailboxes.
func (a *account) List(_ context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	name := req.GetName()
	if name != "" {
		var err error
		if name, err = checkName(name); err != nil {
			return nil, err
		}
	}
	resp := &v1.ListMailboxesResponse{}
	err := a.read(func() error {
		resp.Modseq = a.Modseq
		if req.GetId() == "" {
			resp.KeptSubscriptions = a.keptSubscriptions(name)
		}
		names := map[string]bool{}
		var all []*v1.Mailbox
		for _, b := range a.boxes {
			names[b.Name] = true
			all = append(all, b.proto())
		}
		for _, m := range all {
			for up := m.Name; strings.Contains(up, "/"); {
				if up = up[:strings.LastIndexByte(up, '/')]; !names[up] {
					names[up] = true
					all = append(all, &v1.Mailbox{Name: up, Container: true})
				}
			}
		}
		for _, m := range all {
			if (req.GetId() == "" || m.Id == req.GetId()) && (name == "" || m.Name == name) {
				resp.Mailboxes = append(resp.Mailboxes, m)
			}
		}
		slices.SortFunc(resp.Mailboxes, func(a, b *v1.Mailbox) int { return cmp.Compare(a.Name, b.Name) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// change runs f as a change and answers with the mailbox it returns.
func (a *account) change(ctx context.Context, kind string, f func() (*box, error)) (*v1.Mailbox, error) {
	return once(ctx, a, kind, func() (*v1.Mailbox, error) {
		b, err := f()
		if err != nil {
			return nil, err
		}
		return b.proto(), nil
	})
}

func (a *account) free(name string) error {
	if a.byName(name) != nil {
		return fail.New(fail.Exists, "there is a mailbox %q already", name)
	}
	return nil
}

func (a *account) roleFree(role string, except *box) error {
	if !slices.Contains(roles, role) {
		return fail.New(fail.Invalid, "%q is no mailbox role; there are %s", role, strings.Join(roles[1:], ", "))
	}
	for _, b := range a.boxes {
		if role != "" && b.Role == role && b != except {
			return fail.New(fail.Exists, "mailbox %q has the role %q already", b.Name, role)
		}
	}
	return nil
}

// Create implements storage.Mailboxes.
func (a *account) Create(ctx context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	name, err := checkName(req.GetName())
	if err != nil {
		return nil, err
	}
	return a.change(ctx, "Create", func() (*box, error) {
		a.rec.unsubscribed = req.GetUnsubscribed()
		if err := a.free(name); err != nil {
			return nil, err
		}
		if err := a.roleFree(req.GetRole(), nil); err != nil {
			return nil, err
		}
		if err := a.parents(name); err != nil {
			return nil, err
		}
		return a.createBox(name, req.GetRole())
	})
}

// Update implements storage.Mailboxes.
func (a *account) Update(ctx context.Context, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	if req.GetId() == "" && req.GetName() != "" {
		name, err := checkName(req.GetName())
		if err != nil {
			return nil, err
		}
		return once(ctx, a, "Update", func() (*v1.Mailbox, error) { return a.updateByName(name, req) })
	}
	return a.change(ctx, "Update", func() (*box, error) {
		b, err := a.byID(req.GetId())
		if err != nil {
			return nil, err
		}
		return b, a.update(b, req)
	})
}

func (a *account) update(b *box, req *v1.UpdateMailboxRequest) error {
	if req.Role != nil && req.GetRole() != b.Role {
		if b.Role == "inbox" || req.GetRole() == "inbox" {
			return fail.New(fail.Invalid, "the role inbox belongs to INBOX")
		}
		if err := a.roleFree(req.GetRole(), b); err != nil {
			return err
		}
		b.Role = req.GetRole()
		a.touch(b)
		a.rec.list = true
	}
	if req.Subscribed != nil && req.GetSubscribed() != b.Subscribed {
		b.Subscribed = req.GetSubscribed()
		a.touch(b)
		a.rec.list = true
	}
	return nil
}

// Rename implements storage.Mailboxes.
func (a *account) Rename(ctx context.Context, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	name, err := checkName(req.GetName())
	if err != nil {
		return nil, err
	}
	return a.change(ctx, "Rename", func() (*box, error) {
		b, err := a.byID(req.GetId())
		if err != nil {
			return nil, err
		}
		if err := a.free(name); err != nil {
			return nil, err
		}
		if b.Name == inbox {
			// INBOX stays and its messages go (RFC 9051 section 6.3.6).
			if err := a.parents(name); err != nil {
				return nil, err
			}
			to, err := a.createBox(name, "")
			if err != nil {
				return nil, err
			}
			_, _, err = a.transfer(b, to, slices.Clone(b.msgs), true, "", nil)
			return to, err
		}
		return b, a.rename(b, name)
	})
}

func (a *account) rename(b *box, name string) error {
	old := b.Name
	if strings.HasPrefix(name, old+"/") {
		return fail.New(fail.Invalid, "mailbox %q cannot move below itself", old)
	}
	moved := map[*box]string{}
	for _, x := range a.boxes {
		if x == b || strings.HasPrefix(x.Name, old+"/") {
			to, err := checkName(name + x.Name[len(old):])
			if err == nil {
				err = a.free(to)
			}
			if err != nil {
				return err
			}
			moved[x] = to
		}
	}
	if err := a.parents(name); err != nil {
		return err
	}
	for x, to := range moved {
		if err := os.Rename(a.path(x), filepath.Join(a.dir, maildir.Folder(to))); err != nil {
			return err
		}
		x.Name = to
		a.touch(x)
		a.inherit(x)
	}
	a.rec.list = true
	return a.s.syncDir(a.dir)
}

// removeBox takes a mailbox out of the index.
func (a *account) removeBox(b *box) {
	a.step()
	delete(a.boxes, b.Num)
	a.rec.Gone = append(a.rec.Gone, b.Num)
	delete(a.notes, b.Num)
	a.rec.list = true
}

// Delete implements storage.Mailboxes.
func (a *account) Delete(ctx context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	return once(ctx, a, "Delete", func() (*v1.DeleteMailboxResponse, error) {
		b, err := a.byID(req.GetId())
		if err != nil {
			return nil, err
		}
		if b.Name == inbox {
			return nil, fail.New(fail.Invalid, "INBOX cannot be deleted")
		}
		if err := os.RemoveAll(a.path(b)); err != nil {
			return nil, err
		}
		a.removeBox(b)
		if req.GetKeepSubscription() && b.Subscribed {
			a.keep(b.Name, true)
		}
		return &v1.DeleteMailboxResponse{Modseq: a.Modseq}, a.s.syncDir(a.dir)
	})
}
