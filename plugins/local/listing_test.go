package local

import (
	"context"
	"strings"
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// What is asked for by name or id is what the whole list says of it.
func TestListOneIsAsInTheList(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	defer s.Close()
	ctx := context.Background()
	a, err := s.Open(ctx, "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	make := func(name string) string {
		m, err := a.Create(ctx, &v1.CreateMailboxRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return m.Id
	}
	make("shop/books/old")
	make("shop-window")
	gone := make("shop/pencils")
	list := func(req *v1.ListMailboxesRequest) string {
		resp, err := a.List(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range resp.Mailboxes {
			text := m.Name + " " + m.Id
			if m.Container {
				text += " container"
			}
			out = append(out, text)
		}
		return strings.Join(out, ", ")
	}
	removed, err := a.List(ctx, &v1.ListMailboxesRequest{Name: "shop/books"})
	if err != nil || len(removed.Mailboxes) != 1 {
		t.Fatal(removed, err)
	}
	// A name that had a mailbox and now only has one below it.
	for _, id := range []string{gone, removed.Mailboxes[0].Id} {
		if _, err := a.Delete(ctx, &v1.DeleteMailboxRequest{Id: id}); err != nil {
			t.Fatal(err)
		}
	}
	all := list(&v1.ListMailboxesRequest{})
	if !strings.Contains(all, "shop/books  container") {
		t.Fatal(all)
	}
	for one := range strings.SplitSeq(all, ", ") {
		name, id, _ := strings.Cut(one, " ")
		id = strings.TrimSuffix(id, " container")
		if got := list(&v1.ListMailboxesRequest{Name: name}); got != one {
			t.Errorf("by name: %q, in the list: %q", got, one)
		}
		if id == "" {
			continue
		}
		if got := list(&v1.ListMailboxesRequest{Id: id}); got != one {
			t.Errorf("by id: %q, in the list: %q", got, one)
		}
		if got := list(&v1.ListMailboxesRequest{Id: id, Name: "another"}); got != "" {
			t.Errorf("by an id and the name of none: %q", got)
		}
	}
	for _, req := range []*v1.ListMailboxesRequest{{Id: gone}, {Id: "F0"}, {Id: "no id"}, {Name: "shop/pencils"}, {Name: "sho"}} {
		if got := list(req); got != "" {
			t.Errorf("%v gives %q", req, got)
		}
	}
}
