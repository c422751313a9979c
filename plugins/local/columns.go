package local

import (
	"context"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// eachColumn calls f for the messages of the mailbox that are among uids, by
// growing UID. col is f's until it returns. The database as it was before the
// change is read.
func (c *change) eachColumn(x *box, uids mime.Ranges, f func(uid uint32, col *columns) error) error {
	return eachColumn(c.s.db, c.a.num, x.num, uids, f)
}

func eachColumn(r pebble.Reader, account uint64, box uint32, uids mime.Ranges, f func(uid uint32, col *columns) error) error {
	prefix := be.AppendUint32(key8(tabColumn, account), box)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	var col columns
	for _, u := range uids {
		for ok := it.SeekGE(keyColumn(account, box, u.First)); ok; ok = it.Next() {
			uid := column(it.Key())
			if uid > u.Last {
				break
			}
			v, err := it.ValueAndErr()
			if err == nil {
				err = col.decode(v)
			}
			if err == nil {
				err = f(uid, &col)
			}
			if err != nil {
				it.Close()
				return err
			}
		}
	}
	return it.Close()
}

// appendColumns adds one message to the arrays.
func appendColumns(resp *v1.SnapshotResponse, uid uint32, col *columns) {
	resp.Uids = append(resp.Uids, uid)
	resp.Flags = append(resp.Flags, col.flags)
	resp.Modseqs = append(resp.Modseqs, col.modseq)
	resp.Sizes = append(resp.Sizes, col.size)
	resp.ReceivedMs = append(resp.ReceivedMs, col.received)
	if col.keywords != "" {
		resp.Keywords = append(resp.Keywords, &v1.SnapshotResponse_Keywords{Uid: uid, Keywords: col.keywordList()})
	}
}

// mailbox reads a mailbox of the view by its id.
func (h *handle) mailbox(v *view, id string) (uint32, *v1.Mailbox, error) {
	num, ok := parseBoxID(id)
	if !ok {
		return 0, nil, noMailbox(id)
	}
	m, err := readMailbox(v, h.a.num, num)
	return num, m, h.s.wrap(err, "read mailbox")
}

// Snapshot implements storage.Messages.
func (h *handle) Snapshot(ctx context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	v, err := h.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	num, m, err := h.mailbox(v, req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	resp := &v1.SnapshotResponse{Mailbox: m, Modseq: v.rec.modseq}
	since := req.GetSinceModseq()
	if since > 0 && since >= m.HighestModseq {
		return resp, nil
	}
	if n := int(m.Messages); since == 0 && len(req.GetUids()) == 0 {
		resp.Uids = make([]uint32, 0, n)
		resp.Flags = make([]uint32, 0, n)
		resp.Modseqs = make([]uint64, 0, n)
		resp.Sizes = make([]int64, 0, n)
		resp.ReceivedMs = make([]int64, 0, n)
	}
	uids := mime.NewRanges(req.GetUids())
	err = eachColumn(v, h.a.num, num, uids, func(uid uint32, col *columns) error {
		if col.modseq > since {
			appendColumns(resp, uid, col)
		}
		return nil
	})
	if err == nil && since > 0 {
		var gone mime.Ranges
		gone, err = vanished(v, h.a.num, num, since, uids)
		resp.Vanished = gone.Proto()
	}
	if err != nil {
		return nil, h.s.wrap(err, "read mailbox")
	}
	return resp, nil
}

// vanished reads the tombstones that are younger than since.
func vanished(r pebble.Reader, account uint64, box uint32, since uint64, uids mime.Ranges) (mime.Ranges, error) {
	var out mime.Ranges
	end := after(be.AppendUint32(key8(tabVanished, account), box))
	err := scanRange(r, keyVanished(account, box, since+1, 0), end, func(k, val []byte) error {
		out = append(out, uids.Cut(column(k), be.Uint32(val))...)
		return nil
	})
	return out.Merge(nil), err
}

// bury writes the tombstones of this change.
func (c *change) bury(x *box, gone mime.Ranges) {
	for _, r := range gone {
		c.b.Set(keyVanished(c.a.num, x.num, c.step(), r.First), be.AppendUint32(nil, r.Last), nil)
	}
}

// SetFlags implements storage.Messages.
func (h *handle) SetFlags(ctx context.Context, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
	bits, keywords, err := mime.ParseFlags(req.GetFlags())
	if err != nil {
		return nil, err
	}
	resp, _, err := once(h, storage.RequestKey(ctx), kindSetFlags, func(c *change) (*v1.SetFlagsResponse, error) {
		resp := &v1.SetFlagsResponse{Changed: &v1.SnapshotResponse{}}
		x, err := c.byID(req.GetMailboxId())
		if err != nil {
			return nil, err
		}
		err = c.eachColumn(x, mime.NewRanges(req.GetUids()), func(uid uint32, col *columns) error {
			if since := req.GetUnchangedSince(); since > 0 && col.modseq > since {
				resp.Conflicts = append(resp.Conflicts, uid)
				return nil
			}
			newBits, newKeywords, changed := mime.ApplyFlags(req.GetOp(), col.flags, col.keywordList(), bits, keywords)
			if !changed {
				return nil
			}
			c.touch(x)
			c.countFlags(x, col.flags, -1)
			c.countFlags(x, newBits, 1)
			col.flags, col.keywords, col.modseq = newBits, strings.Join(newKeywords, " "), c.rec.modseq
			if len(newKeywords) > 128 {
				return fail.New(fail.Invalid, "message %d would have more than 128 keywords", uid)
			}
			c.b.Set(keyColumn(c.a.num, x.num, uid), col.append(nil), nil)
			appendColumns(resp.Changed, uid, col)
			return nil
		})
		resp.Changed.Mailbox, resp.Changed.Modseq = x.Mailbox, c.rec.modseq
		return resp, err
	})
	return resp, err
}

// Expunge implements storage.Messages.
func (h *handle) Expunge(ctx context.Context, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
	resp, repeated, err := once(h, storage.RequestKey(ctx), kindExpunge, func(c *change) (*v1.ExpungeResponse, error) {
		x, err := c.byID(req.GetMailboxId())
		if err != nil {
			return nil, err
		}
		var gone mime.Ranges
		err = c.eachColumn(x, mime.NewRanges(req.GetUids()), func(uid uint32, col *columns) error {
			if !req.GetForce() && col.flags&uint32(v1.Flag_FLAG_DELETED) == 0 {
				return nil
			}
			gone = gone.Add(uid)
			return c.remove(x, uid, col, false)
		})
		if err != nil {
			return nil, err
		}
		c.bury(x, gone)
		return &v1.ExpungeResponse{Expunged: gone.Proto(), Modseq: c.rec.modseq}, nil
	})
	if err != nil || repeated {
		return resp, err
	}
	for _, r := range resp.Expunged {
		h.s.meters.expunged.Add(int64(r.Last-r.First) + 1)
	}
	return resp, nil
}

// Copy implements storage.Messages.
func (h *handle) Copy(ctx context.Context, req *v1.CopyRequest) (*v1.CopyResponse, error) {
	if !req.GetMove() {
		if err := h.s.room(0); err != nil {
			return nil, err
		}
	}
	resp, _, err := once(h, storage.RequestKey(ctx), kindCopy, func(c *change) (*v1.CopyResponse, error) {
		from, err := c.byID(req.GetMailboxId())
		if err != nil {
			return nil, err
		}
		to, err := c.byID(req.GetTargetMailboxId())
		if err != nil {
			return nil, err
		}
		resp := &v1.CopyResponse{}
		resp.SourceUids, resp.TargetUids, err = c.transfer(from, to, mime.NewRanges(req.GetUids()), req.GetMove(), req.GetQuotaBytes())
		resp.UidValidity, resp.Modseq = to.UidValidity, c.rec.modseq
		return resp, err
	})
	return resp, err
}

// transfer copies or moves messages. The copy is the same message in one more
// place: it keeps its object id (RFC 8474 section 5.1) and its body.
func (c *change) transfer(from, to *box, uids mime.Ranges, move bool, quota int64) (source, target []uint32, err error) {
	var gone mime.Ranges
	err = c.eachColumn(from, uids, func(uid uint32, col *columns) error {
		if !move {
			if err := c.quota(col.size, quota); err != nil {
				return err
			}
			n, err := c.placesOf(col.message)
			if err != nil {
				return err
			}
			c.places[col.message] = n + 1
		}
		moved := *col
		moved.saved = c.s.nowMS()
		t, err := c.add(to, moved)
		if err != nil {
			return err
		}
		source, target = append(source, uid), append(target, t)
		if move {
			gone = gone.Add(uid)
			return c.remove(from, uid, col, true)
		}
		return nil
	})
	c.bury(from, gone)
	return source, target, err
}

// quota refuses (OVER_QUOTA) what would take the account over limit; 0: none.
func (c *change) quota(size, limit int64) error {
	if limit > 0 && int64(c.rec.bytes)+size > limit {
		return fail.New(fail.OverQuota, "the mailbox is full: %d octets of %d are used", c.rec.bytes, limit)
	}
	return nil
}
