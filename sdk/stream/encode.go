package stream

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

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
