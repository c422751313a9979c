package queue

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// formatPage is docs/formats/queue.md.
func formatPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/formats/queue.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// keySpaces are the constants of key.go that name a key space.
func keySpaces(t *testing.T) map[string]string {
	t.Helper()
	fs := token.NewFileSet()
	f, err := parser.ParseFile(fs, "key.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}}
	// The rest of the package is not loaded: what key.go lacks is no matter here.
	conf := types.Config{Importer: importer.Default(), Error: func(error) {}}
	_, _ = conf.Check("queue", fs, []*ast.File{f}, info)
	out := map[string]string{}
	for name, o := range info.Defs {
		c, ok := o.(*types.Const)
		if !ok || !strings.HasPrefix(name.Name, "key") {
			continue
		}
		n, ok := constant.Int64Val(constant.ToInt(c.Val()))
		if !ok {
			t.Fatalf("%s is %v", name.Name, c.Val())
		}
		out[string(rune(n))] = name.Name
	}
	return out
}

// TestTheFormatIsDocumented: the page names the version, every key space and
// record about the queue as a whole, and none that is not there.
func TestTheFormatIsDocumented(t *testing.T) {
	page := formatPage(t)
	version := regexp.MustCompile(`(?m)^Format version: (\d+)$`).FindStringSubmatch(page)
	if version == nil || version[1] != strconv.Itoa(formatVersion) {
		t.Errorf("docs/formats/queue.md is of format %q, the code of %d", version, formatVersion)
	}
	if !strings.Contains(page, "\n| "+strconv.Itoa(formatVersion)+" | ") {
		t.Errorf("its table of versions does not tell of %d", formatVersion)
	}
	_, keys, _ := strings.Cut(page, "## Keys\n")
	keys, _, _ = strings.Cut(keys, "\n### ")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(keys, -1) {
		documented[row[1]] = true
	}
	spaces := keySpaces(t)
	if len(spaces) < 8 {
		t.Fatalf("key.go has only the key spaces %v", spaces)
	}
	want := map[string]string{string(metaFormat): "metaFormat", string(metaEpoch): "metaEpoch", string(metaCounts): "metaCounts"}
	for prefix, name := range spaces {
		if prefix != string(rune(keyMeta)) { // its records are told one by one
			want[prefix] = name
		}
	}
	for prefix, name := range want {
		if !documented[prefix] {
			t.Errorf("docs/formats/queue.md does not tell of keys with %q (%s)", prefix, name)
		}
		delete(documented, prefix)
	}
	for prefix := range documented {
		t.Errorf("docs/formats/queue.md tells of keys with %q, which are not there", prefix)
	}
}

// TestRecordsStayAsTheyAre compares records octet by octet with those that were
// written when the format got its number: a change of the layout needs a new one.
func TestRecordsStayAsTheyAre(t *testing.T) {
	at := start.Add(123456789 * time.Nanosecond)
	env := &Envelope{
		Received: at, Sender: "tom@hanks.example", Origin: "receive.smtp.mx", Size: 2048, MessageID: "<1@hanks.example>",
		From: "Tom", Subject: "hello", Priority: -2, NotBefore: at.Add(time.Hour), Hops: 3,
		Parameters: &v1.MailParameters{EnvelopeId: "QQ"}, Client: &v1.Client{Ip: "192.0.2.1"},
		Hints: &v1.RouteHints{NextHop: "mx.ryan.example:25"}, Tags: map[string]*v1.Tag{"spam": {Value: &v1.Tag_Flag{Flag: true}}},
		Recipients: []*Recipient{{
			Index: 1, Parent: -1, Address: "meg@ryan.example", Original: "rfc822;meg@ryan.example", Notify: []string{"FAILURE"},
			Account: "meg", Detail: "books", State: Held, Attempts: 2, Next: at, Route: "out", Deliver: "deliver.smtp.internet",
			Reason: "asked", DelayNotified: true, Lane: "deliver.smtp.internet ryan.example", Recheck: at,
			Last: &Attempt{At: at, Code: 451, Enhanced: "4.7.1", Text: "later", RemoteMTA: "mx.ryan.example", TLS: "TLS1.3"},
		}},
	}
	changes := []Change{{
		Index: 1, State: Waiting, Next: at, Lane: "l", Recheck: at, Attempt: &Attempt{At: at, Code: 421}, Route: "r", Deliver: "d",
		Reason: "w", Account: "a", Detail: "b", Notified: true, operator: true, Add: []*Recipient{{Index: 2, Address: "kathleen@ryan.example"}},
	}}
	rec, err := encodeEnvelope(messageKey(7), env, bodyPlace{true, true, 0x01020304})
	if err != nil {
		t.Fatal(err)
	}
	page := fmt.Sprintf("message %x\njournal %x\ncounts %x\n", rec, encodeJournal(journalKey(7, 5), changes), counts{1, 2, 3, 4, 5}.record())
	path := fmt.Sprintf("testdata/records-%d.txt", formatVersion)
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || page != string(want) {
		t.Fatalf("%v: records are\n%s, in %s they were\n%s", err, page, path, want)
	}
	got, file, err := decodeEnvelope(messageKey(7), rec)
	if err != nil || file != (bodyPlace{true, true, 0x01020304}) || fmt.Sprint(got) == "" || got.Recipients[0].Last.Text != "later" || !got.Recipients[0].Recheck.Equal(at) {
		t.Errorf("read back: %+v %v", got, err)
	}
}
