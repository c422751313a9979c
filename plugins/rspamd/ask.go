package rspamd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/failover"
	"github.com/stagecoach-mta/stagecoach/plugins/milter/foreign"
	"github.com/stagecoach-mta/stagecoach/plugins/milter/socket"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

const (
	// longestAnswer of rspamd: all symbols with their options.
	longestAnswer = 4 << 20
)

// place is where a server listens: what is dialed, and the URL to ask for.
type place struct {
	network, address string // empty: as the URL says
	url              string
}

func parseServer(s string) (place, error) {
	if !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") {
		network, address, err := socket.Parse(s)
		if err != nil {
			return place{}, fmt.Errorf("%w, or http://host:port", err)
		}
		return place{network, address, "http://rspamd/checkv2"}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return place{}, fmt.Errorf("%q is no address of a server: write http://host:port", s)
	}
	if u.Port() == "" {
		return place{}, fmt.Errorf("%q has no port: rspamd's normal worker listens on 11333", s)
	}
	return place{url: u.Scheme + "://" + u.Host + "/checkv2"}, nil
}

// server keeps its connections.
type server struct {
	failover.Record
	name   string
	url    string
	client *http.Client
}

func (f *Filter) connectTo() error {
	trust, err := authorities(f.CA)
	if err != nil {
		return err
	}
	for _, name := range f.Servers {
		p, err := parseServer(name)
		if err != nil {
			return err
		}
		dialer := &net.Dialer{Timeout: f.ConnectTimeout}
		f.servers = append(f.servers, &server{name: name, url: p.url, client: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					if p.address != "" {
						network, address = p.network, p.address
					}
					return dialer.DialContext(ctx, network, address)
				},
				TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: f.ConnectTimeout,
				MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			},
		}})
	}
	return nil
}

func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca: %s holds no certificate in PEM", path)
	}
	return pool, nil
}

func (s *server) String() string { return "rspamd at " + s.name }

// ask asks one server after the other until one answers.
func (f *Filter) ask(ctx context.Context, ev *filter.Event) (*answer, error) {
	return failover.Ask(ctx, f.servers, func(s *server) (*answer, error) {
		begin := time.Now()
		a, err := f.askOne(ctx, s, ev)
		f.metrics.Histogram("scan_seconds", "Time that an answer takes.", sdk.Seconds()).Since(begin)
		return a, err
	})
}

func (f *Filter) askOne(ctx context.Context, s *server, ev *filter.Event) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, f.ScanTimeout)
	defer cancel()
	open := func() (io.ReadCloser, error) { return ev.Message.Open() }
	message, err := open()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, message)
	if err != nil {
		_ = message.Close()
		return nil, err
	}
	req.ContentLength, req.GetBody = ev.Message.Size(), open
	if req.ContentLength == 0 {
		req.Body = http.NoBody
	}
	f.tell(req.Header, ev)
	res, err := s.client.Do(req)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // without the URL, which the caller names
		}
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, longestAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("it broke off in its answer: %w", err)
	case len(body) > longestAnswer:
		return nil, fmt.Errorf("its answer has more than %d octets", longestAnswer)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %d: %s", res.StatusCode, foreign.Text(strings.TrimSpace(string(body))))
	}
	return parse(body)
}

// tell is what rspamd hears about the mail beside the mail.
func (f *Filter) tell(h http.Header, ev *filter.Event) {
	e := ev.Envelope
	c := e.GetClient()
	id := e.GetQueueId()
	if id == "" {
		id = e.GetTransaction()
	}
	for _, x := range [][2]string{
		{"Password", f.Password}, {"Settings-ID", f.Settings}, {"MTA-Tag", f.Tag}, {"MTA-Name", f.hostname},
		{"IP", c.GetIp()}, {"Helo", c.GetHello()}, {"Hostname", strings.TrimSuffix(c.GetRdns(), ".")}, {"User", c.GetUser()},
		{"TLS-Version", strings.Replace(c.GetTlsVersion(), "TLS ", "TLSv", 1)}, {"TLS-Cipher", c.GetTlsCipher()},
		{"Queue-Id", id}, {"Message-Length", strconv.FormatInt(ev.Message.Size(), 10)},
	} {
		if x[1] != "" {
			h.Set(x[0], oneLine(x[1]))
		}
	}
	h.Set("From", "<"+oneLine(e.GetSender())+">")
	for _, r := range e.GetRecipients() {
		h.Add("Rcpt", "<"+oneLine(r.GetAddress())+">")
	}
	if len(e.GetRecipients()) == 1 {
		h.Set("Deliver-To", oneLine(e.GetRecipients()[0].GetAddress()))
	}
	h.Set("User-Agent", "Stagecoach")
	h.Set("Content-Type", "message/rfc822")
	// The question may be asked again: one that meets a connection which the server
	// has just closed is. An empty key stays on this side.
	h["Idempotency-Key"] = []string{}
}

// oneLine keeps what a client said from being more than a value of HTTP's.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
