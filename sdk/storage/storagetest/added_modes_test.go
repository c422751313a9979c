package storagetest_test

import (
	"context"
	"slices"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

const keysCase = "a request with a key is carried out once"

// addedModes break what the contract got after its first version.
var addedModes = []mode{
	{"subscribes what is to be unsubscribed", []string{"create without a subscription"}, func() tampering {
		return tampering{create: func(ctx context.Context, a storage.Account, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
			req.Unsubscribed = false
			return a.Create(ctx, req)
		}}
	}},
	{"lets a subscription go with its mailbox", []string{"a subscription may outlive its mailbox"}, func() tampering {
		return tampering{delete: func(ctx context.Context, a storage.Account, req *v1.DeleteMailboxRequest) (*v1.DeleteMailboxResponse, error) {
			req.KeepSubscription = false
			return a.Delete(ctx, req)
		}}
	}},
	{"replaces in two changes", []string{"append may replace a message"}, func() tampering {
		return tampering{append: func(ctx context.Context, a storage.Account, req *v1.AppendRequest) (*v1.AppendResponse, error) {
			old := req.GetReplaces()
			if old == nil || req.GetQuotaBytes() == 0 {
				return a.Append(ctx, req)
			}
			req.Replaces, req.QuotaBytes = nil, 0
			resp, err := a.Append(ctx, req)
			if err != nil {
				return nil, err
			}
			resp.Replaced = true
			_, err = a.Expunge(ctx, &v1.ExpungeRequest{
				MailboxId: old.GetMailboxId(), Uids: []*v1.UIDRange{{First: old.GetUid(), Last: old.GetUid()}}, Force: true,
			})
			return resp, err
		}}
	}},
	{"knows no request's key", []string{keysCase}, func() tampering {
		return tampering{append: func(ctx context.Context, a storage.Account, req *v1.AppendRequest) (*v1.AppendResponse, error) {
			return a.Append(storage.WithRequestKey(ctx, ""), req)
		}}
	}},
	{"copies again under the same key", []string{keysCase}, func() tampering {
		return tampering{copy: func(ctx context.Context, a storage.Account, req *v1.CopyRequest) (*v1.CopyResponse, error) {
			return a.Copy(storage.WithRequestKey(ctx, ""), req)
		}}
	}},
	{"finds its own change to be one of others", []string{keysCase}, func() tampering {
		return tampering{setFlags: func(ctx context.Context, a storage.Account, req *v1.SetFlagsRequest) (*v1.SetFlagsResponse, error) {
			return a.SetFlags(storage.WithRequestKey(ctx, ""), req)
		}}
	}},
	{"takes the moment for the day", []string{"search by the day of the Date field"}, searching(func(req *v1.SearchRequest) {
		if day := req.GetCriterion().GetSentDay(); day != nil {
			req.Criterion = &v1.Criterion{Test: &v1.Criterion_Sent{Sent: day}}
		}
	})},
	{"reads no addresses", []string{"search finds addresses whatever stands within them"}, asWritten},
	{"takes a route for the domain", []string{"fetch tells an address's route"}, item(func(_ *v1.FetchRequest, it *v1.FetchResponse_Item) {
		for _, a := range it.GetSummary().GetFrom() {
			a.Route = nil
		}
	})},
}

func searching(change func(req *v1.SearchRequest)) func() tampering {
	return func() tampering {
		return tampering{search: func(ctx context.Context, a storage.Account, req *v1.SearchRequest) (*v1.SearchResponse, error) {
			change(req)
			return a.Search(ctx, req)
		}}
	}
}

// asWritten finds the addresses of From only as they are written.
func asWritten() tampering {
	return tampering{search: func(ctx context.Context, a storage.Account, req *v1.SearchRequest) (*v1.SearchResponse, error) {
		resp, err := a.Search(ctx, req)
		test := req.GetCriterion().GetHeader()
		if err != nil || !strings.EqualFold(test.GetName(), "from") || test.GetValue() == "" {
			return resp, err
		}
		written := map[uint32]bool{}
		err = a.Fetch(ctx, &v1.FetchRequest{MailboxId: req.GetMailboxId(), Header: true}, func(it *v1.FetchResponse_Item) error {
			written[it.GetUid()] = strings.Contains(strings.ToLower(string(it.GetHeader())), strings.ToLower(test.GetValue()))
			return nil
		})
		resp.Uids = slices.DeleteFunc(resp.Uids, func(uid uint32) bool { return !written[uid] })
		return resp, err
	}}
}
