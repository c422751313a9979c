package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/interop/dovecot"
)

// figure is one thing that is measured.
type figure struct {
	name string
	// goal: how many times better than the best of the others.
	goal float64
	unit string
	// more is better; else less is.
	more bool
	// sized: once for each size of mailbox, whose account run is given.
	sized bool
	run   func(s server, account string, mails int) (float64, error)
}

// The crowd's clients, and the idle connections.
const (
	crowd   = 20
	folders = 200
	letters = 1000 // of the accounts pop and crowd
)

var idlers = 2000

var figures = []figure{
	{name: "select", goal: 1, unit: "ms", sized: true, run: timed(3, func(c *client, n int) error {
		if _, err := c.do(nil, "UNSELECT"); err != nil {
			return err
		}
		return c.selectBox("INBOX", n)
	})},
	{name: "flags", goal: 1, unit: "ms", sized: true, run: timed(3, func(c *client, n int) error {
		return c.fetches(n, "FETCH 1:* (UID FLAGS)")
	})},
	{name: "envelope, never asked", goal: 1, unit: "ms", sized: true, run: cold(true, func(c *client, n int) error {
		return c.fetches(n, "FETCH 1:* ENVELOPE")
	})},
	{name: "envelope, cold", goal: 1, unit: "ms", sized: true, run: cold(false, func(c *client, n int) error {
		return c.fetches(n, "FETCH 1:* ENVELOPE")
	})},
	{name: "envelope, warm", goal: 1, unit: "ms", sized: true, run: timed(3, func(c *client, n int) error {
		return c.fetches(n, "FETCH 1:* ENVELOPE")
	})},
	{name: "1000 bodies", goal: 1, unit: "ms", sized: true, run: bodies},
	{name: "search header", goal: 1, unit: "ms", sized: true, run: timed(3, func(c *client, n int) error {
		return c.finds(n/1000, "SEARCH SUBJECT "+rare)
	})},
	{name: "search text", goal: 20, unit: "ms", sized: true, run: timed(1, func(c *client, n int) error {
		return c.finds(2*(n/1000), "SEARCH TEXT "+rare)
	})},
	{name: "store on all", goal: 1, unit: "ms", sized: true, run: storeAll},
	{name: "append", goal: 1, unit: "/s", more: true, run: appendRate},
	{name: "status of 200", goal: 1, unit: "ms", run: statusEach},
	{name: "list-status of 200", goal: 1, unit: "ms", run: statusList},
	{name: "pop3 retr of 1000", goal: 1, unit: "ms", run: retrieve},
	{name: "20 clients, one account", goal: 1, unit: "/s", more: true, run: together},
	{name: "idle connection", goal: 10, unit: "KB", run: idle},
}

// enter logs in and selects the INBOX.
func enter(s server, account string, mails int) (*client, error) {
	c, err := dial(s.imap(), user(account), dovecot.Password, 1<<18)
	if err != nil {
		return nil, err
	}
	if err := c.selectBox("INBOX", mails); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) selectBox(name string, mails int) error {
	exists := -1
	_, err := c.do(func(line []byte) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[2]) == "EXISTS" {
			exists, _ = strconv.Atoi(string(f[1]))
		}
	}, "SELECT %s", name)
	if err == nil && exists != mails {
		err = fmt.Errorf("%s holds %d mails, not %d", name, exists, mails)
	}
	return err
}

// fetches runs a FETCH that is to have so many replies.
func (c *client) fetches(mails int, command string) error {
	n, err := c.do(nil, "%s", command)
	if err == nil && n != mails {
		err = fmt.Errorf("%.40s: %d replies for %d mails", command, n, mails)
	}
	return err
}

// finds runs a SEARCH that is to find so many.
func (c *client) finds(mails int, command string) error {
	found := 0
	_, err := c.do(func(line []byte) {
		if f := bytes.Fields(line); len(f) > 1 && string(f[1]) == "SEARCH" {
			found = len(f) - 2
		}
	}, "%s", command)
	if err == nil && found != mails {
		err = fmt.Errorf("%s finds %d mails, not %d", command, found, mails)
	}
	return err
}

