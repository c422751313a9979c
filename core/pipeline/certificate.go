package pipeline

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/config"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// certificate is one tls block; a reload exchanges its content, and handshakes
// from then on see the new one.
type certificate struct {
	pair atomic.Pointer[tls.Certificate]
	pem  *v1.TLS
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tlsMinimum,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.pair.Load(), nil
		},
	}
}

// certificates loads all tls blocks; have are the running ones, which keep their
// identity so that servers need not be replaced.
func certificates(cfg *config.Config) (map[string]*certificate, error) {
	out := make(map[string]*certificate, len(cfg.TLS))
	for _, t := range cfg.TLS {
		certPEM, keyPEM, err := material(cfg, t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Ref, err)
		}
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Ref, err)
		}
		c := &certificate{pem: &v1.TLS{CertPem: certPEM, KeyPem: keyPEM}}
		c.pair.Store(&pair)
		out[t.Ref] = c
	}
	return out, nil
}

func material(cfg *config.Config, t *config.TLS) (certPEM, keyPEM []byte, err error) {
	if t.SelfSigned {
		return selfSigned(filepath.Join(cfg.DataDir, "tls", t.Name+".pem"), cfg.Hostname)
	}
	if certPEM, err = os.ReadFile(t.Cert); err != nil {
		return nil, nil, err
	}
	keyPEM, err = os.ReadFile(t.Key)
	return certPEM, keyPEM, err
}

// selfSigned keeps one certificate in a file of its own, so that mail clients
// see the same one after a restart.
func selfSigned(path, hostname string) (certPEM, keyPEM []byte, err error) {
	if b, err := os.ReadFile(path); err == nil {
		if certPEM, keyPEM, ok := split(b, hostname); ok {
			return certPEM, keyPEM, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: hostname, Organization: []string{"Stagecoach, self-signed"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(2, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{hostname, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, os.WriteFile(path, append(append([]byte{}, certPEM...), keyPEM...), 0o600)
}

// split takes the file apart; ok is false for one that is of no more use.
func split(b []byte, hostname string) (certPEM, keyPEM []byte, ok bool) {
	at := bytes.Index(b, []byte("-----BEGIN EC PRIVATE KEY"))
	if at < 0 {
		return nil, nil, false
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, nil, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || time.Until(cert.NotAfter) < 30*24*time.Hour || cert.VerifyHostname(hostname) != nil {
		return nil, nil, false
	}
	return b[:at], b[at:], true
}
