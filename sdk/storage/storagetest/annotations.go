package storagetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// annotate sets values by name; "-" removes one.
func (a *account) annotate(box string, pairs ...string) (*v1.SetAnnotationsResponse, error) {
	req := &v1.SetAnnotationsRequest{MailboxId: box}
	for i := 0; i < len(pairs); i += 2 {
		x := &v1.Annotation{Name: pairs[i], Value: []byte(pairs[i+1])}
		if pairs[i+1] == "-" {
			x.Value, x.Removed = nil, true
		}
		req.Annotations = append(req.Annotations, x)
	}
	return storage.SetAnnotations(a.f.Context(), a.Account, req)
}

func (a *account) annotated(box string, pairs ...string) uint64 {
	a.f.Helper()
	resp, err := a.annotate(box, pairs...)
	a.f.must(err, "SetAnnotations")
	return resp.GetModseq()
}

// annotations are what an answer has, "name=value" or "name(size)".
func (a *account) annotations(req *v1.AnnotationsRequest) string {
	a.f.Helper()
	resp, err := storage.Annotations(a.f.Context(), a.Account, req)
	a.f.must(err, "Annotations")
	var out []string
	for _, x := range resp.GetAnnotations() {
		switch {
		case req.GetSinceModseq() > 0:
			out = append(out, fmt.Sprintf("%s:%s:%v", x.GetMailboxId(), x.GetName(), x.GetRemoved()))
		case int64(len(x.GetValue())) == x.GetSize():
			out = append(out, fmt.Sprintf("%s=%s", x.GetName(), x.GetValue()))
		default:
			out = append(out, fmt.Sprintf("%s(%d)", x.GetName(), x.GetSize()))
		}
	}
	if req.GetSinceModseq() > 0 {
		slices.Sort(out)
	}
	return strings.Join(out, " ")
}

// annotates opens Meg's account, or ends the case: the storage keeps none.
func annotates(f *fixture) (*account, bool) {
	f.Helper()
	a := f.open(meg)
	if _, err := storage.Annotations(f.Context(), a.Account, &v1.AnnotationsRequest{}); fail.Is(err, fail.Unsupported) {
		_, err = a.annotate("", "/shared/x", "y")
		f.kind(err, fail.Unsupported, "SetAnnotations where Annotations is UNSUPPORTED")
		f.ignores("StorageCall.annotations")
		return nil, false
	}
	return a, true
}

func annotationValues(f *fixture) {
	a, ok := annotates(f)
	if !ok {
		return
	}
	in := a.box("INBOX").GetId()
	equal(f, "annotations at first", a.annotations(&v1.AnnotationsRequest{MailboxId: in}), "")
	a.annotated(in, "/Shared/Comment", "Hello", "/private/vendor/hanks/a", "1", "/private/vendor/hanks/a/b", "2\x00\xff", "/private/vendor/hanksx", "3", "/private/empty", "")
	a.annotated("", "/shared/comment", "the account's")
	before := a.box("INBOX").GetHighestModseq()
	f.reopen()
	a = f.open(meg)
	equal(f, "all annotations of INBOX", a.annotations(&v1.AnnotationsRequest{MailboxId: in}),
		"/private/empty= /private/vendor/hanks/a=1 /private/vendor/hanks/a/b=2\x00\xff /private/vendor/hanksx=3 /shared/comment=Hello")
	equal(f, "the account's own", a.annotations(&v1.AnnotationsRequest{}), "/shared/comment=the account's")
	equal(f, "some by name, in any case", a.annotations(&v1.AnnotationsRequest{MailboxId: in, Names: []string{"/SHARED/comment", "/private/nothing"}}), "/shared/comment=Hello")
	equal(f, "what lies below a name", a.annotations(&v1.AnnotationsRequest{MailboxId: in, Names: []string{"/private/vendor/hanks"}, Below: true}),
		"/private/vendor/hanks/a=1 /private/vendor/hanks/a/b=2\x00\xff")
	equal(f, "what lies below /shared", a.annotations(&v1.AnnotationsRequest{MailboxId: in, Names: []string{"/shared"}, Below: true}), "/shared/comment=Hello")
	equal(f, "values that are too large for the request", a.annotations(&v1.AnnotationsRequest{MailboxId: in, MaxBytes: 3}),
		"/private/empty= /private/vendor/hanks/a=1 /private/vendor/hanks/a/b=2\x00\xff /private/vendor/hanksx=3 /shared/comment(5)")
	a.annotated(in, "/shared/comment", "Bye", "/private/empty", "-", "/private/nothing", "-")
	equal(f, "after a change and a removal", a.annotations(&v1.AnnotationsRequest{MailboxId: in, Names: []string{"/shared/comment", "/private/empty"}}), "/shared/comment=Bye")
	equal(f, "highest_modseq of the mailbox after it", a.box("INBOX").GetHighestModseq(), before)
	equal(f, "another account's", f.open(tom).annotations(&v1.AnnotationsRequest{}), "")
}

