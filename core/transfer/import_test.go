package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// account keeps mail in memory, and fails as it is told.
type account struct {
	storage.Account // what is not asked
	boxes           []*v1.Mailbox
	mail            map[string][]kept
	answers         map[string]*v1.AppendResponse
	// fault is asked before each Append what becomes of it.
	fault func(n int, req *v1.AppendRequest) fault
	calls int
}

type kept struct {
	uid   uint32
	text  string
	flags []string
	date  int64
}

type fault int

const (
	none    fault = iota
	refused       // nothing is stored, the caller is told so
	lost          // nothing is stored, and nobody knows
	late          // it is stored, and nobody knows
)

func newAccount() *account {
	a := &account{mail: map[string][]kept{}, answers: map[string]*v1.AppendResponse{}, fault: func(int, *v1.AppendRequest) fault { return none }}
	a.boxes = append(a.boxes, &v1.Mailbox{Id: "F1", Name: inbox, Role: "inbox", UidValidity: 7, UidNext: 1}, &v1.Mailbox{Id: "F2", Name: "Gesendet", Role: "sent", UidValidity: 7, UidNext: 1})
	return a
}

func (a *account) List(_ context.Context, req *v1.ListMailboxesRequest) (*v1.ListMailboxesResponse, error) {
	r := &v1.ListMailboxesResponse{}
	for _, b := range a.boxes {
		if req.GetName() == "" || req.GetName() == b.GetName() {
			r.Mailboxes = append(r.Mailboxes, b)
		}
	}
	return r, nil
}

func (a *account) Create(_ context.Context, req *v1.CreateMailboxRequest) (*v1.Mailbox, error) {
	b := &v1.Mailbox{Id: fmt.Sprint("F", len(a.boxes)+1), Name: req.GetName(), Role: req.GetRole(), Subscribed: !req.GetUnsubscribed(), UidNext: 1}
	a.boxes = append(a.boxes, b)
	return b, nil
}

func (a *account) Update(_ context.Context, req *v1.UpdateMailboxRequest) (*v1.Mailbox, error) {
	for _, b := range a.boxes {
		if b.GetId() == req.GetId() {
			b.Subscribed = req.GetSubscribed()
			return b, nil
		}
	}
	return nil, fail.New(fail.NotFound, "no mailbox")
}

func (a *account) Snapshot(_ context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	r := &v1.SnapshotResponse{}
	for _, k := range a.mail[req.GetMailboxId()] {
		if k.uid >= req.GetUids()[0].GetFirst() {
			r.Uids, r.Sizes = append(r.Uids, k.uid), append(r.Sizes, int64(len(k.text)))
		}
	}
	return r, nil
}

func (a *account) Fetch(_ context.Context, req *v1.FetchRequest, item func(*v1.FetchResponse_Item) error) error {
	for _, k := range a.mail[req.GetMailboxId()] {
		if k.uid == req.GetUids()[0].GetFirst() {
			return item(&v1.FetchResponse_Item{Uid: k.uid, Message: &v1.MessageRef{Where: &v1.MessageRef_Inline{Inline: []byte(k.text)}}})
		}
	}
	return nil
}

func (a *account) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	key := storageKey(ctx)
	if r := a.answers[key]; r != nil {
		return r, nil
	}
	a.calls++
	f := a.fault(a.calls, req)
	switch f {
	case refused:
		return nil, fail.New(fail.Invalid, "not this one")
	case lost:
		return nil, fail.New(fail.Unavailable, "gone")
	}
	r := &v1.AppendResponse{}
	var box *v1.Mailbox
	for _, b := range a.boxes {
		if b.GetId() == req.GetMailboxId() {
			box = b
		}
	}
	for _, m := range req.GetMessages() {
		text := string(m.GetMessage().GetInline())
		if p := m.GetMessage().GetPath(); p != "" {
			b, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		a.mail[box.GetId()] = append(a.mail[box.GetId()], kept{box.GetUidNext(), text, m.GetFlags(), m.GetReceivedMs()})
		r.Uids = append(r.Uids, box.GetUidNext())
		box.UidNext++
	}
	a.answers[key] = r
	if f == late {
		return nil, fail.New(fail.Unavailable, "gone")
	}
	return r, nil
}

