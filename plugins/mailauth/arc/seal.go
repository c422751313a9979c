package arc

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/authres"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
)

// Sealer adds an ARC set to a mail (RFC 8617 section 5.1): what this server saw of
// its authentication, sealed with one key. Safe for concurrent use.
type Sealer struct {
	// Domain and Selector say where the public key is.
	Domain, Selector string
	// Key is an *rsa.PrivateKey: verifiers know no other for ARC.
	Key crypto.Signer
	// Fields that the message signature signs where they stand there.
	Fields []string
	// AuthservID is the name in the Authentication-Results fields that are ours.
	AuthservID string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Why a mail is not sealed.
var (
	// ErrNoResults: no Authentication-Results field of ours says how its chain stood
	// when it came.
	ErrNoResults = errors.New("no Authentication-Results field of ours tells of the chain")
	// ErrFailed: its last seal says already that the chain is broken.
	ErrFailed = errors.New("the chain was sealed as failed before")
	// ErrTooLong: it has as many sets as there may be.
	ErrTooLong = fmt.Errorf("the chain has %d sets", MaxSets)
)

// Set is the three fields that are added, in the order from the top.
type Set [3]message.Field

// Body asks for the sum that Seal needs.
func (s *Sealer) Body(bodies *dkim.Bodies) *dkim.BodySum {
	return bodies.Want(dkim.Relaxed, crypto.SHA256, -1)
}

// Seal makes the next set. body is the sum asked for by Body, after bodies were read.
func (s *Sealer) Seal(h message.Header, body *dkim.BodySum) (Set, error) {
	c := &Check{header: h}
	broken := c.collect()
	results, status := s.results(h)
	n := c.outcome.Sets + 1
	switch {
	case n > 1 && lastStatus(h, n-1) == "fail":
		return Set{}, ErrFailed
	case n > MaxSets:
		return Set{}, ErrTooLong
	case n == 1 && broken == nil:
		status = string(None)
	case broken != nil:
		status = string(Fail)
	case status != string(Pass) && status != string(Fail):
		return Set{}, ErrNoResults
	}
	if len(results) == 0 {
		return Set{}, ErrNoResults
	}
	a, err := (&dkim.Signer{Key: s.Key}).Algorithm()
	if err != nil {
		return Set{}, err
	}
	now := time.Now()
	if s.Now != nil {
		now = s.Now()
	}
	var set Set
	set[2] = field("ARC-Authentication-Results", fmt.Sprintf(" i=%d; %s;\r\n\t%s", n, s.AuthservID, strings.Join(results, ";\r\n\t")))

	var names strings.Builder
	dkim.Fold(&names, strings.Join(s.names(h), ":"), ":")
	set[1], err = s.sign(a, "ARC-Message-Signature",
		fmt.Sprintf(";\r\n\tbh=%s; c=relaxed/relaxed;\r\n\td=%s; h=%s;\r\n\ti=%d; s=%s; t=%d", base64.StdEncoding.EncodeToString(body.Sum), s.Domain, names.String(), n, s.Selector, now.Unix()),
		func(w hashWriter) { dkim.Relaxed.HashFields(w, h, s.names(h)) })
	if err != nil {
		return Set{}, err
	}
	set[0], err = s.sign(a, "ARC-Seal",
		fmt.Sprintf("; cv=%s; d=%s; i=%d; s=%s;\r\n\tt=%d", status, s.Domain, n, s.Selector, now.Unix()),
		func(w hashWriter) {
			// A chain that is broken is sealed without what came before (section 5.1.2).
			if status != string(Fail) {
				for _, before := range c.sets {
					write(w, before.results, before.message.Field, before.seal.Field)
				}
			}
			write(w, set[2], set[1])
		})
	return set, err
}

type hashWriter interface{ Write([]byte) (int, error) }

func write(w hashWriter, fields ...message.Field) {
	var buf []byte
	for _, f := range fields {
		buf = dkim.Relaxed.AppendField(buf[:0], f)
		_, _ = w.Write(buf) // a hash never fails
	}
}

func field(name, value string) message.Field {
	return message.Field{Name: name, Raw: []byte(name + ":" + value + "\r\n")}
}

// sign makes a field: a=, then b= with the signature, then the other tags.
func (s *Sealer) sign(a dkim.Algorithm, name, rest string, before func(hashWriter)) (message.Field, error) {
	begin := fmt.Sprintf(" a=%s;\r\n\t", a)
	sum := a.Hash.New()
	before(sum)
	if err := dkim.Relaxed.HashUnsigned(sum, field(name, begin+"b="+rest)); err != nil {
		return message.Field{}, err
	}
	signature, err := dkim.SignSum(s.Key, a, sum.Sum(nil))
	if err != nil {
		return message.Field{}, err
	}
	// In one piece, as the reference has it: where it is folded is signed by the
	// seals that follow. With 8192 bits it is a third longer than a line may be.
	if a.Key == "rsa" && len(signature) > maxSignature {
		return message.Field{}, fmt.Errorf("the key %s._domainkey.%s is too large for a seal: use one of 2048 bits", s.Selector, s.Domain)
	}
	return field(name, begin+"b="+signature+rest), nil
}

// maxSignature leaves room for the rest of a line, which has at most 998 octets.
const maxSignature = 900

// names is h=, each field as often as it stands there.
func (s *Sealer) names(h message.Header) []string {
	var out []string
	for _, n := range s.Fields {
		for range h.All(n) {
			out = append(out, strings.ToLower(n))
		}
	}
	return out
}

// results collects what our own fields say, and the chain's status among it.
func (s *Sealer) results(h message.Header) (all []string, status string) {
	for _, f := range h.All("Authentication-Results") {
		value := string(f.Value())
		if name, ok := authres.Name(value); !ok || !strings.EqualFold(name, s.AuthservID) {
			continue
		}
		for _, r := range authres.Results(value) {
			if method, result := authres.Method(r); method == "arc" && status == "" {
				status = result
			}
			all = append(all, r)
		}
	}
	return all, status
}

// lastStatus is cv= of a seal.
func lastStatus(h message.Header, n int) string {
	for _, f := range h.All("ARC-Seal") {
		tags, err := dkim.ParseTags(string(f.Value()))
		if err != nil {
			continue
		}
		if i, _ := tags.Get("i"); i == strconv.Itoa(n) {
			cv, _ := tags.Get("cv")
			return strings.ToLower(cv)
		}
	}
	return ""
}
