package local

import (
	"context"
	"errors"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Search implements storage.Messages: one pass over the columns, that opens a
// message only where they do not decide.
func (h *handle) Search(ctx context.Context, req *v1.SearchRequest) (*v1.SearchResponse, error) {
	match, err := mime.Compile(req.GetCriterion())
	if err != nil {
		return nil, err
	}
	v, err := h.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	num, _, err := h.mailbox(v, req.GetMailboxId())
	if err != nil {
		return nil, err
	}
	m := h.messages(v)
	defer m.close()
	resp := &v1.SearchResponse{Modseq: v.rec.modseq}
	index := h.s.excluder(h.a)
	err = eachColumn(v, h.a.num, num, mime.NewRanges(req.GetUids()), func(uid uint32, col *columns) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &candidate{m: m, uid: uid, col: col, index: index}
		ok, err := match.Match(c)
		if errors.Is(err, os.ErrNotExist) {
			return nil // expunged since the snapshot, and its file removed
		}
		if ok {
			resp.Uids = append(resp.Uids, uid)
		}
		return err
	})
	if err != nil {
		return nil, h.s.wrap(err, "search")
	}
	return resp, nil
}

// candidate is one message in a search.
type candidate struct {
	m   *messages
	uid uint32
	col *columns
	r   *rendered
	// index of the account; nil: it is not asked.
	index *excluder
}

var _ mime.Excluder = (*candidate)(nil)

// Excludes implements mime.Excluder.
func (c *candidate) Excludes(text string) bool {
	return c.index != nil && c.index.excludes(c.col.message, text)
}

func (c *candidate) Columns() mime.Columns {
	return mime.Columns{
		UID: c.uid, Flags: c.col.flags, Keywords: c.col.keywordList(), ModSeq: c.col.modseq, Size: c.col.size,
		ReceivedMS: c.col.received, SavedMS: c.col.saved,
		MessageID: objectID('M', c.col.message), ThreadID: objectID('T', c.col.thread),
	}
}

func (c *candidate) load() (err error) {
	if c.r == nil {
		c.r, err = c.m.rendered(c.col.message)
	}
	return err
}

func (c *candidate) Summary() (*v1.Summary, error) {
	if err := c.load(); err != nil {
		return nil, err
	}
	s := &v1.Summary{}
	return s, proto.Unmarshal(c.r.summary, s)
}

func (c *candidate) Structure() (*v1.Part, error) {
	if err := c.load(); err != nil {
		return nil, err
	}
	p := &v1.Part{}
	return p, proto.Unmarshal(c.r.structure, p)
}

func (c *candidate) Header() ([]byte, error) {
	if err := c.load(); err != nil {
		return nil, err
	}
	whole, f, err := c.m.openWhole(c.r)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return whole[:c.r.headerLen], nil
	}
	defer f.Close()
	return readHeader(c.r, f)
}

func (c *candidate) Open() (mail.Reader, error) {
	if err := c.load(); err != nil {
		return nil, err
	}
	whole, f, err := c.m.openWhole(c.r)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return mail.FromBytes(whole).Open()
	}
	return newPrefixed(c.r.prefix, f, c.r.size), nil
}
