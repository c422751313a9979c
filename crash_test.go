package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	transport "github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/plugins/local"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// site is a queue and a local storage on one disk.
type site struct {
	q     *queue.Engine
	s     *local.Store
	spool *spool.Dir
	way   transport.Storage
	bugs  siteBugs
}

// siteBugs are planted to see that they are found.
type siteBugs struct {
	resultFirst bool // the result is journalled before the storage has the mail
	newKey      bool // a delivery that is repeated has another key
	promised    bool // the client has its 250 before the storage has the mail
	newID       bool // what the storage may have at once is queued by another id
}

var siteStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func openSite(d *simdisk.Disk, bugs siteBugs) (*site, error) {
	clock := func() time.Time { return siteStart }
	x := &site{bugs: bugs}
	var err error
	if x.spool, err = spool.OpenDir(d, "spool"); err != nil {
		return nil, err
	}
	if x.s, err = local.New(local.Options{Dir: "mail", FS: d, CacheBytes: 1 << 20, Now: clock, Tune: new(simdisk.Steady).Tune}); err != nil {
		return nil, err
	}
	if x.q, err = queue.Open(queue.Options{Dir: "queue", FS: d, CacheSize: 1 << 20, Clock: clock, Tune: new(simdisk.Steady).Tune}); err != nil {
		return nil, errors.Join(err, x.s.Close())
	}
	x.way = transport.Storage{To: x.s}
	return x, nil
}

func (x *site) close() error { return errors.Join(x.q.Close(), x.s.Close()) }

// parcel is a mail, and where in the disk's log it began and was acknowledged.
type parcel struct {
	text         string
	to           []string
	begun, acked int
}

// letter is a parcel as the receiving end has it.
func (x *site) letter(p *parcel) (*queue.Envelope, spool.Body, error) {
	w := x.spool.NewWriter(int64(len(p.text)))
	if _, err := io.WriteString(w, p.text); err != nil {
		return nil, nil, err
	}
	body, err := w.Finish()
	if err != nil {
		return nil, nil, err
	}
	env := &queue.Envelope{Sender: "tom@hanks.example", Origin: "receive.smtp.mx"}
	for _, a := range p.to {
		env.Recipients = append(env.Recipients, &queue.Recipient{Address: a, Account: a, Parent: -1})
	}
	return env, body, nil
}

func (x *site) put(p *parcel) error {
	env, body, err := x.letter(p)
	if err != nil {
		return err
	}
	return x.q.Put(context.Background(), env, body)
}

// pass does what the dispatcher's AtOnce does, and what is done after it: the
// storage's word is the promise of the 250, or its answer is late and the queue gets
// the mail too.
func (x *site) pass(p *parcel, late bool, promise func()) error {
	ctx := context.Background()
	env, body, err := x.letter(p)
	if err != nil || body.Path() != "" {
		return errors.Join(err, x.q.Put(ctx, env, body))
	}
	if !x.q.Reserve(ctx, env) {
		return errors.New("no id was reserved")
	}
	if x.bugs.promised {
		promise()
	}
	for _, o := range x.way.Deliver(ctx, &transport.Job{Envelope: env, Body: body, Recipients: env.Recipients}) {
		if o.Attempt.Code != 250 {
			return fmt.Errorf("deliver %s at once: %d %s", env.ID, o.Attempt.Code, o.Attempt.Text)
		}
	}
	switch {
	case !late:
		x.q.Passed(env, []queue.Change{{State: queue.Delivered}})
		return nil
	case x.bugs.newID:
		env = &queue.Envelope{Sender: env.Sender, Origin: env.Origin, Recipients: env.Recipients}
	}
	return x.q.Put(ctx, env, body)
}

// inMemory is a body that a storage on another disk than the machine's can read.
func inMemory(b spool.Body) (spool.Body, error) {
	r, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	return spool.FromBytes(text), err
}

// deliver does what the dispatcher does, in its order: the storage has the mail
// when it says so, and then the result is journalled. It gives the number of mails
// that it found.
func (x *site) deliver(most int) (int, error) {
	ctx := context.Background()
	claims, err := x.q.Claim(ctx, siteStart.Add(time.Hour), most, time.Minute)
	if err != nil {
		return 0, err
	}
	for _, c := range claims {
		body, err := x.q.Body(ctx, c.ID)
		if err == nil {
			body, err = inMemory(body)
		}
		if err != nil {
			return 0, err
		}
		job := &transport.Job{Envelope: c.Envelope, Body: body, Recipients: c.Recipients}
		if x.bugs.newKey {
			env := *c.Envelope
			env.ID = fmt.Sprint(env.ID, c.Token)
			job.Envelope = &env
		}
		var changes []queue.Change
		for _, i := range c.Due {
			changes = append(changes, queue.Change{Index: i, State: queue.Delivered})
		}
		if x.bugs.resultFirst {
			if err := x.q.Commit(ctx, c, changes, false); err != nil {
				return 0, err
			}
		}
		for _, o := range x.way.Deliver(ctx, job) {
			if o.Attempt.Code != 250 {
				return 0, fmt.Errorf("deliver %s: %d %s", c.ID, o.Attempt.Code, o.Attempt.Text)
			}
		}
		if !x.bugs.resultFirst {
			if err := x.q.Commit(ctx, c, changes, false); err != nil {
				return 0, err
			}
		}
	}
	return len(claims), nil
}

var siteAccounts = []string{"meg@ryan.example", "kathleen@ryan.example", "joe@ryan.example"}

// found is a mail in a mailbox.
type found struct{ account, text string }

