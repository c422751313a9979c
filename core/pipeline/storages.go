package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// backupTimeout bounds the making of a copy of all that a storage keeps.
const backupTimeout = 12 * time.Hour

// uploadDir is where messages lie that somebody brings to a storage.
func uploadDir(dataDir, ref string) string { return filepath.Join(dataDir, "upload", ref) }

// Storages of the configuration that holds now.
func (p *Pipeline) Storages() []*config.Instance { return p.Config().ByKind(v1.Kind_KIND_STORAGE) }

// StorageDir is where a storage keeps what is its own.
func (p *Pipeline) StorageDir(ref string) string { return p.instanceDir(ref) }

// Administer makes a call of the storage contract for the operator, and gives send
// each reply. message, if it is not nil, holds the octets of an Append's only
// message.
func (p *Pipeline) Administer(ctx context.Context, ref string, call *v1.StorageCall, message io.Reader, send func(*v1.Reply) error) error {
	in := p.host.Instance(ref)
	if in == nil || p.Config().Instance(ref) == nil || p.Config().Instance(ref).Kind != v1.Kind_KIND_STORAGE {
		return fail.New(fail.NotFound, "there is no storage %s", ref)
	}
	if message != nil {
		list := call.GetAppend().GetMessages()
		if len(list) != 1 {
			return fail.New(fail.Invalid, "octets come with an Append of one message alone")
		}
		path, size, err := p.upload(ref, message)
		if err != nil {
			return err
		}
		defer os.Remove(path)
		call = proto.CloneOf(call)
		call.GetAppend().Messages[0].Message = &v1.MessageRef{Size: size, Where: &v1.MessageRef_Path{Path: path}}
	}
	if call.GetBackup() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, backupTimeout)
		defer cancel()
	}
	// The client in between asks a reader's rest again if it was too slow.
	last, err := storage.Handler(storage.NewClient(in))(ctx, &v1.Call{Request: &v1.Call_Storage{Storage: call}}, send)
	if err != nil {
		return err
	}
	return send(last)
}

func (p *Pipeline) upload(ref string, message io.Reader) (path string, size int64, err error) {
	f, err := os.CreateTemp(uploadDir(p.dataDir, ref), "import-*")
	if err != nil {
		return "", 0, err
	}
	size, err = io.Copy(f, message)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", 0, errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), size, nil
}

// Storages are the storages of a server that is stopped, for its administrator: the
// processes that the server would have, on its data directory, and nothing else.
type Storages struct{ *Pipeline }

// OpenStorages starts them; no server can start until Close.
func OpenStorages(ctx context.Context, cfg *config.Config, o Options) (*Storages, error) {
	p := &Pipeline{Options: o, dataDir: cfg.DataDir, cfg: cfg}
	err := p.openStorages(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, (&Storages{p}).Close())
	}
	return &Storages{p}, nil
}

func (p *Pipeline) openStorages(ctx context.Context, cfg *config.Config) (err error) {
	if _, err := os.Stat(cfg.DataDir); err != nil {
		return fmt.Errorf("there is no data directory %s: no server has run there yet", cfg.DataDir)
	}
	if p.lock, err = LockDir(cfg.DataDir); err != nil {
		return err
	}
	if p.host, err = host.New(host.Options{
		RunDir: filepath.Join(cfg.DataDir, "run"), Executable: p.Executable, Hostname: cfg.Hostname, Log: p.Log, CoreVersion: p.Version,
	}); err != nil {
		return err
	}
	var specs []host.Spec
	for _, in := range p.Storages() {
		s := Spec(in)
		s.SpoolDirs = []string{uploadDir(cfg.DataDir, in.Ref)}
		if err := os.MkdirAll(uploadDir(cfg.DataDir, in.Ref), 0o700); err != nil {
			return err
		}
		if in.Describe.GetNeeds().GetDataDir() {
			s.DataDir = p.instanceDir(in.Ref)
		}
		specs = append(specs, s)
	}
	change, err := p.host.Provision(ctx, specs)
	if err != nil {
		return err
	}
	change.Commit()
	return nil
}

// Close ends the processes and lets a server have the data directory.
func (s *Storages) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var err error
	if s.host != nil {
		err = s.host.Close(ctx)
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}