// timed measures what is done on a warm session, in milliseconds: once before,
// and then the least of some times, for others use the machine too.
func timed(times int, do func(*client, int) error) func(server, string, int) (float64, error) {
	return func(s server, account string, mails int) (float64, error) {
		c, err := enter(s, account, mails)
		if err != nil {
			return 0, err
		}
		defer c.close()
		if times > 1 {
			if err := do(c, mails); err != nil {
				return 0, err
			}
		}
		var took []float64
		for range times {
			began := time.Now()
			if err := do(c, mails); err != nil {
				return 0, err
			}
			took = append(took, ms(time.Since(began)))
		}
		return slices.Min(took), nil
	}
}

// cold measures what is done first after a start, with nothing of its files in
// the kernel's memory; forget: nor has it what it noted as others asked.
func cold(forget bool, do func(*client, int) error) func(server, string, int) (float64, error) {
	return func(s server, account string, mails int) (float64, error) {
		if err := s.stop(); err != nil {
			return 0, err
		}
		if forget {
			if _, err := s.forget(); err != nil {
				return 0, err
			}
		}
		if err := errors.Join(evict(s.dir()), s.start(false)); err != nil {
			return 0, err
		}
		c, err := enter(s, account, mails)
		if err != nil {
			return 0, err
		}
		defer c.close()
		began := time.Now()
		err = do(c, mails)
		return ms(time.Since(began)), err
	}
}

// bodies fetches 1,000 that lie apart.
func bodies(s server, account string, mails int) (float64, error) {
	c, err := enter(s, account, mails)
	if err != nil {
		return 0, err
	}
	defer c.close()
	all, err := c.uids()
	if err != nil {
		return 0, err
	}
	var some []string
	for i := 0; i < len(all) && len(some) < 1000; i += max(1, len(all)/1000) {
		some = append(some, all[i])
	}
	var took []float64
	for range 4 {
		began := time.Now()
		if err := c.fetches(len(some), "UID FETCH "+strings.Join(some, ",")+" (BODY.PEEK[])"); err != nil {
			return 0, err
		}
		took = append(took, ms(time.Since(began)))
	}
	return slices.Min(took[1:]), nil
}

// storeAll sets a flag on all and takes it away again.
func storeAll(s server, account string, mails int) (float64, error) {
	c, err := enter(s, account, mails)
	if err != nil {
		return 0, err
	}
	defer c.close()
	var took []float64
	for range 2 {
		for _, sign := range []string{"+", "-"} {
			began := time.Now()
			if _, err := c.do(nil, `STORE 1:* %sFLAGS.SILENT (\Flagged)`, sign); err != nil {
				return 0, err
			}
			took = append(took, ms(time.Since(began)))
		}
	}
	return slices.Min(took), c.finds(0, "SEARCH FLAGGED")
}

// appendRate is of one client that waits for each reply.
func appendRate(s server, account string, _ int) (float64, error) {
	c, err := dial(s.imap(), user("append"), dovecot.Password, 1<<18)
	if err != nil {
		return 0, err
	}
	defer c.close()
	const count = 500
	began := time.Now()
	for n := range count {
		if err := c.append("INBOX", mail(n)); err != nil {
			return 0, err
		}
	}
	return count / time.Since(began).Seconds(), nil
}

func folder(n int) string { return fmt.Sprintf("box-%03d", n) }

func statusEach(s server, _ string, _ int) (float64, error) {
	return inFolders(s, func(c *client) (counted int, err error) {
		for n := range folders {
			k, err := c.do(nil, "STATUS %s (MESSAGES UNSEEN UIDNEXT)", folder(n))
			if err != nil {
				return 0, err
			}
			counted += k
		}
		return counted, nil
	})
}

