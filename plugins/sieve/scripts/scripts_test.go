package scripts_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

func open(t *testing.T) (*scripts.Folder, scripts.Account) {
	t.Helper()
	f, err := scripts.Open(filepath.Join(t.TempDir(), "a", "sieve"), scripts.Limits{Scripts: 3, Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	return f, f.Account("meg@ryan.example")
}

func names(t *testing.T, a scripts.Account) string {
	t.Helper()
	list, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		s := fmt.Sprintf("%s:%d", e.Name, e.Size)
		if e.Active {
			s += "*"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// everywhere runs a test on each kind of Store.
func everywhere(t *testing.T, test func(*testing.T, scripts.Store)) {
	t.Run("folder", func(t *testing.T) {
		f, _ := open(t)
		test(t, f)
	})
	t.Run("storage", func(t *testing.T) {
		test(t, scripts.In(sdktest.NewStorage(t.TempDir()), scripts.Limits{Scripts: 3, Size: 100}, ""))
	})
}

func TestScriptsLive(t *testing.T) { everywhere(t, scriptsLive) }

func scriptsLive(t *testing.T, store scripts.Store) {
	a, ctx := store.Account("meg@ryan.example"), t.Context()
	if names(t, a) != "" {
		t.Error("a new account has scripts")
	}
	if name, text, err := a.Active(t.Context()); name != "" || text != nil || err != nil {
		t.Errorf("active %q %q %v", name, text, err)
	}
	for _, step := range []struct {
		do   func() error
		err  error
		want string
	}{
		{func() error { return a.Put(ctx, "main", []byte("keep;")) }, nil, "main:5"},
		{func() error { return a.Activate(ctx, "main") }, nil, "main:5*"},
		{func() error { return a.Put(ctx, "été ünd", []byte("stop;\n")) }, nil, "main:5* été ünd:6"},
		{func() error { return a.Rename(ctx, "main", "other") }, nil, "other:5* été ünd:6"},
		{func() error { return a.Rename(ctx, "other", "été ünd") }, scripts.ErrExists, "other:5* été ünd:6"},
		{func() error { return a.Rename(ctx, "none", "x") }, scripts.ErrNotFound, "other:5* été ünd:6"},
		{func() error { return a.Delete(ctx, "other") }, scripts.ErrActive, "other:5* été ünd:6"},
		{func() error { return a.Activate(ctx, "none") }, scripts.ErrNotFound, "other:5* été ünd:6"},
		{func() error { return a.Put(ctx, "big", make([]byte, 101)) }, scripts.ErrTooLarge, "other:5* été ünd:6"},
		{func() error { return a.Put(ctx, "../x", nil) }, scripts.ErrName, "other:5* été ünd:6"},
		{func() error { return a.Put(ctx, "..", nil) }, nil, "..:0 other:5* été ünd:6"},
		{func() error { return a.Put(ctx, "fourth", nil) }, scripts.ErrTooMany, "..:0 other:5* été ünd:6"},
		{func() error { return a.Put(ctx, "other", []byte("discard;")) }, nil, "..:0 other:8* été ünd:6"},
		{func() error { return a.Activate(ctx, "") }, nil, "..:0 other:8 été ünd:6"},
		{func() error { return a.Activate(ctx, "") }, nil, "..:0 other:8 été ünd:6"},
		{func() error { return a.Delete(ctx, "other") }, nil, "..:0 été ünd:6"},
		{func() error { return a.Delete(ctx, "other") }, scripts.ErrNotFound, "..:0 été ünd:6"},
	} {
		if err := step.do(); !errors.Is(err, step.err) {
			t.Errorf("%v, want %v", err, step.err)
		}
		if got := names(t, a); got != step.want {
			t.Errorf("scripts %q, want %q", got, step.want)
		}
	}
	if b, err := a.Get(t.Context(), "été ünd"); err != nil || string(b) != "stop;\n" {
		t.Errorf("%q %v", b, err)
	}
}

func TestAccountsAreApart(t *testing.T) {
	f, a := open(t)
	for _, name := range []string{"../../etc", "a/b", "", ".", "joe@ryan.example", strings.Repeat("x", 250), strings.Repeat("ü", 150)} {
		other := f.Account(name)
		if err := other.Put(t.Context(), "main", []byte(name[:min(9, len(name))])); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if b, err := other.Get(t.Context(), "main"); err != nil || string(b) != name[:min(9, len(name))] {
			t.Errorf("%q: %q %v", name, b, err)
		}
	}
	if got := names(t, a); got != "" {
		t.Errorf("meg has %q", got)
	}
	if b, err := f.Account("JOE@ryan.example").Get(t.Context(), "main"); err != nil || string(b) != "joe@ryan." {
		t.Errorf("an account's name in capitals: %q %v", b, err)
	}
}

func TestWhatIsWrittenIsWholeOrAsItWas(t *testing.T) {
	_, a := open(t)
	if err := a.Put(t.Context(), "main", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := a.Activate(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, text, err := a.Active(t.Context())
				if err != nil || len(text) == 0 || strings.Trim(string(text), string(text[:1])) != "" {
					t.Errorf("read %q %v", text, err)
					return
				}
			}
		})
	}
	for i := range 2 {
		writers.Go(func() {
			for n := range 10 {
				if err := a.Put(t.Context(), "main", []byte(strings.Repeat(fmt.Sprint(i), 1+n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

func TestTroubleIsKeptForTheUser(t *testing.T) { everywhere(t, troubleIsKept) }

func troubleIsKept(t *testing.T, f scripts.Store) {
	a := f.Account("meg@ryan.example")
	if err := a.Put(t.Context(), "main", nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Report(t.Context(), "line 3: no such mailbox"); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Trouble(t.Context()); err != nil || s != "line 3: no such mailbox" {
		t.Errorf("%q %v", s, err)
	}
	if err := errors.Join(a.Report(t.Context(), ""), a.Report(t.Context(), "")); err != nil {
		t.Error(err)
	}
	if s, _ := a.Trouble(t.Context()); s != "" {
		t.Errorf("%q", s)
	}
	if b, err := f.Global("none"); b != nil || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if _, err := os.Stat("main.sieve"); err == nil {
		t.Error("a script was written into the working directory")
	}
}

// TestScriptsInTheStorage: what the storage has, any process sees; the longest script
// fits, and the operator's come from a folder.
func TestScriptsInTheStorage(t *testing.T) {
	mail, global := sdktest.NewStorage(t.TempDir()), t.TempDir()
	one, other := scripts.In(mail, scripts.Limits{Scripts: 3, Size: 16 << 20}, global), scripts.In(mail, scripts.DefaultLimits(), "")
	name := strings.Repeat("Ü", scripts.MaxName/2)
	text := []byte(strings.Repeat("#", storage.MaxAnnotation))
	a := one.Account("meg@ryan.example")
	if err := errors.Join(a.Put(t.Context(), name, text), a.Activate(t.Context(), name)); err != nil {
		t.Fatal(err)
	}
	if err := a.Put(t.Context(), name, append(text, '#')); !errors.Is(err, scripts.ErrTooLarge) {
		t.Errorf("an octet more: %v", err)
	}
	b := other.Account("meg@ryan.example")
	if got, active, err := b.Active(t.Context()); err != nil || got != name || string(active) != string(text) {
		t.Errorf("another process sees %q with %d octets: %v", got, len(active), err)
	}
	if got := names(t, b); got != fmt.Sprintf("%s:%d*", name, len(text)) {
		t.Errorf("list: %q", got)
	}
	if got := names(t, other.Account("joe@ryan.example")); got != "" {
		t.Errorf("joe has %q", got)
	}
	if err := os.WriteFile(filepath.Join(global, "spam.sieve"), []byte("stop;"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := one.Global("spam"); err != nil || string(text) != "stop;" {
		t.Errorf("global: %q %v", text, err)
	}
	if text, err := other.Global("spam"); err != nil || text != nil {
		t.Errorf("global without a folder: %q %v", text, err)
	}
}

// plain is a storage that keeps no annotations.
type plain struct{ storage.Storage }

func (p plain) Open(ctx context.Context, name string) (storage.Account, error) {
	a, err := p.Storage.Open(ctx, name)
	return struct{ storage.Account }{a}, err
}

func TestStorageWithoutAnnotations(t *testing.T) {
	a := scripts.In(plain{sdktest.NewStorage(t.TempDir())}, scripts.DefaultLimits(), "").Account("meg@ryan.example")
	_, _, err := a.Active(t.Context())
	if !fail.Is(err, fail.Unsupported) || !strings.Contains(err.Error(), "name a folder") {
		t.Errorf("%v, want one that says what to do", err)
	}
}
