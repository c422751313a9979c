package local

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// request is one with a key: a client's that meets a crash is repeated.
type request struct {
	key, account string
	ask          func(ctx context.Context, a storage.Account) (proto.Message, error)
	answer       string
}

func (r *request) do(s *Store) (string, error) {
	ctx := storage.WithRequestKey(context.Background(), r.key)
	a, err := s.Open(ctx, r.account)
	if err != nil {
		return "", err
	}
	m, err := r.ask(ctx, a)
	return string(encode(m)), err
}

// keyed makes a request and notes it, if it changed something.
func (w *world) keyed(m *moment, account string, ask func(ctx context.Context, a storage.Account) (proto.Message, error)) (err error) {
	w.n++
	r := &request{key: fmt.Sprintf("request %d", w.n), account: account, ask: ask}
	before, err := state(w.s)
	if err != nil {
		return err
	}
	// Noted before: a crash may come while it is under way.
	m.request = r
	if r.answer, err = r.do(w.s); err != nil {
		return err
	}
	if after, err := state(w.s); err != nil || after == before {
		m.request = nil
		return err
	}
	return nil
}

func (w *world) append(m *moment, account string, box *v1.Mailbox) error {
	req := &v1.AppendRequest{MailboxId: box.Id, Messages: []*v1.AppendRequest_Message{
		{Message: inlineMessage(w.text())}, {Message: inlineMessage(w.text()), Flags: []string{`\Seen`}},
	}}
	return w.keyed(m, account, func(ctx context.Context, a storage.Account) (proto.Message, error) { return a.Append(ctx, req) })
}

func (w *world) copy(m *moment, account string, req *v1.CopyRequest) error {
	return w.keyed(m, account, func(ctx context.Context, a storage.Account) (proto.Message, error) { return a.Copy(ctx, req) })
}

// repeat is what a client of the storage does with a request that it has no answer of.
func (h *history) repeat(s *Store, m *moment) error {
	if m.request == nil {
		return nil
	}
	got, err := m.request.do(s)
	if err == nil && got != m.request.answer {
		err = fmt.Errorf("it is answered with %q, the first time it was %q", got, m.request.answer)
	}
	if err != nil {
		return fmt.Errorf("repeat %s: %w", m.request.key, err)
	}
	return nil
}

// forgetRequest is a store that does not record a request's key.
func forgetRequest(s *Store, m *moment) error {
	if m.request == nil {
		return nil
	}
	a, err := s.account(m.request.account)
	if err != nil {
		return err
	}
	return s.db.Delete(keyRequest(s.hour(), a.num, m.request.key), pebble.Sync)
}
