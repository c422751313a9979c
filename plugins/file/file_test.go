package file

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/xdg-go/scram"
	"golang.org/x/crypto/bcrypt"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "people.hcl")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *Directory {
	t.Helper()
	d, err := Open(path, "+", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const people1 = `
domain "ryan.example" { catch_all = "meg@ryan.example" }
user "meg@ryan.example" {
  quota     = "1GB"
  addresses = ["margaret@ryan.example"]
}
user "gone@ryan.example" { disabled = true }
user "tom@hanks.example" {}
alias "team@hanks.example" { to = ["tom@hanks.example", "meg@ryan.example"] }
`

func TestResolve(t *testing.T) {
	d := open(t, write(t, people1))
	for address, want := range map[string]string{
		"meg@ryan.example":        "MAILBOX meg@ryan.example",
		"MEG@Ryan.Example":        "MAILBOX meg@ryan.example",
		"meg+lists@ryan.example":  "MAILBOX meg@ryan.example detail=lists",
		"margaret@ryan.example":   "ALIAS meg@ryan.example",
		"gone@ryan.example":       "DISABLED gone@ryan.example",
		"whoever@ryan.example":    "ALIAS meg@ryan.example catch-all",
		"team@hanks.example":      "ALIAS tom@hanks.example meg@ryan.example",
		"team+x@hanks.example":    "ALIAS tom@hanks.example meg@ryan.example",
		"nobody@hanks.example":    "NO_SUCH_USER",
		"joe@fox.example":         "NOT_MINE",
		`"a b"@hanks.example`:     "NO_SUCH_USER",
		"not an address":          "NOT_MINE",
		"tom@hanks.example.other": "NOT_MINE",
	} {
		r, err := d.Resolve(context.Background(), &v1.ResolveRequest{Address: address})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		got := strings.Join(append([]string{r.GetResult().String()}, r.GetTargets()...), " ")
		if r.GetAccount() != "" {
			got += " " + r.GetAccount()
		}
		if r.GetDetail() != "" {
			got += " detail=" + r.GetDetail()
		}
		if r.GetCatchAll() {
			got += " catch-all"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	r, _ := d.Resolve(context.Background(), &v1.ResolveRequest{Address: "meg@ryan.example"})
	if r.GetQuotaBytes() != 1<<30 {
		t.Errorf("quota %d", r.GetQuotaBytes())
	}
}

func TestAuthenticate(t *testing.T) {
	b, err := bcrypt.GenerateFromPassword([]byte("from bcrypt"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "user \"old@ryan.example\" {\n  password = \""+string(b)+"\"\n}\nuser \"none@ryan.example\" {}\n")
	if err := AddUser(path, "meg@ryan.example", "sleepless"); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	try := func(user, password, identity string) error {
		_, err := d.Authenticate(context.Background(), &v1.AuthenticateRequest{Username: user, Password: password, AuthorizationIdentity: identity})
		return err
	}
	for range 2 { // the second time from memory
		if err := try("Meg@Ryan.example", "sleepless", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := try("old@ryan.example", "from bcrypt", ""); err != nil {
		t.Error(err)
	}
	for _, bad := range [][3]string{
		{"meg@ryan.example", "Sleepless", ""}, {"meg@ryan.example", "", ""}, {"none@ryan.example", "", ""},
		{"nobody@ryan.example", "sleepless", ""}, {"", "", ""}, {"meg@ryan.example", "sleepless", "old@ryan.example"},
	} {
		if err := try(bad[0], bad[1], bad[2]); !fail.Is(err, fail.Denied) {
			t.Errorf("%q: %v, want DENIED", bad, err)
		}
	}
}

func TestSCRAM(t *testing.T) {
	path := write(t, "")
	if err := AddUser(path, "meg@ryan.example", "sleepless"); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	login := func(user, password string) error {
		c, err := scram.SHA256.NewClient(user, password, "")
		if err != nil {
			t.Fatal(err)
		}
		s, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
			r, err := d.Credentials(context.Background(), &v1.CredentialsRequest{Username: name, Mechanism: "SCRAM-SHA-256"})
			return scram.StoredCredentials{
				KeyFactors: scram.KeyFactors{Salt: string(r.GetSalt()), Iters: int(r.GetIterations())},
				StoredKey:  r.GetStoredKey(), ServerKey: r.GetServerKey(),
			}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		cc, sc, msg := c.NewConversation(), s.NewConversation(), ""
		for !cc.Done() {
			if msg, err = cc.Step(msg); err != nil {
				return err
			}
			if cc.Done() {
				break
			}
			if msg, err = sc.Step(msg); err != nil {
				return err
			}
		}
		return nil
	}
	if err := login("meg@ryan.example", "sleepless"); err != nil {
		t.Error(err)
	}
	if login("meg@ryan.example", "wrong") == nil || login("nobody@ryan.example", "sleepless") == nil {
		t.Error("a wrong password or user was let in")
	}
	salt := func() string {
		r, err := d.Credentials(context.Background(), &v1.CredentialsRequest{Username: "nobody@ryan.example", Mechanism: "SCRAM-SHA-256"})
		if err != nil {
			t.Fatal(err)
		}
		return string(r.GetSalt())
	}
	if salt() != salt() {
		t.Error("the made-up salt changes: that tells who does not exist")
	}
}

func TestMistakesNameTheLine(t *testing.T) {
	for content, want := range map[string]string{
		"user \"meg@ryan.example\" {\n  pasword = \"x\"\n}\n": "pasword",
		"user \"meg\" {}\n": "no address",
		"user \"a@ryan.example\" {}\nuser \"A@ryan.example\" {}\n":                                       "there twice",
		"alias \"x@ryan.example\" {\n  to = []\n}\n":                                                     "leads nowhere",
		"user \"a@ryan.example\" {\n  password = \"sleepless\"\n}\n":                                     "no argon2id or bcrypt hash",
		"user \"a@ryan.example\" {\n  quota = \"lots\"\n}\n":                                             "quota",
		"user \"a@ryan.example\" {}\nalias \"a@ryan.example\" {\n  to = [\"b@c.d\"]\n}\n":                "there twice",
		"user \"a@ryan.example\" {\n  addresses = [\"b@ryan.example\"]\n}\nuser \"b@ryan.example\" {}\n": "another user's",
	} {
		_, err := Open(write(t, content), "+", zerolog.Nop())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "people.hcl:") {
			t.Errorf("%q: %v; want %q with file and line", content, err, want)
		}
	}
}

func TestFileIsReadAgain(t *testing.T) {
	path := write(t, people1)
	d := open(t, path)
	exists := func(a string) bool {
		r, err := d.Resolve(context.Background(), &v1.ResolveRequest{Address: a})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetResult() == v1.ResolveResponse_MAILBOX
	}
	if err := AddUser(path, "sam@hanks.example", "x"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !exists("sam@hanks.example"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the new user is not seen")
		}
	}
	if err := os.WriteFile(path, []byte("user {"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.checked = time.Time{}
	d.mu.Unlock()
	if !exists("sam@hanks.example") {
		t.Fatal("a broken file took the users away")
	}
}

func TestUserCommands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.hcl")
	if err := AddUser(path, "meg@ryan.example", "one"); err != nil {
		t.Fatal(err)
	}
	if err := AddUser(path, "meg@ryan.example", "two"); err == nil {
		t.Error("a user was added twice")
	}
	if err := SetPassword(path, "meg@ryan.example", "three"); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, path).Authenticate(context.Background(), &v1.AuthenticateRequest{Username: "meg@ryan.example", Password: "three"}); err != nil {
		t.Error(err)
	}
	if users, err := List(path); err != nil || len(users) != 1 {
		t.Errorf("%v %v", users, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", fi.Mode(), err)
	}
}
