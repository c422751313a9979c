package storagetest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// mode is a way to be broken and the cases that it fails.
type mode struct {
	broken string
	fails  []string
	with   func() tampering
}

// item changes what is fetched.
func item(change func(req *v1.FetchRequest, it *v1.FetchResponse_Item)) func() tampering {
	return func() tampering {
		return tampering{fetch: func(ctx context.Context, a storage.Account, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
			return a.Fetch(ctx, req, func(it *v1.FetchResponse_Item) error {
				it = proto.CloneOf(it)
				change(req, it)
				return item(it)
			})
		}}
	}
}

// deposit changes what is delivered.
func deposit(change func(req *v1.DepositRequest)) func() tampering {
	return func() tampering {
		return tampering{deposit: func(ctx context.Context, s storage.Storage, req *v1.DepositRequest) (*v1.DepositResponse, error) {
			change(req)
			return s.Deposit(ctx, req)
		}}
	}
}

var modes = []mode{
	{"delivers without flags", []string{"deposit stores the message behind its delivery fields"}, deposit(func(req *v1.DepositRequest) {
		for _, t := range req.GetTargets() {
			t.Flags = nil
		}
	})},
	{
		"forgets keys",
		[]string{"deposit twice under one key stores once", "deposit over quota fails for that target alone", "deposits side by side"},
		func() tampering {
			var n atomic.Int64
			return deposit(func(req *v1.DepositRequest) { req.QueueId = fmt.Sprint(req.GetQueueId(), "/", n.Add(1)) })()
		},
	},
	{"knows mails by their queue id alone", []string{"deposit under another key stores again", "deposit creates the folder it names"}, byQueueID},
	{"names the first recipient to all", []string{"deposit to many targets"}, deposit(func(req *v1.DepositRequest) {
		for _, t := range req.GetTargets()[min(20, len(req.GetTargets())):] {
			t.Recipient = req.GetTargets()[0].GetRecipient()
		}
	})},
	{"delivers into INBOX whatever it is told", []string{"deposit creates the folder it names"}, deposit(func(req *v1.DepositRequest) {
		for _, t := range req.GetTargets() {
			if !strings.Contains(t.GetMailbox(), "//") {
				t.Mailbox = ""
			}
		}
	})},
	{"knows no quota", []string{"deposit over quota fails for that target alone"}, deposit(func(req *v1.DepositRequest) {
		for _, t := range req.GetTargets() {
			t.QuotaBytes = 0
		}
	})},
	{"fails all for one", []string{"deposit of a bad target fails for that target alone"}, func() tampering {
		return tampering{deposit: func(ctx context.Context, s storage.Storage, req *v1.DepositRequest) (*v1.DepositResponse, error) {
			resp, err := s.Deposit(ctx, req)
			for _, r := range resp.GetResults() {
				if r.GetProblem().GetKind() == fail.Invalid {
					return nil, fail.New(fail.Invalid, "no such target")
				}
			}
			return resp, err
		}}
	}},
	{"writes addresses as they come", []string{"deposit with a return-path that breaks the line"}, injected},
	{"cuts large messages short", []string{"deposit of a large message by reference"}, item(func(_ *v1.FetchRequest, it *v1.FetchResponse_Item) {
		if m := it.GetMessage(); m.GetSize() > 512<<10 {
			m.Size--
		}
	})},
	{"gives a UID twice", []string{"deposits side by side"}, func() tampering {
		return tampering{deposit: func(ctx context.Context, s storage.Storage, req *v1.DepositRequest) (*v1.DepositResponse, error) {
			resp, err := s.Deposit(ctx, req)
			if resp = proto.CloneOf(resp); err == nil && resp.GetResults()[0].GetUid() > 100 {
				resp.Results[0].Uid = 100
			}
			return resp, err
		}}
	}},
	{"compares accounts without case", []string{"accounts are checked and apart"}, func() tampering { return tampering{name: strings.ToLower} }},
	{"has no archive", []string{"a new account has INBOX and the special-use mailboxes"}, func() tampering {
		return tampering{list: func(ctx context.Context, a storage.Account, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
			resp, err := a.List(ctx, req)
			resp.Mailboxes = slices.DeleteFunc(resp.Mailboxes, func(m *v1.Mailbox) bool { return m.GetRole() == "archive" })
			return resp, err
		}}
	}},
	{"keeps no subscriptions", []string{"create, list and subscribe", "a subscription may outlive its mailbox"}, func() tampering {
		return tampering{update: func(ctx context.Context, a storage.Account, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
			req.Subscribed = nil
			return a.Update(ctx, req)
		}}
	}},
	{"takes any role", []string{"mailbox names that are wrong"}, func() tampering {
		return tampering{create: func(ctx context.Context, a storage.Account, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
			if req.GetRole() == "king" {
				req.Role = ""
			}
			return a.Create(ctx, req)
		}}
	}},
	{"knows INBOX in capitals alone", []string{"INBOX in any case"}, func() tampering {
		return tampering{list: func(ctx context.Context, a storage.Account, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
			resp, err := a.List(ctx, req)
			if strings.EqualFold(req.GetName(), "INBOX") && req.GetName() != "INBOX" {
				resp.Mailboxes = nil
			}
			return resp, err
		}}
	}},
	{"leaves children behind", []string{"rename takes the children along", "rename puts no child where a mailbox is"}, childless},
	{"renames onto a child that is there", []string{"rename puts no child where a mailbox is"}, overwriting},
	{"says that it renamed what it did not", []string{"rename puts no child where a mailbox is"}, func() tampering {
		return tampering{rename: func(ctx context.Context, a storage.Account, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
			m, err := a.Rename(ctx, req)
			if len(req.GetName()) > 100 && fail.Is(err, fail.Invalid) {
				return &v1.Mailbox{Id: req.GetId(), Name: req.GetName()}, nil
			}
			return m, err
		}}
	}},
	{"copies INBOX at a rename", []string{"rename INBOX moves its messages"}, func() tampering {
		return tampering{rename: func(ctx context.Context, a storage.Account, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
			boxes, err := a.List(ctx, &v1.ListMailboxesRequest{Id: req.GetId()})
			if err != nil || len(boxes.GetMailboxes()) == 0 || boxes.GetMailboxes()[0].GetName() != "INBOX" {
				return a.Rename(ctx, req)
			}
			to, err := a.Create(ctx, &v1.CreateMailboxRequest{Name: req.GetName()})
			if err != nil {
				return nil, err
			}
			_, err = a.Copy(ctx, &v1.CopyRequest{MailboxId: req.GetId(), TargetMailboxId: to.GetId()})
			to.Messages = 2
			return to, err
		}}
	}},
	{"has one UIDVALIDITY for all", []string{"delete keeps the children and changes UIDVALIDITY", "copy"}, func() tampering {
		return tampering{create: func(ctx context.Context, a storage.Account, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
			m, err := a.Create(ctx, req)
			if err == nil {
				m.UidValidity = 1
			}
			return m, err
		}}
	}},
	{"gives a role away twice", []string{"roles belong to one mailbox"}, func() tampering {
		return tampering{create: func(ctx context.Context, a storage.Account, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
			if req.GetRole() == "sent" {
				req.Role = ""
			}
			return a.Create(ctx, req)
		}}
	}},
	{"expunges nothing from nowhere", []string{"unknown ids are NOT_FOUND"}, func() tampering {
		return tampering{expunge: func(ctx context.Context, a storage.Account, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
			resp, err := a.Expunge(ctx, req)
			if fail.Is(err, fail.NotFound) {
				return &v1.ExpungeResponse{}, nil
			}
			return resp, err
		}}
	}},
	{"dates what a client brings by its own clock", []string{"append gives growing UIDs and keeps the bytes"}, func() tampering {
		return tampering{append: func(ctx context.Context, a storage.Account, req *v1.AppendRequest) (*v1.AppendResponse, error) {
			for _, m := range req.GetMessages() {
				m.ReceivedMs = 0
			}
			return a.Append(ctx, req)
		}}
	}},
	{"appends one after the other", []string{"append of many is all or nothing", "append may replace a message", "a snapshot is one moment"}, oneByOne},
	{"trusts a file rather than its reference", []string{"append by file"}, func() tampering {
		return tampering{append: func(ctx context.Context, a storage.Account, req *v1.AppendRequest) (*v1.AppendResponse, error) {
			for _, m := range req.GetMessages() {
				if fi, err := os.Stat(m.GetMessage().GetPath()); err == nil {
					m.Message.Size = fi.Size()
				}
			}
			return a.Append(ctx, req)
		}}
	}},
	{"mends line ends", []string{"malformed messages come back byte for byte"}, item(func(_ *v1.FetchRequest, it *v1.FetchResponse_Item) {
		if m := it.GetMessage(); m.GetPath() == "" && m != nil {
			text := strings.ReplaceAll(strings.ReplaceAll(string(m.GetInline()), "\r\n", "\n"), "\n", "\r\n")
			it.Message = &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: []byte(text)}}
		}
	})},
	{"shows a preview unasked", []string{"fetch gives what is asked for"}, item(func(_ *v1.FetchRequest, it *v1.FetchResponse_Item) {
		it.Preview = "hello ä world"
	})},
	{"fetches range by range", []string{"fetch leaves out what is gone"}, func() tampering {
		return tampering{fetch: func(ctx context.Context, a storage.Account, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
			if len(req.GetUids()) < 2 {
				return a.Fetch(ctx, req, item)
			}
			for _, r := range req.GetUids() {
				one := proto.CloneOf(req)
				one.Uids = []*v1.UIDRange{r}
				if err := a.Fetch(ctx, one, item); err != nil {
					return err
				}
			}
			return nil
		}}
	}},
	{"fetches on after an error", []string{"fetch returns the caller's error"}, func() tampering {
		return tampering{fetch: func(ctx context.Context, a storage.Account, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
			return a.Fetch(ctx, req, func(it *v1.FetchResponse_Item) error {
				_ = item(it)
				return nil
			})
		}}
	}},
	{"tells no highest MODSEQ", []string{"snapshot columns"}, snapshot(func(_ *v1.SnapshotRequest, s *v1.SnapshotResponse) {
		s.Mailbox.HighestModseq = 0
	})},
	{
		"keeps no tombstones",
		[]string{"snapshot since a MODSEQ", "rename INBOX moves its messages", "move", "append may replace a message"},
		snapshot(func(_ *v1.SnapshotRequest, s *v1.SnapshotResponse) { s.Vanished = nil }),
	},
	{"takes an open range for one UID", []string{"snapshot of some UIDs"}, func() tampering {
		return tampering{snapshot: func(ctx context.Context, a storage.Account, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
			for _, r := range req.GetUids() {
				if r.GetLast() == 0 {
					r.Last = r.GetFirst()
				}
			}
			return a.Snapshot(ctx, req)
		}}
	}},
	{"answers with the flags from before", []string{"flags are added, removed and replaced"}, func() tampering {
		return tampering{setFlags: func(ctx context.Context, a storage.Account, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
			resp, err := a.SetFlags(ctx, req)
			for i := range resp.GetChanged().GetFlags() {
				resp.Changed.Flags[i] = 0
			}
			return resp, err
		}}
	}},
	{"sets flags whatever changed", []string{"flags unchanged since"}, func() tampering {
		return tampering{setFlags: func(ctx context.Context, a storage.Account, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
			req.UnchangedSince = 0
			return a.SetFlags(ctx, req)
		}}
	}},
	{"removes keywords by their exact spelling", []string{"keywords are compared without case"}, exactKeywords},
	{"passes over flags that it does not know", []string{"flags that are wrong"}, func() tampering {
		return tampering{setFlags: func(ctx context.Context, a storage.Account, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
			req.Flags = slices.DeleteFunc(req.Flags, func(f string) bool { return f == `\Recent` })
			return a.SetFlags(ctx, req)
		}}
	}},
	{"copies without flags", []string{"copy"}, func() tampering {
		return tampering{copy: func(ctx context.Context, a storage.Account, req *v1.CopyRequest) (*v1.CopyResponse, error) {
			resp, err := a.Copy(ctx, req)
			for _, uid := range resp.GetTargetUids() {
				if err == nil && !req.GetMove() {
					_, err = a.SetFlags(storage.WithRequestKey(ctx, ""), &v1.SetFlagsRequest{
						MailboxId: req.GetTargetMailboxId(), Uids: []*v1.UIDRange{{First: uid, Last: uid}}, Op: v1.SetFlagsRequest_REPLACE,
					})
				}
			}
			return resp, err
		}}
	}},
	{"copies nothing onto itself", []string{"copy within a mailbox"}, func() tampering {
		return tampering{copy: func(ctx context.Context, a storage.Account, req *v1.CopyRequest) (*v1.CopyResponse, error) {
			if req.GetMailboxId() == req.GetTargetMailboxId() {
				return &v1.CopyResponse{}, nil
			}
			return a.Copy(ctx, req)
		}}
	}},
	{"copies beyond the quota", []string{"copy over quota copies nothing"}, func() tampering {
		return tampering{copy: func(ctx context.Context, a storage.Account, req *v1.CopyRequest) (*v1.CopyResponse, error) {
			req.QuotaBytes = 0
			return a.Copy(ctx, req)
		}}
	}},
	{"gives what was moved another id", []string{"move"}, renamed},
	{"expunges more than it is told", []string{"expunge takes the deleted ones of the UIDs"}, func() tampering {
		return tampering{expunge: func(ctx context.Context, a storage.Account, req *v1.ExpungeRequest) (*v1.ExpungeResponse, error) {
			if !req.GetForce() {
				req.Uids = nil
			}
			return a.Expunge(ctx, req)
		}}
	}},
	{"begins anew when a mailbox is empty", []string{"a UID is never used again"}, boxes(func(m *v1.Mailbox) {
		if m.GetMessages() == 0 {
			m.UidNext = 1
		}
	})},
	{"counts nothing as unseen", []string{"counters follow every change"}, boxes(func(m *v1.Mailbox) { m.Unseen = 0 })},
	{"searches everywhere", []string{"search"}, func() tampering {
		return tampering{search: func(ctx context.Context, a storage.Account, req *v1.SearchRequest) (*v1.SearchResponse, error) {
			req.Uids = nil
			return a.Search(ctx, req)
		}}
	}},
	{"finds ASCII alone", []string{"search decodes"}, func() tampering {
		return tampering{search: func(ctx context.Context, a storage.Account, req *v1.SearchRequest) (*v1.SearchResponse, error) {
			if strings.ContainsFunc(req.GetCriterion().GetBody(), func(r rune) bool { return r > unicode.MaxASCII }) {
				return &v1.SearchResponse{}, nil
			}
			return a.Search(ctx, req)
		}}
	}},
	{"has a thread for each message", []string{"threads", "search"}, item(func(_ *v1.FetchRequest, it *v1.FetchResponse_Item) {
		it.ThreadId = it.GetMessageId()
	})},
	{"watches on after an error", []string{"watch tells every change in order"}, func() tampering {
		return tampering{watch: func(ctx context.Context, a storage.Account, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
			err := a.Watch(ctx, req, event)
			if ctx.Err() == nil {
				return nil
			}
			return err
		}}
	}},
	{"watches from now on alone", []string{"watch since a MODSEQ"}, func() tampering {
		return tampering{watch: func(ctx context.Context, a storage.Account, req *v1.WatchRequest, event func(*v1.ChangeEvent) error) error {
			req.SinceModseq = 0
			return a.Watch(ctx, req, event)
		}}
	}},
}

