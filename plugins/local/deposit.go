package local

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// keepDeposits is how long the result of a deposit is known: longer than a queue
// keeps a mail.
const keepDeposits = 10 * 24 * time.Hour

func newTicker() *time.Ticker { return time.NewTicker(10 * time.Minute) }

// target is one target of a deposit under way.
type target struct {
	*v1.DepositRequest_Target
	mailbox  string // checked
	flags    uint32
	keywords []string
	kept     []byte // the result of an earlier try; nil: none
	result   *v1.DepositResponse_Result
}

// Deposit implements storage.Storage. Only what was stored is remembered by its
// key: a target that got nothing (over quota, say) is tried anew.
func (s *Store) Deposit(ctx context.Context, req *v1.DepositRequest) (*v1.DepositResponse, error) {
	if req.GetQueueId() == "" || strings.IndexByte(req.GetQueueId(), 0) >= 0 {
		return nil, fail.New(fail.Invalid, "a deposit needs a queue id")
	}
	if err := s.gate.enter(); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	resp := &v1.DepositResponse{}
	byAccount := map[*account][]*target{}
	for _, rt := range req.GetTargets() {
		t := &target{DepositRequest_Target: rt, result: &v1.DepositResponse_Result{Key: rt.GetKey()}}
		resp.Results = append(resp.Results, t.result)
		a, err := s.prepare(t)
		if err != nil {
			t.result.Problem = fail.ToProblem(err)
			continue
		}
		byAccount[a] = append(byAccount[a], t)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(byAccount) == 0 {
		return resp, nil
	}
	leave, err := s.depositing.enter(ctx, req.GetQueueId())
	if err != nil {
		return nil, err
	}
	defer leave()
	missing, err := s.known(req.GetQueueId(), byAccount)
	if err != nil {
		return nil, s.wrap(err, "deposit")
	}
	var b *body
	if missing {
		if b, err = s.take(req.GetMessage()); err != nil {
			return nil, err
		}
	}
	stored, err := s.deposit(req, b, byAccount)
	if b != nil {
		if stored {
			s.blobs.finish(b.id)
		} else {
			s.drop(b)
		}
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// prepare checks a target and finds its account.
func (s *Store) prepare(t *target) (*account, error) {
	var err error
	t.mailbox = inbox
	if t.GetMailbox() != "" {
		if t.mailbox, err = checkName(t.GetMailbox()); err != nil {
			return nil, err
		}
	}
	if t.flags, t.keywords, err = mime.ParseFlags(t.GetFlags()); err != nil {
		return nil, err
	}
	return s.account(t.GetAccount())
}

// known reads the kept results; missing tells whether a target has none: only
// then the message need be read. The queue id's turn is ours, so they stay.
func (s *Store) known(queueID string, byAccount map[*account][]*target) (missing bool, err error) {
	for _, ts := range byAccount {
		for _, t := range ts {
			if key := keyDeposit(queueID, t.GetKey()); s.fresh.has(key) {
				if t.kept, err = get(s.db, key); err != nil {
					return false, err
				}
			}
			missing = missing || t.kept == nil
		}
	}
	return missing, nil
}

// deposit writes the targets of all accounts in one batch.
func (s *Store) deposit(req *v1.DepositRequest, b *body, byAccount map[*account][]*target) (stored bool, err error) {
	accounts := make([]*account, 0, len(byAccount))
	for a := range byAccount {
		accounts = append(accounts, a)
	}
	// In one order, so that two deposits cannot wait for each other.
	slices.SortFunc(accounts, func(a, b *account) int { return cmp.Compare(a.num, b.num) })
	for _, a := range accounts {
		a.mu.Lock()
	}
	unlock := func() {
		for _, a := range accounts {
			a.mu.Unlock()
		}
	}
	batch := s.db.NewBatchWithSize(4 << 10)
	defer batch.Close()
	var changes []*change
	for _, a := range accounts {
		c, err := s.beginDeposit(a, batch)
		if err != nil {
			unlock()
			return false, err
		}
		changes = append(changes, c)
		for _, t := range byAccount[a] {
			done, err := c.deliver(req, b, t)
			if err != nil {
				unlock()
				return false, s.wrap(err, "deposit")
			}
			stored = stored || done
		}
	}
	if stored {
		b.write(batch)
	}
	s.commit(batch, changes, unlock)
	return stored, nil
}

// deliver puts the message into one target's mailbox, unless it is there. What
// concerns this target alone goes into its result.
func (c *change) deliver(req *v1.DepositRequest, b *body, t *target) (stored bool, err error) {
	var d deposited
	if t.kept != nil {
		if err := d.decode(t.kept); err != nil {
			return false, err
		}
		t.fill(&d)
		c.s.meters.repeats.Add(1)
		return false, nil
	}
	prefix := deliveryFields(req.GetReturnPath(), t.GetRecipient())
	size := int64(len(prefix)) + b.size
	if err := c.quota(size, t.GetQuotaBytes()); err != nil {
		t.result.Problem = fail.ToProblem(err)
		return false, nil
	}
	x, err := c.ensure(t.mailbox)
	if err != nil {
		return false, err
	}
	if x.UidNext == 1<<32-1 {
		t.result.Problem = fail.ToProblem(fail.New(fail.Unavailable, "mailbox %q has used up its UIDs", x.Name))
		return false, nil
	}
	c.nameKnown(x.Name, x.num)
	d.ms, d.mailbox = c.s.nowMS(), x.num
	d.uid, d.message, err = c.store(x, b, prefix, t.flags, t.keywords, req.GetReceivedMs())
	if err != nil {
		return false, err
	}
	key := keyDeposit(req.GetQueueId(), t.GetKey())
	c.s.fresh.add(key)
	c.b.Set(key, d.encode(), nil)
	c.b.Set(keyDepositTime(d.ms, req.GetQueueId(), t.GetKey()), nil, nil)
	t.fill(&d)
	c.s.meters.deposits.Add(1)
	return true, nil
}

func (t *target) fill(d *deposited) {
	t.result.MailboxId = boxID(d.mailbox)
	t.result.Uid = d.uid
	t.result.MessageId = objectID('M', d.message)
}

// store writes a new message of the account; the blob itself is the caller's.
func (c *change) store(x *box, b *body, prefix []byte, flags uint32, keywords []string, received int64) (uid uint32, msg uint64, err error) {
	c.rec.message++
	msg = c.rec.message
	thread, hash, err := c.thread(b.Summary, msg)
	if err != nil {
		return 0, 0, err
	}
	now := c.s.nowMS()
	if received == 0 {
		received = now
	}
	r := rendered{
		blob: b.id, prefix: prefix, headerLen: b.HeaderLen + int64(len(prefix)), size: b.size + int64(len(prefix)),
		preview: b.Preview, summary: encode(b.Summary), structure: encode(mime.Shift(b.Structure, int64(len(prefix)))), hash: hash,
	}
	c.b.Set(key88(tabRendered, c.a.num, msg), r.encode(), nil)
	c.b.Set(keyReference(b.id, c.a.num, msg), nil, nil)
	uid, err = c.add(x, columns{
		flags: flags, size: r.size, received: received, saved: now,
		message: msg, thread: thread, keywords: strings.Join(keywords, " "),
	})
	return uid, msg, err
}

// deliveryFields are put before the message at final delivery: Return-Path (RFC
// 5321 section 4.4) and, by custom, Delivered-To, by which a loop is found.
func deliveryFields(returnPath, recipient string) []byte {
	var b bytes.Buffer
	b.WriteString("Return-Path: <" + oneLine(returnPath) + ">\r\n")
	if recipient != "" {
		b.WriteString("Delivered-To: " + oneLine(recipient) + "\r\n")
	}
	return b.Bytes()
}

// oneLine keeps an address from ending its field.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return -1
		}
		return r
	}, s)
}

