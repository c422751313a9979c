package sdktest

import (
	"bytes"
	"context"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// message is a message in a mailbox.
type message struct {
	*content
	uid             uint32
	flags           uint32
	keywords        []string
	modseq          uint64
	received, saved int64
}

// store puts a new message into b.
func (a *account) store(b *box, c *content, flags uint32, keywords []string, received int64) *message {
	c.id, c.thread = a.s.id("M"), a.s.id("T")
	for _, id := range slices.Concat(mime.MessageIDs(c.Summary.GetReferences()), mime.MessageIDs(c.Summary.GetInReplyTo())) {
		if t := a.threads[id]; t != "" {
			c.thread = t
		}
	}
	for _, id := range mime.MessageIDs(c.Summary.GetMessageId()) {
		a.threads[id] = c.thread
	}
	if received == 0 {
		received = now()
	}
	return a.place(b, message{content: c, flags: flags, keywords: keywords, received: received})
}

func (a *account) place(b *box, m message) *message {
	m.uid, m.modseq, m.saved = b.next, a.touch(b), now()
	b.next++
	b.messages = append(b.messages, &m)
	return &m
}

// bury removes messages and leaves their tombstones.
func (a *account) bury(b *box, gone []*message) mime.Ranges {
	var out mime.Ranges
	for _, m := range gone {
		out = out.Add(m.uid)
		b.gone = append(b.gone, tombstone{m.uid, a.touch(b)})
	}
	b.messages = slices.DeleteFunc(b.messages, func(m *message) bool { return slices.Contains(gone, m) })
	return out
}

// among are the messages of b with those UIDs.
func (b *box) among(uids []*v1.UIDRange) []*message {
	set := mime.NewRanges(uids)
	var out []*message
	for _, m := range b.messages {
		if set.Contains(m.uid) {
			out = append(out, m)
		}
	}
	return out
}

func (a *account) used() (octets, messages int64) {
	for _, b := range a.boxes {
		for _, m := range b.messages {
			octets += m.Size
			messages++
		}
	}
	return octets, messages
}

func (a *account) room(size, quota int64) error {
	if used, _ := a.used(); quota > 0 && used+size > quota {
		return fail.New(fail.OverQuota, "the mailbox is full: %d octets of %d are used", used, quota)
	}
	return nil
}

func column(s *v1.SnapshotResponse, m *message) {
	s.Uids = append(s.Uids, m.uid)
	s.Flags = append(s.Flags, m.flags)
	s.Modseqs = append(s.Modseqs, m.modseq)
	s.Sizes = append(s.Sizes, m.Size)
	s.ReceivedMs = append(s.ReceivedMs, m.received)
	if len(m.keywords) > 0 {
		s.Keywords = append(s.Keywords, &v1.SnapshotResponse_Keywords{Uid: m.uid, Keywords: slices.Clone(m.keywords)})
	}
}

// Snapshot implements storage.Messages.
func (a *account) Snapshot(_ context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	s := &v1.SnapshotResponse{Mailbox: b.proto(), Modseq: a.modseq}
	for _, m := range b.among(req.GetUids()) {
		if m.modseq > req.GetSinceModseq() {
			column(s, m)
		}
	}
	if since := req.GetSinceModseq(); since > 0 {
		var gone mime.Ranges
		set := mime.NewRanges(req.GetUids())
		for _, t := range b.gone {
			if t.modseq > since && set.Contains(t.uid) {
				gone = append(gone, mime.Range{First: t.uid, Last: t.uid})
			}
		}
		s.Vanished = gone.Merge(nil).Proto()
	}
	return s, nil
}

// Fetch implements storage.Messages.
func (a *account) Fetch(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	a.s.mu.Lock()
	b, err := a.byID(req.GetMailboxId())
	var items []*v1.FetchResponse_Item
	if err == nil {
		for _, m := range b.among(req.GetUids()) {
			var it *v1.FetchResponse_Item
			if it, err = m.item(req, a.s.dir); err != nil {
				break
			}
			items = append(items, it)
		}
	}
	a.s.mu.Unlock()
	for _, it := range items {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = item(it)
		}
	}
	return err
}

func (m *message) item(req *v1.FetchRequest, dir string) (it *v1.FetchResponse_Item, err error) {
	it = &v1.FetchResponse_Item{Uid: m.uid}
	if req.GetSummary() {
		it.Summary = m.Summary
	}
	if req.GetStructure() {
		it.Structure = m.Structure
	}
	if req.GetHeader() {
		it.Header = m.text[:m.HeaderLen]
	}
	if req.GetPreview() {
		it.Preview = m.Preview
	}
	if req.GetIds() {
		it.MessageId, it.ThreadId, it.SavedMs = m.id, m.thread, m.saved
	}
	if req.GetMessage() {
		it.Message, err = m.ref(dir)
	}
	return it, err
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
	for _, m := range b.messages {
		if m.uid == r.GetUid() {
			return b, []*message{m}, nil
		}
	}
	return nil, nil, fail.New(fail.NotFound, "mailbox %q has no message with the UID %d", b.name, r.GetUid())
}

// Append implements storage.Messages.
func (a *account) Append(_ context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	var size int64
	list := make([]message, len(req.GetMessages()))
	for i, m := range req.GetMessages() {
		if list[i].flags, list[i].keywords, err = mime.ParseFlags(m.GetFlags()); err != nil {
			return nil, err
		}
		if list[i].content, err = take(m.GetMessage(), ""); err != nil {
			return nil, err
		}
		size += list[i].Size
	}
	from, old, err := a.replaced(req)
	if err != nil {
		return nil, err
	}
	for _, m := range old {
		size -= m.Size
	}
	if err := a.room(size, req.GetQuotaBytes()); err != nil {
		return nil, err
	}
	resp := &v1.AppendResponse{UidValidity: b.validity, Replaced: len(old) > 0}
	err = a.change(func() error {
		if len(old) > 0 {
			a.bury(from, old)
		}
		for i, m := range list {
			resp.Uids = append(resp.Uids, a.store(b, m.content, m.flags, m.keywords, req.GetMessages()[i].GetReceivedMs()).uid)
		}
		resp.Modseq = a.modseq
		return nil
	})
	return resp, err
}