// snapshot changes what is answered.
func snapshot(change func(req *v1.SnapshotRequest, s *v1.SnapshotResponse)) func() tampering {
	return func() tampering {
		return tampering{snapshot: func(ctx context.Context, a storage.Account, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
			s, err := a.Snapshot(ctx, req)
			if err == nil {
				change(req, s)
			}
			return s, err
		}}
	}
}

// boxes changes what is listed.
func boxes(change func(m *v1.Mailbox)) func() tampering {
	return func() tampering {
		return tampering{list: func(ctx context.Context, a storage.Account, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
			resp, err := a.List(ctx, req)
			for _, m := range resp.GetMailboxes() {
				change(m)
			}
			return resp, err
		}}
	}
}

// byQueueID answers a target of a queue id that it knows with the account's first
// result, whatever its key.
func byQueueID() tampering {
	var mu sync.Mutex
	known := map[string]*v1.DepositResponse_Result{}
	return tampering{deposit: func(ctx context.Context, s storage.Storage, req *v1.DepositRequest) (*v1.DepositResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		out := &v1.DepositResponse{}
		for _, t := range req.GetTargets() {
			id := req.GetQueueId() + "/" + t.GetAccount()
			r := known[id]
			if r == nil {
				one := proto.CloneOf(req)
				one.Targets = []*v1.DepositRequest_Target{t}
				resp, err := s.Deposit(ctx, one)
				if err != nil {
					return nil, err
				}
				if r = resp.GetResults()[0]; r.GetProblem() == nil {
					known[id] = r
				}
			}
			r = proto.CloneOf(r)
			r.Key = t.GetKey()
			out.Results = append(out.Results, r)
		}
		return out, nil
	}}
}

