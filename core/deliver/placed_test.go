package deliver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// shelf is a storage that takes everything but what goes into the mailbox Full.
type shelf struct {
	storage.Storage
	got []string
}

func (s *shelf) Deposit(_ context.Context, r *v1.DepositRequest) (*v1.DepositResponse, error) {
	out := &v1.DepositResponse{}
	for _, t := range r.GetTargets() {
		s.got = append(s.got, fmt.Sprintf("%d %s %q %v %q", t.GetKey(), t.GetAccount(), t.GetMailbox(), t.GetFlags(), r.GetMessage().GetInline()))
		res := &v1.DepositResponse_Result{Key: t.GetKey(), Uid: 1}
		if t.GetMailbox() == "Full" {
			res.Problem = fail.ToProblem(fail.New(fail.OverQuota, "full"))
		}
		out.Results = append(out.Results, res)
	}
	return out, nil
}

func TestCopiesGoWhereAFilterPlacedThem(t *testing.T) {
	s := &shelf{}
	j := job(&queue.Recipient{Address: "meg@ryan.example"}, &queue.Recipient{Address: "annie@ryan.example"}, &queue.Recipient{Address: "joe@ryan.example"})
	j.Body = spool.FromBytes([]byte("mail"))
	j.Placements = map[int32][]filter.Placed{
		0:  {{Mailbox: "Films", Flags: []string{`\Seen`}}, {Mailbox: "Copies"}, {Body: spool.FromBytes([]byte("edited"))}},
		20: {{}, {Mailbox: "Full"}},
	}
	outs := (&deliver.Storage{To: s, Mailbox: "Lists"}).Deliver(t.Context(), j)
	slices.Sort(s.got)
	if got, want := strings.Join(s.got, "\n"), `0 meg@ryan.example "Films" [\Seen] "mail"
10 annie@ryan.example "Lists" [] "mail"
16777216 meg@ryan.example "Copies" [] "mail"
16777236 joe@ryan.example "Full" [] "mail"
20 joe@ryan.example "" [] "mail"
33554432 meg@ryan.example "" [] "edited"`; got != want {
		t.Errorf("stored\n%s\nwant\n%s", got, want)
	}
	if got, want := brief(outs), `0: delivered 250 2.1.5 "stored"
10: delivered 250 2.1.5 "stored"
20: waiting 452 4.2.2 "Mailbox full"`; got != want {
		t.Errorf("outcomes\n%s\nwant\n%s", got, want)
	}
}
