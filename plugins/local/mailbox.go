package local

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/text/unicode/norm"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

const (
	inbox   = "INBOX"
	maxName = 1024 // octets
)

// checkName returns the name in the form it is stored in: NFC, and INBOX in
// capitals (RFC 9051 section 5.1).
func checkName(name string) (string, error) {
	if !utf8.ValidString(name) {
		return "", fail.New(fail.Invalid, "mailbox name %q is not UTF-8", name)
	}
	name = norm.NFC.String(name)
	if name == "" || len(name) > maxName {
		return "", fail.New(fail.Invalid, "a mailbox name has 1 to %d octets", maxName)
	}
	for _, r := range name {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return "", fail.New(fail.Invalid, "mailbox name %q has a control character", name)
		}
	}
	levels := strings.Split(name, "/")
	if slices.Contains(levels, "") {
		return "", fail.New(fail.Invalid, "mailbox name %q has an empty level", name)
	}
	if strings.EqualFold(levels[0], inbox) {
		levels[0] = inbox
	}
	return strings.Join(levels, "/"), nil
}

var roles = []string{"", "inbox", "drafts", "sent", "trash", "junk", "archive", "all", "flagged", "important"}

func checkRole(role string) error {
	if !slices.Contains(roles, role) {
		return fail.New(fail.Invalid, "%q is no mailbox role; there are %s", role, strings.Join(roles[1:], ", "))
	}
	return nil
}

// numOf returns the number of the mailbox of that name, 0 if there is none.
func (c *change) numOf(name string) (uint32, error) {
	if n, ok := c.names[name]; ok {
		return n, nil
	}
	v, err := get(c.s.db, keyName(c.a.num, name))
	if err != nil || v == nil {
		return 0, err
	}
	return be.Uint32(v), nil
}

func (c *change) setName(name string, num uint32) {
	c.nameKnown(name, num)
	if num == 0 {
		c.b.Delete(keyName(c.a.num, name), nil)
	} else {
		c.b.Set(keyName(c.a.num, name), be.AppendUint32(nil, num), nil)
	}
}

// create makes a mailbox, which must not exist; name is checked.
func (c *change) create(name, role string) (*box, error) {
	c.rec.mailbox++
	// A name that is used again must differ in its UIDVALIDITY (RFC 9051
	// section 2.3.1.1); seconds alone would not do for two within one.
	c.rec.uidValidity = max(c.rec.uidValidity+1, uint64(c.s.opts.Now().Unix())&0xffffffff)
	x := &box{num: uint32(c.rec.mailbox), Mailbox: &v1.Mailbox{
		Id: boxID(uint32(c.rec.mailbox)), Name: name, Role: role, Subscribed: !c.unsubscribed,
		UidValidity: uint32(c.rec.uidValidity), UidNext: 1, CreatedMs: c.s.nowMS(),
	}}
	c.boxes[x.num] = x
	c.touch(x)
	c.list = true
	c.setName(name, x.num)
	return x, c.inherit(x)
}

// ensure returns the mailbox of that checked name, creating it and its parents.
func (c *change) ensure(name string) (*box, error) {
	num, err := c.numOf(name)
	if err != nil {
		return nil, err
	}
	if num != 0 {
		return c.byNum(num)
	}
	if err := c.parents(name); err != nil {
		return nil, err
	}
	return c.create(name, "")
}

// parents makes the superior names (RFC 9051 section 6.3.4).
func (c *change) parents(name string) error {
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		_, err := c.ensure(name[:i])
		return err
	}
	return nil
}

// all returns every mailbox of the account, changed ones included.
func (c *change) all() ([]*box, error) {
	stored, err := readMailboxes(c.s.db, c.a.num)
	if err != nil {
		return nil, err
	}
	for _, m := range stored {
		if num, _ := parseBoxID(m.Id); c.boxes[num] == nil {
			c.boxes[num] = &box{num: num, Mailbox: m}
		}
	}
	var out []*box
	for _, x := range c.boxes {
		if !x.removed {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *box) int { return cmp.Compare(a.num, b.num) })
	return out, nil
}

