package scripts_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
)

func open(t *testing.T) (*scripts.Folder, *scripts.Account) {
	t.Helper()
	f, err := scripts.Open(filepath.Join(t.TempDir(), "a", "sieve"), scripts.Limits{Scripts: 3, Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	return f, f.Account("meg@ryan.example")
}

func names(t *testing.T, a *scripts.Account) string {
	t.Helper()
	list, err := a.List()
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

func TestScriptsLive(t *testing.T) {
	_, a := open(t)
	ctx := t.Context()
	if names(t, a) != "" {
		t.Error("a new account has scripts")
	}
	if name, text, err := a.Active(); name != "" || text != nil || err != nil {
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
	if b, err := a.Get("été ünd"); err != nil || string(b) != "stop;\n" {
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
		if b, err := other.Get("main"); err != nil || string(b) != name[:min(9, len(name))] {
			t.Errorf("%q: %q %v", name, b, err)
		}
	}
	if got := names(t, a); got != "" {
		t.Errorf("meg has %q", got)
	}
	if b, err := f.Account("JOE@ryan.example").Get("main"); err != nil || string(b) != "joe@ryan." {
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
				_, text, err := a.Active()
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

func TestTroubleIsKeptForTheUser(t *testing.T) {
	f, a := open(t)
	if err := a.Put(t.Context(), "main", nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Report("line 3: no such mailbox"); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Trouble(); err != nil || s != "line 3: no such mailbox" {
		t.Errorf("%q %v", s, err)
	}
	if err := errors.Join(a.Report(""), a.Report("")); err != nil {
		t.Error(err)
	}
	if s, _ := a.Trouble(); s != "" {
		t.Errorf("%q", s)
	}
	if b, err := f.Global("none"); b != nil || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if _, err := os.Stat("main.sieve"); err == nil {
		t.Error("a script was written into the working directory")
	}
}
