package managesieve

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/xdg-go/scram"
	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	meg      = "meg@ryan.example"
	password = "sleep less"
)

// people is a directory with one user, and her verifier.
type people struct{ verifier scram.StoredCredentials }

func newPeople(t testing.TB) people {
	t.Helper()
	c, err := scram.SHA256.NewClient(meg, password, "")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt and pepper!", Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	return people{stored}
}

func (people) Authenticate(_ context.Context, r *v1.AuthenticateRequest) (*v1.AuthenticateResponse, error) {
	if r.GetPassword() != password || r.GetUsername() != meg {
		return nil, fail.New(fail.Denied, "wrong")
	}
	return &v1.AuthenticateResponse{Account: meg}, nil
}

func (people) Resolve(context.Context, *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	return &v1.ResolveResponse{}, nil
}

func (p people) Credentials(_ context.Context, r *v1.CredentialsRequest) (*v1.CredentialsResponse, error) {
	if r.GetUsername() != meg {
		return nil, fail.New(fail.NotFound, "nobody")
	}
	return &v1.CredentialsResponse{
		Account: meg, Salt: []byte(p.verifier.Salt), Iterations: int32(p.verifier.Iters), StoredKey: p.verifier.StoredKey, ServerKey: p.verifier.ServerKey,
	}, nil
}

func (people) Domains(context.Context, *v1.DomainsRequest) (*v1.DomainsResponse, error) {
	return &v1.DomainsResponse{}, nil
}

type site struct {
	t       *testing.T
	server  *Server
	address string
	roots   *tls.Config
}

func start(t *testing.T, insecure bool) *site {
	t.Helper()
	config := DefaultConfig()
	config.Scripts, config.MaxScriptSize, config.MaxScripts, config.LoginDelay = t.TempDir(), 20<<10, 3, time.Millisecond
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, address: l.Addr().String(), roots: &tls.Config{InsecureSkipVerify: true}}
	s.server, err = newServer(config, &access.Host{
		Hostname: "mx.ryan.example", Listeners: []access.Listener{{Listener: l}}, InsecureAuth: insecure,
		TLS:       &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Directory: newPeople(t), Log: zerolog.Nop(),
	}, new(sdk.Metrics))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// client speaks the protocol by hand.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (s *site) dial() *client {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	out := &client{s.t, c, bufio.NewReader(c)}
	out.patience()
	out.reply()
	return out
}

func (c *client) patience() { c.conn.SetDeadline(time.Now().Add(20 * time.Second)) }

// reply reads up to OK, NO or BYE; literals are part of their line.
func (c *client) reply() string {
	c.t.Helper()
	var all []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%v after %q", err, all)
		}
		for {
			var n int
			if i := strings.LastIndexByte(line, '{'); i < 0 || !strings.HasSuffix(line, "}\r\n") {
				break
			} else if _, err := fmt.Sscanf(line[i:], "{%d}", &n); err != nil {
				break
			}
			b := make([]byte, n)
			if _, err := readFull(c.in, b); err != nil {
				c.t.Fatal(err)
			}
			rest, err := c.in.ReadString('\n')
			if err != nil {
				c.t.Fatal(err)
			}
			line = strings.TrimSuffix(line, "\r\n") + string(b) + rest
		}
		all = append(all, strings.TrimSuffix(line, "\r\n"))
		if w, _, _ := strings.Cut(all[len(all)-1], " "); w == "OK" || w == "NO" || w == "BYE" {
			return strings.Join(all, "\n")
		}
	}
}

func readFull(r *bufio.Reader, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := r.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) do(text, want string) {
	c.t.Helper()
	c.send(text + "\r\n")
	if got := c.reply(); !strings.HasPrefix(got, want) {
		c.t.Errorf("%q: %q, want %q", text[:min(len(text), 60)], got, want)
	}
}

func plain(user, pass string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + pass))
}

func (c *client) login() {
	c.t.Helper()
	c.do(`AUTHENTICATE "PLAIN" "`+plain(meg, password)+`"`, "OK")
}

func literal(s string) string { return fmt.Sprintf("{%d+}\r\n%s", len(s), s) }

func TestScriptsAreEdited(t *testing.T) {
	c := start(t, true).dial()
	c.do("LISTSCRIPTS", `NO "Log in first"`)
	c.login()
	c.do("LISTSCRIPTS", "OK")
	c.do(`PUTSCRIPT "main" `+literal("require \"fileinto\";\r\nfileinto \"A\";\r\n"), "OK")
	c.do(`PUTSCRIPT "bad" `+literal("keep;\r\nfileinto \"A\";\r\n"), `NO "line 2, column 1: unknown command 'fileinto'`)
	c.do(`CHECKSCRIPT "keep; nonsense;"`, `NO "line 1, column 7: unknown command 'nonsense'`)
	c.do(`CHECKSCRIPT "if header \"a:\" \"b\" { stop; }"`, "OK (WARNINGS)")
	c.do(`SETACTIVE "main"`, "OK")
	c.do(`putscript "other" "stop;"`, "OK")
	c.do("LISTSCRIPTS", "\"main\" ACTIVE\n\"other\"\nOK")
	c.do(`GETSCRIPT "main"`, "{36}require \"fileinto\";\r\nfileinto \"A\";\r\n\nOK")
	c.do(`GETSCRIPT "none"`, "NO (NONEXISTENT)")
	c.do(`DELETESCRIPT "main"`, "NO (ACTIVE)")
	c.do(`RENAMESCRIPT "main" "other"`, "NO (ALREADYEXISTS)")
	c.do(`RENAMESCRIPT "main" "first"`, "OK")
	c.do("LISTSCRIPTS", "\"first\" ACTIVE\n\"other\"\nOK")
	c.do(`HAVESPACE "third" 20480`, "OK")
	c.do(`HAVESPACE "third" 20481`, "NO (QUOTA/MAXSIZE)")
	c.do(`PUTSCRIPT "third" {5+}`+"\r\nkeep;", "OK")
	c.do(`HAVESPACE "fourth" 1`, "NO (QUOTA/MAXSCRIPTS)")
	c.do(`SETACTIVE ""`, "OK")
	c.do(`DELETESCRIPT "first"`, "OK")
	c.do(`NOOP "a \"tag\""`, `OK (TAG "a \"tag\"")`)
	c.do("UNAUTHENTICATE", "OK")
	c.do("LISTSCRIPTS", "NO")
	c.login()
	c.do("LOGOUT", "OK")
}