func readMailboxes(r pebble.Reader, account uint64) ([]*v1.Mailbox, error) {
	var out []*v1.Mailbox
	err := scan(r, key8(tabMailbox, account), func(_, v []byte) error {
		m, err := decodeMailbox(v)
		out = append(out, m)
		return err
	})
	return out, err
}

// scan calls f for all keys with the prefix; key and value are valid until f
// returns.
func scan(r pebble.Reader, prefix []byte, f func(k, v []byte) error) error {
	return scanRange(r, prefix, after(prefix), f)
}

func scanRange(r pebble.Reader, lower, upper []byte, f func(k, v []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = f(it.Key(), v)
		}
		if err != nil {
			it.Close()
			return err
		}
	}
	return it.Close()
}

// List implements storage.Mailboxes.
func (h *handle) List(ctx context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	v, err := h.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	name := req.GetName()
	if name != "" {
		if name, err = checkName(name); err != nil {
			return nil, err
		}
	}
	resp := &v1.ListMailboxesResponse{Modseq: v.rec.modseq}
	if resp.Mailboxes, err = listed(v, h.a.num, req.GetId(), name); err != nil {
		return nil, h.s.wrap(err, "list mailboxes")
	}
	if req.GetId() == "" {
		if resp.KeptSubscriptions, err = keptSubscriptions(v, h.a.num, name); err != nil {
			return nil, h.s.wrap(err, "list subscriptions")
		}
	}
	return resp, nil
}

// Create implements storage.Mailboxes.
func (h *handle) Create(ctx context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	name, err := checkName(req.GetName())
	if err == nil {
		err = checkRole(req.GetRole())
	}
	if err == nil {
		err = h.s.room(0)
	}
	if err != nil {
		return nil, err
	}
	out, _, err := once(h, storage.RequestKey(ctx), kindCreate, func(c *change) (*v1.Mailbox, error) {
		c.unsubscribed = req.GetUnsubscribed()
		if err := c.free(name); err != nil {
			return nil, err
		}
		if err := c.roleFree(req.GetRole(), 0); err != nil {
			return nil, err
		}
		if err := c.parents(name); err != nil {
			return nil, err
		}
		x, err := c.create(name, req.GetRole())
		if err != nil {
			return nil, err
		}
		return x.Mailbox, nil
	})
	return out, err
}

func (c *change) free(name string) error {
	num, err := c.numOf(name)
	if err == nil && num != 0 {
		err = fail.New(fail.Exists, "there is a mailbox %q already", name)
	}
	return err
}

// roleFree: a role belongs to one mailbox (RFC 8621 section 2).
func (c *change) roleFree(role string, except uint32) error {
	if role == "" {
		return nil
	}
	all, err := c.all()
	if err != nil {
		return err
	}
	for _, x := range all {
		if x.Role == role && x.num != except {
			return fail.New(fail.Exists, "mailbox %q has the role %q already", x.Name, role)
		}
	}
	return nil
}

// Rename implements storage.Mailboxes.
func (h *handle) Rename(ctx context.Context, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
	name, err := checkName(req.GetName())
	if err != nil {
		return nil, err
	}
	out, _, err := once(h, storage.RequestKey(ctx), kindRename, func(c *change) (*v1.Mailbox, error) {
		x, err := c.byID(req.GetId())
		if err != nil {
			return nil, err
		}
		if err := c.free(name); err != nil {
			return nil, err
		}
		if x.Name == inbox {
			x, err = c.renameInbox(x, name)
		} else {
			err = c.rename(x, name)
		}
		if err != nil {
			return nil, err
		}
		return x.Mailbox, nil
	})
	return out, err
}

