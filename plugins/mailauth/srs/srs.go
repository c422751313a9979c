// Package srs rewrites reverse-paths for forwarders and back (the Sender Rewriting
// Scheme): a bounce to SRS0=…@forwarder finds its way to the sender, and nobody but
// the forwarder can make such an address.
package srs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

const (
	// HashLength of an address, in characters of base32: 30 bits. Who guesses gets
	// a mail relayed to one address that he has to guess for.
	HashLength = 6
	// MinSecret is the shortest secret, in octets.
	MinSecret = 16
	// MinAge and MaxAge bound how long an address lives: its day is told in 10 bits.
	MinAge, MaxAge = 24 * time.Hour, 512 * 24 * time.Hour

	day     = 24 * time.Hour
	allDays = 1024
)

// digits of base32 come through where letters lose their case.
var digits = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Why an address is not reversed.
var (
	// ErrOther: it is no address of this scheme.
	ErrOther = errors.New("no SRS address")
	// ErrForged: the hash is not by one of the secrets.
	ErrForged = errors.New("the SRS address was not made here")
	// ErrExpired: it is too old, or of a day to come.
	ErrExpired = errors.New("the SRS address has expired")
)

// Rewriter makes and reads addresses. Safe for concurrent use.
type Rewriter struct {
	// Domain of the addresses: this forwarder's.
	Domain string
	// Secrets: the first one signs, all are taken.
	Secrets []string
	// Age until which an address is taken.
	Age time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (r *Rewriter) today() int {
	now := time.Now
	if r.Now != nil {
		now = r.Now
	}
	return int(now().Unix()/int64(day/time.Second)) % allDays
}

func hash(secret, of string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(strings.ToLower(of)))
	return digits.EncodeToString(m.Sum(nil))[:HashLength]
}

// Forward makes the reverse-path under which mail of sender is forwarded. The null
// one, and one that this rewriter made, stay as they are. One that another
// forwarder made is shortened: the bounce goes to the first of them.
func (r *Rewriter) Forward(sender string) (string, error) {
	if sender == "" {
		return "", nil
	}
	a, err := address.Parse(sender, true)
	if err != nil {
		return "", err
	}
	if strings.EqualFold(a.Domain, r.Domain) {
		return sender, nil
	}
	kind, rest := split(a.Local)
	switch kind {
	case "SRS1": // of a third forwarder: its hash goes, the first one's name stays
		_, after, _ := strings.Cut(rest, "=")
		if host, inner, ok := strings.Cut(after, "="); ok && inner != "" && domain(host) {
			return r.made("SRS1=" + hash(r.Secrets[0], after) + "=" + after), nil
		}
	case "SRS0":
		what := a.Domain + "=" + a.Local[len("SRS0"):]
		return r.made("SRS1=" + hash(r.Secrets[0], what) + "=" + what), nil
	}
	n := r.today()
	what := digitsOf(n) + "=" + a.Domain + "=" + a.Local
	return r.made("SRS0=" + hash(r.Secrets[0], what) + "=" + what), nil
}

func (r *Rewriter) made(local string) string {
	return address.Address{Local: local, Domain: r.Domain}.String()
}

// digitsOf is a number below 1024 in two digits.
func digitsOf(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	return string([]byte{alphabet[n>>5], alphabet[n&31]})
}

func numberOf(s string) (int, bool) {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	s = strings.ToLower(s)
	if len(s) != 2 {
		return 0, false
	}
	high, low := strings.IndexByte(alphabet, s[0]), strings.IndexByte(alphabet, s[1])
	return high<<5 | low, high >= 0 && low >= 0
}

// domain tells whether there can be a mailbox at s.
func domain(s string) bool {
	_, err := address.Parse("x@"+s, true)
	return err == nil
}

// split tells SRS0 and SRS1 apart, in any case, with any of the separators that
// others use for the first one.
func split(local string) (kind, rest string) {
	if len(local) < 6 || strings.IndexByte("=+-", local[4]) < 0 {
		return "", ""
	}
	switch k := strings.ToUpper(local[:4]); k {
	case "SRS0", "SRS1":
		return k, local[5:]
	}
	return "", ""
}

// Reverse finds who is behind an address of this domain: the sender, or the SRS0
// address of the first forwarder. The error is one of the above.
func (r *Rewriter) Reverse(recipient string) (string, error) {
	a, err := address.Parse(recipient, true)
	if err != nil || !strings.EqualFold(a.Domain, r.Domain) {
		return "", ErrOther
	}
	kind, rest := split(a.Local)
	if kind == "" {
		return "", ErrOther
	}
	sum, what, ok := strings.Cut(rest, "=")
	if !ok || !r.ours(sum, what) {
		return "", ErrForged
	}
	if kind == "SRS1" {
		host, inner, ok := strings.Cut(what, "=")
		if !ok || host == "" {
			return "", ErrForged
		}
		return checked(address.Address{Local: "SRS0" + inner, Domain: host})
	}
	stamp, origin, _ := strings.Cut(what, "=")
	host, local, ok := strings.Cut(origin, "=")
	made, stamped := numberOf(stamp)
	if !ok || !stamped || host == "" {
		return "", ErrForged
	}
	if age := (r.today() - made + allDays) % allDays; time.Duration(age)*day > r.Age {
		return "", ErrExpired
	}
	return checked(address.Address{Local: local, Domain: host})
}

// checked is an address that a server takes.
func checked(a address.Address) (string, error) {
	s := a.String()
	if _, err := address.Parse(s, true); err != nil {
		return "", ErrForged
	}
	return s, nil
}

func (r *Rewriter) ours(sum, what string) bool {
	for _, s := range r.Secrets {
		if hmac.Equal([]byte(strings.ToLower(sum)), []byte(hash(s, what))) {
			return true
		}
	}
	return false
}

// Check says what is wrong with the settings that both plugins share.
func (r *Rewriter) Check() (attribute string, err error) {
	if _, err := address.Parse("postmaster@"+r.Domain, false); err != nil || !strings.Contains(r.Domain, ".") || r.Domain[0] == '[' {
		return "domain", fmt.Errorf("%q is no domain: write the one to which bounces come, as ryan.example", r.Domain)
	}
	if len(r.Secrets) == 0 {
		return "secrets", errors.New(`there is no secret: name one, as secrets = [file("srs.secret")]`)
	}
	for _, s := range r.Secrets {
		if len(s) < MinSecret {
			return "secrets", fmt.Errorf("a secret of %d octets can be guessed: take %d or more, as `openssl rand -hex 16` makes them", len(s), MinSecret)
		}
	}
	if r.Age < MinAge || r.Age > MaxAge {
		return "max_age", fmt.Errorf("an address lives from a day to %d days", MaxAge/day)
	}
	return "", nil
}
