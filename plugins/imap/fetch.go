package imap

import (
	"bytes"
	"io"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// fetch is FETCH. Flags, UIDs and MODSEQs come from the view; sizes and dates from
// one snapshot; the rest is streamed from the storage.
func (ss *session) fetch(cmd *command) error {
	p := cmd.p
	p.SP()
	set := p.Set()
	p.SP()
	items := ss.fetchItems(p)
	if err := cmd.end(); err != nil {
		return err
	}
	switch {
	case items.vanished && !(ss.qresync && cmd.byUID() && items.changed):
		return bad("VANISHED goes with UID FETCH, CHANGEDSINCE and ENABLE QRESYNC")
	case items.partial.set() && !cmd.byUID():
		return bad("PARTIAL goes with UID FETCH")
	}
	if items.modseq || items.changed {
		if err := ss.useCondstore(); err != nil {
			return err
		}
	}
	seqs, err := ss.pick(cmd, set)
	if err != nil {
		return err
	}
	if items.vanished && !set.Saved {
		gone, err := ss.vanishedSince(items.changedSince, set.Ranges)
		if err != nil {
			return ss.refusal(err)
		}
		ss.tellEarlier(gone)
	}
	if items.partial.set() {
		seqs = items.partial.of(seqs)
	}
	if items.changed {
		kept := seqs[:0]
		for _, seq := range seqs {
			if ss.box.modseqs[seq-1] > items.changedSince {
				kept = append(kept, seq)
			}
		}
		seqs = kept
	}
	items.uid = items.uid || cmd.byUID() && !ss.uidOnly
	if len(seqs) == 0 {
		return nil
	}
	return ss.runFetch(items, seqs)
}

func (ss *session) runFetch(items *fetchItems, seqs []uint32) error {
	f := &fetching{ss: ss, items: items}
	if err := f.markSeen(seqs); err != nil {
		return err
	}
	if items.size || items.received {
		ctx, cancel := ss.call()
		snapshot, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: ss.box.mailbox.GetId(), Uids: ss.box.ranges(seqs)})
		cancel()
		if err != nil {
			return ss.refusal(err)
		}
		f.columns = snapshot
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
	var failed error
	// What a client may ask for by number is in ranges; the rest of a range that
	// it did not ask for does not exist in the view.
	err := ss.store.Fetch(ctx, req, func(item *v1.FetchResponse_Item) error {
		if seq, ok := ss.box.seq(item.GetUid()); ok {
			failed = f.write(seq, item)
		}
		return failed
	})
	if failed != nil {
		return failed
	}
	return ss.refusal(err)
}

// fetching is one FETCH command.
type fetching struct {
	ss      *session
	items   *fetchItems
	columns *v1.SnapshotResponse
	at      int
	// seen: sequence numbers that \Seen was set on, growing.
	seen []uint32
}

// markSeen sets \Seen where a body is asked for without PEEK, in one change for
// all.
func (f *fetching) markSeen(seqs []uint32) error {
	if !f.items.reads() || f.ss.readOnly {
		return nil
	}
	var unseen []uint32
	for _, seq := range seqs {
		if f.ss.box.flags[seq-1]&uint8(v1.Flag_FLAG_SEEN) == 0 {
			unseen = append(unseen, seq)
		}
	}
	if len(unseen) == 0 {
		return nil
	}
	done, err := f.ss.setFlags(unseen, v1.SetFlagsRequest_ADD, []string{`\Seen`}, 0, false)
	f.seen = done.changed
	return err
}

// needs notes in the request what the items need; false if they need nothing.
func (f *fetching) needs(req *v1.FetchRequest) bool {
	i := f.items
	req.Summary = i.envelope
	req.Structure = i.structure || i.body
	req.Preview = i.preview
	req.Ids = i.emailID || i.threadID || i.saveDate
	for n := range i.sections {
		s := &i.sections[n]
		switch {
		case s.structured():
			req.Message, req.Structure = true, true
		case s.want == wantHeader:
			req.Header = true
		default:
			req.Message = true
		}
	}
	return req.Summary || req.Structure || req.Header || req.Message || req.Preview || req.Ids
}

