package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// pick returns the messages among the ranges.
func (b *box) pick(ranges []*v1.UIDRange) []*message {
	var out []*message
	for _, r := range mime.NewRanges(ranges) {
		for i, _ := b.find(r.First); i < len(b.msgs) && b.msgs[i].UID <= r.Last; i++ {
			out = append(out, b.msgs[i])
		}
	}
	return out
}

func appendColumns(resp *v1.SnapshotResponse, m *message) {
	resp.Uids = append(resp.Uids, m.UID)
	resp.Flags = append(resp.Flags, m.Flags)
	resp.Modseqs = append(resp.Modseqs, m.Modseq)
	resp.Sizes = append(resp.Sizes, m.Size)
	resp.ReceivedMs = append(resp.ReceivedMs, m.Received)
	if len(m.Keywords) > 0 {
		resp.Keywords = append(resp.Keywords, &v1.SnapshotResponse_Keywords{Uid: m.UID, Keywords: slices.Clone(m.Keywords)})
	}
}

// Snapshot implements storage.Messages.
func (a *account) Snapshot(_ context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	resp := &v1.SnapshotResponse{}
	err := a.read(func() error {
		b, err := a.byID(req.GetMailboxId())
		if err != nil {
			return err
		}
		resp.Mailbox, resp.Modseq = b.proto(), a.Modseq
		since := req.GetSinceModseq()
		for _, m := range b.pick(req.GetUids()) {
			if m.Modseq > since {
				appendColumns(resp, m)
			}
		}
		if since > 0 {
			uids := mime.NewRanges(req.GetUids())
			var gone mime.Ranges
			for _, t := range b.vanished {
				if t.Modseq > since {
					gone = append(gone, uids.Cut(t.UID, t.UID)...)
				}
			}
			resp.Vanished = gone.Merge(nil).Proto()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// found is a message as a reader sees it after the lock is gone.
type found struct {
	*message // never written to: a change makes a new one
	dir      string
}

func (a *account) look(id string, ranges []*v1.UIDRange) (list []found, modseq uint64, err error) {
	err = a.read(func() error {
		b, err := a.byID(id)
		if err != nil {
			return err
		}
		for _, m := range b.pick(ranges) {
			list = append(list, found{m, a.path(b)})
		}
		modseq = a.Modseq
		return nil
	})
	return list, modseq, err
}

// open opens the message's file, also if its flags changed meanwhile.
func (f found) open() (*os.File, error) {
	r, err := os.Open(filepath.Join(f.dir, f.File))
	if !errors.Is(err, os.ErrNotExist) {
		return r, err
	}
	for _, sub := range []string{"cur", "new"} {
		names, err := os.ReadDir(filepath.Join(f.dir, sub))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if base(n.Name()) == base(f.File) {
				return os.Open(filepath.Join(f.dir, sub, n.Name()))
			}
		}
	}
	return nil, os.ErrNotExist
}

// Fetch implements storage.Messages. What is asked for is read from the files.
func (a *account) Fetch(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	list, _, err := a.look(req.GetMailboxId(), req.GetUids())
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		it := &v1.FetchResponse_Item{Uid: f.UID}
		if req.GetIds() {
			it.MessageId, it.ThreadId, it.SavedMs = objectID('M', f.ID), objectID('T', f.Thread), f.Saved
		}
		err := a.fill(it, req, f)
		if errors.Is(err, os.ErrNotExist) {
			continue // expunged meanwhile
		}
		if err != nil {
			return wrap(err)
		}
		if err := item(it); err != nil {
			return err
		}
	}
	return nil
}

func (a *account) fill(it *v1.FetchResponse_Item, req *v1.FetchRequest, f found) error {
	render := req.GetSummary() || req.GetStructure() || req.GetPreview() || req.GetHeader()
	if !render && !req.GetMessage() {
		return nil
	}
	r, err := f.open()
	if err != nil {
		return err
	}
	defer r.Close()
	if render {
		sum, err := mime.Summarize(io.NewSectionReader(r, 0, f.Size))
		if err != nil {
			return err
		}
		if req.GetSummary() {
			it.Summary = sum.Summary
		}
		if req.GetStructure() {
			it.Structure = sum.Structure
		}
		if req.GetPreview() {
			it.Preview = sum.Preview
		}
		if req.GetHeader() {
			it.Header = make([]byte, sum.HeaderLen)
			if _, err := r.ReadAt(it.Header, 0); err != nil && err != io.EOF {
				return err
			}
		}
	}
	if !req.GetMessage() {
		return nil
	}
	if f.Size <= mail.InlineLimit {
		b := make([]byte, f.Size)
		if _, err := io.ReadFull(io.NewSectionReader(r, 0, f.Size), b); err != nil {
			return err
		}
		it.Message = &v1.MessageRef{Size: f.Size, Where: &v1.MessageRef_Inline{Inline: b}}
		return nil
	}
	path, err := a.s.reading.name(r.Name())
	if err != nil {
		return err
	}
	it.Message = &v1.MessageRef{Size: f.Size, Where: &v1.MessageRef_Path{Path: path}}
	return nil
}

// SetFlags implements storage.Messages. The names of the files change first, then
// the log: a crash between the two shows as another program's change.
func (a *account) SetFlags(ctx context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	bits, keywords, err := mime.ParseFlags(req.GetFlags())
	if err != nil {
		return nil, err
	}
	return once(ctx, a, "SetFlags", func() (*v1.SetFlagsResponse, error) {
		resp := &v1.SetFlagsResponse{Changed: &v1.SnapshotResponse{}}
		b, err := a.byID(req.GetMailboxId())
		if err != nil {
			return nil, err
		}
		renamed := false
		for _, m := range b.pick(req.GetUids()) {
			if since := req.GetUnchangedSince(); since > 0 && m.Modseq > since {
				resp.Conflicts = append(resp.Conflicts, m.UID)
				continue
			}
			flags, words, changed := mime.ApplyFlags(req.GetOp(), m.Flags, m.Keywords, bits, keywords)
			if !changed {
				continue
			}
			a.touch(b)
			n := *m
			n.Flags, n.Keywords, n.Modseq = flags, words, a.Modseq
			if n.Flags != m.Flags {
				n.File = withFlags(m.File, flags)
				if err := os.Rename(a.path(b, m.File), a.path(b, n.File)); err != nil {
					return nil, err
				}
				renamed = true
			}
			b.put(&n)
			a.rec.set(b.Num, &n)
			appendColumns(resp.Changed, &n)
		}
		resp.Changed.Mailbox, resp.Changed.Modseq = b.proto(), a.Modseq
		if renamed {
			err = errors.Join(a.s.syncDir(a.path(b, "new")), a.s.syncDir(a.path(b, "cur")))
		}
		return resp, err
	})
}

// Copy implements storage.Messages.
func (a *account) Copy(ctx context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error) {
	return once(ctx, a, "Copy", func() (*v1.CopyResponse, error) {
		from, err := a.byID(req.GetMailboxId())
		if err != nil {
			return nil, err
		}
		to, err := a.byID(req.GetTargetMailboxId())
		if err != nil {
			return nil, err
		}
		list := from.pick(req.GetUids())
		begun := to.begun(storage.RequestKey(ctx))
		if !req.GetMove() {
			var size int64
			for _, m := range list {
				if begun[m.UID] == nil {
					size += m.Size
				}
			}
			if err := a.quota(size, req.GetQuotaBytes()); err != nil {
				return nil, err
			}
		}
		resp := &v1.CopyResponse{}
		resp.SourceUids, resp.TargetUids, err = a.transfer(from, to, list, req.GetMove(), storage.RequestKey(ctx), begun)
		resp.UidValidity, resp.Modseq = to.UIDValidity, a.Modseq
		return resp, err
	})
}

// transfer links the files into the other folder; a move takes the old names
// away when the new ones are durable. begun are those that a crash left there, by
// their old UIDs.
func (a *account) transfer(from, to *box, list []*message, move bool, key string, begun map[uint32]*message) (source, target []uint32, err error) {
	// What is no more in its old place was moved before the crash.
	moved := maps.Clone(begun)
	for _, m := range list {
		delete(moved, m.UID)
	}
	for _, uid := range slices.Sorted(maps.Keys(moved)) {
		source, target = append(source, uid), append(target, moved[uid].UID)
	}
	for _, m := range list {
		n := *m
		if there := begun[m.UID]; there != nil {
			a.touch(to)
			n.UID, n.File, n.Saved, n.Modseq = there.UID, there.File, there.Saved, a.Modseq
			to.put(&n)
			a.rec.set(to.Num, &n)
			source, target = append(source, m.UID), append(target, n.UID)
			continue
		}
		file := withFlags(a.nameFor(key, m.UID), m.Flags)
		if err := os.Link(a.path(from, m.File), a.path(to, file)); err != nil {
			return nil, nil, err
		}
		a.rec.undo = append(a.rec.undo, a.path(to, file))
		n.File, n.Saved = file, a.s.nowMS()
		if err := a.store(to, &n); err != nil {
			return nil, nil, err
		}
		source, target = append(source, m.UID), append(target, n.UID)
	}
	if len(list) == 0 {
		return source, target, nil
	}
	if err := a.s.syncDir(a.path(to, "cur")); err != nil {
		return nil, nil, err
	}
	if move {
		err = a.unlink(from, list)
	}
	return source, target, err
}

// unlink removes files, durably, and takes them out of the index.
func (a *account) unlink(b *box, list []*message) error {
	if len(list) == 0 {
		return nil
	}
	// From here on there is no way back: what was made stays.
	a.rec.undo = nil
	var uids []uint32
	for _, m := range list {
		if err := os.Remove(a.path(b, m.File)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove message: %w", err)
		}
		uids = append(uids, m.UID)
	}
	a.bury(b, uids)
	return errors.Join(a.s.syncDir(a.path(b, "new")), a.s.syncDir(a.path(b, "cur")))
}

// Expunge implements storage.Messages.
func (a *account) Expunge(ctx context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	return once(ctx, a, "Expunge", func() (*v1.ExpungeResponse, error) {
		b, err := a.byID(req.GetMailboxId())
		if err != nil {
			return nil, err
		}
		list := slices.DeleteFunc(b.pick(req.GetUids()), func(m *message) bool {
			return !req.GetForce() && m.Flags&uint32(v1.Flag_FLAG_DELETED) == 0
		})
		var gone mime.Ranges
		for _, m := range list {
			gone = gone.Add(m.UID)
		}
		err = a.unlink(b, list)
		return &v1.ExpungeResponse{Expunged: gone.Proto(), Modseq: a.Modseq}, err
	})
}

// Search implements storage.Messages.
func (a *account) Search(ctx context.Context, req *v1.SearchRequest) (*v1.SearchResponse, error) {
	match, err := mime.Compile(req.GetCriterion())
	if err != nil {
		return nil, err
	}
	list, modseq, err := a.look(req.GetMailboxId(), req.GetUids())
	if err != nil {
		return nil, err
	}
	resp := &v1.SearchResponse{Modseq: modseq}
	for _, f := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ok, err := match.Match(&candidate{found: f})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, wrap(err)
		}
		if ok && err == nil {
			resp.Uids = append(resp.Uids, f.UID)
		}
	}
	return resp, nil
}