// maxReferences: so many of the newest references are looked up.
const maxReferences = 20

// thread finds the message's thread: that of the first message known among its
// own id, what it replies to and its references; or a new one.
func (c *change) thread(sum *v1.Summary, msg uint64) (thread, hash uint64, err error) {
	own := mime.MessageIDs(sum.GetMessageId())
	ids := append(own, mime.MessageIDs(sum.GetInReplyTo())...)
	refs := mime.MessageIDs(sum.GetReferences())
	slices.Reverse(refs)
	ids = append(ids, refs[:min(len(refs), maxReferences)]...)
	if thread, err = c.threadOf(ids); err != nil {
		return 0, 0, err
	}
	if thread == 0 {
		thread = msg
	}
	if len(own) > 0 {
		hash = hashID(own[0])
		if c.threads == nil {
			c.threads = map[uint64]uint64{}
		}
		c.threads[hash] = thread
		c.b.Set(key88(tabThread, c.a.num, hash), be.AppendUint64(be.AppendUint64(nil, thread), msg), nil)
	}
	return thread, hash, nil
}

// threadOf is the thread of the first of these Message-IDs that is known, or 0. Most
// are not: the filters of the lowest level, which Get passes over, save a block of a
// table for each.
func (c *change) threadOf(ids []string) (thread uint64, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	lower := key8(tabThread, c.a.num)
	it, err := c.s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(lower), UseL6Filters: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for _, id := range ids {
		hash := hashID(id)
		if t := c.threads[hash]; t != 0 {
			return t, nil
		}
		if !it.SeekPrefixGE(key88(tabThread, c.a.num, hash)) {
			if err := it.Error(); err != nil {
				return 0, err
			}
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return 0, err
		}
		if len(v) == 16 {
			return be.Uint64(v), nil
		}
	}
	return 0, nil
}

