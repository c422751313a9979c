package local

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Config of a storage "local" block.
type Config struct {
	Cache       schema.Size `hcl:"cache,optional" doc:"Memory for what was read lately." example:"256MB"`
	Copies      schema.Size `hcl:"copies,optional" doc:"Disk for the copies that reading large messages makes; the least recently read go." example:"2GB"`
	SearchIndex bool        `hcl:"search_index,optional" doc:"Whether an index is made for searches in the text, of at most a quarter of the messages' size. Without it they look into every message."`
	MinFree     schema.Size `hcl:"min_free,optional" doc:"With less than that left on the disk no mail is taken (452 4.3.1), so that removing mail still works." example:"1GB"`
}

// Plugin describes the embedded storage.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "local", Version: "1.0.0", Summary: "mailboxes on this machine's disk, embedded",
		Config: Config{Cache: 32 << 20, Copies: 512 << 20, MinFree: 64 << 20, SearchIndex: true},
		Needs:  &v1.Needs{DataDir: true, Exclusive: true}, Features: []string{storage.RequestKeys},
		Storage: func(_ context.Context, in *sdk.Instance) (storage.Storage, error) {
			c := in.Config.(*Config)
			return New(Options{
				Dir: in.DataDir, CacheBytes: int64(c.Cache), ViewBytes: int64(c.Copies), MinFreeBytes: int64(c.MinFree),
				NoIndex: !c.SearchIndex,
				Log:     in.Log, Metrics: in.Metrics,
			})
		},
	}
}

// meters count what the store does.
type meters struct {
	deposits, repeats, appends, expunged, collected, indexed *sdk.Value
}

func newMeters(m *sdk.Metrics) meters {
	if m == nil {
		m = new(sdk.Metrics)
	}
	return meters{
		deposits:  m.Counter("storage_deposits_total", "Messages put into a mailbox by delivery."),
		repeats:   m.Counter("storage_deposit_repeats_total", "Deliveries that were known by their key already."),
		appends:   m.Counter("storage_appends_total", "Messages that clients stored."),
		expunged:  m.Counter("storage_expunged_total", "Messages taken out of a mailbox."),
		collected: m.Counter("storage_bodies_removed_total", "Bodies removed because no message refers to them."),
		indexed:   m.Counter("storage_indexed_total", "Messages taken into the search index."),
	}
}
