package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

var _ storage.EncodedFetcher = (*handle)(nil)

// Fetch implements storage.Messages.
func (h *handle) Fetch(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	return h.fetch(ctx, req, false, func(it *v1.FetchResponse_Item, _ []byte) error { return item(it) })
}

// FetchEncoded implements storage.EncodedFetcher: summaries and structures are stored
// as the contract encodes them.
func (h *handle) FetchEncoded(ctx context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item, []byte) error) error {
	return h.fetch(ctx, req, true, item)
}

func (h *handle) fetch(ctx context.Context, req *v1.FetchRequest, encoded bool, item func(*v1.FetchResponse_Item, []byte) error) error {
	v, err := h.view(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	num, _, err := h.mailbox(v, req.GetMailboxId())
	if err != nil {
		return err
	}
	m := h.messages(v)
	defer m.close()
	m.encoded = encoded
	var failed error // the caller's own error, which goes back as it is
	err = eachColumn(v, h.a.num, num, mime.NewRanges(req.GetUids()), func(uid uint32, col *columns) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		it := &v1.FetchResponse_Item{Uid: uid}
		if req.GetIds() {
			it.MessageId, it.ThreadId, it.SavedMs = objectID('M', col.message), objectID('T', col.thread), col.saved
		}
		if !req.GetSummary() && !req.GetStructure() && !req.GetHeader() && !req.GetMessage() && !req.GetPreview() {
			failed = item(it, nil)
			return failed
		}
		done, err := m.fill(it, req, col.message)
		if errors.Is(err, os.ErrNotExist) {
			return nil // expunged since the snapshot, and its file removed
		}
		if err != nil {
			return err
		}
		failed = item(it, m.rest)
		done()
		return failed
	})
	if failed != nil {
		return failed
	}
	return h.s.wrap(err, "fetch")
}

// messages reads the messages of a view: their records, and their bodies.
type messages struct {
	s       *Store
	account uint64
	records reader
	bodies  reader
	// encoded: what a record has in the contract's encoding, fill leaves in rest.
	encoded bool
	rest    []byte
}

func (h *handle) messages(v *view) *messages {
	record := key8(tabRendered, h.a.num)
	return &messages{
		s: h.s, account: h.a.num,
		records: reader{v: v, first: record, end: after(record)},
		bodies:  reader{v: v, first: []byte{tabBlob}, end: []byte{tabBlob + 1}},
	}
}

func (m *messages) close() {
	m.records.close()
	m.bodies.close()
}

// rendered reads a message's record; it is valid until the next call.
func (m *messages) rendered(msg uint64) (*rendered, error) {
	b, err := m.records.get(key88(tabRendered, m.account, msg), msg)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, errTorn
	}
	r := &rendered{}
	return r, r.decode(b)
}

// fill adds what req asks for. done is called when the item is no longer used.
func (m *messages) fill(it *v1.FetchResponse_Item, req *v1.FetchRequest, msg uint64) (done func(), err error) {
	done = func() {}
	r, err := m.rendered(msg)
	if err != nil {
		return nil, err
	}
	if err := m.describe(it, req, r); err != nil {
		return nil, err
	}
	if req.GetPreview() {
		it.Preview = r.preview
	}
	if !req.GetHeader() && !req.GetMessage() {
		return done, nil
	}
	m.s.blobs.pin(r.blob, 1)
	unpin := func() { m.s.blobs.pin(r.blob, -1) }
	defer func() {
		if err != nil {
			unpin()
		}
	}()
	whole, f, err := m.openWhole(r)
	if err != nil {
		return nil, err
	}
	if f == nil {
		if req.GetHeader() {
			it.Header = whole[:r.headerLen:r.headerLen]
		}
		if req.GetMessage() {
			it.Message = inlineRef(whole)
		}
		return unpin, nil
	}
	defer f.Close()
	if req.GetHeader() {
		if it.Header, err = readHeader(r, f); err != nil {
			return nil, err
		}
	}
	if !req.GetMessage() {
		return unpin, nil
	}
	if !m.s.local {
		whole := make([]byte, r.size)
		if _, err := io.ReadFull(f, whole[copy(whole, r.prefix):]); err != nil {
			return nil, err
		}
		it.Message = inlineRef(whole)
		return unpin, nil
	}
	path, release, err := m.s.views.get(m.s, m.account, msg, r, f)
	if err != nil {
		return nil, err
	}
	it.Message = &v1.MessageRef{Size: r.size, Where: &v1.MessageRef_Path{Path: path}}
	return func() { release(); unpin() }, nil
}

// The fields of FetchResponse.Item that are stored as they travel.
const (
	itemSummary   = 2
	itemStructure = 3
)

// describe adds the summary and the structure.
func (m *messages) describe(it *v1.FetchResponse_Item, req *v1.FetchRequest, r *rendered) error {
	m.rest = m.rest[:0]
	if req.GetSummary() {
		if m.encoded {
			m.rest = appendField(m.rest, itemSummary, r.summary)
		} else if it.Summary = (&v1.Summary{}); proto.Unmarshal(r.summary, it.Summary) != nil {
			return errTorn
		}
	}
	if req.GetStructure() {
		if m.encoded {
			m.rest = appendField(m.rest, itemStructure, r.structure)
		} else if it.Structure = (&v1.Part{}); proto.Unmarshal(r.structure, it.Structure) != nil {
			return errTorn
		}
	}
	return nil
}

func appendField(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

// openWhole returns the octets of a small message, or the file of a large one's body.
func (m *messages) openWhole(r *rendered) (whole []byte, f vfs.File, err error) {
	v, err := m.bodies.get(key8(tabBlob, r.blob), r.blob)
	switch {
	case err != nil:
		return nil, nil, err
	case len(v) == 0:
		return nil, nil, fmt.Errorf("body %d: %w", r.blob, errTorn)
	case v[0] == blobInline:
		return append(append(make([]byte, 0, len(r.prefix)+len(v)-1), r.prefix...), v[1:]...), nil, nil
	}
	f, err = m.s.fs.Open(m.s.blobPath(r.blob))
	return nil, f, err
}

func inlineRef(b []byte) *v1.MessageRef {
	return &v1.MessageRef{Size: int64(len(b)), Where: &v1.MessageRef_Inline{Inline: b}}
}

func readHeader(r *rendered, f io.ReaderAt) ([]byte, error) {
	out := make([]byte, r.headerLen)
	n := copy(out, r.prefix)
	_, err := io.ReadFull(io.NewSectionReader(f, 0, r.headerLen-int64(n)), out[n:])
	return out, err
}