func annotationRefusals(f *fixture) {
	a, ok := annotates(f)
	if !ok {
		return
	}
	in := a.box("INBOX").GetId()
	for _, name := range []string{
		"", "/", "comment", "/shared", "/private/", "/shared//x", "/shared/x/", "/other/x", "/shared/a*", "/shared/a%", "/shared/a b", "/shared/\u00e9", "/shared/a\n",
		"/shared/" + strings.Repeat("x", 600),
	} {
		_, err := a.annotate(in, "/private/good", "x", name, "y")
		f.kind(err, fail.Invalid, fmt.Sprintf("SetAnnotations of %.20q", name))
	}
	_, err := a.annotate(in, "/shared/x", "1", "/SHARED/X", "2")
	f.kind(err, fail.Invalid, "SetAnnotations of one name twice")
	_, err = a.annotate(in, "/private/good", "x", "/shared/large", strings.Repeat("x", storage.MaxAnnotation+1))
	f.kind(err, fail.TooLarge, "SetAnnotations of a value that is too large")
	_, err = a.annotate("nonsense", "/shared/x", "1")
	f.kind(err, fail.NotFound, "SetAnnotations of a mailbox that is not there")
	_, err = storage.Annotations(f.Context(), a.Account, &v1.AnnotationsRequest{MailboxId: "nonsense"})
	f.kind(err, fail.NotFound, "Annotations of a mailbox that is not there")
	_, err = storage.Annotations(f.Context(), a.Account, &v1.AnnotationsRequest{MailboxId: in, Names: []string{"comment"}})
	f.kind(err, fail.Invalid, "Annotations of a wrong name")
	equal(f, "annotations after refusals", a.annotations(&v1.AnnotationsRequest{MailboxId: in}), "")

	set := func(most int32, names ...string) error {
		req := &v1.SetAnnotationsRequest{MailboxId: in, MaxAnnotations: most}
		for _, n := range names {
			n, removed := strings.CutPrefix(n, "-")
			req.Annotations = append(req.Annotations, &v1.Annotation{Name: "/shared/" + n, Value: []byte("x"), Removed: removed})
		}
		_, err := storage.SetAnnotations(f.Context(), a.Account, req)
		return err
	}
	f.must(set(3, "a", "b"), "SetAnnotations within the limit")
	f.kind(set(3, "c", "d"), fail.OverQuota, "SetAnnotations over the limit")
	f.must(set(3, "a", "b", "c"), "SetAnnotations of some that are there")
	f.must(set(3, "-a", "d"), "SetAnnotations of one for another")
	f.must(set(2, "d"), "SetAnnotations that adds none, where there are more than now allowed")
	equal(f, "annotations in the end", a.annotations(&v1.AnnotationsRequest{MailboxId: in}), "/shared/b=x /shared/c=x /shared/d=x")
}

