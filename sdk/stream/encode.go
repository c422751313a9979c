package stream

import (
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxPooled bounds what the pool of buffers keeps, in octets each.
const maxPooled = 64 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// encodable tells why m cannot be sent; nil if it can. gRPC ends the whole
// stream for one message with a string that is no UTF-8, and with it the calls
// of everybody else.
func encodable(m proto.Message) error {
	b := buffers.Get().(*[]byte)
	out, err := proto.MarshalOptions{}.MarshalAppend((*b)[:0], m)
	if cap(out) <= maxPooled {
		*b = out
		buffers.Put(b)
	}
	if err != nil {
		return fail.Wrap(fail.Invalid, err, "cannot be sent")
	}
	if n := len(out); n > MaxMessage-1024 {
		return fail.New(fail.Invalid, "cannot be sent: %d octets of at most %d", n, MaxMessage-1024)
	}
	return nil
}

// sayable is a problem in the place of an answer that cannot be sent: the one
// that it was, in words that can be, or that it was none.
func sayable(p *v1.Problem, err error) *v1.Problem {
	if p == nil {
		return fail.ToProblem(fail.New(fail.Internal, "the answer %s", strings.ToValidUTF8(err.Error(), "?")))
	}
	p = proto.CloneOf(p)
	p.Text = strings.ToValidUTF8(p.GetText(), "?")
	if r := p.GetReply(); r != nil {
		r.Enhanced, r.Text = strings.ToValidUTF8(r.GetEnhanced(), "?"), strings.ToValidUTF8(r.GetText(), "?")
	}
	return p
}
