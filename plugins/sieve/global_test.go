package sieve

import (
	"os"
	"path/filepath"
	"testing"
)

func put(t *testing.T, f *Filter, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.config.Scripts, "global", name+".sieve"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
