package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// got is one mail as go-smtp's server handed it over.
type got struct {
	from string
	opts smtp.MailOptions
	to   []string
	rcpt []smtp.RcptOptions
	body string
}

// inbox is a go-smtp backend that refuses nobody@ and keeps the rest.
type inbox struct {
	mu    sync.Mutex
	mails []got
}

type session struct {
	in  *inbox
	cur got
}

func (in *inbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{in: in}, nil }
func (s *session) Reset()                                     { s.cur = got{} }
func (s *session) Logout() error                              { return nil }
func (s *session) Mail(from string, o *smtp.MailOptions) error {
	s.cur = got{from: from, opts: *o}
	return nil
}
func (s *session) Rcpt(to string, o *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.cur.to, s.cur.rcpt = append(s.cur.to, to), append(s.cur.rcpt, *o)
	return nil
}
func (s *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.cur.body = string(b)
	s.in.mu.Lock()
	s.in.mails = append(s.in.mails, s.cur)
	s.in.mu.Unlock()
	return nil
}
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	if err := s.Data(r); err != nil {
		return err
	}
	for _, to := range s.cur.to {
		if strings.HasPrefix(to, "full@") {
			status.SetStatus(to, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"})
		} else {
			status.SetStatus(to, nil)
		}
	}
	return nil
}

func goSMTP(t *testing.T, change func(*smtp.Server)) (string, *inbox) {
	t.Helper()
	in := &inbox{}
	s := smtp.NewServer(in)
	s.Domain, s.EnableSMTPUTF8, s.EnableDSN, s.EnableREQUIRETLS, s.EnableBINARYMIME = "mx.ryan.example", true, true, true, true
	s.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String(), in
}

func TestGoSMTP(t *testing.T) {
	for _, mode := range []struct {
		name                     string
		noChunking, noPipelining bool
	}{{"BDAT", false, false}, {"DATA", true, false}, {"lockstep", true, true}, {"lockstep BDAT", false, true}} {
		t.Run(mode.name, func(t *testing.T) {
			addr, in := goSMTP(t, nil)
			cfg := config
			cfg.NoChunking, cfg.NoPipelining = mode.noChunking, mode.noPipelining
			c := dial(t, addr, cfg)
			var bodies []string
			for i := range 20 {
				// Sizes around the block border, dots everywhere.
				body := fmt.Sprintf("Subject: %d\r\n\r\n", i) + strings.Repeat(".\r\n..a\r\n", i*1000) + strings.Repeat("y", i) + "\r\n"
				bodies = append(bodies, body)
				tx := mail(body, "meg@ryan.example", "nobody@ryan.example", "kit@ryan.example")
				tx.Options = smtp.MailOptions{Body: smtp.Body8BitMIME, UTF8: true, Return: smtp.DSNReturnHeaders, EnvelopeID: "a+b=c d"}
				tx.Recipients[0].Options = smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifySuccess, smtp.DSNNotifyDelayed},
					OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: "m+1@ryan.example"}
				tx.Recipients[2].Options = smtp.RcptOptions{OriginalRecipientType: smtp.DSNAddressTypeUTF8, OriginalRecipient: "ü\\k@ryan.example"}
				res, err := c.Send(t.Context(), tx)
				if err != nil || summary(res) != "[end of data 250] [RCPT 550] [end of data 250] sent" {
					t.Fatalf("mail %d: %v, %v", i, summary(res), err)
				}
			}
			if err := c.Reset(t.Context()); err != nil {
				t.Error(err)
			}
			if err := c.Quit(t.Context()); err != nil {
				t.Error(err)
			}
			in.mu.Lock()
			defer in.mu.Unlock()
			if len(in.mails) != len(bodies) {
				t.Fatalf("%d mails", len(in.mails))
			}
			for i, m := range in.mails {
				if m.body != bodies[i] {
					t.Errorf("mail %d differs: %d octets, sent %d", i, len(m.body), len(bodies[i]))
				}
				if m.from != "tom@hanks.example" || strings.Join(m.to, ",") != "meg@ryan.example,kit@ryan.example" ||
					m.opts.EnvelopeID != "a+b=c d" || m.opts.Return != smtp.DSNReturnHeaders || !m.opts.UTF8 || m.opts.Body != smtp.Body8BitMIME ||
					m.opts.Size != int64(len(bodies[i])) || len(m.rcpt[0].Notify) != 2 || m.rcpt[0].OriginalRecipient != "m+1@ryan.example" ||
					m.rcpt[1].OriginalRecipient != "ü\\k@ryan.example" {
					t.Errorf("envelope %+v", m)
				}
			}
		})
	}
}

func TestGoSMTPBinaryAndLMTP(t *testing.T) {
	addr, in := goSMTP(t, nil)
	c := dial(t, addr, config)
	tx := mail("A: b\r\n\r\nx\ny\rz\x00.\r\n.\n", "meg@ryan.example")
	tx.Options.Body = smtp.BodyBinaryMIME
	if res, err := c.Send(t.Context(), tx); err != nil || !res.Recipients[0].Delivered() || in.mails[0].body != "A: b\r\n\r\nx\ny\rz\x00.\r\n.\n" {
		t.Errorf("%v, %v", res, err)
	}
	c.Quit(t.Context())

	addr, _ = goSMTP(t, func(s *smtp.Server) { s.LMTP = true })
	for _, noChunking := range []bool{false, true} {
		cfg := config
		cfg.LMTP, cfg.NoChunking = true, noChunking
		c = dial(t, addr, cfg)
		for range 3 {
			res, err := c.Send(t.Context(), mail(message, "meg@ryan.example", "nobody@ryan.example", "full@ryan.example"))
			if err != nil || summary(res) != "[end of data 250] [RCPT 550] [end of data 452] sent" {
				t.Errorf("%v, %v", summary(res), err)
			}
		}
		c.Quit(t.Context())
	}
}

func certificate(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	cert, roots := certificate(t, "mx.ryan.example")
	addr, in := goSMTP(t, func(s *smtp.Server) { s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}} })
	good := &tls.Config{ServerName: "mx.ryan.example", RootCAs: roots}
	c := dial(t, addr, config)
	if err := c.StartTLS(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.TLS(); !ok {
		t.Error("no TLS")
	}
	tx := mail(strings.Repeat(message, 20_000), "meg@ryan.example")
	tx.Options.RequireTLS = true
	if res, err := c.Send(t.Context(), tx); err != nil || !res.Recipients[0].Delivered() || !in.mails[0].opts.RequireTLS {
		t.Errorf("%v, %v", res, err)
	}
	c.Quit(t.Context())

	c = dial(t, addr, config)
	if err := c.StartTLS(t.Context(), &tls.Config{ServerName: "other.example", RootCAs: roots}); err == nil || c.Usable() {
		t.Errorf("a certificate for another name passed: %v", err)
	}

	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	s := smtp.NewServer(&inbox{})
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	defer func() { s.Close(); <-done }()
	cfg := config
	cfg.TLS = good
	c = dial(t, l.Addr().String(), cfg)
	if res, err := c.Send(t.Context(), mail(message, "meg@ryan.example")); err != nil || !res.Recipients[0].Delivered() {
		t.Errorf("implicit TLS: %v, %v", res, err)
	}
	c.Quit(t.Context())
}
