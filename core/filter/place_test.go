package filter

import (
	"context"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestPlacementsCountBeforeADeliveryAndTheFirstFiltersStand(t *testing.T) {
	place := func(box string, n int) *v1.FilterReply {
		p := &v1.Placement{}
		for range n {
			p.Copies = append(p.Copies, &v1.Placement_Copy{Mailbox: box, Message: &v1.MessageRef{Size: 4, Where: &v1.MessageRef_Inline{Inline: []byte("edit")}}})
		}
		return &v1.FilterReply{Placements: map[int32]*v1.Placement{7: p}}
	}
	run := func(event v1.FilterEvent, replies ...*v1.FilterReply) *Outcome {
		var c Chain
		for _, r := range replies {
			m, _ := member("filter."+r.GetPlacements()[7].GetCopies()[0].GetMailbox(), v1.FilterInterest_JUDGE, says(r))
			in := &v1.FilterInterest{Events: []v1.FilterEvent{event}, Effect: v1.FilterInterest_JUDGE}
			m.Interest = func() *v1.FilterInterest { return in }
			c = append(c, m)
		}
		out, err := c.Run(context.Background(), marking{}, Question{Event: event, Envelope: &v1.Envelope{}, Body: spool.FromBytes([]byte("\r\n"))})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	out := run(v1.FilterEvent_PRE_DELIVERY, place("Films", 2), place("Spam", 1))
	if got := out.Placements[7]; len(got) != 2 || got[1].Mailbox != "Films" || string(got[0].Body.Bytes()) != "edit" {
		t.Errorf("placements %+v", got)
	}
	if out = run(v1.FilterEvent_ROUTE, place("Films", 1)); out.Placements != nil {
		t.Errorf("at ROUTE: %+v", out.Placements)
	}
	out = run(v1.FilterEvent_PRE_DELIVERY, place("Films", maxCopies+1))
	if out.Placements != nil || out.Verdict.GetAction() != v1.Verdict_DEFER || !strings.Contains(out.Trace[0].Failed, "65 copies") {
		t.Errorf("%d copies: %+v", maxCopies+1, out)
	}
}