func statusList(s server, _ string, _ int) (float64, error) {
	return inFolders(s, func(c *client) (counted int, err error) {
		_, err = c.do(func(line []byte) {
			if bytes.HasPrefix(line, []byte("* STATUS ")) && bytes.Contains(line, []byte("box-")) {
				counted++
			}
		}, `LIST "" "box-*" RETURN (STATUS (MESSAGES UNSEEN UIDNEXT))`)
		return counted, err
	})
}

func inFolders(s server, do func(*client) (int, error)) (float64, error) {
	c, err := dial(s.imap(), user("folders"), dovecot.Password, 1<<16)
	if err != nil {
		return 0, err
	}
	defer c.close()
	var took []float64
	for range 4 {
		began := time.Now()
		n, err := do(c)
		if err == nil && n != folders {
			err = fmt.Errorf("STATUS of %d folders, not %d", n, folders)
		}
		if err != nil {
			return 0, err
		}
		took = append(took, ms(time.Since(began)))
	}
	return slices.Min(took[1:]), nil
}

func retrieve(s server, _ string, _ int) (float64, error) {
	var took []float64
	for range 3 {
		p, err := dialPOP(s.pop3(), user("pop"), dovecot.Password)
		if err != nil {
			return 0, err
		}
		began := time.Now()
		for n := range letters {
			if _, err := p.many(fmt.Sprintf("RETR %d\r\n", n+1)); err != nil {
				return 0, err
			}
		}
		took = append(took, ms(time.Since(began)))
		if err := p.close(); err != nil {
			return 0, err
		}
	}
	return slices.Min(took), nil
}

// together is the rate of commands of clients that read, mark, look and store in
// one mailbox at the same time.
func together(s server, _ string, _ int) (float64, error) {
	const steps = 40
	var clients []*client
	defer func() {
		for _, c := range clients {
			c.conn.Close()
		}
	}()
	for range crowd {
		c, err := dial(s.imap(), user("crowd"), dovecot.Password, 1<<16)
		if err != nil {
			return 0, err
		}
		clients = append(clients, c)
		if _, err := c.do(nil, "SELECT INBOX"); err != nil {
			return 0, err
		}
	}
	errs := make([]error, crowd)
	var all sync.WaitGroup
	began := time.Now()
	for i, c := range clients {
		all.Go(func() {
			r := rand.New(rand.NewSource(int64(i)))
			for step := range steps {
				n := r.Intn(letters) + 1
				_, err := c.do(nil, "UID FETCH %d (FLAGS BODY.PEEK[])", n)
				if err == nil {
					_, err = c.do(nil, `UID STORE %d %cFLAGS (\Flagged)`, n, "+-"[step%2])
				}
				if err == nil {
					_, err = c.do(nil, "NOOP")
				}
				if err == nil && step%4 == 0 {
					err = c.append("Kept", mail(step))
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	all.Wait()
	return crowd * (3*steps + steps/4) / time.Since(began).Seconds(), errors.Join(errs...)
}

// idle is the memory of a connection that waits in IDLE.
func idle(s server, _ string, _ int) (float64, error) {
	// What other figures have left in memory would make room for them.
	if err := errors.Join(s.stop(), s.start(false)); err != nil {
		return 0, err
	}
	before := memory(s.pid())
	var clients []*client
	defer func() {
		for _, c := range clients {
			c.conn.Close()
		}
	}()
	for range idlers {
		c, err := dial(s.imap(), user("idle"), dovecot.Password, 512)
		if err != nil {
			return 0, fmt.Errorf("connection %d: %w", len(clients)+1, err)
		}
		clients = append(clients, c)
		if _, err := c.do(nil, "SELECT INBOX"); err != nil {
			return 0, err
		}
		if _, err := c.say("IDLE"); err != nil {
			return 0, err
		}
		if line, err := c.in.ReadString('\n'); err != nil || line[0] != '+' {
			return 0, fmt.Errorf("IDLE: %q %w", line, err)
		}
	}
	time.Sleep(2 * time.Second) // what is measured is what they keep, not what logging in took
	return float64(memory(s.pid())-before) / 1024 / float64(len(clients)), nil
}