func annotationsGoAlong(f *fixture) {
	a, ok := annotates(f)
	if !ok {
		return
	}
	top, child := a.create("Film").GetId(), a.create("Film/Noir").GetId()
	a.annotated(top, "/shared/comment", "top")
	a.annotated(child, "/shared/comment", "child")
	war := a.create("War").GetId()
	a.annotated(war, "/shared/comment", "war")
	a.annotated(a.box("INBOX").GetId(), "/shared/comment", "in")
	rename := func(id, name string) {
		f.Helper()
		_, err := a.Rename(f.Context(), &v1.RenameMailboxRequest{Id: id, Name: name})
		f.must(err, "Rename")
	}
	rename(top, "Movies")
	rename(a.box("INBOX").GetId(), "Old")
	f.reopen()
	a = f.open(meg)
	of := func(name string) string {
		f.Helper()
		return a.annotations(&v1.AnnotationsRequest{MailboxId: a.box(name).GetId()})
	}
	equal(f, "annotations of the child after the rename", a.annotations(&v1.AnnotationsRequest{MailboxId: child}), "/shared/comment=child")
	for name, want := range map[string]string{"Movies": "/shared/comment=top", "INBOX": "/shared/comment=in", "Old": ""} {
		equal(f, "annotations of "+name+" after the rename", of(name), want)
	}
	_, err := a.Delete(f.Context(), &v1.DeleteMailboxRequest{Id: war})
	f.must(err, "Delete")
	_, err = storage.Annotations(f.Context(), a.Account, &v1.AnnotationsRequest{MailboxId: war})
	f.kind(err, fail.NotFound, "Annotations of a mailbox that was deleted")
	a.create("War")
	f.reopen()
	a = f.open(meg)
	equal(f, "annotations of a new mailbox of that name", of("War"), "")
}

func annotationChanges(f *fixture) {
	a, ok := annotates(f)
	if !ok {
		return
	}
	in := a.box("INBOX").GetId()
	drafts := a.box("Drafts").GetId()
	first := a.annotated(in, "/shared/a", "1", "/shared/b", "1")
	var events watched
	stop := events.start(f, a)
	defer stop()
	second := a.annotated(drafts, "/shared/c", "1")
	if second <= first {
		f.Errorf("SetAnnotations has MODSEQ %d after %d: each change has a greater one", second, first)
	}
	events.wait(f, second, drafts)
	third := a.annotated(in, "/shared/a", "2", "/shared/b", "-")
	events.wait(f, third, in)
	own := a.annotated("", "/private/d", "1")
	events.wait(f, own, "")
	equal(f, "MODSEQ after a removal of nothing", a.annotated(in, "/shared/b", "-", "/shared/never", "-"), own)
	stop()
	since := func(modseq uint64) string { return a.annotations(&v1.AnnotationsRequest{SinceModseq: modseq}) }
	f.reopen()
	a = f.open(meg)
	sorted := func(list ...string) string { slices.Sort(list); return strings.Join(list, " ") }
	equal(f, "changes after the first", since(first), sorted(":/private/d:false", drafts+":/shared/c:false", in+":/shared/a:false", in+":/shared/b:true"))
	equal(f, "changes after the second", since(second), sorted(":/private/d:false", in+":/shared/a:false", in+":/shared/b:true"))
	equal(f, "changes after the last", since(own), "")
	for i := range 90 {
		a.annotated(in, fmt.Sprintf("/shared/many/%d", i), "x")
		a.annotated(in, fmt.Sprintf("/shared/many/%d", i), "-")
	}
	if got := strings.Count(since(own), ":true"); got != 90 {
		f.Errorf("of 90 removals %d are known", got)
	}
}

// watched gathers the events of an account.
type watched struct{ events chan *v1.ChangeEvent }

func (w *watched) start(f *fixture, a *account) (stop func()) {
	f.Helper()
	w.events = make(chan *v1.ChangeEvent, 1000)
	ctx, cancel := context.WithCancel(f.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Watch(ctx, &v1.WatchRequest{}, func(e *v1.ChangeEvent) error {
			w.events <- &v1.ChangeEvent{Modseq: e.GetModseq(), Mailboxes: e.GetMailboxes(), MailboxIds: slices.Clone(e.GetMailboxIds())}
			return nil
		})
	}()
	select {
	case <-w.events:
	case <-time.After(20 * time.Second):
		f.Fatalf("Watch has no first event")
	}
	return func() {
		cancel()
		<-done
	}
}

// wait for the event of a change, which names the mailbox.
func (w *watched) wait(f *fixture, modseq uint64, mailbox string) {
	f.Helper()
	named := mailbox == ""
	limit := time.After(20 * time.Second)
	for {
		select {
		case e := <-w.events:
			named = named || slices.Contains(e.GetMailboxIds(), mailbox)
			if e.GetModseq() >= modseq {
				if !named {
					f.Errorf("the event with MODSEQ %d names the mailboxes %q, not %q", e.GetModseq(), e.GetMailboxIds(), mailbox)
				}
				return
			}
		case <-limit:
			f.Fatalf("Watch does not tell of MODSEQ %d", modseq)
		}
	}
}