// renamed gives messages in a mailbox that something was moved to other ids.
func renamed() tampering {
	var mu sync.Mutex
	moved := map[string]bool{}
	return tampering{
		copy: func(ctx context.Context, a storage.Account, req *v1.CopyRequest) (*v1.CopyResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			moved[req.GetTargetMailboxId()] = req.GetMove()
			return a.Copy(ctx, req)
		},
		fetch: func(ctx context.Context, a storage.Account, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
			mu.Lock()
			defer mu.Unlock()
			return a.Fetch(ctx, req, func(it *v1.FetchResponse_Item) error {
				if it = proto.CloneOf(it); moved[req.GetMailboxId()] && req.GetIds() {
					it.MessageId += "moved"
				}
				return item(it)
			})
		},
	}
}

// injected lets a line end in an address through to the header.
func injected() tampering {
	const end = "/line end/"
	out := item(func(_ *v1.FetchRequest, it *v1.FetchResponse_Item) {
		if m := it.GetMessage(); m.GetPath() == "" && m != nil {
			text := strings.ReplaceAll(string(m.GetInline()), end, "\r\n")
			it.Message = &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: []byte(text)}}
		}
	})()
	out.deposit = func(ctx context.Context, s storage.Storage, req *v1.DepositRequest) (*v1.DepositResponse, error) {
		req.ReturnPath = strings.ReplaceAll(req.GetReturnPath(), "\r\n", "")
		for _, t := range req.GetTargets() {
			t.Recipient = strings.ReplaceAll(t.GetRecipient(), "\r\n", end)
		}
		return s.Deposit(ctx, req)
	}
	return out
}

