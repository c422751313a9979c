package config

import (
	"context"
	"io/fs"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// sources are the files' bytes by name, for the diagnostics' source lines.
type sources map[string][]byte

// Plugin names a plugin whose schema is wanted: an external Binary, or (Binary
// nil) the bundled one of that kind and name.
type Plugin struct {
	Name   string
	Kind   v1.Kind
	Binary *Binary
}

// FS reads files; paths are the operating system's own.
type FS interface {
	ReadFile(path string) ([]byte, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
}

// Options of Load.
type Options struct {
	// Schemas returns what a plugin says of itself: bundled plugins in this
	// process, external ones by starting them. Required when a file names one.
	Schemas func(ctx context.Context, p Plugin) (*v1.DescribeResponse, error)
	// Bundled names the bundled plugins of each kind, for "did you mean".
	Bundled map[v1.Kind][]string
	// DataDir and Hostname win over the files', where not empty.
	DataDir, Hostname string
	// FS and Getenv stand in for the operating system's in tests.
	FS     FS
	Getenv func(name string) (string, bool)
}
