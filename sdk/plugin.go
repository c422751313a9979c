// Package sdk is what a Stagecoach plugin imports: it fills in a Plugin and
// calls Serve from main. The packages beside it have what each kind implements
// (filter, storage, access, deliver, directory). It is not the core's side of
// the boundary: that starts and supervises plugins.
package sdk

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// storageConcurrent is max_concurrent of a storage that names none: every
// mailbox that a client idles in is a Watch under way.
const storageConcurrent = 4096

// Plugin says what a plugin is. Exactly one of the five constructors is set; it
// says the kind.
//
// Life of an instance: the configuration is decoded into a copy of Config and
// checked (Validator); then the constructor makes the instance, which may open
// files and take its time; then calls come. The constructed value may also
// implement Drainer and io.Closer.
type Plugin struct {
	// Name as it stands in HCL: filter "NAME" "…". Letters, digits, _ and -.
	Name string
	// Version of the plugin, in any form.
	Version string
	// Summary in one line, for `stagecoach plugin list`.
	Summary string
	// Config is a struct whose values are the defaults; see package schema for
	// its tags. nil: the block has no attributes. It may implement Validator
	// and Interested (on the pointer).
	Config any
	// Interest of a filter: what it is asked and what it is given to see.
	Interest *v1.FilterInterest
	// Needs beyond the plugin's own process. To a bundled plugin what is not named
	// is denied; another one's the operator grants in its sandbox block.
	Needs *v1.Needs
	// MaxConcurrent calls; 0 means stream.DefaultCredits, 4096 for a storage
	// (every watcher is one).
	MaxConcurrent int
	// Features of the contract's minor versions that the plugin has, such as
	// storage.RequestKeys.
	Features []string

	// One of these makes the instance, once, at Ready: within 60 s. Its error is
	// shown to the operator as it is.

	// Filter is asked about mail.
	Filter func(ctx context.Context, in *Instance) (filter.Filter, error)
	// Storage keeps mailboxes.
	Storage func(ctx context.Context, in *Instance) (storage.Storage, error)
	// Access serves a storage's mailboxes to clients.
	Access func(ctx context.Context, in *Instance) (access.Server, error)
	// Deliver is a way out.
	Deliver func(ctx context.Context, in *Instance) (deliver.Deliverer, error)
	// Directory knows who exists and who may log in.
	Directory func(ctx context.Context, in *Instance) (directory.Directory, error)
}

// Instance is one block of the operator's configuration, as a constructor gets
// it. The context given with it is the instance's life: it ends after Drain.
type Instance struct {
	// Name is the block's address: "filter.greylist.calm".
	Name string
	// DataDir belongs to this instance alone and outlives it; empty unless
	// Needs asked for one.
	DataDir string
	// Hostname of the server.
	Hostname string
	// Config points to a filled copy of Plugin.Config.
	Config any
	// Log ends in the server's log under Name. Nothing else may write to stdout.
	Log zerolog.Logger
	// Access is set for access plugins.
	Access *access.Host
	// SpoolDirs are the directories under which the messages' files lie.
	SpoolDirs []string
	// Metrics appear on the server's /metrics with the label plugin=Name.
	Metrics *Metrics
	// Peers are calls to other plugins, by the role that a grant gave ("storage",
	// "auth"). An access plugin has clients of them in Access.
	Peers map[string]stream.Caller
}

// Validator is what a Config may implement: a check of what the schema cannot
// say. It has no effect and opens nothing. Errors made by schema.Errorf point at
// their attribute; several go through errors.Join.
type Validator interface{ Validate() error }

// Interested is what a filter's Config may implement: the interest that this
// configuration has, in place of Plugin.Interest.
type Interested interface{ Interest() *v1.FilterInterest }

// Drainer is what a constructed value may implement: finish what is under way,
// take nothing new, return when that is done or ctx ends.
type Drainer interface {
	Drain(ctx context.Context) error
}

// Checker is what a constructed value may implement to tell the operator of
// trouble: an error's text is shown. It answers at once.
type Checker interface{ Health() error }

// Kind tells the plugin's kind; an error unless exactly one constructor is set.
func (p Plugin) Kind() (v1.Kind, error) {
	kind, n := v1.Kind_KIND_UNSPECIFIED, 0
	for _, c := range []struct {
		set  bool
		kind v1.Kind
	}{
		{p.Filter != nil, v1.Kind_KIND_FILTER}, {p.Storage != nil, v1.Kind_KIND_STORAGE},
		{p.Access != nil, v1.Kind_KIND_ACCESS}, {p.Deliver != nil, v1.Kind_KIND_DELIVER},
		{p.Directory != nil, v1.Kind_KIND_DIRECTORY},
	} {
		if c.set {
			kind, n = c.kind, n+1
		}
	}
	if n != 1 {
		return 0, fmt.Errorf("plugin %q sets %d of Filter, Storage, Access, Deliver and Directory: set one", p.Name, n)
	}
	return kind, nil
}

// Describe answers the contract's Describe for p. It runs nothing of the plugin.
func Describe(p Plugin) (*v1.DescribeResponse, error) {
	kind, err := p.Kind()
	if err != nil {
		return nil, err
	}
	if p.Name == "" {
		return nil, errors.New("the plugin has no Name")
	}
	if kind == v1.Kind_KIND_FILTER && len(p.Interest.GetEvents()) == 0 {
		return nil, fmt.Errorf("filter %q would never be asked: name the events in Interest", p.Name)
	}
	s, err := schema.FromStruct(p.Config)
	if err != nil {
		return nil, fmt.Errorf("config of plugin %q: %w", p.Name, err)
	}
	return &v1.DescribeResponse{
		Name: p.Name, Kind: kind, Version: p.Version, Summary: p.Summary, Features: p.Features, Schema: s,
		MaxConcurrent: int32(p.maxConcurrent()), Filter: p.Interest, Needs: p.Needs,
	}, nil
}

func (p Plugin) maxConcurrent() int {
	switch {
	case p.MaxConcurrent > 0:
		return p.MaxConcurrent
	case p.Storage != nil:
		return storageConcurrent
	}
	return stream.DefaultCredits
}

// newConfig copies the default config, so that one instance's never changes
// another's, and returns a pointer to it; nil if the plugin has none.
func (p Plugin) newConfig() any {
	if p.Config == nil {
		return nil
	}
	v := reflect.Indirect(reflect.ValueOf(p.Config))
	c := reflect.New(v.Type())
	c.Elem().Set(v)
	return c.Interface()
}
