package pipeline

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/config"
)

// shortDir is a folder with room for socket paths below it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestFailedStart: what keeps a server from starting is an error, and what it
// had opened is free again.
func TestFailedStart(t *testing.T) {
	ctx, dir := context.Background(), shortDir(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := Options{Version: "test", Log: zerolog.Nop()}
	good := &config.Config{Hostname: "mx.ryan.example", DataDir: filepath.Join(dir, "data")}
	busy := *good
	busy.Receives = []*config.Receive{{Ref: "receive.smtp.mx", Protocol: "smtp",
		Listen: []config.Listen{{Network: "tcp", Address: taken.Addr().String()}}}}
	if _, err := Start(ctx, &busy, o); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error("an address that is taken:", err)
	}
	p, err := Start(ctx, good, o)
	if err != nil {
		t.Fatal("after a failed start:", err)
	}
	if _, err := Start(ctx, good, o); err == nil || !strings.Contains(err.Error(), "in use by another stagecoach") {
		t.Error("a data directory that is taken:", err)
	}
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(ctx, &config.Config{DataDir: filepath.Join(file, "data")}, o); err == nil {
		t.Error("a data directory below a file is no error")
	}
	t.Setenv("TMPDIR", file)
	if _, err := OpenDry(ctx, good, o); err == nil {
		t.Error("no place for a dry run is no error")
	}
}
