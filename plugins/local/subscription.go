package local

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// A subscription belongs to a mailbox's record, or, when its mailbox was deleted and
// it was to be kept, to the name: then until it is ended or a mailbox has the name.

// kept tells whether a name's subscription was kept.
func kept(r pebble.Reader, account uint64, name string) (bool, error) {
	v, err := get(r, keyKept(account, name))
	return v != nil, err
}

// inherit gives a mailbox the subscription that was kept for its name.
func (c *change) inherit(x *box) error {
	ok, err := kept(c.s.db, c.a.num, x.Name)
	if ok {
		x.Subscribed = true
		c.b.Delete(keyKept(c.a.num, x.Name), nil)
	}
	return err
}

// keepSubscription keeps the one of a mailbox that is deleted.
func (c *change) keepSubscription(x *box) {
	if x.Subscribed {
		c.b.Set(keyKept(c.a.num, x.Name), []byte{1}, nil)
	}
}

// keptSubscriptions are the names whose subscription was kept, sorted; name: only
// that one.
func keptSubscriptions(r pebble.Reader, account uint64, name string) ([]string, error) {
	var out []string
	prefix := key8(tabKept, account)
	err := scan(r, prefix, func(k, _ []byte) error {
		if n := string(k[len(prefix):]); name == "" || n == name {
			out = append(out, n)
		}
		return nil
	})
	return out, err
}

// updateByName is Update where the request names the mailbox.
func (c *change) updateByName(name string, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	num, err := c.numOf(name)
	if err != nil {
		return nil, err
	}
	if num != 0 {
		x, err := c.byNum(num)
		if err != nil {
			return nil, err
		}
		return x.Mailbox, c.update(x, req)
	}
	ok, err := kept(c.s.db, c.a.num, name)
	if err == nil && (!ok || req.Subscribed == nil || req.GetSubscribed()) {
		err = fail.New(fail.NotFound, "there is no mailbox %q", name)
	}
	if err != nil {
		return nil, err
	}
	c.b.Delete(keyKept(c.a.num, name), nil)
	c.step()
	c.list = true
	return &v1.Mailbox{Name: name}, nil
}
