package maildir

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk/maildir"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

const crashDir = "STAGECOACH_MAILDIR_CRASH_DIR"

// TestMain is also the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := deliverForEver(dir, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

var crashAccounts = []string{"meg@ryan.example", "tom@hanks.example"}

func crashText(id string) string {
	return "Subject: " + id + "\r\n\r\n" + strings.Repeat(id+"\r\n", 200)
}

func crashRequest(id string) *v1.DepositRequest {
	text := []byte(crashText(id))
	return &v1.DepositRequest{
		QueueId: id, Message: &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: text}},
		Targets: []*v1.DepositRequest_Target{
			{Key: 0, Account: crashAccounts[0]}, {Key: 1, Account: crashAccounts[1], Mailbox: "Lists/Bücher"},
		},
	}
}

// deliverForEver deposits, sets a flag, and says before and after what it does.
func deliverForEver(dir, round string) error {
	s, err := New(Options{Dir: dir})
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		id := fmt.Sprintf("q%s-%d", round, n)
		fmt.Println("begun", id)
		resp, err := s.Deposit(context.Background(), crashRequest(id))
		if err != nil {
			return err
		}
		for i, r := range resp.Results {
			if r.Problem != nil {
				return fmt.Errorf("%v", r.Problem)
			}
			fmt.Println("done", id, i, r.MailboxId, r.Uid)
		}
		a, err := s.Open(context.Background(), crashAccounts[0])
		if err != nil {
			return err
		}
		if _, err := a.SetFlags(context.Background(), &v1.SetFlagsRequest{
			MailboxId: resp.Results[0].MailboxId, Op: v1.SetFlagsRequest_ADD, Flags: []string{`\Flagged`},
			Uids: []*v1.UIDRange{{First: resp.Results[0].Uid, Last: resp.Results[0].Uid}},
		}); err != nil {
			return err
		}
		fmt.Println("flagged", id)
	}
}

