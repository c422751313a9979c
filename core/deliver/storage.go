package deliver

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Storage delivers into mailboxes: all recipients of a message in one call, so
// that the storage keeps one copy.
type Storage struct {
	To storage.Storage
	// Mailbox by name; "" is INBOX.
	Mailbox string
	// DetailToFolder sends meg+lists@ to the folder "lists".
	DetailToFolder bool
	// Quota of an account in octets; nil or 0: none.
	Quota func(ctx context.Context, address string) int64
}

var _ Transport = (*Storage)(nil)

// Deliver deposits; a repeated job stores nothing twice (the queue id and the
// recipient's index are the storage's key).
func (s *Storage) Deliver(ctx context.Context, job *Job) []Outcome {
	main := s.request(job, job.Body)
	reqs := []*v1.DepositRequest{main}
	keys := make(map[int32][]int32, len(job.Recipients))
	for _, r := range job.Recipients {
		t := s.target(ctx, r)
		copies := job.Placements[r.Index]
		if len(copies) == 0 {
			main.Targets = append(main.Targets, t)
			keys[r.Index] = []int32{t.GetKey()}
			continue
		}
		for i, c := range copies {
			own := &v1.DepositRequest_Target{
				Key: copyKey(r.Index, i), Account: t.GetAccount(), Mailbox: c.Mailbox, Recipient: t.GetRecipient(),
				Flags: c.Flags, QuotaBytes: t.GetQuotaBytes(),
			}
			keys[r.Index] = append(keys[r.Index], own.GetKey())
			if c.Body == nil {
				main.Targets = append(main.Targets, own)
				continue
			}
			req := s.request(job, c.Body)
			req.Targets = []*v1.DepositRequest_Target{own}
			reqs = append(reqs, req)
		}
	}
	results := make(map[int32]*v1.DepositResponse_Result, len(job.Recipients))
	for _, req := range reqs {
		if len(req.GetTargets()) == 0 {
			continue
		}
		resp, err := s.To.Deposit(ctx, req)
		if err != nil {
			for _, t := range req.GetTargets() {
				results[t.GetKey()] = &v1.DepositResponse_Result{Key: t.GetKey(), Problem: fail.ToProblem(err)}
			}
			continue
		}
		for _, r := range resp.GetResults() {
			results[r.GetKey()] = r
		}
	}
	return job.all(func(i int32) Outcome {
		for _, key := range keys[i] {
			r, ok := results[key]
			switch {
			case !ok:
				return failed(i, fail.New(fail.Internal, "the storage said nothing of this recipient"), "")
			case r.GetProblem() != nil:
				return failed(i, fail.FromProblem(r.GetProblem()), "")
			}
		}
		return replied(i, &v1.SMTPReply{Code: 250, Enhanced: "2.1.5", Text: "stored"}, "")
	})
}

func (s *Storage) request(job *Job, body spool.Body) *v1.DepositRequest {
	return &v1.DepositRequest{
		QueueId:    job.Envelope.ID,
		Message:    body.Message().Ref(),
		ReturnPath: job.Envelope.Sender,
		ReceivedMs: job.Envelope.Received.UnixMilli(),
	}
}

// copyKey names a recipient's i-th copy. The first one has the recipient's index,
// as its only one has where no filter places any.
func copyKey(index int32, i int) int32 { return index + int32(i)<<24 }

func (s *Storage) target(ctx context.Context, r *queue.Recipient) *v1.DepositRequest_Target {
	t := &v1.DepositRequest_Target{Key: r.Index, Account: r.Account, Mailbox: s.Mailbox, Recipient: r.Address}
	if t.Account == "" {
		t.Account = r.Address
	}
	if s.DetailToFolder && r.Detail != "" && folderName(r.Detail) {
		t.Mailbox = r.Detail
	}
	if s.Quota != nil {
		t.QuotaBytes = s.Quota(ctx, r.Address)
	}
	return t
}

// folderName tells whether a plus-address's detail may name a folder: a sender
// chooses it, so it makes no hierarchy and no surprise.
func folderName(detail string) bool {
	if len(detail) > 64 || detail == "." || detail == ".." {
		return false
	}
	for _, r := range detail {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.', r > 0x7f:
		default:
			return false
		}
	}
	return true
}

// Close does nothing: the storage is the host's.
func (s *Storage) Close() error { return nil }

// Destination is one for all.
func (s *Storage) Destination(string) string { return "" }