// What is refused is never run as commands.
func TestRefusedLiteralsAreNoCommands(t *testing.T) {
	c := start(t, true).dial()
	c.login()
	evil := strings.Repeat("PUTSCRIPT \"evil\" \"keep;\"\r\n", 1000)
	c.do(`PUTSCRIPT "big" `+literal(evil), "NO (QUOTA/MAXSIZE)")
	c.do(`NONSENSE `+literal(evil), "NO")
	c.do(`PUTSCRIPT nonsense "x`, "NO")
	c.do(`PUTSCRIPT "a" "b" "c" "d" "e" "f"`, "NO")
	c.do("LISTSCRIPTS", "OK")
	c.send("PUTSCRIPT x {20+}\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "BYE") {
		t.Errorf("a literal behind a mistake: %q", got)
	}
}

func TestPasswordsGoOverTLSAlone(t *testing.T) {
	s := start(t, false)
	c := s.dial()
	c.do("CAPABILITY", "\"IMPLEMENTATION\" \"Stagecoach ManageSieve\"\n\"SASL\" \"\"\n\"SIEVE\" \"body ")
	c.do(`AUTHENTICATE "PLAIN" "`+plain(meg, password)+`"`, "NO (ENCRYPT-NEEDED)")
	c.do("STARTTLS", "OK")
	under := tls.Client(c.conn, s.roots)
	c.conn, c.in = under, bufio.NewReader(under)
	if got := c.reply(); !strings.Contains(got, `"SASL" "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"`) || strings.Contains(got, "STARTTLS") {
		t.Errorf("under TLS: %s", got)
	}
	c.do("STARTTLS", "NO")
	c.do(`AUTHENTICATE "PLAIN" "`+plain(meg, "wrong")+`"`, "NO")
	c.login()
	c.do("LISTSCRIPTS", "OK")

	c = s.dial()
	c.send("STARTTLS\r\nNOOP\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "BYE") {
		t.Errorf("a command behind STARTTLS: %q", got)
	}
}

func TestSCRAM(t *testing.T) {
	for _, pass := range []string{password, "wrong"} {
		c := start(t, true).dial()
		peer, err := scram.SHA256.NewClient(meg, pass, "")
		if err != nil {
			t.Fatal(err)
		}
		conv := peer.NewConversation()
		first, err := conv.Step("")
		if err != nil {
			t.Fatal(err)
		}
		c.send(`AUTHENTICATE "SCRAM-SHA-256" "` + base64.StdEncoding.EncodeToString([]byte(first)) + "\"\r\n")
		line, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		challenge, err := base64.StdEncoding.DecodeString(strings.Trim(line, "\"\r\n"))
		if err != nil {
			t.Fatalf("%q %v", line, err)
		}
		second, err := conv.Step(string(challenge))
		if err != nil {
			t.Fatal(err)
		}
		c.send(`"` + base64.StdEncoding.EncodeToString([]byte(second)) + "\"\r\n")
		got := c.reply()
		if pass == "wrong" {
			if !strings.HasPrefix(got, "NO") {
				t.Errorf("a wrong password: %q", got)
			}
			continue
		}
		proof, ok := strings.CutPrefix(got, `OK (SASL "`)
		proof, _, _ = strings.Cut(proof, `"`)
		last, err := base64.StdEncoding.DecodeString(proof)
		if !ok || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		if _, err := conv.Step(string(last)); err != nil || !conv.Valid() {
			t.Errorf("the server's proof: %v", err)
		}
		c.do("LISTSCRIPTS", "OK")
	}
}

func TestDrainTellsClientsToGo(t *testing.T) {
	s := start(t, true)
	c := s.dial()
	c.login()
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		done <- s.server.Drain(ctx)
	}()
	if got := c.reply(); !strings.HasPrefix(got, "BYE (TRYLATER)") {
		t.Errorf("%q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add("PUTSCRIPT \"main\" {5+}\r\nkeep;\r\nLISTSCRIPTS\r\n")
	f.Add("HAVESPACE \"a\\\"b\" 12\r\nNOOP {3}\r\nabc\r\n")
	f.Add("x {99999999999+}\r\n\x00\r\n\"\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := &reader{in: bufio.NewReader(strings.NewReader(text)), limit: 100}
		for range len(text) + 2 {
			cmd, err := r.command()
			if err != nil && err != errSyntax {
				return
			}
			if err == nil && (cmd.name == "" || strings.ContainsAny(cmd.name, " \r\n\"{") || len(cmd.args) > maxArgs) {
				t.Fatalf("%+v", cmd)
			}
		}
		t.Fatal("it reads more commands than there are octets")
	})
}
