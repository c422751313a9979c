package local

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/local/trigram"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

var indexWords = strings.Fields("stage coach Straße ÉTÉ zanzibar летo 日本語 aaa aab bbb Meg Tom sleepless =?x? =3D quoted -- from: subject: é ß ſ K")

// indexMessage is a mail in one of the forms in which a text may come.
func indexMessage(rng *rand.Rand, n int) string {
	words := func(most int) string {
		var w []string
		for range 1 + rng.IntN(most) {
			w = append(w, indexWords[rng.IntN(len(indexWords))])
		}
		return strings.Join(w, " ")
	}
	head := fmt.Sprintf("From: Tom <tom@hanks.example>\r\nSubject: =?utf-8?B?%s?=\r\nMessage-ID: <i%d@hanks.example>\r\nX-Note: %s\r\n",
		base64.StdEncoding.EncodeToString([]byte(words(3))), n, words(2))
	text := words(20) + "\r\n"
	part := func() string {
		switch rng.IntN(4) {
		case 0:
			return "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(text)) + "\r\n"
		case 1:
			return "Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>=C9t=E9 " + words(5) + "=\r\nzan=\r\nzibar</p>\r\n"
		case 2:
			return "Content-Type: application/octet-stream\r\n\r\n" + text
		}
		return "Content-Type: text/plain; charset=utf-8\r\n\r\n" + text
	}
	switch rng.IntN(4) {
	case 0:
		return head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + part() + "\r\n--b\r\n" + part() + "\r\n--b--\r\n"
	case 1:
		return head + "Content-Type: message/rfc822\r\n\r\nSubject: " + words(3) + "\r\n" + part()
	}
	return head + part()
}

func indexCriterion(rng *rand.Rand, depth int) *v1.Criterion {
	text := indexWords[rng.IntN(len(indexWords))]
	if rng.IntN(2) == 0 {
		text += " " + indexWords[rng.IntN(len(indexWords))]
	}
	if r := []rune(text); rng.IntN(2) == 0 {
		i := rng.IntN(len(r))
		text = string(r[i : i+1+rng.IntN(len(r)-i)])
	}
	if rng.IntN(2) == 0 {
		text = strings.ToUpper(text)
	}
	switch n := rng.IntN(8); {
	case n == 0 && depth < 3:
		return &v1.Criterion{Test: &v1.Criterion_Not{Not: indexCriterion(rng, depth+1)}}
	case n == 1 && depth < 3:
		return &v1.Criterion{Test: &v1.Criterion_AnyOf{AnyOf: &v1.CriterionList{Criteria: []*v1.Criterion{indexCriterion(rng, depth+1), indexCriterion(rng, depth+1)}}}}
	case n == 2 && depth < 3:
		return &v1.Criterion{Test: &v1.Criterion_AllOf{AllOf: &v1.CriterionList{Criteria: []*v1.Criterion{indexCriterion(rng, depth+1), indexCriterion(rng, depth+1)}}}}
	case n == 3:
		return &v1.Criterion{Test: &v1.Criterion_Header{Header: &v1.HeaderTest{Name: []string{"Subject", "X-Note", "From"}[rng.IntN(3)], Value: text}}}
	case n < 6:
		return &v1.Criterion{Test: &v1.Criterion_Body{Body: text}}
	}
	return &v1.Criterion{Test: &v1.Criterion_Text{Text: text}}
}

// indexWorld is a store with mail in two mailboxes, and what is known of it.
type indexWorld struct {
	*testing.T
	s *Store
	a storage.Account
}

func newIndexWorld(t *testing.T, rng *rand.Rand, messages int, opts Options) *indexWorld {
	t.Helper()
	w := &indexWorld{T: t, s: open(t, opts)}
	t.Cleanup(func() { w.s.Close() })
	w.fill(rng, messages)
	return w
}

func (w *indexWorld) fill(rng *rand.Rand, messages int) {
	w.Helper()
	var err error
	if w.a, err = w.s.Open(w.Context(), "meg@ryan.example"); err != nil {
		w.Fatal(err)
	}
	for _, box := range []string{"F1", "F2"} {
		req := &v1.AppendRequest{MailboxId: box}
		for n := range messages / 2 {
			req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: inlineMessage(indexMessage(rng, n))})
		}
		if _, err := w.a.Append(w.Context(), req); err != nil {
			w.Fatal(err)
		}
	}
}

func (w *indexWorld) account() *account { return w.a.(*handle).a }

