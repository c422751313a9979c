package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Describe asks a plugin what it is, without configuring it. The answer is kept
// for as long as the program stays the same, by its checksum, in memory and in
// RunDir. A script's answer depends on files that cannot be known from here, so
// what is run by an interpreter is asked every time.
func (h *Host) Describe(ctx context.Context, spec Spec) (*v1.DescribeResponse, error) {
	key, err := h.describeKey(&spec)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", spec.Plugin, err)
	}
	if spec.SHA256 != "" {
		if err := verify(h.command(&spec, "", nil, nil), spec.SHA256); err != nil {
			return nil, fmt.Errorf("plugin %s: %w", spec.Plugin, err)
		}
	}
	path := filepath.Join(h.opts.RunDir, describeName, key)
	if key != "" {
		h.mu.Lock()
		known := h.described[key]
		h.mu.Unlock()
		if known != nil {
			return known, nil
		}
		if b, err := os.ReadFile(path); err == nil {
			var resp v1.DescribeResponse
			if proto.Unmarshal(b, &resp) == nil {
				return h.remember(key, &resp), nil
			}
		}
	}
	resp, err := h.ask(ctx, &spec)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", spec.Plugin, err)
	}
	if key == "" {
		return resp, nil
	}
	// Only a cache: an error costs the next one time and nothing else.
	if b, err := proto.Marshal(resp); err == nil && os.MkdirAll(filepath.Dir(path), 0o700) == nil {
		if os.WriteFile(path+".new", b, 0o600) == nil {
			_ = os.Rename(path+".new", path)
		}
	}
	return h.remember(key, resp), nil
}

func (h *Host) remember(key string, resp *v1.DescribeResponse) *v1.DescribeResponse {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.described[key] = resp
	return resp
}

// ask starts the plugin for the question alone.
func (h *Host) ask(ctx context.Context, spec *Spec) (*v1.DescribeResponse, error) {
	one := *spec
	one.Instance = "describe." + spec.Plugin
	dir, err := os.MkdirTemp(h.opts.RunDir, "~")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p, err := h.start(ctx, &one, nil, dir, nil, nil)
	if err != nil {
		return nil, err
	}
	p.quit(ctx)
	p.end()
	return p.describe, nil
}

// describeKey names a program whose file alone decides what it is; empty for
// others.
func (h *Host) describeKey(s *Spec) (string, error) {
	program := h.opts.Executable
	if len(s.Command) > 0 {
		program = s.Command[0]
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	if len(s.Command) > 1 || len(s.Env) > 0 {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	magic := make([]byte, 2)
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) == "#!" {
		return "", nil
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d\x00%s\x00%s\x00", s.Kind, s.Plugin, h.opts.CoreVersion)
	sum.Write(magic)
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