// unthread forgets a Message-ID, unless a younger message has it too.
func (c *change) unthread(hash, msg uint64) error {
	k := key88(tabThread, c.a.num, hash)
	v, err := get(c.s.db, k)
	if err == nil && len(v) == 16 && be.Uint64(v[8:]) == msg {
		c.b.Delete(k, nil)
	}
	return err
}

func hashID(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	return be.Uint64(sum[:]) | 1 // never 0
}

// forgetDeposits removes results that are older than keepDeposits.
func (s *Store) forgetDeposits() {
	end := key8(tabDepositTime, uint64(s.opts.Now().Add(-keepDeposits).UnixMilli()))
	b := s.db.NewBatch()
	defer b.Close()
	err := scanRange(s.db, []byte{tabDepositTime}, end, func(k, _ []byte) error {
		b.Delete(append([]byte{tabDeposit}, k[9:]...), nil)
		return nil
	})
	if err == nil && !b.Empty() {
		b.DeleteRange([]byte{tabDepositTime}, end, nil)
		err = b.Commit(pebble.NoSync)
	}
	if err != nil {
		s.opts.Log.Error().Err(err).Msg("storage local: forgetting old deposits")
	}
}

// replaced removes the message that an Append replaces; what it had is free then.
func (c *change) replaced(req *v1.AppendRequest) error {
	if len(req.GetMessages()) != 1 {
		return fail.New(fail.Invalid, "one message replaces another, not %d", len(req.GetMessages()))
	}
	x, err := c.byID(req.GetReplaces().GetMailboxId())
	if err != nil {
		return err
	}
	uid := req.GetReplaces().GetUid()
	gone := mime.Ranges{}.Add(uid)
	found := false
	err = c.eachColumn(x, gone, func(uid uint32, col *columns) error {
		found = true
		return c.remove(x, uid, col, false)
	})
	if err == nil && !found {
		err = fail.New(fail.NotFound, "mailbox %q has no message with the UID %d", x.Name, uid)
	}
	if err == nil {
		c.bury(x, gone)
	}
	return err
}

// Append implements storage.Messages.
func (h *handle) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	if err := h.s.gate.enter(); err != nil {
		return nil, err
	}
	defer h.s.gate.leave()
	type message struct {
		*body
		flags    uint32
		keywords []string
	}
	var list []message
	done := false
	defer func() {
		for _, m := range list {
			if done {
				h.s.blobs.finish(m.id)
			} else {
				h.s.drop(m.body)
			}
		}
	}()
	for _, m := range req.GetMessages() {
		bits, keywords, err := mime.ParseFlags(m.GetFlags())
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := h.s.take(m.GetMessage())
		if err != nil {
			return nil, err
		}
		list = append(list, message{b, bits, keywords})
	}
	resp, repeated, err := once(h, storage.RequestKey(ctx), kindAppend, func(c *change) (*v1.AppendResponse, error) {
		resp := &v1.AppendResponse{}
		x, err := c.byID(req.GetMailboxId())
		if err == nil && req.GetReplaces() != nil {
			resp.Replaced, err = true, c.replaced(req)
		}
		if err != nil {
			return nil, err
		}
		for i, m := range list {
			if err := c.quota(m.size, req.GetQuotaBytes()); err != nil {
				return nil, err
			}
			uid, _, err := c.store(x, m.body, nil, m.flags, m.keywords, req.GetMessages()[i].GetReceivedMs())
			if err != nil {
				return nil, err
			}
			m.write(c.b)
			resp.Uids = append(resp.Uids, uid)
		}
		resp.UidValidity, resp.Modseq = x.UidValidity, c.rec.modseq
		return resp, nil
	})
	if err != nil || repeated {
		return resp, err
	}
	done = true
	h.s.meters.appends.Add(int64(len(list)))
	return resp, nil
}