// missing are the closed blocks of which there is no file.
func (w *indexWorld) missing() int {
	w.Helper()
	v, err := w.a.(*handle).view(w.Context()) // which has the worker look
	if err != nil {
		w.Fatal(err)
	}
	defer v.Close()
	n := 0
	last := ^uint64(0)
	err = scanRange(v, key8(tabRendered, w.account().num), key88(tabRendered, w.account().num, closed(v.rec.message)*trigram.Slots), func(k, _ []byte) error {
		block := be.Uint64(k[9:]) / trigram.Slots
		if block != last {
			last = block
			if _, err := os.Stat(w.s.indexPath(w.account().num, block)); err != nil {
				n++
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func (w *indexWorld) wait(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatal("a minute passed: " + what)
		}
	}
}

func (w *indexWorld) indexed() {
	w.Helper()
	w.wait("the index is not made", func() bool { return w.missing() == 0 })
}

// scan is a search without an index.
func (w *indexWorld) scan(box string, c *v1.Criterion) []uint32 {
	w.Helper()
	m, err := mime.Compile(c)
	if err != nil {
		w.Fatal(err)
	}
	h := w.a.(*handle)
	v, err := h.view(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	defer v.Close()
	num, _, err := h.mailbox(v, box)
	if err != nil {
		w.Fatal(err)
	}
	ms := h.messages(v)
	defer ms.close()
	var out []uint32
	err = eachColumn(v, h.a.num, num, mime.NewRanges(nil), func(uid uint32, col *columns) error {
		ok, err := m.Match(&candidate{m: ms, uid: uid, col: col})
		if ok {
			out = append(out, uid)
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// everyWord searches for all that is in the mail, in both mailboxes.
func (w *indexWorld) everyWord() {
	w.Helper()
	for _, text := range indexWords {
		for _, box := range []string{"F1", "F2"} {
			req := &v1.SearchRequest{MailboxId: box, Criterion: &v1.Criterion{Test: &v1.Criterion_Text{Text: text}}}
			if _, err := w.a.Search(w.Context(), req); err != nil {
				w.Fatal(err)
			}
		}
	}
}

// same holds searches against scans.
func (w *indexWorld) same(rng *rand.Rand, searches int, when string) {
	w.Helper()
	for range searches {
		c, box := indexCriterion(rng, 0), []string{"F1", "F2"}[rng.IntN(2)]
		r, err := w.a.Search(w.Context(), &v1.SearchRequest{MailboxId: box, Criterion: c})
		if err != nil {
			w.Fatal(err)
		}
		if want := w.scan(box, c); !slices.Equal(r.Uids, want) {
			w.Fatalf("%s: the search for %v in %s found %v, looking into each %v", when, c, box, r.Uids, want)
		}
	}
}

// TestIndexChangesNoResult: random searches, others in every run, find what looking into every message
// finds: with the index, after moves and removals, without a part of it, with a
// damaged one, with more mail than it covers, and after a restart.
func TestIndexChangesNoResult(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	w := newIndexWorld(t, rng, 2*trigram.Slots, Options{Dir: dir})
	w.indexed()
	w.same(rng, 6, "with the index")
	if _, err := w.a.Copy(t.Context(), &v1.CopyRequest{MailboxId: "F1", TargetMailboxId: "F2", Move: true, Uids: []*v1.UIDRange{{First: 20, Last: 60}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.a.Expunge(t.Context(), &v1.ExpungeRequest{MailboxId: "F2", Force: true, Uids: []*v1.UIDRange{{First: 5, Last: 25}}}); err != nil {
		t.Fatal(err)
	}
	w.fill(rng, 60)
	w.same(rng, 3, "with moved, removed and newer mail")

	lost := w.s.indexPath(w.account().num, 1)
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}
	w.same(rng, 3, "with a part lost")
	// The last octets of the text's data are all that a torn write leaves out.
	torn := w.s.indexPath(w.account().num, 0)
	data, err := os.ReadFile(torn)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) / 8; i < len(data); i++ {
		data[i] = 0
	}
	if err := os.WriteFile(torn, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.same(rng, 3, "with a part damaged")
	w.everyWord() // of the random searches none may have come by the damage
	w.indexed()

	if err := os.WriteFile(filepath.Join(filepath.Dir(torn), "half.new"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	w.s = open(t, Options{Dir: dir})
	if w.a, err = w.s.Open(t.Context(), "meg@ryan.example"); err != nil {
		t.Fatal(err)
	}
	w.same(rng, 3, "after a restart")
	w.indexed()
	w.same(rng, 3, "made anew")
	if _, err := os.Stat(filepath.Join(filepath.Dir(torn), "half.new")); !os.IsNotExist(err) {
		t.Errorf("what a crash left: %v", err)
	}
}

// TestIndexExcludes: of a text that one message has, the others are not looked into;
// the files stay below their share, and go with their messages.
func TestIndexExcludes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	w := newIndexWorld(t, rng, 0, Options{Dir: t.TempDir()})
	var size int64
	for i := range 2 {
		req := &v1.AppendRequest{MailboxId: "F1"}
		for n := range trigram.Slots {
			text := fmt.Sprintf("Subject: s%d\r\n\r\n%s\r\n", n, strings.Repeat(indexWords[n%10]+" ", 200))
			if i == 0 && n == 99 {
				text += "Find the Needle here\r\n"
			}
			size += int64(len(text))
			req.Messages = append(req.Messages, &v1.AppendRequest_Message{Message: inlineMessage(text)})
		}
		if _, err := w.a.Append(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	w.indexed()
	x := w.s.excluder(w.account())
	last := closed(2*trigram.Slots)*trigram.Slots - 1
	for msg := uint64(1); msg <= last; msg++ {
		if x.excludes(msg, "the needle") == (msg == 100) {
			t.Errorf("message %d: excluded %v", msg, msg != 100)
		}
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(w.s.indexPath(w.account().num, 0)), "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || fi.Size() > max(minBlock, size/2/indexShare) {
			t.Errorf("a file of %d octets for messages of %d, %v", fi.Size(), size/2, err)
		}
	}
	if _, err := w.a.Expunge(t.Context(), &v1.ExpungeRequest{MailboxId: "F1", Force: true}); err != nil {
		t.Fatal(err)
	}
	w.fill(rng, 2*trigram.Slots) // which closes blocks: the worker looks
	w.wait("the files of messages that are gone stay", func() bool {
		w.missing()
		_, err := os.Stat(files[0])
		return os.IsNotExist(err)
	})
}

// TestNoIndex: who wants none has none.
func TestNoIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	dir := t.TempDir()
	w := newIndexWorld(t, rng, trigram.Slots, Options{Dir: dir, NoIndex: true})
	w.same(rng, 5, "without an index")
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "index")); !os.IsNotExist(err) {
		t.Errorf("there is an index: %v", err)
	}
}
