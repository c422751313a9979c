package imap

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Fetch implements imapserver.Session. Flags and UIDs come from the view; sizes
// and dates from one snapshot; the rest is streamed from the storage.
func (ss *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, options *imap.FetchOptions) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	seqs, err := ss.pick(set)
	if err != nil || len(seqs) == 0 {
		return err
	}
	f := &fetching{ss: ss, w: w, options: options}
	if err := f.markSeen(seqs); err != nil {
		return err
	}
	if options.RFC822Size || options.InternalDate {
		ctx, cancel := ss.call()
		f.columns, err = ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs)})
		cancel()
		if err != nil {
			return refusal(err)
		}
	}
	req := &v1.FetchRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs)}
	if !f.needs(req) {
		for _, seq := range seqs {
			if err := f.write(seq, nil); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := ss.long()
	defer cancel()
	err = ss.store.Fetch(ctx, req, func(item *v1.FetchResponse_Item) error {
		seq, ok := ss.box.seq(item.GetUid())
		if !ok {
			return nil
		}
		return f.write(seq, item)
	})
	if err != nil {
		return refusal(err)
	}
	return nil
}

// fetching is one FETCH command.
type fetching struct {
	ss      *session
	w       *imapserver.FetchWriter
	options *imap.FetchOptions
	columns *v1.SnapshotResponse
	at      int
	seen    map[uint32]bool
}

// markSeen sets \Seen where a body is asked for without PEEK (RFC 9051 section
// 6.4.5), in one change for all.
func (f *fetching) markSeen(seqs []uint32) error {
	reads := false
	for _, s := range f.options.BodySection {
		reads = reads || !s.Peek
	}
	for _, s := range f.options.BinarySection {
		reads = reads || !s.Peek
	}
	if !reads || f.ss.readOnly {
		return nil
	}
	var unseen []uint32
	for _, seq := range seqs {
		if f.ss.box.flags[seq-1]&uint32(v1.Flag_FLAG_SEEN) == 0 {
			unseen = append(unseen, seq)
		}
	}
	if len(unseen) == 0 {
		return nil
	}
	changed, err := f.ss.setFlags(unseen, v1.SetFlagsRequest_ADD, []string{string(imap.FlagSeen)})
	f.seen = map[uint32]bool{}
	for _, seq := range changed {
		f.seen[seq] = true
	}
	return err
}

// needs notes in the request what the items need; false if they need nothing.
func (f *fetching) needs(req *v1.FetchRequest) bool {
	o := f.options
	req.Summary = o.Envelope
	req.Structure = o.BodyStructure != nil
	for _, s := range o.BodySection {
		switch {
		case len(s.Part) == 0 && s.Specifier == imap.PartSpecifierHeader:
			req.Header = true
		case len(s.Part) == 0 && s.Specifier == imap.PartSpecifierNone:
			req.Message = true
		default:
			req.Message, req.Structure = true, true
		}
	}
	if len(o.BinarySection)+len(o.BinarySectionSize) > 0 {
		req.Message, req.Structure = true, true
	}
	return req.Summary || req.Structure || req.Header || req.Message
}

// write writes one message's response.
func (f *fetching) write(seq uint32, item *v1.FetchResponse_Item) (err error) {
	box, o := f.ss.box, f.options
	uid := box.uids[seq-1]
	size, received, ok := f.column(uid)
	if !ok {
		return nil
	}
	body, err := f.open(item)
	if err != nil {
		return err
	}
	defer body.close()
	binaries, err := body.binaries(o)
	if err != nil {
		return err
	}
	m := f.w.CreateMessage(seq)
	defer func() {
		if closing := m.Close(); err == nil {
			err = closing
		}
	}()
	if o.UID {
		m.WriteUID(imap.UID(uid))
	}
	if o.Flags || f.seen[seq] {
		m.WriteFlags(flagList(box.flags[seq-1], box.keywords[uid]))
	}
	if o.InternalDate {
		m.WriteInternalDate(time.UnixMilli(received))
	}
	if o.RFC822Size {
		m.WriteRFC822Size(size)
	}
	if o.Envelope {
		m.WriteEnvelope(envelope(item.GetSummary()))
	}
	if o.BodyStructure != nil {
		m.WriteBodyStructure(bodyStructure(item.GetStructure()))
	}
	for _, s := range o.BodySection {
		r, size, err := body.section(s)
		if err != nil {
			return f.broken(err)
		}
		if err := stream(m.WriteBodySection(s, size), r, size); err != nil {
			return f.broken(err)
		}
	}
	for i, s := range o.BinarySection {
		r, size, err := binaries[i].cut(s.Partial)
		if err != nil {
			return f.broken(err)
		}
		if err := stream(m.WriteBinarySection(s, size), r, size); err != nil {
			return f.broken(err)
		}
	}
	for i, s := range o.BinarySectionSize {
		m.WriteBinarySectionSize(s, uint32(binaries[len(o.BinarySection)+i].size))
	}
	return nil
}

// column finds the message's size and date; false if it is gone meanwhile. The
// messages are written by growing UID, so the search goes on where it was.
func (f *fetching) column(uid uint32) (size, received int64, ok bool) {
	if f.columns == nil {
		return 0, 0, true
	}
	for f.at < len(f.columns.GetUids()) && f.columns.GetUids()[f.at] < uid {
		f.at++
	}
	if f.at == len(f.columns.GetUids()) || f.columns.GetUids()[f.at] != uid {
		return 0, 0, false
	}
	return f.columns.GetSizes()[f.at], f.columns.GetReceivedMs()[f.at], true
}

// broken ends the connection: a response was begun that cannot be completed.
func (f *fetching) broken(err error) error {
	f.ss.s.host.Log.Error().Err(err).Str("account", f.ss.account).Msg("cannot complete a FETCH response")
	f.ss.c.Conn.Close()
	return err
}

// stream writes exactly size octets as a literal.
func stream(w io.WriteCloser, r io.Reader, size int64) error {
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err == nil && n != size {
		err = fmt.Errorf("the message ends %d octets early", size-n)
	}
	if closing := w.Close(); err == nil {
		err = closing
	}
	return err
}

// body is a message to cut sections from.
type body struct {
	item *v1.FetchResponse_Item
	raw  mail.Reader
	size int64
}

func (f *fetching) open(item *v1.FetchResponse_Item) (*body, error) {
	b := &body{item: item}
	if item.GetMessage() == nil {
		return b, nil
	}
	m := mail.FromRef(item.GetMessage())
	raw, err := m.Open()
	if err != nil {
		return nil, err
	}
	b.raw, b.size = raw, m.Size()
	return b, nil
}

func (b *body) close() {
	if b.raw != nil {
		b.raw.Close()
	}
}

// section finds what BODY[…] names; a section that is not there is empty.
func (b *body) section(s *imap.FetchItemBodySection) (io.Reader, int64, error) {
	var (
		where  place
		header []byte
	)
	rootHeader := len(s.Part) == 0 && s.Specifier == imap.PartSpecifierHeader
	if rootHeader {
		header = b.item.GetHeader()
	} else {
		found, ok := locate(b.item.GetStructure(), b.size, s.Part, string(s.Specifier))
		if !ok {
			return bytes.NewReader(nil), 0, nil
		}
		where = found
	}
	fields, not := s.HeaderFields, false
	if len(s.HeaderFieldsNot) > 0 {
		fields, not = s.HeaderFieldsNot, true
	}
	if len(fields) > 0 {
		if !rootHeader {
			header = make([]byte, where.size)
			if _, err := b.raw.ReadAt(header, where.offset); err != nil && err != io.EOF {
				return nil, 0, err
			}
		}
		header = pickFields(header, fields, not)
	}
	if rootHeader || len(fields) > 0 {
		p := place{0, int64(len(header))}
		if s.Partial != nil {
			p = p.cut(s.Partial.Offset, s.Partial.Size)
		}
		return bytes.NewReader(header[p.offset : p.offset+p.size]), p.size, nil
	}
	if s.Partial != nil {
		where = where.cut(s.Partial.Offset, s.Partial.Size)
	}
	return io.NewSectionReader(b.raw, where.offset, where.size), where.size, nil
}

// binary is a part with its content-transfer-encoding undone (RFC 3516).
type binary struct {
	raw      io.ReaderAt
	where    place
	encoding string
	size     int64
}

// binaries measures the parts that BINARY and BINARY.SIZE name, before anything
// of the response is written: an encoding that is not known fails the command.
func (b *body) binaries(o *imap.FetchOptions) ([]binary, error) {
	var paths [][]int
	for _, s := range o.BinarySection {
		paths = append(paths, s.Part)
	}
	for _, s := range o.BinarySectionSize {
		paths = append(paths, s.Part)
	}
	var out []binary
	for _, path := range paths {
		x := binary{raw: b.raw}
		if p := findPart(b.item.GetStructure(), path); p != nil && len(path) > 0 && !isMultipart(p) {
			x.encoding = p.GetEncoding()
		}
		x.where, _ = locate(b.item.GetStructure(), b.size, path, wantAll)
		r, err := decoder(x.encoding, io.NewSectionReader(x.raw, x.where.offset, x.where.size))
		if err != nil {
			return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeUnknownCTE, Text: "The part's encoding is not known"}
		}
		if x.size, err = io.Copy(io.Discard, r); err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func (x binary) cut(partial *imap.SectionPartial) (io.Reader, int64, error) {
	r, err := decoder(x.encoding, io.NewSectionReader(x.raw, x.where.offset, x.where.size))
	if err != nil || partial == nil {
		return r, x.size, err
	}
	p := place{0, x.size}.cut(partial.Offset, partial.Size)
	_, err = io.CopyN(io.Discard, r, p.offset)
	return r, p.size, err
}
