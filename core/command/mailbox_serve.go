package command

import (
	"context"
	"io"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Storages for the admin socket.
func (s *running) Storages(context.Context) (list []admin.Storage, err error) {
	for _, in := range s.pipeline.Storages() {
		list = append(list, admin.Storage{Instance: in.Ref, Plugin: in.Plugin, DataDir: s.pipeline.StorageDir(in.Ref)})
	}
	return list, nil
}

// Administer for the admin socket.
func (s *running) Administer(ctx context.Context, instance string, call *v1.StorageCall, message io.Reader, send func(*v1.Reply) error) error {
	return s.pipeline.Administer(ctx, instance, call, message, send)
}
