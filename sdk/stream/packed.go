package stream

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// messages is what a stream of gRPC's has beside Send and Recv: it takes and
// gives any message. Frames go over it as packed and unpacked, which are Frames to
// protobuf and to the other side.
type messages interface {
	SendMsg(any) error
	RecvMsg(any) error
}

// headroom is for what is written before a frame's call or reply, at most: its id,
// its tag with its length, and a call's deadline.
const headroom = 2*(1+binary.MaxVarintLen64) + 1 + binary.MaxVarintLen32

// maxPooled bounds what the pool of frames keeps, in octets each.
const maxPooled = 64 << 10

// packed is a Frame in its encoded form. It is encoded where its call is made or
// answered, once: there it is found out whether it can be, for one message with a
// string that is no UTF-8 makes gRPC end the whole stream, and with it the calls of
// everybody else. gRPC's codec only copies it.
type packed struct {
	protoreflect.Message // what Frame is, for whoever asks
	room                 []byte
	frame                []byte // within room
}

var (
	_ proto.Message        = (*packed)(nil)
	_ protoreflect.Message = (*packed)(nil)
)

var packs = sync.Pool{New: func() any {
	return &packed{Message: (*v1.Frame)(nil).ProtoReflect(), room: make([]byte, headroom, 1<<10)}
}}

// pack encodes m, which is a Call or a Reply; where it goes comes later, with
// address. An error tells why it cannot be sent.
func pack(m proto.Message) (*packed, error) {
	p := packs.Get().(*packed)
	out, err := proto.MarshalOptions{AllowPartial: true}.MarshalAppend(p.room[:headroom], m) // no field of the contract is required
	if err != nil {
		p.free()
		return nil, fail.Wrap(fail.Invalid, err, "cannot be sent")
	}
	p.room = out
	if n := len(out) - headroom; n > MaxMessage-1024 {
		p.free()
		return nil, fail.New(fail.Invalid, "cannot be sent: %d octets of at most %d", n, MaxMessage-1024)
	}
	return p, nil
}

// The fields of Frame and the one of Call that are written here.
var (
	idTag       = protowire.AppendTag(nil, 1, protowire.VarintType)[0]
	callTag     = protowire.AppendTag(nil, 2, protowire.BytesType)[0]
	replyTag    = protowire.AppendTag(nil, 3, protowire.BytesType)[0]
	deadlineTag = protowire.AppendTag(nil, 1, protowire.VarintType)[0]
)

// address makes the frame whole: what was packed stands in it as the field of that
// tag. deadline 0 is left out.
func (p *packed) address(id uint64, tag byte, deadline int64) {
	at := headroom
	if deadline != 0 {
		at = p.before(at, uint64(deadline))
		at--
		p.room[at] = deadlineTag
	}
	at = p.before(at, uint64(len(p.room)-at))
	at--
	p.room[at] = tag
	if id != 0 {
		at = p.before(at, id)
		at--
		p.room[at] = idTag
	}
	p.frame = p.room[at:]
}

// before writes v so that it ends before at, and returns where it begins.
func (p *packed) before(at int, v uint64) int {
	at -= (bits.Len64(v|1) + 6) / 7
	binary.PutUvarint(p.room[at:], v)
	return at
}

// packFrame packs a frame that is no call and no reply.
func packFrame(f *v1.Frame) *packed {
	p := packs.Get().(*packed)
	p.room, _ = proto.MarshalOptions{}.MarshalAppend(p.room[:headroom], f) // there is no string in it
	p.frame = p.room[headroom:]
	return p
}

// send writes p to s and frees it.
func (p *packed) send(s FrameStream) error {
	defer p.free()
	if m, ok := s.(messages); ok {
		return m.SendMsg(p)
	}
	f := &v1.Frame{}
	if err := proto.Unmarshal(p.frame, f); err != nil {
		return err
	}
	return s.Send(f)
}

func (p *packed) free() {
	if cap(p.room) <= maxPooled {
		p.room, p.frame = p.room[:headroom], nil
		packs.Put(p)
	}
}

// ProtoReflect implements proto.Message.
func (p *packed) ProtoReflect() protoreflect.Message { return p }