// childless renames a mailbox and leaves what is below it where it was.
func childless() tampering {
	return tampering{rename: func(ctx context.Context, a storage.Account, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
		before, err := a.List(ctx, &v1.ListMailboxesRequest{})
		if err != nil {
			return nil, err
		}
		m, err := a.Rename(ctx, req)
		if err != nil {
			return nil, err
		}
		after, err := a.List(ctx, &v1.ListMailboxesRequest{})
		if err != nil {
			return nil, err
		}
		for _, child := range after.GetMailboxes() {
			if !strings.HasPrefix(child.GetName(), m.GetName()+"/") {
				continue
			}
			i := slices.IndexFunc(before.GetMailboxes(), func(b *v1.Mailbox) bool { return b.GetId() == child.GetId() })
			if i >= 0 {
				_, _ = a.Rename(ctx, &v1.RenameMailboxRequest{Id: child.GetId(), Name: before.GetMailboxes()[i].GetName()})
			}
		}
		return m, nil
	}}
}

// overwriting removes what stands where a child is to be.
func overwriting() tampering {
	return tampering{rename: func(ctx context.Context, a storage.Account, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
		m, err := a.Rename(ctx, req)
		if !fail.Is(err, fail.Exists) {
			return m, err
		}
		list, lerr := a.List(ctx, &v1.ListMailboxesRequest{})
		if lerr != nil {
			return nil, lerr
		}
		names := map[string]*v1.Mailbox{}
		var old string
		for _, b := range list.GetMailboxes() {
			names[b.GetName()] = b
			if b.GetId() == req.GetId() {
				old = b.GetName()
			}
		}
		if b := names[req.GetName()]; b != nil && !b.GetContainer() {
			return nil, err
		}
		for name := range names {
			if rest, below := strings.CutPrefix(name, old+"/"); below {
				if b := names[req.GetName()+"/"+rest]; b != nil {
					_, _ = a.Delete(ctx, &v1.DeleteMailboxRequest{Id: b.GetId()})
				}
			}
		}
		return a.Rename(ctx, req)
	}}
}

