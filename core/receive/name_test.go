package receive

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// zone is a DNS of a few names.
type zone struct {
	names map[string][]string
	addrs map[string][]netip.Addr
	hung  chan struct{} // it does not answer before this is closed
}

func (z *zone) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	if z.hung != nil {
		select {
		case <-z.hung:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if n := z.names[ip.String()]; n != nil {
		return n, nil
	}
	return nil, errors.New("no such name")
}

func (z *zone) Addrs(_ context.Context, host string) ([]netip.Addr, error) {
	if a := z.addrs[host]; a != nil {
		return a, nil
	}
	return nil, errors.New("no such name")
}

func TestVerifiedName(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.7")
	z := &zone{
		names: map[string][]string{"192.0.2.7": {"elsewhere.example", "nowhere.example", "MX.Hanks.example"}, "192.0.2.8": {"elsewhere.example"}},
		addrs: map[string][]netip.Addr{"elsewhere.example": {netip.MustParseAddr("192.0.2.99")}, "MX.Hanks.example": {netip.MustParseAddr("192.0.2.1"), ip}},
	}
	for from, want := range map[string]string{"192.0.2.7": "mx.hanks.example", "::ffff:192.0.2.7": "mx.hanks.example", "192.0.2.8": "", "192.0.2.9": ""} {
		if got := verifiedName(t.Context(), z, netip.MustParseAddr(from)); got != want {
			t.Errorf("%s is called %q, want %q", from, got, want)
		}
	}
}

var letter = []string{"", "EHLO x", "MAIL FROM:<tom@hanks.example>", "RCPT TO:<meg@ryan.example>", "DATA", text + ".", "QUIT"}

// talk says one line after another, each behind the reply to the one before, and
// closes.
func talk(t *testing.T, nc net.Conn, lines ...string) {
	t.Helper()
	c := textproto.NewConn(nc)
	defer c.Close()
	for _, l := range lines {
		if l != "" {
			if err := c.PrintfLine("%s", l); err != nil {
				t.Fatal(err)
			}
		}
		if code, text, err := c.ReadResponse(0); err != nil || code >= 400 {
			t.Fatalf("%q: %d %s %v", l, code, text, err)
		}
	}
}

// asking is a filter that writes down the client of each call.
func asking(event v1.FilterEvent, seen chan<- *v1.Client) filter.Chain {
	c := chain(event, &v1.FilterReply{})
	c[0].Caller = onlooker{seen}
	return c
}

type onlooker struct{ seen chan<- *v1.Client }

func (w onlooker) Call(_ context.Context, c *v1.Call) (*v1.Reply, error) {
	w.seen <- c.GetFilter().GetEnvelope().GetClient()
	return &v1.Reply{Response: &v1.Reply_Filter{Filter: &v1.FilterReply{}}}, nil
}

func (w onlooker) Stream(context.Context, *v1.Call, func(*v1.Reply) error) error {
	return errors.New("filters do not stream")
}

// proxied is a client of that address, as a proxy tells it.
func proxied(t *testing.T, r *rig, ip string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if _, err := nc.Write([]byte("PROXY TCP4 " + ip + " 192.0.2.250 40000 25\r\n")); err != nil {
		t.Fatal(err)
	}
	return nc
}

// TestNameOfTheClient: filters and the trace field have it, and a name server that
// does not answer costs the client two seconds at most.
func TestNameOfTheClient(t *testing.T) {
	z := &zone{
		names: map[string][]string{"192.0.2.7": {"mx.hanks.example"}},
		addrs: map[string][]netip.Addr{"mx.hanks.example": {netip.MustParseAddr("192.0.2.7")}},
	}
	r := newRig(t, func(p *Policy, c *server.Config) {
		p.Names = z
		c.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for ip, want := range map[string]string{"192.0.2.7": "(mx.hanks.example [192.0.2.7])", "192.0.2.8": "([192.0.2.8])"} {
		talk(t, proxied(t, r, ip), letter...)
		if _, body := r.queue.last(t); !strings.Contains(body, want) {
			t.Errorf("%s: the trace field lacks %q:\n%s", ip, want, body)
		}
	}
	z.hung = make(chan struct{})
	talk(t, proxied(t, r, "192.0.2.7"), letter...)
	if _, body := r.queue.last(t); !strings.Contains(body, "([192.0.2.7])") {
		t.Errorf("without an answer:\n%s", body)
	}
	close(z.hung)
}

// TestHelloIsKnownAtHello: and whether the client waited for its turn.
func TestHelloIsKnownAtHello(t *testing.T) {
	for _, early := range []bool{false, true} {
		seen := make(chan *v1.Client, 1)
		r := newRig(t, func(p *Policy, _ *server.Config) { p.Filters = asking(v1.FilterEvent_HELLO, seen) })
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		lines := []string{"", "EHLO mx.hanks.example", "QUIT"}
		if early {
			lines = []string{"", "EHLO mx.hanks.example\r\nRSET", "", "QUIT"}
		}
		talk(t, nc, lines...)
		if c := <-seen; c.GetHello() != "mx.hanks.example" || c.GetEarly() != early {
			t.Errorf("early %v: at HELLO the client is %v", early, c)
		}
	}
}
