package filter

import (
	"fmt"

	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// maxCopies of one recipient, as filter.proto says.
const maxCopies = 64

// Placed is one copy of a mail for a storage.
type Placed struct {
	Mailbox string
	Flags   []string
	// Body is the copy's own; nil: the mail's. Whoever drops the copy discards it.
	Body spool.Body
}

// place takes a reply's placements: all of them, or, with ErrEdit, none.
func (out *Outcome) place(ed Editing, m *Member, r *v1.FilterReply) (err error) {
	if out.event != v1.FilterEvent_PRE_DELIVERY || len(r.GetPlacements()) == 0 {
		return nil
	}
	added := map[int32][]Placed{}
	defer func() {
		if err != nil {
			Unplace(added)
		}
	}()
	for index, p := range r.GetPlacements() {
		if len(p.GetCopies()) > maxCopies {
			return fmt.Errorf("%w: %d copies for one recipient, at most %d are allowed", message.ErrEdit, len(p.GetCopies()), maxCopies)
		}
		if _, have := out.Placements[index]; have {
			continue
		}
		for _, c := range p.GetCopies() {
			copied := Placed{Mailbox: c.GetMailbox(), Flags: c.GetFlags()}
			if c.GetMessage() != nil {
				if copied.Body, err = ed.Adopt(c.GetMessage(), m.Dirs); err != nil {
					return err
				}
			}
			added[index] = append(added[index], copied)
		}
	}
	for index, copies := range added {
		if out.Placements == nil {
			out.Placements = map[int32][]Placed{}
		}
		out.Placements[index] = copies
	}
	return nil
}

// Unplace drops copies that nobody stores, or that were stored.
func Unplace(placements map[int32][]Placed) {
	for _, copies := range placements {
		for _, c := range copies {
			if c.Body != nil {
				c.Body.Discard()
			}
		}
	}
}
