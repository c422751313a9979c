package program

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func (b *plugin) access(_ context.Context, in *sdk.Instance) (access.Server, error) {
	return &greeting{plugin: b, host: in.Access, clients: map[*client]bool{}}, b.opens(in.DataDir)
}

// greeting is as much of an IMAP server as a client needs to log in.
type greeting struct {
	*plugin
	host    *access.Host
	serving sync.WaitGroup
	mu      sync.Mutex
	clients map[*client]bool
}

type client struct {
	net.Conn
	mu     sync.Mutex
	r      *bufio.Reader
	secure bool
}

// Serve implements access.Server.
func (g *greeting) Serve(context.Context) error {
	for _, l := range g.host.Listeners {
		g.serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				g.serving.Go(func() { g.client(c, l.ImplicitTLS) })
			}
		})
	}
	g.serving.Wait()
	return nil
}

// Drain implements access.Server.
func (g *greeting) Drain(context.Context) error {
	for _, l := range g.host.Listeners {
		l.Close()
	}
	g.mu.Lock()
	for c := range g.clients {
		if g.broken != "cuts clients off" {
			c.say("* BYE ends for now")
		}
		c.Close()
	}
	g.mu.Unlock()
	g.serving.Wait()
	return nil
}

func (c *client) say(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = io.WriteString(c.Conn, line+"\r\n")
}

func (g *greeting) client(conn net.Conn, implicit bool) {
	defer conn.Close()
	switch g.broken {
	case "hangs up":
		return
	case "keeps files open", "keeps memory", "keeps threads":
		_ = g.call(context.Background(), &settings{})
	}
	if implicit && g.broken != "has no implicit TLS" {
		conn = tls.Server(conn, g.host.TLS)
	}
	c := &client{Conn: conn, r: bufio.NewReader(io.LimitReader(conn, 1<<20)), secure: implicit}
	g.mu.Lock()
	g.clients[c] = true
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.clients, c)
		g.mu.Unlock()
	}()
	c.say("* OK hello")
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			if g.broken == "ends at an endless line" && errors.Is(err, bufio.ErrBufferFull) {
				os.Exit(1)
			}
			return
		}
		if tag, command, ok := strings.Cut(strings.TrimSpace(string(line)), " "); !ok || !g.command(c, tag, command) {
			return
		}
	}
}

func (g *greeting) command(c *client, tag, command string) bool {
	word, rest, _ := strings.Cut(command, " ")
	switch strings.ToUpper(word) {
	case "CAPABILITY":
		offer := ""
		if !c.secure && g.broken != "hides STARTTLS" {
			offer = " STARTTLS"
		}
		c.say("* CAPABILITY IMAP4rev1" + offer)
	case "STARTTLS":
		c.say(tag + " OK begin")
		before, _ := c.r.Peek(c.r.Buffered())
		g.mu.Lock()
		c.Conn = tls.Server(c.Conn, g.host.TLS)
		g.mu.Unlock()
		c.secure, c.r = true, bufio.NewReader(c.Conn)
		if g.broken == "obeys what came before TLS" {
			c.r = bufio.NewReader(io.MultiReader(strings.NewReader(string(before)), c.Conn))
		}
		return true
	case "LOGIN":
		g.login(c, tag, rest)
		return true
	}
	c.say(tag + " OK done")
	return true
}

func (g *greeting) login(c *client, tag, rest string) {
	var user, password string
	_, err := fmt.Sscanf(rest, "%q %q", &user, &password)
	if !c.secure && g.broken != "logs in without TLS" {
		if g.broken == "asks before it refuses" {
			_, _ = g.host.Directory.Authenticate(context.Background(), &v1.AuthenticateRequest{Username: user, Password: password})
		}
		c.say(tag + " NO [PRIVACYREQUIRED] not without TLS")
		return
	}
	_, denied := g.host.Directory.Authenticate(context.Background(), &v1.AuthenticateRequest{Username: user, Password: password})
	switch {
	case g.broken == "takes every password":
		denied = nil
	case g.broken == "takes no password":
		denied = errors.New("no")
	}
	if err != nil || denied != nil {
		c.say(tag + " NO [AUTHENTICATIONFAILED] no")
		return
	}
	c.say(tag + " OK welcome")
}