func (c *change) rename(x *box, name string) error {
	if strings.HasPrefix(name, x.Name+"/") {
		return fail.New(fail.Invalid, "mailbox %q cannot move below itself", x.Name)
	}
	all, err := c.all()
	if err != nil {
		return err
	}
	old := x.Name
	var moved []*box
	for _, y := range all {
		if y.num == x.num || strings.HasPrefix(y.Name, old+"/") {
			to := name + y.Name[len(old):]
			if len(to) > maxName {
				return fail.New(fail.Invalid, "%q would become too long below %q", y.Name, name)
			}
			if err := c.free(to); err != nil {
				return err
			}
			moved = append(moved, y)
		}
	}
	for _, y := range moved {
		c.setName(y.Name, 0)
		y.Name = name + y.Name[len(old):]
		c.setName(y.Name, y.num)
		c.touch(y)
		if err := c.inherit(y); err != nil {
			return err
		}
	}
	c.list = true
	return c.parents(name)
}

// renameInbox moves the messages only; INBOX stays, and so do its children
// (RFC 9051 section 6.3.6).
func (c *change) renameInbox(from *box, name string) (*box, error) {
	if err := c.parents(name); err != nil {
		return nil, err
	}
	to, err := c.create(name, "")
	if err != nil {
		return nil, err
	}
	_, _, err = c.transfer(from, to, mime.NewRanges(nil), true, 0)
	return to, err
}

// Delete implements storage.Mailboxes.
func (h *handle) Delete(ctx context.Context, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
	resp, _, err := once(h, storage.RequestKey(ctx), kindDelete, func(c *change) (*v1.DeleteMailboxResponse, error) {
		x, err := c.byID(req.GetId())
		if err != nil {
			return nil, err
		}
		if x.Name == inbox {
			return nil, fail.New(fail.Invalid, "INBOX cannot be deleted")
		}
		err = c.eachColumn(x, mime.NewRanges(nil), func(uid uint32, col *columns) error {
			return c.remove(x, uid, col, false)
		})
		if err != nil {
			return nil, err
		}
		// The id is never used again, so its tombstones tell nobody anything.
		gone := be.AppendUint32(key8(tabVanished, c.a.num), x.num)
		c.b.DeleteRange(gone, after(gone), nil)
		c.setName(x.Name, 0)
		if req.GetKeepSubscription() {
			c.keepSubscription(x)
		}
		x.removed = true
		c.list = true
		return &v1.DeleteMailboxResponse{Modseq: c.step()}, nil
	})
	return resp, err
}

// Update implements storage.Mailboxes.
func (h *handle) Update(ctx context.Context, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	name := ""
	if req.GetId() == "" && req.GetName() != "" {
		var err error
		if name, err = checkName(req.GetName()); err != nil {
			return nil, err
		}
	}
	out, _, err := once(h, storage.RequestKey(ctx), kindUpdate, func(c *change) (*v1.Mailbox, error) {
		if name != "" {
			return c.updateByName(name, req)
		}
		x, err := c.byID(req.GetId())
		if err != nil {
			return nil, err
		}
		return x.Mailbox, c.update(x, req)
	})
	return out, err
}

func (c *change) update(x *box, req *v1.UpdateMailboxRequest) error {
	if req.Role != nil && req.GetRole() != x.Role {
		if x.Role == "inbox" || req.GetRole() == "inbox" {
			return fail.New(fail.Invalid, "the role inbox belongs to INBOX")
		}
		if err := checkRole(req.GetRole()); err != nil {
			return err
		}
		if err := c.roleFree(req.GetRole(), x.num); err != nil {
			return err
		}
		x.Role = req.GetRole()
		c.touch(x)
		c.list = true
	}
	if req.Subscribed != nil && req.GetSubscribed() != x.Subscribed {
		x.Subscribed = req.GetSubscribed()
		c.touch(x)
		c.list = true
	}
	return nil
}
