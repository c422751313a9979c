package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// ErrExists: the user or the address is in the file already.
var ErrExists = errors.New("is in the file already")

// AddUser writes a user block with fresh hashes at the end of the file, which
// is made if it is not there. The file is replaced in one step.
func AddUser(path, addr, password string) error {
	return edit(path, func(f *hclwrite.File) error {
		if p, err := parse(path, f.Bytes()); err != nil {
			return err
		} else if k, err := key(addr); err != nil {
			return err
		} else if p.users[k] != nil || p.aliases[k] != nil {
			return fmt.Errorf("%s %w: change the password with `stagecoach user password`", addr, ErrExists)
		}
		if len(f.Body().Blocks()) > 0 {
			f.Body().AppendNewline()
		}
		return setPassword(f.Body().AppendNewBlock("user", []string{addr}).Body(), addr, password)
	})
}

// SetPassword gives a user of the file new hashes.
func SetPassword(path, addr, password string) error {
	return edit(path, func(f *hclwrite.File) error {
		want, err := key(addr)
		if err != nil {
			return err
		}
		for _, b := range f.Body().Blocks() {
			if b.Type() != "user" || len(b.Labels()) != 1 {
				continue
			}
			if k, err := key(b.Labels()[0]); err == nil && k == want {
				return setPassword(b.Body(), b.Labels()[0], password)
			}
		}
		return fmt.Errorf("there is no user %s in %s", addr, path)
	})
}

func setPassword(b *hclwrite.Body, addr, password string) error {
	hash, err := Hash(password)
	if err != nil {
		return err
	}
	verifier, err := Verifier(addr, password)
	if err != nil {
		return err
	}
	b.SetAttributeValue("password", cty.StringVal(hash))
	b.SetAttributeValue("scram_sha_256", cty.StringVal(verifier))
	return nil
}

// List names the users of the file.
func List(path string) ([]string, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, diags := hclwrite.ParseConfig(src, path, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	var out []string
	for _, b := range f.Body().Blocks() {
		if b.Type() == "user" && len(b.Labels()) == 1 {
			out = append(out, b.Labels()[0])
		}
	}
	return out, nil
}

func edit(path string, change func(*hclwrite.File) error) error {
	src, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, diags := hclwrite.ParseConfig(src, path, hcl.InitialPos)
	if diags.HasErrors() {
		return diags
	}
	if err := change(f); err != nil {
		return err
	}
	out := f.Bytes()
	if _, err := parse(path, out); err != nil {
		return err
	}
	if bytes.Equal(out, src) {
		return nil
	}
	return replace(path, out)
}

// replace writes beside the file, syncs, renames, and syncs the directory: a
// reader sees the old file or the new one, and after a power cut too.
func replace(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".people-*")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no folder %s: make it first", filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	mode := os.FileMode(0o600)
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
	}
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
