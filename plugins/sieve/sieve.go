// Package sieve is a filter that runs each user's Sieve script (RFC 5228) at
// delivery: into folders with flags, on to other addresses, refused, answered. The
// language is package engine's, the scripts package scripts'. It stands in a
// deliver block of a storage.
package sieve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/memory"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// Filter is one instance.
type Filter struct {
	config  Config
	dataDir string
	log     zerolog.Logger
	scripts scripts.Store
	memory  *memory.Memory
	boxes   storage.Storage // nil if the block names none
	meters  meters
	now     func() time.Time

	mu    sync.Mutex
	cache map[[32]byte]*compiled
	files tempFiles
}

var (
	_ filter.Filter = (*Filter)(nil)
	_ sdk.Checker   = (*Filter)(nil)
)

// Plugin describes the sieve filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "sieve", Version: "1.0.0", Summary: "each user's Sieve script at delivery",
		Config: DefaultConfig(),
		Needs:  &v1.Needs{DataDir: true, Exclusive: true, WritePaths: []string{"{scripts}"}},
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_PRE_DELIVERY}, Body: v1.FilterInterest_FULL, Effect: v1.FilterInterest_JUDGE,
			// The header comes with the message; no field of it is wanted beside.
			HeaderNames: []string{"x-sieve-redirected-from"},
		},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return newFilter(in)
		},
	}
}

func newFilter(in *sdk.Instance) (*Filter, error) {
	f := &Filter{
		config: *in.Config.(*Config), dataDir: in.DataDir, log: in.Log, now: time.Now,
		meters: newMeters(in.Metrics), cache: map[[32]byte]*compiled{}, files: tempFiles{dir: in.DataDir},
	}
	if err := f.config.Validate(); err != nil {
		return nil, err
	}
	f.config.hostname = in.Hostname
	if s := f.config.Storage; s != "" {
		caller, ok := in.Peers[s]
		if !ok {
			return nil, fmt.Errorf("storage %q is none that this server has: write storage = storage.local.mail", s)
		}
		f.boxes = storage.NewClient(caller)
	}
	if err := f.openScripts(); err != nil {
		return nil, err
	}
	if err := f.files.sweep(); err != nil {
		return nil, err
	}
	var err error
	f.memory, err = memory.Open(in.DataDir, time.Now)
	return f, err
}

func (f *Filter) openScripts() (err error) {
	if f.config.Scripts == "" {
		f.scripts = scripts.In(f.boxes, scripts.DefaultLimits(), f.config.Global)
		return nil
	}
	f.scripts, err = scripts.Open(f.config.Scripts, scripts.DefaultLimits())
	return err
}

// Health tells when nothing more can be remembered.
func (f *Filter) Health() error { return f.memory.Health() }

// Close ends the memory.
func (f *Filter) Close() error { return f.memory.Close() }

// Filter runs the script of each recipient who has one. A script that fails keeps
// the mail (RFC 5228 section 2.10.6); an error is only for what concerns all of
// them, and has the mail wait.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	v := filter.Accept()
	if ev.Kind != v1.FilterEvent_PRE_DELIVERY || ev.Message == nil {
		return v, nil
	}
	var notes []string
	for _, r := range ev.Envelope.GetRecipients() {
		note, err := f.recipient(ctx, ev, r, v)
		if err != nil {
			return nil, err
		}
		if note != "" {
			notes = append(notes, r.GetAddress()+": "+note)
		}
	}
	if len(notes) > 0 {
		v.Note(strings.Join(notes, "; "))
	}
	return v, nil
}

func (f *Filter) recipient(ctx context.Context, ev *filter.Event, r *v1.Recipient, v *filter.Verdict) (string, error) {
	user := r.GetAccount()
	if user == "" {
		user = r.GetAddress()
	}
	account := f.scripts.Account(user)
	name, text, err := account.Active(ctx)
	if err != nil {
		return "", fmt.Errorf("read the script of %s: %w", user, err)
	}
	if text == nil && f.config.Default != "" {
		name = f.config.Default
		if text, err = f.scripts.Global(name); err != nil {
			return "", fmt.Errorf("read the script %s: %w", name, err)
		}
	}
	if text == nil {
		return "", nil
	}
	f.meters.runs.Add(1)
	run := &run{Filter: f, ctx: ctx, ev: ev, recipient: r, user: user, account: account}
	trouble := run.script(name, text, v)
	if ctx.Err() != nil {
		// It has no more time: the mail waits, instead of being kept by half.
		return "", ctx.Err()
	}
	var down *unavailable
	if errors.As(trouble, &down) {
		return "", down
	}
	if trouble != nil {
		f.meters.failures.Add(1)
		f.log.Warn().Str("user", user).Str("queue_id", ev.Envelope.GetQueueId()).Err(trouble).Msg("a Sieve script failed: the mail is kept")
		f.report(ctx, account, trouble.Error())
		return "the script failed, kept: " + trouble.Error(), nil
	}
	return run.note(), nil
}

// report keeps a failure for the user to read.
func (f *Filter) report(ctx context.Context, a scripts.Account, text string) {
	if err := a.Report(ctx, f.now().UTC().Format(time.RFC3339)+" "+text+"\n"); err != nil {
		f.log.Error().Err(err).Msg("cannot keep the failure of a script for its user")
	}
}

// unavailable is a failure that has the mail wait: not the script's.
type unavailable struct{ err error }

func (u *unavailable) Error() string { return u.err.Error() }
func (u *unavailable) Unwrap() error { return u.err }

// tempFiles are messages too large to go inline.
type tempFiles struct {
	dir string
	mu  sync.Mutex
	n   int
}

func (f *Filter) engineConfig() engine.Config {
	c := engine.DefaultConfig()
	c.Hostname, c.MaxRedirects, c.MaxActions = f.config.hostname, f.config.MaxRedirects, f.config.MaxActions
	c.MaxSteps = int64(f.config.MaxCPU/time.Millisecond) * 10_000
	c.Delimiter, c.VacationMin, c.RedirectFrom = f.config.Delimiter, f.config.VacationMin, f.config.RedirectFrom
	c.Without = slices.Clone(f.config.Without)
	return c
}
