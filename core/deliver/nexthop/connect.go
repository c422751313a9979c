package nexthop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/xdg-go/scram"

	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// connect returns a kept or new connection, greeted, encrypted and logged in as
// the options want, or the outcome of the failure.
func (t *Transport) connect(ctx context.Context, h hop, requireTLS bool) (*conn, *Outcome) {
	kept, err := t.pool.acquire(ctx, h)
	if err != nil {
		return nil, h.failure(451, smtp.EnhancedCode{4, 4, 1}, "No connection became free: "+err.Error())
	}
	if kept != nil {
		return kept, nil
	}
	c, fail := t.open(ctx, h, h.tls != TLSNone, requireTLS)
	if fail != nil && fail.plain {
		t.opts.Log.Debug().Str("host", h.host).Str("addr", h.addr).Str("reason", fail.Text).
			Msg("TLS failed, falling back to plain text")
		// RFC 7435 section 4: opportunistic security never costs the delivery.
		c, fail = t.open(ctx, h, false, requireTLS)
	}
	if fail != nil {
		t.pool.release(h)
		return nil, &fail.Outcome
	}
	return c, nil
}

// openFailure is why a connection could not be made.
type openFailure struct {
	Outcome
	plain bool // worth another connection without TLS
}

func (h hop) failure(code int, ec smtp.EnhancedCode, text string) *Outcome {
	o := decided(code, ec, fmt.Sprintf("%s: %s", h, text))
	o.RemoteMTA, o.RemoteAddr = h.host, h.addr
	return &o
}

// String names host and address as logs of mail servers do.
func (h hop) String() string {
	if h.network == "unix" {
		return h.addr
	}
	if ip, port, err := net.SplitHostPort(h.addr); err == nil && ip != h.host {
		return fmt.Sprintf("%s[%s]:%s", h.host, ip, port)
	}
	return h.addr
}

func (t *Transport) open(ctx context.Context, h hop, useTLS, requireTLS bool) (*conn, *openFailure) {
	fail := func(code int, ec smtp.EnhancedCode, text string) (*conn, *openFailure) {
		return nil, &openFailure{Outcome: *h.failure(code, ec, text)}
	}
	nc, err := t.dial(ctx, h)
	if err != nil {
		return fail(451, smtp.EnhancedCode{4, 4, 1}, unconnected(err))
	}
	cfg := client.Config{
		LocalName: t.opts.LocalName, LMTP: t.opts.LMTP, Timeouts: t.opts.Timeouts,
		NoPipelining: t.opts.NoPipelining, NoChunking: t.opts.NoChunking,
	}
	if h.tls == TLSImplicit {
		cfg.TLS = t.tlsConfig(h)
	}
	cl, err := client.New(ctx, nc, cfg)
	if err != nil {
		return nil, &openFailure{Outcome: *h.greetFailure(err)}
	}
	startTLS := useTLS && h.network != "unix" && (h.tls == TLSOpportunistic || h.tls == TLSRequired)
	if startTLS {
		err := cl.StartTLS(ctx, t.tlsConfig(h))
		var ce *client.Error
		errors.As(err, &ce)
		switch {
		case err == nil:
		case h.tls == TLSOpportunistic && cl.Usable():
			// Not offered, or refused: on in plain.
		case h.tls == TLSOpportunistic:
			cl.Close()
			o := h.failure(451, smtp.EnhancedCode{4, 7, 5}, err.Error())
			return nil, &openFailure{Outcome: *o, plain: ctx.Err() == nil}
		case errors.Is(err, client.ErrNotOffered) && requireTLS:
			cl.Close()
			return fail(550, smtp.EnhancedCode{5, 7, 30}, "The sender requires TLS all the way (REQUIRETLS), and the server does not offer STARTTLS")
		case errors.Is(err, client.ErrNotOffered):
			cl.Close()
			return fail(451, smtp.EnhancedCode{4, 7, 4}, "TLS is required, and the server does not offer it")
		case ce != nil && ce.Reply.Code != 0:
			cl.Close()
			return fail(451, smtp.EnhancedCode{4, 7, 4}, "TLS is required, and the server refused it: "+ce.Reply.String())
		default:
			cl.Close()
			return fail(451, smtp.EnhancedCode{4, 7, 5}, "TLS is required, and failed: "+err.Error())
		}
	}
	c := &conn{Conn: cl, hop: h}
	if state, ok := cl.TLS(); ok {
		c.tls = strings.Replace(tls.VersionName(state.Version), "TLS ", "TLSv", 1) + " " + tls.CipherSuiteName(state.CipherSuite)
		if h.verify {
			c.tls += " verified"
		}
	}
	if h.login {
		if err := t.login(ctx, c); err != nil {
			cl.Close()
			// Ours to repair, so no reason to bounce.
			return fail(451, smtp.EnhancedCode{4, 7, 8}, err.Error())
		}
	}
	return c, nil
}

