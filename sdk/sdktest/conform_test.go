package sdktest_test

import (
	"context"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// taken takes all mail.
type taken struct{}

func (taken) Deliver(_ context.Context, req *v1.DeliverCall) (*v1.DeliverReply, error) {
	out := &v1.DeliverReply{}
	for _, r := range req.GetEnvelope().GetRecipients() {
		out.Outcomes = append(out.Outcomes, &v1.DeliverOutcome{Recipient: r.GetIndex(), Reply: &v1.SMTPReply{Code: 250, Enhanced: "2.0.0", Text: "OK"}})
	}
	return out, nil
}

// TestConform: the suites run inside a test, for every kind that has no listener;
// those that have one are plugins imap and pop3.
func TestConform(t *testing.T) {
	t.Run("filter", func(t *testing.T) {
		sdktest.Conform(t, sdk.Plugin{
			Name: "marks", Version: "1",
			Interest: &v1.FilterInterest{Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_EDIT, Body: v1.FilterInterest_FULL},
			Filter: func(context.Context, *sdk.Instance) (filter.Filter, error) {
				return filter.Func(func(context.Context, *filter.Event) (*filter.Verdict, error) {
					return filter.Accept().AddHeader("X-Seen-By", "mx"), nil
				}), nil
			},
		}, nil, conform.Facts{})
	})
	t.Run("deliver", func(t *testing.T) {
		sdktest.Conform(t, sdk.Plugin{
			Name: "taken", Version: "1", Deliver: func(context.Context, *sdk.Instance) (deliver.Deliverer, error) { return taken{}, nil },
		}, nil, conform.Facts{})
	})
	t.Run("directory", func(t *testing.T) {
		people := &sdktest.Directory{
			Users:   map[string]string{"meg@ryan.example": "sleepless"},
			Aliases: map[string][]string{"both@ryan.example": {"tom@hanks.example", "meg@ryan.example"}},
		}
		sdktest.Conform(t, sdk.Plugin{
			Name: "people", Version: "1", Directory: func(context.Context, *sdk.Instance) (directory.Directory, error) { return people, nil },
		}, nil, conform.Facts{Address: "meg@ryan.example", Password: "sleepless", Alias: "both@ryan.example"})
	})
	t.Run("storage", func(t *testing.T) {
		type config struct {
			Note string `hcl:"note"`
		}
		sdktest.Conform(t, sdk.Plugin{
			Name: "memory", Version: "1", Config: config{},
			Storage: func(_ context.Context, in *sdk.Instance) (storage.Storage, error) {
				if in.Config.(*config).Note != "kept" {
					t.Errorf("config %+v", in.Config)
				}
				return sdktest.NewStorage(t.TempDir()), nil
			},
		}, `note = "kept"`, conform.Facts{})
	})
}
