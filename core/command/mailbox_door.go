package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/pipeline"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// door leads to the storages: those of the server that runs, or, when it is stopped,
// to the same ones started for this command alone.
type door struct {
	src source
	// ref of the storage that is meant; "": the only one.
	ref string

	storages []admin.Storage
	live     *admin.Client
	own      *pipeline.Storages
	dataDir  string
}

func (d *door) flags(c *cobra.Command) {
	d.src.flags(c)
	c.Flags().StringVar(&d.ref, "storage", "", "the storage meant, storage.local.mail, say; needed only where there are several")
}

// enter opens the door; close it.
func (d *door) enter(a *App, cmd *cobra.Command) error {
	cl, err := a.client(cmd, d.src)
	if err != nil {
		return err
	}
	var st admin.Status
	err = cl.Call(cmd.Context(), "GET", "/status", nil, &st)
	switch {
	case err == nil:
		d.live, d.dataDir = cl, st.DataDir
		d.storages, err = cl.Storages(cmd.Context())
		return err
	case !errors.Is(err, admin.ErrNotRunning):
		return err
	case len(d.src.paths) == 0 && d.src.dataDir != "":
		return &exit{ExitNotRunning, fmt.Errorf("%w; to look into the storages of one that is stopped, say with -c how it is configured", err)}
	}
	cfg, err := a.load(cmd, d.src)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	tell := cmd.ErrOrStderr()
	log := zerolog.New(zerolog.ConsoleWriter{Out: tell, NoColor: !terminal(tell), PartsExclude: []string{zerolog.TimestampFieldName}}).Level(zerolog.WarnLevel)
	d.own, err = pipeline.OpenStorages(cmd.Context(), cfg, pipeline.Options{Executable: self, Version: a.Version, Log: log})
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w: run this as the user that the server runs as", err)
		}
		return (&running{app: a}).explain(cfg, err)
	}
	d.dataDir = cfg.DataDir
	for _, in := range d.own.Storages() {
		d.storages = append(d.storages, admin.Storage{Instance: in.Ref, Plugin: in.Plugin, DataDir: d.own.StorageDir(in.Ref)})
	}
	return nil
}

func (d *door) close() error {
	if d.own == nil {
		return nil
	}
	return d.own.Close()
}

// chosen are the storages that are meant.
func (d *door) chosen() ([]admin.Storage, error) {
	if len(d.storages) == 0 {
		return nil, errors.New(`the configuration has no storage: a block storage "local" "mail" {} is one`)
	}
	if d.ref == "" {
		return d.storages, nil
	}
	var names []string
	for _, s := range d.storages {
		if s.Instance == d.ref {
			return []admin.Storage{s}, nil
		}
		names = append(names, s.Instance)
	}
	return nil, &exit{ExitUsage, fmt.Errorf("there is no storage %s; there are %s", d.ref, strings.Join(names, ", "))}
}

// one is the storage that is meant, where it must be one.
func (d *door) one() (admin.Storage, error) {
	list, err := d.chosen()
	if err != nil {
		return admin.Storage{}, err
	}
	if len(list) > 1 {
		var names []string
		for _, s := range list {
			names = append(names, s.Instance)
		}
		return admin.Storage{}, &exit{ExitUsage, fmt.Errorf("which storage? Say --storage %s", strings.Join(names, " or --storage "))}
	}
	return list[0], nil
}

// storage is the way to call it.
func (d *door) storage(s admin.Storage) storage.Storage {
	if d.live != nil {
		return storage.NewClient(d.live.Storage(s.Instance))
	}
	return storage.NewClient(&ownCaller{d.own, s.Instance})
}

// ownCaller calls a storage that this process started.
type ownCaller struct {
	storages *pipeline.Storages
	instance string
}

var _ stream.Caller = (*ownCaller)(nil)

// Call implements stream.Caller.
func (o *ownCaller) Call(ctx context.Context, call *v1.Call) (last *v1.Reply, err error) {
	err = o.Stream(ctx, call, func(r *v1.Reply) error {
		last = r
		return nil
	})
	return last, err
}

// Stream implements stream.Caller.
func (o *ownCaller) Stream(ctx context.Context, call *v1.Call, each func(*v1.Reply) error) error {
	op := call.GetStorage()
	var message io.Reader
	if list := op.GetAppend().GetMessages(); len(list) == 1 && list[0].GetMessage().GetPath() != "" {
		f, err := os.Open(list[0].GetMessage().GetPath())
		if err != nil {
			return err
		}
		defer f.Close()
		message = f
		op = proto.CloneOf(op)
	}
	return o.storages.Administer(ctx, o.instance, op, message, each)
}

// accounts calls each for the accounts of a storage.
func accounts(ctx context.Context, s storage.Storage, each func(name string) error) error {
	lister := s.(storage.AccountLister) // a client offers all
	for after := ""; ; {
		r, err := lister.Accounts(ctx, &v1.AccountsRequest{After: after})
		if err != nil || len(r.Accounts) == 0 {
			return err
		}
		for _, name := range r.Accounts {
			if err := each(name); err != nil {
				return err
			}
		}
		after = r.Accounts[len(r.Accounts)-1]
	}
}

// there tells whether the storage has the account: to open one makes it.
func there(ctx context.Context, s storage.Storage, name string) (bool, error) {
	found := false
	errFound := errors.New("found")
	err := accounts(ctx, s, func(have string) error {
		if have == name {
			found = true
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

// known complains of an account that there is not.
func known(ctx context.Context, s storage.Storage, ref, name string) error {
	found, err := there(ctx, s, name)
	if fail.Is(err, fail.Unsupported) {
		return nil // nobody can say
	}
	if err == nil && !found {
		err = fmt.Errorf("%s has no account %q; `stagecoach mailbox list` shows which it has", ref, name)
	}
	return err
}
