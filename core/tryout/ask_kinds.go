package tryout

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	sdkdeliver "github.com/stagecoach-mta/stagecoach/sdk/deliver"
	sdkdirectory "github.com/stagecoach-mta/stagecoach/sdk/directory"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	sdkstorage "github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// queueID names a mail that was never here before.
func queueID() string { return fmt.Sprintf("dev-%d", time.Now().UnixNano()) }

// deliver hands the mail over for all its recipients.
func (q *asking) deliver(ctx context.Context) {
	job := &deliver.Job{
		Envelope: &queue.Envelope{
			ID: queueID(), Received: time.Now(), Sender: q.mail.From, Client: client(), Size: q.body.Size(), Parameters: &v1.MailParameters{},
		},
		Body: q.body,
	}
	job.Key = job.Envelope.ID + "/" + q.Config.Ref
	for i, to := range q.mail.To {
		job.Recipients = append(job.Recipients, &queue.Recipient{Index: int32(i), Address: to})
	}
	way := &deliver.Plugin{To: sdkdeliver.NewClient(q.tap), Timeout: q.limit}
	for _, o := range way.Deliver(ctx, job) {
		a := o.Attempt
		text := strings.Join(strings.Fields(fmt.Sprintf("%d %s %s", a.Code, a.Enhanced, a.Text)), " ")
		what := map[queue.State]string{
			queue.Delivered: "is delivered", queue.Failed: "fails, and the sender is told", queue.Waiting: "waits for the next attempt",
		}[o.State()]
		if o.RetryAfter > 0 {
			what += fmt.Sprintf(", not before %s from now", o.RetryAfter)
		}
		q.out.say("<%s> %s: %s", q.mail.To[o.Index], what, text)
	}
}

// directory asks what the recipients stand for.
func (q *asking) directory(ctx context.Context) {
	dir := sdkdirectory.NewClient(q.tap)
	if _, err := dir.Domains(ctx, &v1.DomainsRequest{}); q.fails(err) {
		return
	}
	set := directory.NewSet([]directory.Named{{Ref: q.Config.Ref, Directory: dir}})
	for _, to := range q.mail.To {
		targets, first, err := set.Expand(ctx, to)
		switch {
		case err != nil:
			q.fails(err)
			q.out.say("<%s> is deferred: %v", to, err)
		case first.GetResult() == v1.ResolveResponse_NOT_MINE:
			q.out.say("<%s> is not this directory's; the next one would be asked.", to)
		case len(targets) == 0:
			q.out.say("<%s> is refused: %s", to, first.GetResult())
		default:
			var ends []string
			for _, t := range targets {
				if t.Account == "" {
					ends = append(ends, "<"+t.Address+">, elsewhere")
				} else {
					ends = append(ends, "the mailbox of "+t.Account)
				}
			}
			q.out.say("<%s> leads to %s.", to, strings.Join(ends, "; "))
		}
	}
}

// storage deposits the mail and looks at what is there then.
func (q *asking) storage(ctx context.Context) {
	st := sdkstorage.NewClient(q.tap)
	if q.fails(q.deposit(ctx, st)) {
		return
	}
	for _, to := range q.mail.To {
		acc, err := st.Open(ctx, to)
		if q.fails(err) {
			return
		}
		boxes, err := acc.List(ctx, &v1.ListMailboxesRequest{})
		if q.fails(err) {
			return
		}
		for _, b := range boxes.GetMailboxes() {
			if !strings.EqualFold(b.GetName(), "INBOX") {
				continue
			}
			snap, err := acc.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: b.GetId()})
			if q.fails(err) {
				return
			}
			uids := snap.GetUids()
			if len(uids) == 0 {
				q.out.Failed = true
				q.out.say("The INBOX of %s is empty after the deposit.", to)
				continue
			}
			last := uids[len(uids)-1]
			var item *v1.FetchResponse_Item
			err = acc.Fetch(ctx, &v1.FetchRequest{
				MailboxId: b.GetId(), Uids: []*v1.UIDRange{{First: last, Last: last}}, Summary: true, Structure: true, Preview: true, Ids: true,
			}, func(i *v1.FetchResponse_Item) error { item = i; return nil })
			if q.fails(err) {
				return
			}
			q.out.say("The INBOX of %s has %d message(s); the last one has UID %d and the subject %q.", to, len(uids), last, item.GetSummary().GetSubject())
		}
	}
}

// deposit delivers the mail into the recipients' mailboxes.
func (q *asking) deposit(ctx context.Context, st sdkstorage.Storage) error {
	req := &v1.DepositRequest{
		QueueId: queueID(), Message: q.body.Message().Ref(), ReturnPath: q.mail.From, ReceivedMs: time.Now().UnixMilli(),
	}
	for i, to := range q.mail.To {
		req.Targets = append(req.Targets, &v1.DepositRequest_Target{Key: int32(i), Account: to, Recipient: to})
	}
	resp, err := st.Deposit(ctx, req)
	if err != nil {
		return err
	}
	for _, r := range resp.GetResults() {
		if p := r.GetProblem(); p != nil {
			return fmt.Errorf("%s: %s", p.GetKind(), p.GetText())
		}
	}
	return nil
}

// greetingTimeout is how long a server may take for its first words before it is
// one whose clients speak first.
const greetingTimeout = 2 * time.Second

// access puts the mail where the plugin finds it, and knocks.
func (q *asking) access(ctx context.Context) error {
	store := q.place.host.Instance(q.Config.Storage.Ref)
	if store == nil {
		return fmt.Errorf("%s does not run", q.Config.Storage.Ref)
	}
	if err := q.deposit(ctx, sdkstorage.NewClient(store)); err != nil {
		return fmt.Errorf("the mail cannot be put into %s: %w", q.Config.Storage.Ref, err)
	}
	for n, addr := range q.Instance.Info().Listeners {
		x := &Exchange{Name: "connect " + addr}
		begin := time.Now()
		x.Said, x.Err = greeting(ctx, addr, q.Config.Listen[n].ImplicitTLS, q.limit)
		x.Took = time.Since(begin)
		q.tap.tell(x)
		if q.fails(x.Err) {
			continue
		}
		how := ""
		if q.Config.Listen[n].ImplicitTLS {
			how = " (TLS from the first octet)"
		}
		q.out.say("Connect your client to %s%s: user %s, password %q; the mail is in the INBOX.", addr, how, q.mail.To[0], Password)
	}
	return nil
}

// greeting connects and returns the server's first line; "" if it waits for ours.
func greeting(ctx context.Context, addr string, implicit bool, limit time.Duration) (string, error) {
	d := net.Dialer{Timeout: limit}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if limit < patience {
		limit = greetingTimeout
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	if implicit {
		// Whose certificate it is does not matter here: it is on loopback.
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", nil
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
	if line != "" {
		err = nil
	}
	return line, err
}