// storageKey is the key that a client would send.
func storageKey(ctx context.Context) string { return storage.RequestKey(ctx) }

func (a *account) texts(box string) (list []string) {
	for _, k := range a.mail[box] {
		list = append(list, k.text)
	}
	return list
}

// maildirOf makes a Maildir of so many mails, every tenth of them large.
func maildirOf(t *testing.T, mails int) (dir string, want []string) {
	t.Helper()
	dir = t.TempDir()
	if err := makeMaildir(dir); err != nil {
		t.Fatal(err)
	}
	for n := range mails {
		text := fmt.Sprintf("Subject: %d\n\nbody\n", n)
		if n%10 == 9 {
			text += strings.Repeat("line\n", 10000)
		}
		path := filepath.Join(dir, "cur", fmt.Sprintf("%d.x:2,S", 1000+n))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want = append(want, strings.ReplaceAll(text, "\n", "\r\n"))
	}
	return dir, want
}

func runImport(t *testing.T, ctx context.Context, a *account, dir, ledger string, change func(*Import)) (*Report, error) {
	t.Helper()
	l, err := OpenLedger(ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	src, err := OpenMaildir(dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	im := &Import{Account: a, Ledger: l}
	if change != nil {
		change(im)
	}
	return im.Run(ctx, src)
}

// TestNothingComesTwice: whatever fails in the middle, and whatever became of the call
// that failed, repeated runs bring each mail once, in its order.
func TestNothingComesTwice(t *testing.T) {
	dir, want := maildirOf(t, 150)
	for _, f := range []fault{lost, late} {
		for at := 1; at < 30; at += 7 {
			a := newAccount()
			a.fault = func(n int, _ *v1.AppendRequest) fault {
				if n == at {
					return f
				}
				return none
			}
			ledger := filepath.Join(t.TempDir(), "ledger")
			_, err := runImport(t, t.Context(), a, dir, ledger, nil)
			if a.calls >= at && !fail.Is(err, fail.Unavailable) {
				t.Fatalf("fault %d at call %d: %v", f, at, err)
			}
			if f == late && at%2 == 1 {
				clear(a.answers) // the keys are kept an hour
			}
			r, err := runImport(t, t.Context(), a, dir, ledger, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.texts("F1"); !slices.Equal(got, want) {
				t.Fatalf("fault %d at call %d: %d mails, want %d", f, at, len(got), len(want))
			}
			if sum := r.Sum(); sum.Messages != 150 || sum.Carried+sum.Before != 150 {
				t.Fatalf("fault %d at call %d: %+v", f, at, sum)
			}
		}
	}
}

// TestATornLedgerIsCutOff: a ledger that ends anywhere brings no mail twice.
func TestATornLedgerIsCutOff(t *testing.T) {
	dir, want := maildirOf(t, 20)
	ledger := filepath.Join(t.TempDir(), "ledger")
	a := newAccount()
	if _, err := runImport(t, t.Context(), a, dir, ledger, nil); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndex(string(whole[:len(whole)-1]), "\n") + 1
	for end := last; end < len(whole); end += 40 {
		if err := os.WriteFile(ledger, append(whole[:end:end], "\x00\x00"...), 0o600); err != nil {
			t.Fatal(err)
		}
		clear(a.answers)
		if _, err := runImport(t, t.Context(), a, dir, ledger, nil); err != nil {
			t.Fatal(err)
		}
		if got := a.texts("F1"); !slices.Equal(got, want) {
			t.Fatalf("cut at %d: %d mails, want %d", end, len(got), len(want))
		}
	}
}

// TestOneBadMailIsLeftOut: the others of its batch are stored, and the table says which
// it was and why.
func TestOneBadMailIsLeftOut(t *testing.T) {
	dir, want := maildirOf(t, 9)
	a := newAccount()
	a.fault = func(_ int, req *v1.AppendRequest) fault {
		for _, m := range req.GetMessages() {
			if strings.Contains(string(m.GetMessage().GetInline()), "Subject: 4") {
				return refused
			}
		}
		return none
	}
	ledger := filepath.Join(t.TempDir(), "ledger")
	r, err := runImport(t, t.Context(), a, dir, ledger, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.texts("F1"); !slices.Equal(got, slices.Delete(slices.Clone(want), 4, 5)) {
		t.Errorf("%q", got)
	}
	if len(r.Left) != 1 || r.Left[0].Message != "1004.x" || !strings.Contains(r.Left[0].Why, "not this one") || r.Sum().LeftOut != 1 {
		t.Errorf("%+v", r)
	}
}

// TestStopEndsBetweenBatches: what has begun is finished, nothing more is begun, and
// the next run does the rest.
func TestStopEndsBetweenBatches(t *testing.T) {
	dir, want := maildirOf(t, 40)
	a := newAccount()
	ctx, cancel := context.WithCancel(t.Context())
	a.fault = func(n int, _ *v1.AppendRequest) fault {
		if n == 2 {
			cancel()
		}
		return none
	}
	ledger := filepath.Join(t.TempDir(), "ledger")
	_, err := runImport(t, ctx, a, dir, ledger, nil)
	if !errors.Is(err, context.Canceled) || a.calls != 2 {
		t.Fatalf("%v after %d calls", err, a.calls)
	}
	if _, err := runImport(t, t.Context(), a, dir, ledger, nil); err != nil {
		t.Fatal(err)
	}
	if got := a.texts("F1"); !slices.Equal(got, want) {
		t.Errorf("%d mails, want %d", len(got), len(want))
	}
}

// TestWhereMailboxesGo: by role, by name, by --map, by --prefix.
func TestWhereMailboxesGo(t *testing.T) {
	im := &Import{boxes: newAccount().boxes, Map: map[string]string{"Alt": "Neu"}}
	for _, x := range []struct{ from, role, to string }{
		{"INBOX", "inbox", "INBOX"}, {"Sent Items", "sent", "Gesendet"}, {"Letters/Tom", "", "Letters/Tom"}, {"Alt", "sent", "Neu"},
	} {
		if to := im.goesTo(Mailbox{Name: x.from, Role: x.role}); to != x.to {
			t.Errorf("%s goes to %s, want %s", x.from, to, x.to)
		}
	}
	im.Prefix = "Old"
	if to := im.goesTo(Mailbox{Name: "Sent Items", Role: "sent"}); to != "Old/Sent Items" {
		t.Error(to)
	}
}

// TestFlagsAndDates: flags, keywords of the folder's list and the file's time come
// along, and what cannot be a keyword is told.
func TestFlagsAndDates(t *testing.T) {
	dir := t.TempDir()
	if err := makeMaildir(dir); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(keywordsFile, "0 $Forwarded\n1 no{atom\n")
	write("cur/1.x:2,FSab", "Subject: x\n\nbody\n")
	at := time.UnixMilli(1700000000123)
	if err := os.Chtimes(filepath.Join(dir, "cur/1.x:2,FSab"), at, at); err != nil {
		t.Fatal(err)
	}
	a := newAccount()
	r, err := runImport(t, t.Context(), a, dir, filepath.Join(t.TempDir(), "ledger"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := a.mail["F1"]
	if len(got) != 1 || got[0].date != at.UnixMilli() || !slices.Equal(got[0].flags, []string{`\Seen`, `\Flagged`, "$Forwarded"}) {
		t.Errorf("%+v", got)
	}
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0].Why, "no{atom") {
		t.Errorf("%+v", r.Notes)
	}
}
