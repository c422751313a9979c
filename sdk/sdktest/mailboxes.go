package sdktest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

const inbox = "INBOX"

// account is one account of a Storage, under its lock.
type account struct {
	notes    notes
	s        *Storage
	boxes    []*box
	threads  map[string]string // by Message-ID
	modseq   uint64
	stepped  bool   // modseq belongs to the change under way
	listed   uint64 // modseq of the last change of the list
	validity uint32
	kept     map[string]bool // subscriptions of names without a mailbox
	changed  chan struct{}   // closed, and made anew, by each change

	keeping sync.Mutex // answers; before that of the Storage
	answers map[string]answered
}

var _ storage.Account = (*account)(nil)

// box is a mailbox.
type box struct {
	id, name, role string
	subscribed     bool
	validity, next uint32
	modseq         uint64
	created        int64
	notes          notes
	messages       []*message // by growing UID
	gone           []tombstone
}

type tombstone struct {
	uid    uint32
	modseq uint64
}

// change runs f, which changes all or nothing, and wakes the watchers.
func (a *account) change(f func() error) error {
	before := a.modseq
	a.stepped = false
	err := f()
	if a.modseq != before {
		close(a.changed)
		a.changed = make(chan struct{})
	}
	return err
}

// step is the MODSEQ of the change under way.
func (a *account) step() uint64 {
	if !a.stepped {
		a.stepped = true
		a.modseq++
	}
	return a.modseq
}

func (a *account) touch(b *box) uint64 {
	b.modseq = a.step()
	return b.modseq
}

// add makes a mailbox, with its parents, subscribed.
func (a *account) add(name, role string) *box { return a.make(name, role, true) }

func (a *account) make(name, role string, subscribed bool) *box {
	if i := strings.LastIndexByte(name, '/'); i > 0 && a.byName(name[:i]) == nil {
		a.make(name[:i], "", subscribed)
	}
	a.validity++
	b := &box{id: a.s.id("F"), name: name, role: role, subscribed: subscribed, validity: a.validity, next: 1, created: now()}
	a.listed = a.touch(b)
	a.boxes = append(a.boxes, b)
	a.inherit(b)
	return b
}

// inherit gives a mailbox the subscription that was kept for its name.
func (a *account) inherit(b *box) {
	b.subscribed = b.subscribed || a.kept[b.name]
	delete(a.kept, b.name)
}

func (a *account) byName(name string) *box {
	for _, b := range a.boxes {
		if b.name == name {
			return b
		}
	}
	return nil
}

func (a *account) byID(id string) (*box, error) {
	for _, b := range a.boxes {
		if b.id == id {
			return b, nil
		}
	}
	return nil, fail.New(fail.NotFound, "there is no mailbox with the id %q", id)
}

// proto is the contract's form, with the counters.
func (b *box) proto() *v1.Mailbox {
	m := &v1.Mailbox{
		Id: b.id, Name: b.name, Role: b.role, Subscribed: b.subscribed, UidValidity: b.validity, UidNext: b.next,
		HighestModseq: b.modseq, Messages: uint32(len(b.messages)), CreatedMs: b.created,
	}
	for _, x := range b.messages {
		m.Size += x.Size
		if x.flags&uint32(v1.Flag_FLAG_SEEN) == 0 {
			m.Unseen++
		}
		if x.flags&uint32(v1.Flag_FLAG_DELETED) != 0 {
			m.Deleted++
		}
	}
	return m
}

// checkName returns the name as it is stored.
func checkName(name string) (string, error) {
	name = norm.NFC.String(name)
	levels := strings.Split(name, "/")
	if !utf8.ValidString(name) || len(name) > 1024 || slices.Contains(levels, "") || strings.IndexFunc(name, unicode.IsControl) >= 0 {
		return "", fail.New(fail.Invalid, "no mailbox can be named %.40q", name)
	}
	if strings.EqualFold(levels[0], inbox) {
		levels[0] = inbox
	}
	return strings.Join(levels, "/"), nil
}

var roles = []string{"", "inbox", "drafts", "sent", "trash", "junk", "archive", "all", "flagged", "important"}

// free: nobody else has the name, or the role.
func (a *account) free(name, role string, except *box) error {
	if !slices.Contains(roles, role) {
		return fail.New(fail.Invalid, "%q is no mailbox role", role)
	}
	for _, b := range a.boxes {
		if b != except && (b.name == name || role != "" && b.role == role) {
			return fail.New(fail.Exists, "there is a mailbox %q, with the role %q", b.name, b.role)
		}
	}
	return nil
}