// oneByOne appends without a transaction, and lets readers look in between.
func oneByOne() tampering {
	var looks, waits atomic.Int64
	return tampering{
		snapshot: func(ctx context.Context, a storage.Account, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
			s, err := a.Snapshot(ctx, req)
			looks.Add(1)
			return s, err
		},
		append: func(ctx context.Context, a storage.Account, req *v1.AppendRequest) (*v1.AppendResponse, error) {
			out := &v1.AppendResponse{}
			for i, m := range req.GetMessages() {
				one := proto.CloneOf(req)
				one.Messages = []*v1.AppendRequest_Message{m}
				resp, err := a.Append(ctx, one)
				if err != nil {
					return nil, err
				}
				out.UidValidity, out.Modseq, out.Uids = resp.GetUidValidity(), resp.GetModseq(), append(out.Uids, resp.GetUids()...)
				// One look may have begun before.
				if before := looks.Load(); i+1 < len(req.GetMessages()) && waits.Add(1) <= 3 {
					for end := time.Now().Add(200 * time.Millisecond); looks.Load() < before+4 && time.Now().Before(end); {
						time.Sleep(time.Millisecond)
					}
				}
			}
			return out, nil
		},
	}
}

// exactKeywords removes a keyword only as it is spelt.
func exactKeywords() tampering {
	return tampering{setFlags: func(ctx context.Context, a storage.Account, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
		if req.GetOp() == v1.SetFlagsRequest_REMOVE {
			s, err := a.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: req.GetMailboxId()})
			if err != nil {
				return nil, err
			}
			req.Flags = slices.DeleteFunc(req.Flags, func(f string) bool {
				return !strings.HasPrefix(f, `\`) && !slices.ContainsFunc(s.GetKeywords(), func(k *v1.SnapshotResponse_Keywords) bool {
					return slices.Contains(k.GetKeywords(), f)
				})
			})
		}
		return a.SetFlags(ctx, req)
	}}
}
