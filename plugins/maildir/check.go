package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

var _ storage.Checker = (*Store)(nil)

// checker verifies accounts one by one, each as it is at one moment. What other
// programs did to the folders is no mistake: it is seen first.
type checker struct {
	s        *Store
	repair   bool
	accounts v1.CheckResponse_Checked
	boxes    v1.CheckResponse_Checked
	messages v1.CheckResponse_Checked
	found    []*v1.CheckResponse_Finding
}

// Check implements storage.Checker.
func (s *Store) Check(ctx context.Context, req *v1.CheckRequest, progress func(*v1.CheckResponse) error) (*v1.CheckResponse, error) {
	c := &checker{s: s, repair: req.GetRepair()}
	c.accounts.What, c.boxes.What, c.messages.What = "accounts", "mailboxes", "messages"
	if name := req.GetAccount(); name != "" {
		a, err := s.account(name)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(a.dir, logName)); err != nil {
			return nil, fail.New(fail.NotFound, "there is no account %q", name)
		}
		c.account(name)
		return c.answer(), nil
	}
	for after := ""; ; {
		r, err := s.Accounts(ctx, &v1.AccountsRequest{After: after})
		if err != nil || len(r.GetAccounts()) == 0 {
			return c.answer(), err
		}
		for _, name := range r.GetAccounts() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			c.account(name)
			if err := progress(c.answer()); err != nil {
				return nil, err
			}
			after = name
		}
	}
}

// answer has what was found since the one before.
func (c *checker) answer() *v1.CheckResponse {
	r := &v1.CheckResponse{Findings: c.found}
	c.found = nil
	for _, k := range []*v1.CheckResponse_Checked{&c.accounts, &c.boxes, &c.messages} {
		r.Checked = append(r.Checked, &v1.CheckResponse_Checked{What: k.What, Count: k.Count, Wrong: k.Wrong})
	}
	return r
}

func (c *checker) account(name string) {
	c.accounts.Count++
	a, err := c.s.account(name)
	if err == nil && c.repair {
		err = a.write(func() error { return c.look(a) })
	} else if err == nil {
		err = a.read(func() error { return c.look(a) })
	}
	if err != nil {
		c.accounts.Wrong++
		c.found = append(c.found, &v1.CheckResponse_Finding{What: "account", Where: name, Text: err.Error()})
	}
}

func (c *checker) look(a *account) error {
	for _, b := range a.boxes {
		c.boxes.Count++
		var changed []uint32
		for _, m := range b.msgs {
			c.messages.Count++
			text, again := a.verify(b, m)
			if text == "" {
				continue
			}
			c.messages.Wrong++
			f := &v1.CheckResponse_Finding{What: "message", Where: fmt.Sprintf("%s %s UID %d", a.name, b.Name, m.UID), Text: text}
			if again {
				f.Repair, f.Repaired = "it gets a new UID, as the mail that it is now", c.repair
				changed = append(changed, m.UID)
			}
			c.found = append(c.found, f)
		}
		if c.repair && len(changed) > 0 {
			a.bury(b, changed)
			b.seen = stamp{}
			if err := a.scan(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// verify says what is wrong with a message's file; again: it is another message now,
// though IMAP says that those never change.
func (a *account) verify(b *box, m *message) (text string, again bool) {
	f, err := os.Open(a.path(b, m.File))
	if os.IsNotExist(err) {
		return "", false // another program has just renamed or removed it
	}
	if err != nil {
		return err.Error(), false
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return err.Error(), false
	case fi.Size() != m.Size:
		return fmt.Sprintf("the file has %d octets, and had %d when it came", fi.Size(), m.Size), true
	}
	return "", false
}
