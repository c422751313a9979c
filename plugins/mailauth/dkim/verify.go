// Package dkim verifies DKIM signatures (RFC 6376, with the algorithms of RFC 8301
// and RFC 8463) and has what making them and ARC (RFC 8617) need of it: tag
// lists, canonical forms, keys. What becomes of the mail is not its business.
package dkim

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha1" // rsa-sha1 is told from a wrong signature, not accepted
	_ "crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// Result of one signature, in the words of Authentication-Results (RFC 8601
// section 2.7.1).
type Result string

// The results. Policy: the signature is right, but not of a kind that is taken:
// rsa-sha1, a short key, a body that is signed in part, expired. Neutral: it
// could not be made sense of.
const (
	Pass      Result = "pass"
	Fail      Result = "fail"
	Policy    Result = "policy"
	Neutral   Result = "neutral"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// Verdict is what is to be said of one signature.
type Verdict struct {
	Result Result
	// Reason says in a person's words why it is not Pass.
	Reason string
	// Signature; of one that could not be read at least its Field.
	Signature *Signature
	// Bits of an RSA key, once it is known.
	Bits int
	// Testing: the domain says that it only tries DKIM out (t=y). RFC 6376 wants
	// the mail treated as if it were unsigned if the signature fails.
	Testing bool
}

// MinRSABits of a key that is taken (RFC 8301 section 3.2).
const MinRSABits = 1024

// Verifier verifies. Safe for concurrent use.
type Verifier struct {
	Resolver dns.Resolver
	// MaxSignatures to look at, from the top; 0 is 10.
	MaxSignatures int
	// MinRSABits of a key; 0 is the constant of that name.
	MinRSABits int
	// PartialBody lets a signature pass whose l= leaves a part of the body out
	// (RFC 6376 section 8.2 tells what that invites).
	PartialBody bool
	// Historic accepts what was good before RFC 6376 and RFC 8301: signatures of
	// the drafts, rsa-sha1, and keys' g=. It is for archives.
	Historic bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Check is a verification that waits for the body.
type Check struct {
	v       *Verifier
	header  message.Header
	pending []*pending
}

// pending is one signature under way.
type pending struct {
	Verdict
	body *BodySum
	key  chan fetched // nil: the Verdict stands
}

type fetched struct {
	key *Key
	err error
}

// Verify does all of it: the body is read to its end. The verdicts stand in the
// order of the signatures; none: there is no signature.
func (v *Verifier) Verify(ctx context.Context, m *message.Message) ([]Verdict, error) {
	bodies := &Bodies{}
	c := v.Begin(ctx, m.Header, bodies)
	if err := bodies.Read(ctx, m.Body); err != nil {
		return nil, err
	}
	return c.Finish(), nil
}

// Begin reads the signatures, says which hashes of the body they need and asks
// for all keys at once. Finish has to be called, after bodies was read.
func (v *Verifier) Begin(ctx context.Context, h message.Header, bodies *Bodies) *Check {
	c := &Check{v: v, header: h}
	most := v.MaxSignatures
	if most == 0 {
		most = 10
	}
	for _, f := range h {
		if len(c.pending) == most {
			break
		}
		if !f.Is("DKIM-Signature") {
			continue
		}
		p := &pending{}
		c.pending = append(c.pending, p)
		var err error
		if p.Signature, err = ParseSignature(f, v.Historic); err != nil {
			p.Result, p.Reason = Neutral, err.Error()
			continue
		}
		s := p.Signature
		p.body = bodies.Want(s.Body, s.Algorithm.Hash, s.Length)
		p.key = make(chan fetched, 1)
		go func() {
			k, err := LookupKey(ctx, v.Resolver, s.Domain, s.Selector)
			p.key <- fetched{k, err}
		}()
	}
	return c
}

// Finish waits for the keys and gives the verdicts.
func (c *Check) Finish() []Verdict {
	out := make([]Verdict, len(c.pending))
	for i, p := range c.pending {
		if p.key != nil {
			got := <-p.key
			p.Result, p.Reason = c.judge(p, got)
		}
		out[i] = p.Verdict
	}
	return out
}

// judge is RFC 6376 section 6.1, from the key on. What cannot be right comes
// before what is right but not taken.
func (c *Check) judge(p *pending, got fetched) (Result, string) {
	s := p.Signature
	if got.err != nil {
		if ke := (*KeyError)(nil); errors.As(got.err, &ke) {
			return PermError, got.err.Error()
		}
		return TempError, got.err.Error()
	}
	k := got.key
	p.Bits, p.Testing = k.Bits(), k.Testing
	if reason := c.unusable(s, k); reason != "" {
		return PermError, "the public key " + reason
	}
	if err := s.CheckBody(p.body); err != nil {
		return Fail, err.Error()
	}
	least := c.v.MinRSABits
	if least == 0 {
		least = MinRSABits
	}
	if p.Bits > 0 && p.Bits < least {
		return Policy, fmt.Sprintf("the key has %d bits, fewer than %d", p.Bits, least)
	}
	if err := s.CheckHeader(c.header, k); err != nil {
		return Fail, err.Error()
	}
	now := time.Now
	if c.v.Now != nil {
		now = c.v.Now
	}
	switch {
	case !s.Expires.IsZero() && now().After(s.Expires):
		return Policy, "it has expired"
	case s.Algorithm.Hash == crypto.SHA1 && !c.v.Historic:
		return Policy, "rsa-sha1 is no longer taken"
	case s.Length >= 0 && s.Length < p.body.Length && !c.v.PartialBody:
		return Policy, fmt.Sprintf("only %d of the body's %d octets are signed", s.Length, p.body.Length)
	}
	return Pass, ""
}

// unusable says why a key is not for this signature (section 6.1.2).
func (c *Check) unusable(s *Signature, k *Key) string {
	if reason := k.Unusable(s.Algorithm); reason != "" {
		return reason
	}
	at := strings.LastIndexByte(s.Identity, '@')
	switch {
	case k.Strict && !strings.EqualFold(s.Identity[at+1:], s.Domain):
		return "is only for the domain itself"
	case c.v.Historic && !granular(k.granularity, s.Identity[:at]):
		return "is for others in that domain (g=)"
	}
	return ""
}

// granular is g= of RFC 4871 section 3.6.1: a local part with at most one *.
func granular(g, local string) bool {
	before, after, star := strings.Cut(g, "*")
	if !star {
		return g != "" && g == local
	}
	return len(local) >= len(before)+len(after) && strings.HasPrefix(local, before) && strings.HasSuffix(local, after)
}

// CheckBody compares the body's sum with bh=.
func (s *Signature) CheckBody(sum *BodySum) error {
	if s.Length > sum.Length {
		return fmt.Errorf("l= says %d octets, and the body has %d", s.Length, sum.Length)
	}
	if !bytes.Equal(sum.Sum, s.bodySum) {
		return errors.New("the body was changed")
	}
	return nil
}

// CheckHeader verifies the signature of the fields of h= and of its own, with a
// key that is usable for it.
func (s *Signature) CheckHeader(h message.Header, k *Key) error {
	sum := s.Algorithm.Hash.New()
	s.Header.HashFields(sum, h, s.Fields)
	return s.CheckSum(sum, s.Header, k)
}

// CheckSum is CheckHeader with a hash that has the other fields already.
func (s *Signature) CheckSum(sum hash.Hash, c Canonicalization, k *Key) error {
	if err := c.HashUnsigned(sum, s.Field); err != nil {
		return err
	}
	if err := k.Check(s.Algorithm, sum.Sum(nil), s.sum); err != nil {
		return errors.New("the signature does not fit the header")
	}
	return nil
}