// write writes one message's response.
func (f *fetching) write(seq uint32, item *v1.FetchResponse_Item) error {
	ss, i := f.ss, f.items
	uid := ss.box.uids[seq-1]
	size, received, ok := f.column(uid)
	if !ok {
		return nil
	}
	body, err := openBody(item)
	if err != nil {
		return err
	}
	defer body.close()
	if err := body.measure(i.sections); err != nil {
		return err
	}
	ss.fetchHead(seq)
	first := true
	name := func(s string) {
		if !first {
			ss.out.raw(" ")
		}
		first = false
		ss.out.raw(s)
	}
	if i.uid {
		name("UID ")
		ss.out.number(uint64(uid))
	}
	if i.flags || contained(f.seen, seq) {
		name("FLAGS ")
		ss.appendFlags(seq)
	}
	if i.modseq || ss.condstore && contained(f.seen, seq) {
		name("MODSEQ (")
		ss.out.number(ss.box.modseqs[seq-1])
		ss.out.raw(")")
	}
	if i.received {
		name("INTERNALDATE ")
		ss.out.b = wire.AppendDateTime(ss.out.b, time.UnixMilli(received))
	}
	if i.size {
		name("RFC822.SIZE ")
		ss.out.number(uint64(size))
	}
	if i.emailID {
		name("EMAILID (" + objectID(item.GetMessageId()) + ")")
	}
	if i.threadID {
		if item.GetThreadId() == "" {
			name("THREADID NIL")
		} else {
			name("THREADID (" + objectID(item.GetThreadId()) + ")")
		}
	}
	if i.saveDate {
		if item.GetSavedMs() == 0 {
			name("SAVEDATE NIL")
		} else {
			name("SAVEDATE ")
			ss.out.b = wire.AppendDateTime(ss.out.b, time.UnixMilli(item.GetSavedMs()))
		}
	}
	if i.preview {
		name("PREVIEW ")
		ss.out.text(item.GetPreview())
	}
	render := renderer{utf8: ss.out.utf8}
	if i.envelope {
		name("ENVELOPE ")
		ss.out.b = render.envelope(ss.out.b, item.GetSummary())
	}
	if i.body {
		name("BODY ")
		ss.out.b = render.structure(ss.out.b, item.GetStructure(), false)
	}
	if i.structure {
		name("BODYSTRUCTURE ")
		ss.out.b = render.structure(ss.out.b, item.GetStructure(), true)
	}
	for n := range i.sections {
		name("")
		if err := f.section(body, n); err != nil {
			return f.broken(err)
		}
	}
	ss.out.raw(")")
	ss.out.end()
	return ss.out.err
}

func (f *fetching) section(body *body, n int) error {
	out, s := &f.ss.out, &f.items.sections[n]
	out.b = s.appendName(out.b, out.utf8)
	out.raw(" ")
	if s.kind == binarySize {
		out.number(uint64(body.binaries[n].size))
		return nil
	}
	var r io.Reader
	var size int64
	var err error
	if s.kind == binarySection {
		r, size, err = body.binaries[n].cut(s)
		// RFC 3516 section 4.2: what has a NUL is a literal8; all are, for
		// nobody looked.
		out.raw("~")
	} else {
		r, size, err = body.section(s)
	}
	if err != nil {
		return err
	}
	out.b = wire.AppendLiteral(out.b, size)
	return out.stream(r, size)
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
	if f.ss.out.err == nil {
		f.ss.log.Error().Err(err).Str("account", f.ss.account).Msg("cannot complete a FETCH response")
	}
	// What was gathered is torn: it must not look whole.
	_ = f.ss.out.flush()
	f.ss.out.err = errTorn
	return errTorn
}

// body is a message to cut sections from.
type body struct {
	item     *v1.FetchResponse_Item
	raw      mail.Reader
	size     int64
	binaries map[int]binary
}

func openBody(item *v1.FetchResponse_Item) (*body, error) {
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
func (b *body) section(s *section) (io.Reader, int64, error) {
	var where place
	var header []byte
	// The whole header comes by itself, without the message.
	inMemory := len(s.path) == 0 && s.want == wantHeader && (b.raw == nil || b.item.GetHeader() != nil)
	if inMemory {
		header = b.item.GetHeader()
	} else {
		found, ok := locate(b.item.GetStructure(), b.size, s.path, s.want)
		if !ok {
			return bytes.NewReader(nil), 0, nil
		}
		where = found
	}
	if len(s.fields) > 0 {
		if !inMemory {
			header = make([]byte, where.size)
			if _, err := b.raw.ReadAt(header, where.offset); err != nil && err != io.EOF {
				return nil, 0, err
			}
			inMemory = true
		}
		header = pickFields(header, s.fields, s.not)
	}
	if inMemory {
		p := place{0, int64(len(header))}
		if s.partial {
			p = p.cut(s.offset, s.size)
		}
		return bytes.NewReader(header[p.offset : p.offset+p.size]), p.size, nil
	}
	if s.partial {
		where = where.cut(s.offset, s.size)
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

// measure finds the sizes of the parts that BINARY and BINARY.SIZE name, before
// anything of the response is written: an encoding that is not known fails the
// command.
func (b *body) measure(sections []section) error {
	for n := range sections {
		s := &sections[n]
		if s.kind == bodySection {
			continue
		}
		x := binary{raw: b.raw}
		if p := findPart(b.item.GetStructure(), s.path); p != nil && len(s.path) > 0 && !isMultipart(p) {
			x.encoding = p.GetEncoding()
		}
		x.where, _ = locate(b.item.GetStructure(), b.size, s.path, wantAll)
		r, err := decoder(x.encoding, io.NewSectionReader(x.raw, x.where.offset, x.where.size))
		if err != nil {
			return errUnknownCTE
		}
		if x.size, err = io.Copy(io.Discard, r); err != nil {
			return err
		}
		if b.binaries == nil {
			b.binaries = map[int]binary{}
		}
		b.binaries[n] = x
	}
	return nil
}

func (x binary) cut(s *section) (io.Reader, int64, error) {
	r, err := decoder(x.encoding, io.NewSectionReader(x.raw, x.where.offset, x.where.size))
	if err != nil || !s.partial {
		return r, x.size, err
	}
	p := place{0, x.size}.cut(s.offset, s.size)
	_, err = io.CopyN(io.Discard, r, p.offset)
	return r, p.size, err
}
