package program

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// kind makes the plugin of a kind.
func (b *plugin) kind(kind string) sdk.Plugin {
	p := sdk.Plugin{
		Name: "tried", Version: "1.0.0", Summary: "Is looked at by a test", Config: settings{Every: time.Minute}, Needs: &v1.Needs{DataDir: true},
	}
	switch kind {
	case "filter":
		p.Interest = &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_ENVELOPE, v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_EDIT, Body: v1.FilterInterest_FULL,
		}
		p.Filter = func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return &filtering{plugin: b, conf: in.Config.(*settings), said: map[string]int{}}, b.opens(in.DataDir)
		}
	case "deliver":
		p.Deliver = func(_ context.Context, in *sdk.Instance) (deliver.Deliverer, error) {
			return &delivering{plugin: b, conf: in.Config.(*settings), dir: in.DataDir}, b.opens(in.DataDir)
		}
	case "storage":
		p.Features = []string{storage.RequestKeys}
		p.Storage = func(_ context.Context, in *sdk.Instance) (storage.Storage, error) {
			return &storing{plugin: b, conf: in.Config.(*settings), dir: in.DataDir}, b.opens(in.DataDir)
		}
	case "directory":
		p.Directory = b.directory
	case "access":
		p.Access = b.access
	}
	return p
}

// brokenMail tells whether this mail is the one that the mode cannot live with.
func (b *plugin) brokenMail(m *mail.Message) bool {
	name, ok := strings.CutPrefix(b.broken, "fails at mail: ")
	if !ok || m == nil {
		return false
	}
	for _, l := range conform.Letters(testLarge) {
		if l.Name != name || l.Size != m.Size() {
			continue
		}
		r, err := m.Open()
		if err != nil {
			return false
		}
		defer r.Close()
		begin := make([]byte, min(len(l.Text), 4<<10))
		_, err = r.ReadAt(begin, 0)
		return len(begin) == 0 || err == nil && bytes.HasPrefix([]byte(l.Text), begin)
	}
	return false
}

// filtering adds a field to every mail.
type filtering struct {
	*plugin
	conf *settings
	mu   sync.Mutex
	said map[string]int
}

// Filter implements filter.Filter.
func (f *filtering) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	if err := f.call(ctx, f.conf); err != nil {
		return nil, err
	}
	if f.broken == "ends at an unknown event" && ev.Kind == 99 {
		os.Exit(1)
	}
	if ev.Kind != v1.FilterEvent_MESSAGE {
		return filter.Accept(), nil
	}
	if f.brokenMail(ev.Message) {
		return nil, fail.New(fail.Internal, "never seen such a mail")
	}
	v := filter.Accept().AddHeader("X-Tried", "yes").Tag("tried", "yes")
	switch f.broken {
	case "knows no mail without a client":
		if ev.Envelope.GetClient() == nil {
			panic("no client")
		}
	case "rejects with 250":
		return filter.Reject(250, "", "Fine"), nil
	case "breaks the line of a reply":
		return filter.Reject(550, "5.7.1", "No\r\n250 Yes"), nil
	case "mixes codes":
		return filter.Defer(450, "5.7.1", "Later"), nil
	case "breaks the header":
		return filter.Accept().InsertHeader(0, "X Tried", "yes"), nil
	case "edits a file of its own":
		return filter.Accept().ReplaceBodyFile(filepath.Join(os.Getenv(dirEnv), "body"), 5), nil
	case "judges nobody":
		return v.For(99, filter.Reject(550, "5.1.1", "No such user here")), nil
	case "has tags that no route can name":
		return v.Tag("is it spam?", "no"), nil
	case "hints at a level of its own":
		return v.Hints(&v1.RouteHints{TlsLevel: "always"}), nil
	case "injects mail for nobody":
		return v.Inject("", nil, mail.FromBytes([]byte("Subject: hi\r\n\r\n"))), nil
	case "changes its mind":
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.said[ev.IdempotencyKey]++; f.said[ev.IdempotencyKey] > 1 {
			return filter.Reject(550, "5.7.1", "Not twice"), nil
		}
	}
	return v, nil
}

// once tells by a file of the key's whether it is new, and what was kept of it.
// The file comes into being whole: a SIGKILL may come at any moment.
func once(dir, key, keep string) (kept string, fresh bool, err error) {
	path := filepath.Join(dir, "key-"+hex.EncodeToString([]byte(key)))
	f, err := os.CreateTemp(dir, "new")
	if err != nil {
		return "", false, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(keep)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", false, err
	}
	if err = os.Link(f.Name(), path); os.IsExist(err) {
		b, err := os.ReadFile(path)
		return string(b), false, err
	}
	return keep, err == nil, err
}