// TestKill kills the process at any moment, several times over. What was
// acknowledged is there under its UID, and what the queue repeats is there once.
func TestKill(t *testing.T) {
	dir, seed := t.TempDir(), rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	begun, done, flagged := []string{}, map[string]string{}, map[string]bool{}
	for round := range 6 {
		kill := exec.Command(os.Args[0], fmt.Sprint(round))
		kill.Env = append(os.Environ(), crashDir+"="+dir)
		kill.Stderr = os.Stderr
		out, err := kill.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := kill.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for left := 20 + rng.IntN(60); lines.Scan(); left-- {
			f := strings.Fields(lines.Text())
			switch f[0] {
			case "begun":
				begun = append(begun, f[1])
			case "done":
				done[f[1]+"/"+f[2]] = f[3] + " " + f[4]
			case "flagged":
				flagged[f[1]] = true
			}
			if left == 0 {
				if err := kill.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = kill.Wait()
		s := open(t, dir)
		checkKilled(t, s, begun, done, flagged)
		s.Close()
		if t.Failed() {
			t.Fatalf("after kill %d", round)
		}
	}
	t.Logf("%d deposits begun, %d results acknowledged", len(begun), len(done))
}

func checkKilled(t *testing.T, s *Store, begun []string, done map[string]string, flagged map[string]bool) {
	t.Helper()
	for _, id := range begun { // as the queue does with what it has no answer for
		resp, err := s.Deposit(t.Context(), crashRequest(id))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range resp.Results {
			key, now := fmt.Sprintf("%s/%d", id, i), fmt.Sprintf("%s %d", r.MailboxId, r.Uid)
			if was := done[key]; r.Problem != nil || was != "" && was != now {
				t.Errorf("deposit %s was %q and is %q now: %v", key, was, now, r.Problem)
			}
			done[key] = now
		}
	}
	for i, account := range crashAccounts {
		a, err := s.Open(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		box := "INBOX"
		if i == 1 {
			box = "Lists/Bücher"
		}
		var got []string
		for uid, text := range texts(t, a, box) {
			id := strings.TrimPrefix(strings.SplitN(text[strings.Index(text, "Subject: "):], "\r\n", 2)[0], "Subject: ")
			if !strings.HasSuffix(text, crashText(id)) {
				t.Errorf("message %d is torn", uid)
			}
			if _, was, _ := strings.Cut(done[fmt.Sprintf("%s/%d", id, i)], " "); was != fmt.Sprint(uid) {
				t.Errorf("%s has UID %d, it was acknowledged with %q", id, uid, was)
			}
			got = append(got, id)
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(begun))
		if !slices.Equal(got, want) {
			t.Errorf("%s holds %d mails, want %d, each once", account, len(got), len(want))
		}
		if i > 0 {
			continue
		}
		snap, err := a.Snapshot(t.Context(), &v1.SnapshotRequest{MailboxId: "F1"})
		if err != nil {
			t.Fatal(err)
		}
		marked := 0
		for _, f := range snap.Flags {
			if f&uint32(v1.Flag_FLAG_FLAGGED) != 0 {
				marked++
			}
		}
		if marked < len(flagged) {
			t.Errorf("%d flags are set, %d were acknowledged", marked, len(flagged))
		}
	}
}

// texts of a mailbox by UID.
func texts(t *testing.T, a storage.Account, name string) map[uint32]string {
	t.Helper()
	list, err := a.List(t.Context(), &v1.ListMailboxesRequest{Name: name})
	if err != nil || len(list.Mailboxes) != 1 {
		t.Fatalf("mailbox %q: %v %v", name, list, err)
	}
	out := map[uint32]string{}
	err = a.Fetch(t.Context(), &v1.FetchRequest{MailboxId: list.Mailboxes[0].Id, Message: true}, func(i *v1.FetchResponse_Item) error {
		text := string(i.Message.GetInline())
		if path := i.Message.GetPath(); path != "" {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(b)
		}
		out[i.Uid] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTornLog cuts the log at every octet of its last records: each is as after
// a power cut in the middle of writing, and the queue's repeats mend it.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	log := filepath.Join(dir, crashAccounts[0], logName)
	var begun []string
	var from int64
	for n := range 4 {
		id := fmt.Sprintf("q-%d", n)
		begun = append(begun, id)
		if _, err := s.Deposit(t.Context(), crashRequest(id)); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			from = size(t, log)
		}
	}
	s.Close()
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for cut := from; cut <= int64(len(whole)); cut += 7 {
		if err := os.WriteFile(log, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		done := map[string]string{"q-0/0": "F1 1", "q-1/0": "F1 2"}
		checkKilled(t, s, begun, done, nil)
		s.Close()
		if t.Failed() {
			t.Fatalf("cut at %d of %d", cut, len(whole))
		}
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// TestDamagedRecordIsSetAside: a bad octet in the middle costs no more than the
// UIDs of that record.
func TestDamagedRecordIsSetAside(t *testing.T) {
	dir := t.TempDir()
	var said bytes.Buffer
	s, err := New(Options{Dir: dir, Log: zerolog.New(&said)})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, crashAccounts[0], logName)
	var ends []int64
	for n := range 3 {
		if _, err := s.Deposit(t.Context(), crashRequest(fmt.Sprintf("q-%d", n))); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, size(t, log))
	}
	s.Close()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	b[(ends[0]+ends[1])/2] ^= 1
	if err := os.WriteFile(log, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = New(Options{Dir: dir, Log: zerolog.New(&said)}); err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	check := func() {
		t.Helper()
		for id, want := range map[string]uint32{"q-0": 1, "q-1": 4, "q-2": 3} {
			resp, err := s.Deposit(t.Context(), crashRequest(id))
			if err != nil || resp.Results[0].Uid != want {
				t.Errorf("%s: %v %v, want UID %d", id, resp, err, want)
			}
		}
	}
	check()
	if !strings.Contains(said.String(), "damaged") || !strings.Contains(said.String(), crashAccounts[0]) {
		t.Errorf("nobody is told: %s", said.String())
	}
	if kept, err := os.ReadFile(log + ".damaged"); err != nil || !bytes.Equal(kept, b) {
		t.Errorf("the damaged log is not kept as it was: %v", err)
	}
	s.Close()
	said.Reset()
	if s, err = New(Options{Dir: dir, Log: zerolog.New(&said)}); err != nil {
		t.Fatal(err)
	}
	check()
	if said.Len() > 0 {
		t.Errorf("the log is still damaged: %s", said.String())
	}
}

func TestFolderNames(t *testing.T) {
	for name, dir := range map[string]string{
		"INBOX": "", "Letters/Tom": ".Letters.Tom", "Entwürfe": ".Entw&APw-rfe", "R&D": ".R&-D",
		"~peter/mail/台北/日本語": ".%7Epeter.mail.&U,BTFw-.&ZeVnLIqe-", // the example of RFC 3501 section 5.1.3
		"v1.0/100%":          ".v1%2E0.100%25", "😀": ".&2D3eAA-", "a😀&b": ".a&2D3eAA-&-b",
	} {
		if got := maildir.Folder(name); got != dir {
			t.Errorf("%q is the folder %q, want %q", name, got, dir)
		}
		if dir == "" {
			continue
		}
		if got, ok := nameOf(dir); !ok || got != name {
			t.Errorf("the folder %q is %q %v, want %q", dir, got, ok, name)
		}
	}
	for _, dir := range []string{".a&", ".a&-&", ".&AGE-", ".&====-", ".&A-", ".Entwürfe", ".&2D0-", ".%2", ".a..b"} {
		if name, ok := nameOf(dir); ok {
			t.Errorf("the folder %q is taken for %q", dir, name)
		}
	}
}
