package local

import (
	"context"
	"errors"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

var _ storage.Backuper = (*Store)(nil)

// backupRoom must be free beyond min_free for a backup: what it copies, the
// database's log and its lists, is far less.
const backupRoom = 64 << 20

// Backup implements storage.Backuper: a checkpoint of the database, and a link to
// each body's file. While the links are made no body is removed, so that all that
// the checkpoint refers to is there; a file that came after it is removed as waste
// when the copy is opened. The search index is left out: it is made anew.
func (s *Store) Backup(ctx context.Context, req *v1.BackupRequest) (*v1.BackupResponse, error) {
	if err := s.gate.enter(); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	s.backing.Lock()
	defer s.backing.Unlock()
	dir := s.path("backup")
	if err := s.fs.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, s.wrap(err, "remove the last backup")
	}
	if req.GetRemove() {
		return &v1.BackupResponse{}, s.wrap(s.syncDir(s.opts.Dir), "remove the backup")
	}
	if err := s.room(backupRoom); err != nil {
		return nil, err
	}
	err := s.backup(ctx, dir)
	if err != nil {
		err = errors.Join(s.wrap(err, "backup"), s.fs.RemoveAll(dir))
		return nil, fail.Wrap(fail.KindOf(err), err, "backup")
	}
	return &v1.BackupResponse{Path: dir}, nil
}

func (s *Store) backup(ctx context.Context, dir string) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.db.Checkpoint(s.fs.PathJoin(dir, "db"), pebble.WithFlushedWAL()); err != nil {
		return err
	}
	blobs := s.fs.PathJoin(dir, "blobs")
	if err := s.fs.MkdirAll(blobs, 0o700); err != nil {
		return err
	}
	dirs, err := s.fs.List(s.path("blobs"))
	if err != nil {
		return err
	}
	for _, name := range dirs {
		if err := s.linkAll(ctx, s.path("blobs", name), s.fs.PathJoin(blobs, name)); err != nil {
			return err
		}
	}
	return errors.Join(s.syncDir(blobs), s.syncDir(dir), s.syncDir(s.opts.Dir))
}

// linkAll gives the files of one folder of bodies a name in another one too.
func (s *Store) linkAll(ctx context.Context, from, to string) error {
	if err := s.fs.MkdirAll(to, 0o700); err != nil {
		return err
	}
	files, err := s.fs.List(from)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		// One on its way in may be given up under our eyes.
		err := vfs.LinkOrCopy(s.fs, s.fs.PathJoin(from, name), s.fs.PathJoin(to, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return s.syncDir(to)
}
