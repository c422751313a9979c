package sdk_test

import (
	"context"
	"errors"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of the block: filter "subject" "no_spam" { forbid = ["lottery"] }
type Config struct {
	Forbid []string `hcl:"forbid" doc:"Words that no subject may have." example:"[\"lottery\"]"`
	Code   int      `hcl:"code,optional" doc:"Code of the refusal."`
}

func (c *Config) Validate() error {
	var errs []error
	for i, w := range c.Forbid {
		if w == "" {
			errs = append(errs, schema.Errorf(schema.Path("forbid", i), "an empty word is in every subject"))
		}
	}
	return errors.Join(errs...)
}

var subject = sdk.Plugin{
	Name: "subject", Version: "1.0.0", Summary: "Refuses mail by words in its subject",
	Config: Config{Code: 550},
	Interest: &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_JUDGE,
		Body: v1.FilterInterest_HEADER, HeaderNames: []string{"subject"},
	},
	Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
		config, refused := in.Config.(*Config), in.Metrics.Counter("refused_total", "Mails refused.")
		return filter.Func(func(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
			for _, w := range config.Forbid {
				if strings.Contains(strings.ToLower(ev.Header.Get("Subject")), w) {
					refused.Add(1)
					return filter.Reject(config.Code, "5.7.1", "We do not take mail about "+w), nil
				}
			}
			return filter.Accept().TagBool("subject_ok", true), nil
		}), nil
	},
}

// A whole filter: its main is func main() { sdk.Serve(subject) }.
func Example_filter() {
	sdk.Serve(subject)
}