// candidate is one message in a search.
type candidate struct {
	found
	sum *mime.Rendered
}

var _ mime.Candidate = (*candidate)(nil)

// Columns implements mime.Candidate.
func (c *candidate) Columns() mime.Columns {
	return mime.Columns{
		UID: c.UID, Flags: c.found.Flags, Keywords: c.Keywords, ModSeq: c.Modseq, Size: c.Size,
		ReceivedMS: c.Received, SavedMS: c.Saved, MessageID: objectID('M', c.ID), ThreadID: objectID('T', c.Thread),
	}
}

func (c *candidate) render() error {
	if c.sum != nil {
		return nil
	}
	f, err := c.open()
	if err != nil {
		return err
	}
	defer f.Close()
	c.sum, err = mime.Summarize(f)
	return err
}

// Summary implements mime.Candidate.
func (c *candidate) Summary() (*v1.Summary, error) {
	if err := c.render(); err != nil {
		return nil, err
	}
	return c.sum.Summary, nil
}

// Structure implements mime.Candidate.
func (c *candidate) Structure() (*v1.Part, error) {
	if err := c.render(); err != nil {
		return nil, err
	}
	return c.sum.Structure, nil
}

// Header implements mime.Candidate.
func (c *candidate) Header() ([]byte, error) {
	if err := c.render(); err != nil {
		return nil, err
	}
	f, err := c.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, c.sum.HeaderLen))
}

// Open implements mime.Candidate.
func (c *candidate) Open() (mail.Reader, error) { return c.open() }