// greetFailure is the outcome of a connection that was refused before any mail.
func (h hop) greetFailure(err error) *Outcome {
	var ce *client.Error
	if !errors.As(err, &ce) || ce.Reply.Code == 0 {
		return h.failure(451, smtp.EnhancedCode{4, 4, 2}, err.Error())
	}
	r := client.RcptResult{Phase: ce.Phase, Reply: ce.Reply}
	o := fromReply(r)
	if c := ce.Reply.Class(); c != 4 && c != 5 {
		o = decided(451, smtp.EnhancedCode{4, 5, 0}, "")
		o.Diagnostic = ce.Reply.String()
	}
	o.Text = fmt.Sprintf("%s: %v", h, err)
	o.RemoteMTA, o.RemoteAddr = h.host, h.addr
	return &o
}

// unconnected is why a connection did not come about, without the address: that is told
// before it. "connection refused", not "dial tcp 192.0.2.1:25: connect: connection refused".
func unconnected(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &op) && op.Timeout():
		return "no connection in time"
	case !errors.As(err, &op) || op.Err == nil:
		return err.Error()
	}
	var call *os.SyscallError
	if errors.As(op.Err, &call) {
		return call.Err.Error()
	}
	return op.Err.Error()
}

func (t *Transport) dial(ctx context.Context, h hop) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.opts.Timeouts.Connect)
	defer cancel()
	if t.opts.Dial != nil {
		return t.opts.Dial(ctx, h.network, h.addr)
	}
	var d net.Dialer
	if target, err := netip.ParseAddrPort(h.addr); err == nil && h.network == "tcp" {
		for _, a := range t.opts.LocalAddrs {
			if a.Unmap().Is4() == target.Addr().Is4() {
				d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Unmap(), 0))
			}
		}
	}
	return d.DialContext(ctx, h.network, h.addr)
}

func (t *Transport) tlsConfig(h hop) *tls.Config {
	cfg := &tls.Config{}
	if t.opts.TLSConfig != nil {
		cfg = t.opts.TLSConfig.Clone()
	}
	cfg.ServerName = h.host
	if ip, _, err := net.SplitHostPort(h.addr); err == nil && strings.HasPrefix(h.host, "[") {
		cfg.ServerName = ip
	}
	// An unverified certificate is still better than none (RFC 7435).
	cfg.InsecureSkipVerify = !h.verify
	return cfg
}

const mechSCRAM = "SCRAM-SHA-256"

func knownMechanism(m string) bool {
	switch strings.ToUpper(m) {
	case mechSCRAM, sasl.Plain, sasl.Login:
		return true
	}
	return false
}

// login uses the first mechanism allowed that the server offers.
func (t *Transport) login(ctx context.Context, c *conn) error {
	a := t.opts.Auth
	allowed := a.Mechanisms
	if len(allowed) == 0 {
		allowed = []string{mechSCRAM, sasl.Plain, sasl.Login}
	}
	_, safe := c.TLS()
	if ap, err := netip.ParseAddrPort(c.hop.addr); err == nil {
		safe = safe || ap.Addr().IsLoopback()
	} else {
		safe = safe || c.hop.network == "unix"
	}
	offered := c.AuthMechanisms()
	for _, m := range allowed {
		m = strings.ToUpper(m)
		if !slices.Contains(offered, m) {
			continue
		}
		switch {
		case m == mechSCRAM:
			cl, err := scram.SHA256.NewClient(a.User, a.Password, "")
			if err != nil {
				return fmt.Errorf("AUTH: %w", err)
			}
			conv := cl.NewConversation()
			if err := c.Auth(ctx, &scramClient{conv}); err != nil {
				return err
			}
			if !conv.Valid() {
				return errors.New("AUTH: the server did not prove that it knows the password")
			}
			return nil
		case !safe:
			return fmt.Errorf("AUTH: the password is not sent without TLS; set tls = \"required\"")
		case m == sasl.Plain:
			return c.Auth(ctx, sasl.NewPlainClient("", a.User, a.Password))
		case m == sasl.Login:
			return c.Auth(ctx, sasl.NewLoginClient(a.User, a.Password))
		}
	}
	return fmt.Errorf("AUTH: the server offers none of %s (but %q)", strings.Join(allowed, ", "), offered)
}

// scramClient is SCRAM (RFC 5802) as a go-sasl mechanism.
type scramClient struct{ conv *scram.ClientConversation }

var _ sasl.Client = (*scramClient)(nil)

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.conv.Step("")
	return mechSCRAM, []byte(first), err
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	resp, err := s.conv.Step(string(challenge))
	return []byte(resp), err
}
