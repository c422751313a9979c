package deliver

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/core/queue"
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
	req := &v1.DepositRequest{
		QueueId:    job.Envelope.ID,
		Message:    job.Body.Message().Ref(),
		ReturnPath: job.Envelope.Sender,
		ReceivedMs: job.Envelope.Received.UnixMilli(),
	}
	for _, r := range job.Recipients {
		req.Targets = append(req.Targets, s.target(ctx, r))
	}
	resp, err := s.To.Deposit(ctx, req)
	if err != nil {
		return job.all(func(i int32) Outcome { return failed(i, err, "") })
	}
	results := make(map[int32]*v1.DepositResponse_Result, len(resp.GetResults()))
	for _, r := range resp.GetResults() {
		results[r.GetKey()] = r
	}
	return job.all(func(i int32) Outcome {
		r, ok := results[i]
		switch {
		case !ok:
			return failed(i, fail.New(fail.Internal, "the storage said nothing of this recipient"), "")
		case r.GetProblem() != nil:
			return failed(i, fail.FromProblem(r.GetProblem()), "")
		}
		return replied(i, &v1.SMTPReply{Code: 250, Enhanced: "2.1.5", Text: "stored"}, "")
	})
}

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