// Interface implements protoreflect.Message, of which nobody asks more than
// ProtoMethods: so it is with every message that has those.
func (p *packed) Interface() protoreflect.ProtoMessage { return p }

// ProtoMethods implements protoreflect.Message.
func (p *packed) ProtoMethods() *protoiface.Methods { return &packedMethods }

var packedMethods = protoiface.Methods{
	Flags: protoiface.SupportMarshalDeterministic,
	Size: func(in protoiface.SizeInput) protoiface.SizeOutput {
		return protoiface.SizeOutput{Size: len(in.Message.(*packed).frame)}
	},
	Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
		return protoiface.MarshalOutput{Buf: append(in.Buf, in.Message.(*packed).frame...)}, nil
	},
	// Without it protobuf walks through the fields, by reflection.
	CheckInitialized: func(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
		return protoiface.CheckInitializedOutput{}, nil
	},
}

// unpacked is what a Frame held when it was received; at most one of call, reply,
// cancel and credit is set.
type unpacked struct {
	protoreflect.Message // what Frame is, for whoever asks
	id                   uint64
	call                 *v1.Call
	reply                *v1.Reply
	cancel               *v1.Cancel
	credit               *v1.Credit
}

var (
	_ proto.Message        = (*unpacked)(nil)
	_ protoreflect.Message = (*unpacked)(nil)
)

func newUnpacked() *unpacked { return &unpacked{Message: (*v1.Frame)(nil).ProtoReflect()} }

// receive reads the next frame of s into u.
func (u *unpacked) receive(s FrameStream) error {
	if m, ok := s.(messages); ok {
		return m.RecvMsg(u)
	}
	f, err := s.Recv()
	if err != nil {
		return err
	}
	u.Reset()
	u.id, u.call, u.reply, u.cancel, u.credit = f.GetId(), f.GetCall(), f.GetReply(), f.GetCancel(), f.GetCredit()
	return nil
}

// Reset clears u for the next frame. What it held belongs to whoever took it.
func (u *unpacked) Reset() { *u = unpacked{Message: u.Message} }

// ProtoReflect implements proto.Message.
func (u *unpacked) ProtoReflect() protoreflect.Message { return u }

// Interface implements protoreflect.Message, as packed does.
func (u *unpacked) Interface() protoreflect.ProtoMessage { return u }

// ProtoMethods implements protoreflect.Message.
func (u *unpacked) ProtoMethods() *protoiface.Methods { return &unpackedMethods }

var unpackedMethods = protoiface.Methods{
	Unmarshal: func(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
		// No field of the contract is required.
		return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, in.Message.(*unpacked).decode(in.Buf)
	},
}

var errFieldNumber = errors.New("a field's number is out of range")

// decode reads a Frame's fields. As everywhere in protobuf, unknown ones are passed
// over, the last of a oneof counts, and the same message twice is merged.
func (u *unpacked) decode(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if !num.IsValid() {
			return errFieldNumber
		}
		b = b[n:]
		var body []byte
		switch {
		case num == 1 && typ == protowire.VarintType:
			u.id, n = protowire.ConsumeVarint(b)
		case num >= 2 && num <= 5 && typ == protowire.BytesType:
			body, n = protowire.ConsumeBytes(b)
		default:
			n, num = protowire.ConsumeFieldValue(num, typ, b), 0
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var m proto.Message
		switch num {
		case 2:
			if u.call == nil {
				*u = unpacked{Message: u.Message, id: u.id, call: &v1.Call{}}
			}
			m = u.call
		case 3:
			if u.reply == nil {
				*u = unpacked{Message: u.Message, id: u.id, reply: &v1.Reply{}}
			}
			m = u.reply
		case 4:
			if u.cancel == nil {
				*u = unpacked{Message: u.Message, id: u.id, cancel: &v1.Cancel{}}
			}
			m = u.cancel
		case 5:
			if u.credit == nil {
				*u = unpacked{Message: u.Message, id: u.id, credit: &v1.Credit{}}
			}
			m = u.credit
		default:
			continue
		}
		if err := (proto.UnmarshalOptions{Merge: true, AllowPartial: true}).Unmarshal(body, m); err != nil {
			return err
		}
	}
	return nil
}
