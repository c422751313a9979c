package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
)

// Signer makes signatures of one domain with one key. Safe for concurrent use.
type Signer struct {
	// Domain and Selector say where the public key is.
	Domain, Selector string
	// Key is an *rsa.PrivateKey or an ed25519.PrivateKey.
	Key crypto.Signer
	// Header and Body are the canonical forms.
	Header, Body Canonicalization
	// Fields to sign, From among them. A name that stands there once more than
	// the message has it keeps others from adding one (RFC 6376 section 8.15).
	Fields []string
	// Identity is i=; empty: none.
	Identity string
	// Lifetime until x=; 0: none.
	Lifetime time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Algorithm that the key makes.
func (s *Signer) Algorithm() (Algorithm, error) {
	switch s.Key.(type) {
	case *rsa.PrivateKey:
		return Algorithm{"rsa", crypto.SHA256}, nil
	case ed25519.PrivateKey:
		return Algorithm{"ed25519", crypto.SHA256}, nil
	}
	return Algorithm{}, fmt.Errorf("a %T signs no mail: use an RSA or an Ed25519 key", s.Key)
}

// Sign returns the value of a DKIM-Signature field for a message with that header
// and the sum of its body, which bodies.Want(s.Body, crypto.SHA256, -1) gave.
func (s *Signer) Sign(h message.Header, body *BodySum) (string, error) {
	a, err := s.Algorithm()
	if err != nil {
		return "", err
	}
	now := time.Now()
	if s.Now != nil {
		now = s.Now()
	}
	var b strings.Builder
	fmt.Fprintf(&b, " v=1; a=%s; c=%s/%s;\r\n\td=%s; s=%s; t=%d;", a, s.Header, s.Body, s.Domain, s.Selector, now.Unix())
	if s.Lifetime > 0 {
		b.WriteString(" x=" + strconv.FormatInt(now.Add(s.Lifetime).Unix(), 10) + ";")
	}
	if s.Identity != "" {
		b.WriteString(" i=" + s.Identity + ";")
	}
	b.WriteString("\r\n\th=")
	Fold(&b, strings.Join(s.Fields, ":"), ":")
	b.WriteString(";\r\n\tbh=" + base64.StdEncoding.EncodeToString(body.Sum) + ";\r\n\tb=")
	sum := a.Hash.New()
	s.Header.HashFields(sum, h, s.Fields)
	f := message.Field{Name: "DKIM-Signature", Raw: []byte("DKIM-Signature:" + b.String() + "\r\n")}
	if err := s.Header.HashUnsigned(sum, f); err != nil {
		return "", err
	}
	signature, err := SignSum(s.Key, a, sum.Sum(nil))
	if err != nil {
		return "", err
	}
	Fold(&b, signature, "")
	return b.String(), nil
}

// SignSum signs the hash of a header, in base64.
func SignSum(key crypto.Signer, a Algorithm, sum []byte) (string, error) {
	opts := crypto.SignerOpts(a.Hash)
	if a.Key == "ed25519" {
		opts = crypto.Hash(0)
	}
	signature, err := key.Sign(rand.Reader, sum, opts)
	return base64.StdEncoding.EncodeToString(signature), err
}

// Fold writes a long value in lines of at most 70 characters where it can be
// broken: behind sep, or anywhere if there is none.
func Fold(b *strings.Builder, value, sep string) {
	line := 0
	for value != "" {
		n := min(len(value), 68)
		if sep != "" {
			n = len(value)
			if i := strings.Index(value, sep); i >= 0 {
				n = i + len(sep)
			}
		}
		if line > 0 && line+n > 70 {
			b.WriteString("\r\n\t ")
			line = 0
		}
		b.WriteString(value[:n])
		line, value = line+n, value[n:]
	}
}
