package sdktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Storage is a double for the tests of access plugins: a whole storage, in
// memory, that passes the conformance suite. Nothing of it is durable, and all of
// it is under one lock.
type Storage struct {
	dir string

	mu       sync.Mutex
	accounts map[string]*account
	deposits map[string]*v1.DepositResponse_Result
	ids      int
}

var _ storage.Storage = (*Storage)(nil)

// NewStorage makes an empty one. Messages above mail.InlineLimit are handed out
// as files under dir: t.TempDir().
func NewStorage(dir string) *Storage {
	return &Storage{dir: dir, accounts: map[string]*account{}, deposits: map[string]*v1.DepositResponse_Result{}}
}

// Put stores a message (line ends as in Go source) in a mailbox, which comes into
// being, and returns its UID. It panics if the storage refuses it.
func (s *Storage) Put(name, mailbox, text string, flags ...string) uint32 {
	must := func(err error) {
		if err != nil {
			panic(fmt.Sprintf("sdktest: put into %s of %s: %v", mailbox, name, err))
		}
	}
	text = crlf(text)
	a, err := s.Open(context.Background(), name)
	must(err)
	boxes, err := a.List(context.Background(), &v1.ListMailboxesRequest{Name: mailbox})
	must(err)
	var box *v1.Mailbox
	if len(boxes.GetMailboxes()) > 0 {
		box = boxes.GetMailboxes()[0]
	} else {
		box, err = a.Create(context.Background(), &v1.CreateMailboxRequest{Name: mailbox})
		must(err)
	}
	m := &v1.AppendRequest_Message{Message: mail.FromBytes([]byte(text)).Ref(), Flags: flags}
	resp, err := a.Append(context.Background(), &v1.AppendRequest{MailboxId: box.GetId(), Messages: []*v1.AppendRequest_Message{m}})
	must(err)
	return resp.GetUids()[0]
}

func crlf(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}

// id is one that was never given before.
func (s *Storage) id(letter string) string {
	s.ids++
	return fmt.Sprintf("%s%d", letter, s.ids)
}

// Open implements storage.Storage.
func (s *Storage) Open(_ context.Context, name string) (storage.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(name)
	if err != nil {
		return nil, err
	}
	return repeatable{a}, nil
}

func (s *Storage) account(name string) (*account, error) {
	if a := s.accounts[name]; a != nil {
		return a, nil
	}
	if name == "" || len(name) > 320 || strings.IndexFunc(name, unicode.IsControl) >= 0 {
		return nil, fail.New(fail.Invalid, "no account can be named %.40q", name)
	}
	a := &account{s: s, threads: map[string]string{}, kept: map[string]bool{}, changed: make(chan struct{}), answers: map[string]answered{}}
	for _, m := range [][2]string{
		{inbox, "inbox"}, {"Drafts", "drafts"}, {"Sent", "sent"}, {"Trash", "trash"}, {"Junk", "junk"}, {"Archive", "archive"},
	} {
		a.add(m[0], m[1])
	}
	a.stepped = false
	s.accounts[name] = a
	return a, nil
}

// content is a message as it was stored; copies share it.
type content struct {
	*mime.Rendered
	id, thread string
	text       []byte
	path       string // of the file, once somebody fetched it
}

// take reads a message that somebody brought, and renders it behind prefix.
func take(ref *v1.MessageRef, prefix string) (*content, error) {
	b, err := mail.FromRef(ref).Bytes(0)
	if err != nil {
		return nil, fail.Wrap(fail.Invalid, err, "the message cannot be read")
	}
	if int64(len(b)) != ref.GetSize() {
		return nil, fail.New(fail.Invalid, "the message has %d octets, its reference says %d", len(b), ref.GetSize())
	}
	c := &content{text: slices.Concat([]byte(prefix), b)}
	r, err := mime.Summarize(strings.NewReader(string(b)))
	if err != nil {
		return nil, err
	}
	n := int64(len(prefix))
	c.Rendered = &mime.Rendered{
		Summary: r.Summary, Structure: mime.Shift(r.Structure, n), HeaderLen: r.HeaderLen + n, Size: r.Size + n, Preview: r.Preview,
	}
	return c, nil
}

// ref hands the message out as a storage does: a large one as a file.
func (c *content) ref(dir string) (*v1.MessageRef, error) {
	if len(c.text) <= mail.InlineLimit {
		return mail.FromBytes(c.text).Ref(), nil
	}
	if c.path == "" {
		path := filepath.Join(dir, c.id+".eml")
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			return nil, fail.Wrap(fail.Unavailable, err, "write the message's file")
		}
		c.path = path
	}
	return mail.FromFile(c.path, int64(len(c.text))).Ref(), nil
}

// Deposit implements storage.Storage.
func (s *Storage) Deposit(ctx context.Context, req *v1.DepositRequest) (*v1.DepositResponse, error) {
	if req.GetQueueId() == "" {
		return nil, fail.New(fail.Invalid, "a deposit needs a queue id")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &v1.DepositResponse{}
	for _, t := range req.GetTargets() {
		key := fmt.Sprintf("%s/%d", req.GetQueueId(), t.GetKey())
		r := s.deposits[key]
		if r == nil {
			var err error
			if r, err = s.deposit(req, t); errors.Is(err, os.ErrNotExist) {
				return nil, err
			} else if err != nil {
				r = &v1.DepositResponse_Result{Key: t.GetKey(), Problem: fail.ToProblem(err)}
			} else {
				s.deposits[key] = r
			}
		}
		resp.Results = append(resp.Results, r)
	}
	return resp, ctx.Err()
}

func (s *Storage) deposit(req *v1.DepositRequest, t *v1.DepositRequest_Target) (*v1.DepositResponse_Result, error) {
	bits, keywords, err := mime.ParseFlags(t.GetFlags())
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(req.GetReturnPath()+t.GetRecipient(), "\r\n") {
		return nil, fail.New(fail.Invalid, "an address with a line end")
	}
	a, err := s.account(t.GetAccount())
	if err != nil {
		return nil, err
	}
	c, err := take(req.GetMessage(), "Return-Path: <"+req.GetReturnPath()+">\r\nDelivered-To: "+t.GetRecipient()+"\r\n")
	if err != nil {
		return nil, err
	}
	r := &v1.DepositResponse_Result{Key: t.GetKey()}
	err = a.change(func() error {
		name := inbox
		if t.GetMailbox() != "" {
			if name, err = checkName(t.GetMailbox()); err != nil {
				return err
			}
		}
		if err := a.room(int64(len(c.text)), t.GetQuotaBytes()); err != nil {
			return err
		}
		b := a.byName(name)
		if b == nil {
			b = a.add(name, "")
		}
		m := a.store(b, c, bits, keywords, req.GetReceivedMs())
		r.MailboxId, r.Uid, r.MessageId = b.id, m.uid, c.id
		return nil
	})
	return r, err
}

func now() int64 { return time.Now().UnixMilli() }
