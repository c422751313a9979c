// Package clamav is a filter that has clamd look for viruses, over its socket and
// the command INSTREAM: clamd reads no file of ours. The milter that ClamAV brings
// along is asked by package milter.
package clamav

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/socket"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "clamav" block.
type Config struct {
	Address  string      `hcl:"address" doc:"Where clamd listens: unix:/path, inet:host:port or inet:port@host." example:"\"unix:/run/clamav/clamd.ctl\""`
	Found    string      `hcl:"found,optional" oneof:"reject,hold,discard,tag" doc:"What becomes of a mail with a virus: refused with 550 5.7.1, held for an operator, thrown away, or only tagged."`
	TooLarge string      `hcl:"too_large,optional" oneof:"fail,accept,hold,reject" doc:"What becomes of a mail that is longer than max_size, or than clamd's own StreamMaxLength: no verdict, so that on_failure decides, unseen, held, or refused with 552 5.3.4."`
	MaxSize  schema.Size `hcl:"max_size,optional" doc:"Larger mails are not sent to clamd. 0B: clamd's StreamMaxLength alone decides."`
	Text     string      `hcl:"text,optional" doc:"What the client is told; {virus} stands for the signature's name."`

	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" doc:"How long a connection to clamd may take."`
	ScanTimeout    time.Duration `hcl:"scan_timeout,optional" doc:"How long a scan may take, the sending included. The block's timeout bounds it too, 30 s unless it says otherwise."`
}

func defaults() Config {
	return Config{
		Found: "reject", TooLarge: "fail", Text: "The message has a virus: {virus}",
		ConnectTimeout: 5 * time.Second, ScanTimeout: 25 * time.Second,
	}
}

// Validate points at what cannot work.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(attribute, format string, args ...any) {
		errs = append(errs, schema.Errorf(schema.Path(attribute), format, args...))
	}
	if _, _, err := socket.Parse(c.Address); err != nil {
		wrong("address", "%v", err)
	}
	if c.MaxSize < 0 {
		wrong("max_size", "it must not be below zero")
	}
	if c.Text == "" || c.Text != printable(c.Text) {
		wrong("text", "it is one line of at most %d printable ASCII characters", longestText)
	}
	if c.ConnectTimeout <= 0 {
		wrong("connect_timeout", "it must be above zero")
	}
	if c.ScanTimeout <= 0 {
		wrong("scan_timeout", "it must be above zero")
	}
	return errors.Join(errs...)
}

func interest() *v1.FilterInterest {
	return &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
		Body:   v1.FilterInterest_FULL, Effect: v1.FilterInterest_JUDGE,
		// Only the message's own octets are looked at.
		HeaderNames: []string{"none"},
	}
}

// Filter is one instance.
type Filter struct {
	Config
	network, place string
	log            zerolog.Logger
	metrics        *sdk.Metrics
	trouble        atomic.Pointer[error]
}

var _ filter.Filter = (*Filter)(nil)

// Filter has the message scanned.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	if f.MaxSize > 0 && ev.Message.Size() > int64(f.MaxSize) {
		return f.tooLarge()
	}
	begin := time.Now()
	virus, err := f.scan(ctx, ev.Message)
	f.metrics.Histogram("scan_seconds", "Time that a scan takes.", sdk.Seconds()).Since(begin)
	if errors.Is(err, errTooLarge) {
		f.trouble.Store(nil)
		return f.tooLarge()
	}
	if err != nil {
		f.count("fail")
		f.trouble.Store(&err)
		return nil, err
	}
	f.trouble.Store(nil)
	if virus == "" {
		f.count("clean")
		return filter.Accept().Tag("clamav", "clean"), nil
	}
	f.count("found")
	f.log.Info().Str("virus", virus).Str("transaction", ev.Envelope.GetTransaction()).Msg("clamd found a virus")
	return f.found(virus).Tag("clamav", "found").Tag("virus", virus), nil
}

func (f *Filter) found(virus string) *filter.Verdict {
	switch f.Found {
	case "hold":
		return filter.Hold("virus: " + virus)
	case "discard":
		return filter.Discard().Reason("virus: " + virus)
	case "tag":
		return filter.Accept().Note("virus: " + virus)
	}
	return filter.Reject(550, "5.7.1", printable(strings.ReplaceAll(f.Text, "{virus}", virus))).Reason("virus: " + virus)
}

func (f *Filter) tooLarge() (*filter.Verdict, error) {
	f.count("too_large")
	v := filter.Accept()
	switch f.TooLarge {
	case "fail":
		return nil, errTooLarge
	case "hold":
		v = filter.Hold("too large for clamd")
	case "reject":
		v = filter.Reject(552, "5.3.4", "The message is too large to be scanned for viruses")
	}
	return v.Tag("clamav", "too_large"), nil
}

func (f *Filter) count(result string) {
	f.metrics.Counter("scans_total", "Messages by what the scan had for a result.", "result", result).Add(1)
}

// Health tells the last trouble, until clamd answers again.
func (f *Filter) Health() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Plugin describes the clamav filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "clamav", Version: "1.0.0", Summary: "have ClamAV's clamd look for viruses",
		Config: defaults(), Interest: interest(),
		// As many as clamd has threads for (MaxThreads), unless it is told otherwise.
		MaxConcurrent: 10,
		Needs:         &v1.Needs{Network: true, ReadPaths: []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/run/systemd/resolve"}},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			c := *in.Config.(*Config)
			network, place, err := socket.Parse(c.Address)
			if err != nil {
				return nil, err
			}
			return &Filter{Config: c, network: network, place: place, log: in.Log, metrics: in.Metrics}, nil
		},
	}
}