// delivering writes a line for each mail into the witness.
type delivering struct {
	*plugin
	conf *settings
	dir  string
}

// Deliver implements deliver.Deliverer.
func (d *delivering) Deliver(ctx context.Context, req *v1.DeliverCall) (*v1.DeliverReply, error) {
	if err := d.call(ctx, d.conf); err != nil {
		return nil, err
	}
	if d.brokenMail(mail.FromRef(req.GetMessage())) {
		return nil, fail.New(fail.Internal, "never seen such a mail")
	}
	key := req.GetIdempotencyKey()
	if d.broken == "delivers twice" {
		key = strconv.Itoa(d.calls.next())
	}
	_, fresh, err := once(d.dir, key, "done")
	if err != nil {
		return nil, err
	}
	if fresh {
		w, err := os.OpenFile(filepath.Join(os.Getenv(dirEnv), "witness"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer w.Close()
		fmt.Fprintln(w, req.GetIdempotencyKey())
	}
	out := &v1.DeliverReply{}
	for _, r := range req.GetEnvelope().GetRecipients() {
		o := &v1.DeliverOutcome{Recipient: r.GetIndex(), Reply: &v1.SMTPReply{Code: 250, Enhanced: "2.0.0", Text: "Done"}}
		switch d.broken {
		case "forgets recipients":
			if len(out.Outcomes) > 0 {
				continue
			}
		case "counts recipients itself":
			o.Recipient = int32(len(out.Outcomes))
		case "succeeds with 5.0.0":
			o.Reply.Enhanced = "5.0.0"
		case "fails for everybody":
			o.Reply = &v1.SMTPReply{Code: 550, Enhanced: "5.1.1", Text: "No such user here"}
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	return out, nil
}

// storing is as much of a storage as a process owes: the cases of storagetest
// have a test of their own, with a real one.
type storing struct {
	*plugin
	conf *settings
	dir  string
	mu   sync.Mutex
}

// Open implements storage.Storage.
func (s *storing) Open(context.Context, string) (storage.Account, error) {
	return &account{storing: s}, nil
}

// Deposit implements storage.Storage.
func (s *storing) Deposit(_ context.Context, req *v1.DepositRequest) (*v1.DepositResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &v1.DepositResponse{}
	for _, t := range req.GetTargets() {
		key := fmt.Sprintf("%s/%d", req.GetQueueId(), t.GetKey())
		if s.broken == "forgets keys" {
			key = fmt.Sprint(os.Getpid(), s.calls.next())
		}
		kept, _, err := once(s.dir, key, strconv.Itoa(s.count()+1))
		if err != nil {
			return nil, err
		}
		uid, err := strconv.Atoi(kept)
		if err != nil {
			return nil, err
		}
		out.Results = append(out.Results, &v1.DepositResponse_Result{Key: t.GetKey(), MailboxId: "1", Uid: uint32(uid)})
	}
	return out, nil
}

func (s *storing) count() int {
	files, _ := filepath.Glob(filepath.Join(s.dir, "key-*"))
	return len(files)
}

// account has INBOX; what is not here is no method that a check of the process
// calls.
type account struct {
	storage.Account
	*storing
}

// List implements storage.Mailboxes.
func (a *account) List(ctx context.Context, _ *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	if err := a.call(ctx, a.conf); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return &v1.ListMailboxesResponse{Mailboxes: []*v1.Mailbox{{Id: "1", Name: "INBOX", Messages: uint32(a.count())}}}, nil
}

// Append implements storage.Messages.
func (a *account) Append(ctx context.Context, _ *v1.AppendRequest) (*v1.AppendResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := storage.RequestKey(ctx)
	if a.broken == "forgets requests" {
		key = fmt.Sprint(os.Getpid(), a.calls.next())
	}
	kept, _, err := once(a.dir, key, strconv.Itoa(a.count()+1))
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(kept)
	return &v1.AppendResponse{Uids: []uint32{uint32(uid)}}, err
}

// Watch implements storage.Account.
func (a *account) Watch(ctx context.Context, _ *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
	if err := event(&v1.ChangeEvent{Modseq: 1}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