// SetFlags implements storage.Messages.
func (a *account) SetFlags(_ context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	bits, keywords, err := mime.ParseFlags(req.GetFlags())
	if err != nil {
		return nil, err
	}
	resp := &v1.SetFlagsResponse{Changed: &v1.SnapshotResponse{}}
	err = a.change(func() error {
		for _, m := range b.among(req.GetUids()) {
			if since := req.GetUnchangedSince(); since > 0 && m.modseq > since {
				resp.Conflicts = append(resp.Conflicts, m.uid)
				continue
			}
			var changed bool
			if m.flags, m.keywords, changed = mime.ApplyFlags(req.GetOp(), m.flags, m.keywords, bits, keywords); changed {
				m.modseq = a.touch(b)
				column(resp.Changed, m)
			}
		}
		resp.Changed.Mailbox, resp.Changed.Modseq = b.proto(), a.modseq
		return nil
	})
	return resp, err
}

// Copy implements storage.Messages.
func (a *account) Copy(_ context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	from, err := a.byID(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	to, err := a.byID(req.GetTargetMailboxId())
	if err != nil {
		return nil, err
	}
	list := from.among(req.GetUids())
	if !req.GetMove() {
		var size int64
		for _, m := range list {
			size += m.Size
		}
		if err := a.room(size, req.GetQuotaBytes()); err != nil {
			return nil, err
		}
	}
	resp := &v1.CopyResponse{UidValidity: to.validity}
	err = a.change(func() error {
		for _, m := range list {
			resp.SourceUids = append(resp.SourceUids, m.uid)
		}
		resp.TargetUids = a.transfer(from, to, list, req.GetMove())
		resp.Modseq = a.modseq
		return nil
	})
	return resp, err
}

// transfer copies or moves messages; a copy keeps its object ids.
func (a *account) transfer(from, to *box, list []*message, move bool) (uids []uint32) {
	for _, m := range list {
		uids = append(uids, a.place(to, message{content: m.content, flags: m.flags, keywords: slices.Clone(m.keywords), received: m.received}).uid)
	}
	if move {
		a.bury(from, list)
	}
	return uids
}

// Expunge implements storage.Messages.
func (a *account) Expunge(_ context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	resp := &v1.ExpungeResponse{}
	err = a.change(func() error {
		list := slices.DeleteFunc(b.among(req.GetUids()), func(m *message) bool {
			return !req.GetForce() && m.flags&uint32(v1.Flag_FLAG_DELETED) == 0
		})
		resp.Expunged = a.bury(b, list).Proto()
		resp.Modseq = a.modseq
		return nil
	})
	return resp, err
}

// Search implements storage.Messages.
func (a *account) Search(_ context.Context, req *v1.SearchRequest) (*v1.SearchResponse, error) {
	match, err := mime.Compile(req.GetCriterion())
	if err != nil {
		return nil, err
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	b, err := a.byID(req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	resp := &v1.SearchResponse{Modseq: a.modseq}
	for _, m := range b.among(req.GetUids()) {
		found, err := match.Match(candidate{m})
		if err != nil {
			return nil, err
		}
		if found {
			resp.Uids = append(resp.Uids, m.uid)
		}
	}
	return resp, nil
}

// candidate shows a message to a search.
type candidate struct{ m *message }

var _ mime.Candidate = candidate{}

// Columns implements mime.Candidate.
func (c candidate) Columns() mime.Columns {
	m := c.m
	return mime.Columns{
		UID: m.uid, Flags: m.flags, Keywords: m.keywords, ModSeq: m.modseq, Size: m.Size,
		ReceivedMS: m.received, SavedMS: m.saved, MessageID: m.id, ThreadID: m.thread,
	}
}

// Summary implements mime.Candidate.
func (c candidate) Summary() (*v1.Summary, error) { return c.m.Rendered.Summary, nil }

// Structure implements mime.Candidate.
func (c candidate) Structure() (*v1.Part, error) { return c.m.Rendered.Structure, nil }

// Header implements mime.Candidate.
func (c candidate) Header() ([]byte, error) { return bytes.Clone(c.m.text[:c.m.HeaderLen]), nil }

// Open implements mime.Candidate.
func (c candidate) Open() (mail.Reader, error) { return mail.FromBytes(c.m.text).Open() }

// Quota implements storage.Account.
func (a *account) Quota(context.Context) (*v1.QuotaResponse, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	octets, messages := a.used()
	return &v1.QuotaResponse{UsedBytes: octets, UsedMessages: messages}, nil
}

// Watch implements storage.Account.
func (a *account) Watch(ctx context.Context, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	seen, first := req.GetSinceModseq(), true
	for {
		a.s.mu.Lock()
		ev, news := &v1.ChangeEvent{Modseq: a.modseq}, a.changed
		if seen > 0 {
			ev.Mailboxes = a.listed > seen
			for _, b := range a.boxes {
				if b.modseq > seen || b.notes.last > seen {
					ev.MailboxIds = append(ev.MailboxIds, b.id)
				}
			}
		}
		a.s.mu.Unlock()
		if first || ev.GetModseq() > seen {
			if err := event(ev); err != nil {
				return err
			}
		}
		seen, first = ev.GetModseq(), false
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