// mailboxes counts each text in each account.
func (x *site) mailboxes() (map[found]int, error) {
	all := map[found]int{}
	for _, account := range siteAccounts {
		a, err := x.s.Open(context.Background(), account)
		if err != nil {
			return nil, err
		}
		list, err := a.List(context.Background(), &v1.ListMailboxesRequest{Name: "INBOX"})
		if err != nil || len(list.Mailboxes) != 1 {
			return nil, fmt.Errorf("no INBOX of %s: %w", account, err)
		}
		err = a.Fetch(context.Background(), &v1.FetchRequest{MailboxId: list.Mailboxes[0].Id, Message: true}, func(it *v1.FetchResponse_Item) error {
			_, text, _ := strings.Cut(string(it.Message.GetInline()), "Subject: ")
			all[found{account, "Subject: " + text}]++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func siteTrial(seed uint64, bugs siteBugs) (*simdisk.Trial, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	d := simdisk.New()
	log := d.Record()
	x, err := openSite(d, bugs)
	if err != nil {
		return nil, err
	}
	var all []*parcel
	for n := range 24 {
		switch {
		case n == 12:
			if err = x.close(); err == nil {
				x, err = openSite(d, bugs)
			}
		case rng.IntN(5) < 3:
			p := &parcel{text: fmt.Sprintf("Subject: m%d\r\n\r\n%s\r\n", n, strings.Repeat("x", rng.IntN(2000))), begun: log.Len()}
			if rng.IntN(4) == 0 {
				p.text += strings.Repeat("large\r\n", 3000+rng.IntN(2)*8000) // a file of the queue, or of both
			}
			p.to = siteAccounts[:1+rng.IntN(len(siteAccounts))]
			p.acked = 1 << 40
			all = append(all, p)
			promise := func() { p.acked = min(p.acked, log.Len()) }
			if rng.IntN(2) == 0 {
				err = x.put(p)
			} else {
				err = x.pass(p, rng.IntN(3) == 0, promise)
			}
			if err == nil {
				promise()
			}
		default:
			_, err = x.deliver(1 + rng.IntN(2))
		}
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", n, err)
		}
	}
	if err := x.close(); err != nil {
		return nil, err
	}
	return &simdisk.Trial{
		Log: log,
		Check: func(d *simdisk.Disk, at int) error {
			x, err := openSite(d, bugs)
			if err != nil {
				return err
			}
			return errors.Join(x.onceEach(all, at), x.close())
		},
		Recover: func(d *simdisk.Disk) error {
			x, err := openSite(d, bugs)
			if err != nil {
				return err
			}
			return x.close()
		},
		Oracle: func(at int) (k uint64) {
			for _, p := range all {
				if p.begun <= at {
					k += 1 << 16
				}
				if p.acked <= at {
					k++
				}
			}
			return k
		},
	}, nil
}

// onceEach delivers what is left and looks into the mailboxes.
func (x *site) onceEach(all []*parcel, at int) error {
	for range len(all) + 1 {
		n, err := x.deliver(10)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	if s, err := x.q.Stats(context.Background()); err != nil || s.Messages != 0 {
		return fmt.Errorf("%d messages stay in the queue: %w", s.Messages, err)
	}
	there, err := x.mailboxes()
	if err != nil {
		return err
	}
	for _, p := range all {
		copies := there[found{p.to[0], p.text}]
		switch {
		case p.acked <= at && copies != 1:
			return fmt.Errorf("%.12q was acknowledged and is %d times in the mailbox", p.text, copies)
		case copies > 1, copies > 0 && p.begun > at:
			return fmt.Errorf("%.12q is %d times in the mailbox", p.text, copies)
		}
		for _, account := range p.to {
			if n := there[found{account, p.text}]; n != copies {
				return fmt.Errorf("%.12q is %d times in one mailbox and %d times in another", p.text, copies, n)
			}
			delete(there, found{account, p.text})
		}
	}
	for f := range there {
		return fmt.Errorf("the mailbox of %s has %.60q, which nobody sent", f.account, f.text)
	}
	return nil
}

// TestCrash: whenever the power is cut, a mail that was acknowledged comes to each
// mailbox exactly once.
func TestCrash(t *testing.T) {
	c, err := simdisk.Checker{Command: "go test . -run '^TestCrash$'", Most: 3, Sample: 3, Exhaust: 2}.Env()
	if err != nil {
		t.Fatal(err)
	}
	if c.States > 0 {
		c.Progress = func(r simdisk.Report) { fmt.Fprintf(os.Stderr, "\r%s", r) }
	}
	r, err := c.Run(func(seed uint64) (*simdisk.Trial, error) { return siteTrial(seed, siteBugs{}) })
	t.Logf("\n%s\n%s", simdisk.ReportHead, r)
	if err != nil {
		t.Fatal(err)
	}
}

// TestPlantedDeliveryBugsAreFound shows that TestCrash would see what it is for.
func TestPlantedDeliveryBugsAreFound(t *testing.T) {
	for name, bugs := range map[string]siteBugs{
		"the result comes before the delivery": {resultFirst: true},
		"a repeated delivery has another key":  {newKey: true},
		"the 250 comes before the storage":     {promised: true},
		"queued by another id than stored by":  {newID: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := simdisk.Checker{Seed: 1, States: 20_000, Most: 3, Sample: 3, Exhaust: 2, Again: 1 << 30}
			r, err := c.Run(func(seed uint64) (*simdisk.Trial, error) { return siteTrial(seed, bugs) })
			var v *simdisk.Violation
			if !errors.As(err, &v) {
				t.Fatalf("nobody noticed the planted bug in %d states: %v", r.States, err)
			}
			t.Logf("the planted bug was found after %d states, as it must be: %.300s", r.States, err)
		})
	}
}
