package login_test

import (
	"context"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/login"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// people are a directory of one user, or one that cannot be asked.
type people struct {
	directory.Directory
	verifier scram.StoredCredentials
	fault    error
	asked    int
}

func (p *people) Credentials(_ context.Context, req *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	p.asked++
	if p.fault != nil {
		return nil, p.fault
	}
	account := ""
	if req.GetUsername() == "meg" {
		account = "meg@ryan.example"
	}
	return &v1.CredentialsResponse{
		Account: account, Salt: []byte(p.verifier.Salt), Iterations: int32(p.verifier.Iters),
		StoredKey: p.verifier.StoredKey, ServerKey: p.verifier.ServerKey,
	}, nil
}

// run plays a client with that password to the end.
func run(t *testing.T, s *login.SCRAM, password string) (*login.Exchange, error) {
	t.Helper()
	client, err := scram.SHA256.NewClient("meg", password, "")
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.Begin(func() (context.Context, context.CancelFunc) { return t.Context(), func() {} }, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	c, challenge := client.NewConversation(), ""
	for range 4 {
		response, err := c.Step(challenge)
		if err != nil {
			t.Fatal(err)
		}
		if x.Done() {
			break
		}
		if challenge, err = x.Step(response); err != nil {
			return x, err
		}
	}
	if !c.Valid() {
		t.Error("the server has not proven to know the verifier")
	}
	return x, nil
}

func TestSCRAM(t *testing.T) {
	client, err := scram.SHA256.NewClient("meg", "sleepless", "")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "sleepless seattle", Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	p := &people{verifier: verifier}
	s := &login.SCRAM{Directory: p}
	if !s.Offered(t.Context()) || !s.Offered(t.Context()) || p.asked != 1 {
		t.Errorf("offered, and asked for %d times", p.asked)
	}
	if x, err := run(t, s, "sleepless"); err != nil || !x.Done() || x.Account() != "meg@ryan.example" || x.Username() != "meg" {
		t.Errorf("right: %v", err)
	}
	if x, err := run(t, s, "in Seattle"); !fail.Is(err, fail.Denied) || x.Done() {
		t.Errorf("wrong: %v", err)
	}
	for _, fault := range []fail.Kind{fail.Denied, fail.Unsupported, fail.Unavailable} {
		p.fault = fail.New(fault, "no")
		want := fault
		if fault == fail.Unsupported {
			want = fail.Denied
		}
		if x, err := run(t, s, "sleepless"); !fail.Is(err, want) || x.Done() {
			t.Errorf("%v: %v, want %v", fault, err, want)
		}
	}
	if _, err := s.Begin(nil, nil, true); !fail.Is(err, fail.Denied) {
		t.Errorf("-PLUS without a channel: %v", err)
	}
	if login.Bind(nil) != nil {
		t.Error("nothing can be bound to")
	}
	if (&login.SCRAM{Directory: &people{fault: fail.New(fail.Unsupported, "no")}}).Offered(t.Context()) {
		t.Error("offered, and the directory has no verifiers")
	}
}