// List implements storage.Mailboxes.
func (a *account) List(_ context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	name := req.GetName()
	if name != "" {
		var err error
		if name, err = checkName(name); err != nil {
			return nil, err
		}
	}
	all := map[string]*v1.Mailbox{}
	for _, b := range a.boxes {
		all[b.name] = b.proto()
		for parent, _, ok := cutLast(b.name); ok; parent, _, ok = cutLast(parent) {
			if a.byName(parent) == nil {
				all[parent] = &v1.Mailbox{Name: parent, Container: true}
			}
		}
	}
	resp := &v1.ListMailboxesResponse{Modseq: a.modseq}
	for kept := range a.kept {
		if req.GetId() == "" && (name == "" || kept == name) {
			resp.KeptSubscriptions = append(resp.KeptSubscriptions, kept)
		}
	}
	slices.Sort(resp.KeptSubscriptions)
	for _, m := range all {
		if (req.GetId() == "" || m.Id == req.GetId()) && (name == "" || m.Name == name) {
			resp.Mailboxes = append(resp.Mailboxes, m)
		}
	}
	slices.SortFunc(resp.Mailboxes, func(a, b *v1.Mailbox) int { return cmp.Compare(a.Name, b.Name) })
	return resp, nil
}

func cutLast(name string) (parent, level string, ok bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name, false
	}
	return name[:i], name[i+1:], true
}

// Create implements storage.Mailboxes.
func (a *account) Create(_ context.Context, req *v1.CreateMailboxRequest) (out *v1.Mailbox, err error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	name, err := checkName(req.GetName())
	if err == nil {
		err = a.free(name, req.GetRole(), nil)
	}
	if err != nil {
		return nil, err
	}
	err = a.change(func() error {
		out = a.make(name, req.GetRole(), !req.GetUnsubscribed()).proto()
		return nil
	})
	return out, err
}

// Rename implements storage.Mailboxes.
func (a *account) Rename(_ context.Context, req *v1.RenameMailboxRequest) (out *v1.Mailbox, err error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetId())
	if err != nil {
		return nil, err
	}
	name, err := checkName(req.GetName())
	if err == nil {
		err = a.free(name, "", nil)
	}
	if err == nil && b.name != inbox && strings.HasPrefix(name, b.name+"/") {
		err = fail.New(fail.Invalid, "mailbox %q cannot move below itself", b.name)
	}
	if err != nil {
		return nil, err
	}
	names := map[*box]string{}
	for _, x := range a.boxes {
		if b.name == inbox || x != b && !strings.HasPrefix(x.name, b.name+"/") {
			continue
		}
		if names[x], err = checkName(name + x.name[len(b.name):]); err == nil {
			err = a.free(names[x], "", nil)
		}
		if err != nil {
			return nil, err
		}
	}
	err = a.change(func() error {
		if b.name == inbox {
			to := a.add(name, "")
			a.transfer(b, to, slices.Clone(b.messages), true)
			out = to.proto()
			return nil
		}
		for x, name := range names {
			x.name = name
			a.inherit(x)
			a.listed = a.touch(x)
		}
		if parent, _, ok := cutLast(name); ok && a.byName(parent) == nil {
			a.add(parent, "")
		}
		out = b.proto()
		return nil
	})
	return out, err
}

// Delete implements storage.Mailboxes.
func (a *account) Delete(_ context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetId())
	if err == nil && b.name == inbox {
		err = fail.New(fail.Invalid, "INBOX cannot be deleted")
	}
	if err != nil {
		return nil, err
	}
	resp := &v1.DeleteMailboxResponse{}
	err = a.change(func() error {
		a.boxes = slices.DeleteFunc(a.boxes, func(x *box) bool { return x == b })
		if req.GetKeepSubscription() && b.subscribed {
			a.kept[b.name] = true
		}
		a.listed = a.step()
		resp.Modseq = a.listed
		return nil
	})
	return resp, err
}

// Update implements storage.Mailboxes.
func (a *account) Update(_ context.Context, req *v1.UpdateMailboxRequest) (out *v1.Mailbox, err error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetId())
	if req.GetId() == "" && req.GetName() != "" {
		name, wrong := checkName(req.GetName())
		switch b = a.byName(name); {
		case wrong != nil:
			return nil, wrong
		case b != nil:
			err = nil
		case a.kept[name] && req.Subscribed != nil && !req.GetSubscribed():
			return &v1.Mailbox{Name: name}, a.change(func() error {
				delete(a.kept, name)
				a.listed = a.step()
				return nil
			})
		}
	}
	if err != nil {
		return nil, err
	}
	role, subscribed := b.role, b.subscribed
	if req.Role != nil {
		role = req.GetRole()
	}
	if req.Subscribed != nil {
		subscribed = req.GetSubscribed()
	}
	if role != b.role && (role == "inbox" || b.role == "inbox") {
		return nil, fail.New(fail.Invalid, "the role inbox belongs to INBOX")
	}
	if err := a.free(b.name, role, b); err != nil {
		return nil, err
	}
	err = a.change(func() error {
		if role != b.role || subscribed != b.subscribed {
			b.role, b.subscribed = role, subscribed
			a.listed = a.touch(b)
		}
		out = b.proto()
		return nil
	})
	return out, err
}
