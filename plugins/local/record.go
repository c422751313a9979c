package local

import (
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// accountRecord holds the counters of an account. None ever goes back.
type accountRecord struct {
	modseq      uint64
	mailbox     uint64 // last mailbox number given
	message     uint64 // last message number given
	uidValidity uint64 // last one given
	bytes       uint64 // of all messages in all mailboxes
	messages    uint64
}

func (r *accountRecord) fields() []*uint64 {
	return []*uint64{&r.modseq, &r.mailbox, &r.message, &r.uidValidity, &r.bytes, &r.messages}
}

func (r *accountRecord) encode() []byte {
	var b []byte
	for _, f := range r.fields() {
		b = protowire.AppendVarint(b, *f)
	}
	return b
}

func (r *accountRecord) decode(b []byte) error {
	for _, f := range r.fields() {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return errTorn
		}
		*f, b = v, b[n:]
	}
	return nil
}

// columns of one message in one mailbox.
type columns struct {
	flags    uint32
	modseq   uint64
	size     int64
	received int64
	saved    int64
	message  uint64
	thread   uint64
	keywords string // separated by spaces
}

const columnsLen = 1 + 6*8

func (c *columns) append(b []byte) []byte {
	b = append(b, byte(c.flags))
	for _, v := range [...]uint64{c.modseq, uint64(c.size), uint64(c.received), uint64(c.saved), c.message, c.thread} {
		b = be.AppendUint64(b, v)
	}
	return append(b, c.keywords...)
}

func (c *columns) decode(b []byte) error {
	if len(b) < columnsLen {
		return errTorn
	}
	c.flags = uint32(b[0])
	c.modseq = be.Uint64(b[1:])
	c.size = int64(be.Uint64(b[9:]))
	c.received = int64(be.Uint64(b[17:]))
	c.saved = int64(be.Uint64(b[25:]))
	c.message = be.Uint64(b[33:])
	c.thread = be.Uint64(b[41:])
	c.keywords = string(b[columnsLen:])
	return nil
}

func (c *columns) keywordList() []string {
	if c.keywords == "" {
		return nil
	}
	return strings.Split(c.keywords, " ")
}

// rendered is what is known of a message beside its body. It is written once.
type rendered struct {
	blob uint64
	// prefix stands before the blob's octets: Return-Path and Delivered-To.
	prefix []byte
	// headerLen and size count the prefix.
	headerLen int64
	size      int64
	preview   string
	summary   []byte // v1.Summary
	structure []byte // v1.Part
	hash      uint64 // of the Message-ID; 0: none
}

func (r *rendered) encode() []byte {
	var b []byte
	number := func(n protowire.Number, v uint64) {
		b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	octets := func(n protowire.Number, v []byte) {
		if len(v) > 0 {
			b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
		}
	}
	number(1, r.blob)
	octets(2, r.prefix)
	number(3, uint64(r.headerLen))
	number(4, uint64(r.size))
	octets(5, []byte(r.preview))
	octets(6, r.summary)
	octets(7, r.structure)
	number(8, r.hash)
	return b
}

// decode keeps slices of b.
func (r *rendered) decode(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errTorn
		}
		b = b[n:]
		var v uint64
		var p []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			p, n = protowire.ConsumeBytes(b)
		default:
			n = -1
		}
		if n < 0 {
			return errTorn
		}
		b = b[n:]
		switch num {
		case 1:
			r.blob = v
		case 2:
			r.prefix = p
		case 3:
			r.headerLen = int64(v)
		case 4:
			r.size = int64(v)
		case 5:
			r.preview = string(p)
		case 6:
			r.summary = p
		case 7:
			r.structure = p
		case 8:
			r.hash = v
		}
	}
	return nil
}

// deposited is the kept result of a deposit.
type deposited struct {
	ms      int64
	mailbox uint32
	uid     uint32
	message uint64
}

func (d *deposited) encode() []byte {
	b := be.AppendUint64(nil, uint64(d.ms))
	b = be.AppendUint32(b, d.mailbox)
	b = be.AppendUint32(b, d.uid)
	return be.AppendUint64(b, d.message)
}

func (d *deposited) decode(b []byte) error {
	if len(b) != 24 {
		return errTorn
	}
	d.ms, d.mailbox, d.uid, d.message = int64(be.Uint64(b)), be.Uint32(b[8:]), be.Uint32(b[12:]), be.Uint64(b[16:])
	return nil
}

func encode(m proto.Message) []byte {
	// Marshal fails on invalid UTF-8 in a string field only; the callers see to it.
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func decodeMailbox(b []byte) (*v1.Mailbox, error) {
	m := &v1.Mailbox{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, errTorn
	}
	return m, nil
}
