package maildir

import (
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestAccounts: the names come in order, page by page, whatever they are made of, and
// nothing else in the directory is one.
func TestAccounts(t *testing.T) {
	s, err := New(Options{Dir: filepath.Join(t.TempDir(), "mail")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := []string{".hidden", "a/b@ryan.example", "meg@ryan.example"}
	for _, name := range want {
		if _, err := s.Open(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for after := ""; len(got) < 9; after = got[len(got)-1] {
		r, err := s.Accounts(t.Context(), &v1.AccountsRequest{After: after, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Accounts) == 0 {
			break
		}
		got = append(got, r.Accounts...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
