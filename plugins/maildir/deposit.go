package maildir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// depositPrefix begins the name of a delivered file. The rest is made of the
// deposit's key, so that a file found after a crash says which deposit it was.
const depositPrefix = "Q"

func depositKey(queueID string, key int32) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", queueID, key))
	return fmt.Sprintf("%s%x.stagecoach", depositPrefix, sum[:16])
}

func (a *account) remember(key string, b *box, uid uint32, id uint64) {
	d := deposited{MS: a.s.nowMS(), Mailbox: b.Num, UID: uid, Message: id}
	a.deposits[key] = d
	if a.rec.Deposits == nil {
		a.rec.Deposits = map[string]deposited{}
	}
	a.rec.Deposits[key] = d
}

// Deposit implements storage.Storage: one file and one record per target.
func (s *Store) Deposit(ctx context.Context, req *v1.DepositRequest) (*v1.DepositResponse, error) {
	if req.GetQueueId() == "" {
		return nil, fail.New(fail.Invalid, "a deposit needs a queue id")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	src, err := take(req.GetMessage())
	if err != nil {
		return nil, err
	}
	defer src.Close()
	resp := &v1.DepositResponse{}
	for _, t := range req.GetTargets() {
		r := &v1.DepositResponse_Result{Key: t.GetKey()}
		if err := s.deliver(req, t, src, r); err != nil {
			r = &v1.DepositResponse_Result{Key: t.GetKey(), Problem: fail.ToProblem(err)}
		}
		resp.Results = append(resp.Results, r)
	}
	return resp, nil
}

func (s *Store) deliver(req *v1.DepositRequest, t *v1.DepositRequest_Target, src *source, r *v1.DepositResponse_Result) error {
	name, err := inbox, error(nil)
	if t.GetMailbox() != "" {
		if name, err = checkName(t.GetMailbox()); err != nil {
			return err
		}
	}
	flags, keywords, err := mime.ParseFlags(t.GetFlags())
	if err != nil {
		return err
	}
	a, err := s.account(t.GetAccount())
	if err != nil {
		return err
	}
	key := depositKey(req.GetQueueId(), t.GetKey())
	return a.write(func() error {
		d, ok := a.deposits[key]
		if !ok {
			if d, err = a.deliver(req, t, src, key, name, flags, keywords); err != nil {
				return err
			}
		}
		r.MailboxId, r.Uid, r.MessageId = boxID(d.Mailbox), d.UID, objectID('M', d.Message)
		return nil
	})
}

func (a *account) deliver(req *v1.DepositRequest, t *v1.DepositRequest_Target, src *source, key, name string, flags uint32, keywords []string) (deposited, error) {
	prefix := deliveryFields(req.GetReturnPath(), t.GetRecipient())
	size := src.Size + int64(len(prefix))
	if err := a.quota(size, t.GetQuotaBytes()); err != nil {
		return deposited{}, err
	}
	b, err := a.ensure(name)
	if err != nil {
		return deposited{}, err
	}
	received := req.GetReceivedMs()
	if received == 0 {
		received = a.s.nowMS()
	}
	m := a.newMessage(src.Rendered, size, received)
	m.Flags, m.Keywords = flags, keywords
	if m.File, err = a.place(b, key, flags, prefix, src.body()); err != nil {
		return deposited{}, err
	}
	if err := a.store(b, m); err != nil {
		return deposited{}, err
	}
	a.remember(key, b, m.UID, m.ID)
	return a.deposits[key], nil
}

// store indexes a message whose file is in its place.
func (a *account) store(b *box, m *message) error {
	if b.UIDNext == math.MaxUint32 {
		return fail.New(fail.Unavailable, "mailbox %q has used up its UIDs: rename it and create it anew", b.Name)
	}
	a.index(b, m)
	return nil
}

// deliveryFields are put before the message: Return-Path (RFC 5321 section 4.4)
// and Delivered-To.
func deliveryFields(returnPath, recipient string) []byte {
	var b bytes.Buffer
	clean := strings.NewReplacer("\r", "", "\n", "", "\x00", "")
	b.WriteString("Return-Path: <" + clean.Replace(returnPath) + ">\r\n")
	if recipient != "" {
		b.WriteString("Delivered-To: " + clean.Replace(recipient) + "\r\n")
	}
	return b.Bytes()
}

func (a *account) used() (octets, messages int64) {
	for _, b := range a.boxes {
		for _, m := range b.msgs {
			octets += m.Size
		}
		messages += int64(len(b.msgs))
	}
	return octets, messages
}

func (a *account) quota(size, limit int64) error {
	if limit > 0 {
		if used, _ := a.used(); used+size > limit {
			return fail.New(fail.OverQuota, "the mailbox is full: %d octets of %d are used", used, limit)
		}
	}
	return nil
}

// Quota implements storage.Account.
func (a *account) Quota(context.Context) (*v1.QuotaResponse, error) {
	resp := &v1.QuotaResponse{}
	return resp, a.read(func() error {
		resp.UsedBytes, resp.UsedMessages = a.used()
		return nil
	})
}

// replaced finds the message that an Append replaces, if it does.
func (a *account) replaced(req *v1.AppendRequest) (*box, []*message, error) {
	r := req.GetReplaces()
	if r == nil {
		return nil, nil, nil
	}
	if len(req.GetMessages()) != 1 {
		return nil, nil, fail.New(fail.Invalid, "one message replaces another, not %d", len(req.GetMessages()))
	}
	b, err := a.byID(r.GetMailboxId())
	if err != nil {
		return nil, nil, err
	}
	i, ok := b.find(r.GetUid())
	if !ok {
		return nil, nil, fail.New(fail.NotFound, "mailbox %q has no message with the UID %d", b.Name, r.GetUid())
	}
	return b, []*message{b.msgs[i]}, nil
}

// Append implements storage.Messages.
func (a *account) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	var sources []*source
	defer func() {
		for _, s := range sources {
			s.Close()
		}
	}()
	var total int64
	for _, m := range req.GetMessages() {
		if _, _, err := mime.ParseFlags(m.GetFlags()); err != nil {
			return nil, err
		}
		s, err := take(m.GetMessage())
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
		total += s.Size
	}
	key := storage.RequestKey(ctx)
	return once(ctx, a, "Append", func() (*v1.AppendResponse, error) {
		resp := &v1.AppendResponse{}
		b, err := a.byID(req.GetMailboxId())
		if err != nil {
			return nil, err
		}
		begun := b.begun(key)
		from, old, err := a.replaced(req)
		if fail.Is(err, fail.NotFound) && begun[0] != nil {
			// It went before the crash that came before the record.
			resp.Replaced, err = true, nil
		}
		if err != nil {
			return nil, err
		}
		for _, m := range old {
			total -= m.Size
		}
		for _, m := range begun {
			total -= m.Size
		}
		if err := a.quota(total, req.GetQuotaBytes()); err != nil {
			return nil, err
		}
		for i, s := range sources {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			uid, err := a.append(b, s, req.GetMessages()[i], a.nameFor(key, uint32(i)), begun[uint32(i)])
			if err != nil {
				return nil, err
			}
			resp.Uids = append(resp.Uids, uid)
		}
		if len(old) > 0 {
			resp.Replaced = true
			if err := a.unlink(from, old); err != nil {
				return nil, err
			}
		}
		resp.UidValidity, resp.Modseq = b.UIDValidity, a.Modseq
		return resp, nil
	})
}

// append stores one message, or completes the record of one that a crash left there.
func (a *account) append(b *box, s *source, req *v1.AppendRequest_Message, name string, there *message) (uint32, error) {
	received := req.GetReceivedMs()
	if received == 0 {
		received = a.s.nowMS()
	}
	flags, keywords, _ := mime.ParseFlags(req.GetFlags())
	if there != nil {
		a.touch(b)
		n := *there
		n.Keywords, n.Received, n.Modseq = keywords, received, a.Modseq
		b.put(&n)
		a.rec.set(b.Num, &n)
		return n.UID, nil
	}
	m := a.newMessage(s.Rendered, s.Size, received)
	m.Flags, m.Keywords = flags, keywords
	var err error
	if m.File, err = a.place(b, name, m.Flags, nil, s.body()); err != nil {
		return 0, err
	}
	if err := a.store(b, m); err != nil {
		return 0, err
	}
	return m.UID, nil
}
