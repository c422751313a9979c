package dkim

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
)

// Signature is a DKIM-Signature field, syntax checked (RFC 6376 section 3.5).
type Signature struct {
	Field            message.Field
	Algorithm        Algorithm
	Header, Body     Canonicalization
	Domain, Selector string // in lower case
	// Identity is i=, with its @; "@" and Domain where there is none.
	Identity string
	// Fields are the names of h=, in its order.
	Fields []string
	// Length is l=: how many octets of the body are signed. Negative: all.
	Length int64
	// Signed and Expires are zero where t= or x= is missing.
	Signed, Expires time.Time

	sum, bodySum []byte // b=, bh=
	// B is b= as it is written, without folding.
	B string
}

// maxFields of one h=.
const maxFields = 512

// ParseSignature reads a DKIM-Signature. The historic ones of the drafts before
// RFC 4871 have v=0.5 or no v=. Of a signature with an error the Domain and the
// Selector are set if they could be read.
func ParseSignature(f message.Field, historic bool) (*Signature, error) {
	s, tags, err := parse(f, "a", "b", "bh", "d", "h", "s")
	if err != nil {
		return s, err
	}
	switch v, ok := tags.Get("v"); {
	case v == "1", historic && (!ok || v == "0.5"):
	case !ok:
		return s, errors.New("it has no v=")
	default:
		return s, fmt.Errorf("v=%s is not known", shortened(v))
	}
	// From must be among the fields, or the signature says nothing of who wrote the
	// mail (section 5.4).
	if !slices.ContainsFunc(s.Fields, func(name string) bool { return strings.EqualFold(name, "from") }) {
		return s, errors.New("h= does not name From")
	}
	if err := s.identity(tags); err != nil {
		return s, err
	}
	if q, has := tags.Get("q"); has && !queries(q) {
		return s, fmt.Errorf("q=%s is not known", shortened(q))
	}
	return s, nil
}

// ParseARC reads an ARC-Message-Signature, or an ARC-Seal, which signs no body and
// no fields that it names itself (RFC 8617 section 4.1). What is in neither's
// syntax of DKIM, as i= and cv=, is for the caller.
func ParseARC(f message.Field, seal bool) (*Signature, Tags, error) {
	required := []string{"a", "b", "bh", "d", "s"}
	if seal {
		required = []string{"a", "b", "d", "s"}
	}
	s, tags, err := parse(f, required...)
	if err != nil {
		return s, tags, err
	}
	switch {
	case s.Algorithm.Hash != crypto.SHA256:
		return s, tags, fmt.Errorf("%s is not taken", s.Algorithm)
	case seal && tags.Has("h"):
		return s, tags, errors.New("a seal has no h=")
	case !seal && !tags.Has("h"):
		return s, tags, errors.New("it has no h=")
	case !tags.Has("c"):
		// What those who make ARC sets mean by it, unlike DKIM's simple/simple.
		s.Header, s.Body = Relaxed, Relaxed
	}
	return s, tags, nil
}

// parse reads the tags that all kinds of signatures have in common.
func parse(f message.Field, required ...string) (*Signature, Tags, error) {
	s := &Signature{Field: f, Length: -1}
	tags, err := ParseTags(string(f.Value()))
	if err != nil {
		return s, nil, err
	}
	get := func(name string) string { v, _ := tags.Get(name); return v }
	s.Domain, s.Selector = strings.ToLower(get("d")), strings.ToLower(get("s"))
	s.B = unblanked(get("b"))
	for _, name := range required {
		if get(name) == "" {
			return s, tags, fmt.Errorf("it has no %s=", name)
		}
	}
	if !domainName(s.Domain) || !domainName(s.Selector) {
		return s, tags, errors.New("d= and s= do not make a name")
	}
	var ok bool
	if s.Algorithm, ok = ParseAlgorithm(get("a")); !ok {
		return s, tags, fmt.Errorf("a=%s is not known", shortened(get("a")))
	}
	if s.sum, err = decodeBase64(s.B); err != nil {
		return s, tags, errors.New("b= is no base64")
	}
	if s.bodySum, err = decodeBase64(unblanked(get("bh"))); err != nil {
		return s, tags, errors.New("bh= is no base64")
	}
	if c, has := tags.Get("c"); has {
		if s.Header, s.Body, ok = parseCanonicalization(c); !ok {
			return s, tags, fmt.Errorf("c=%s is not known", shortened(c))
		}
	}
	if h := get("h"); h != "" {
		if s.Fields = colonList(h); len(s.Fields) > maxFields {
			return s, tags, fmt.Errorf("h= has more than %d names", maxFields)
		}
	}
	return s, tags, s.numbers(tags)
}

// identity reads i=: an address of the domain or of one below it.
func (s *Signature) identity(tags Tags) error {
	i, ok := tags.Get("i")
	if !ok {
		s.Identity = "@" + s.Domain
		return nil
	}
	s.Identity = quotedPrintable(unblanked(i))
	at := strings.LastIndexByte(s.Identity, '@')
	if domain := strings.ToLower(s.Identity[at+1:]); at < 0 || domain != s.Domain && !strings.HasSuffix(domain, "."+s.Domain) {
		return fmt.Errorf("i=%s is not of d=%s", shortened(s.Identity), s.Domain)
	}
	return nil
}

// numbers reads l=, t= and x=.
func (s *Signature) numbers(tags Tags) error {
	var seconds [2]int64
	for i, name := range []string{"t", "x"} {
		v, ok := tags.Get(name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(v, 10, 63)
		if err != nil || len(v) > 12 {
			return fmt.Errorf("%s=%s is no time", name, shortened(v))
		}
		seconds[i] = int64(n)
	}
	if seconds[0] != 0 {
		s.Signed = time.Unix(seconds[0], 0)
	}
	if seconds[1] != 0 {
		if s.Expires = time.Unix(seconds[1], 0); seconds[0] != 0 && seconds[1] < seconds[0] {
			return errors.New("it expires before it was made")
		}
	}
	if l, ok := tags.Get("l"); ok {
		n, err := strconv.ParseUint(l, 10, 63)
		if err != nil {
			return fmt.Errorf("l=%s is no length", shortened(l))
		}
		s.Length = int64(n)
	}
	return nil
}

// queries tells whether DNS is among the ways to the key: dns/txt, and dns, as
// the drafts had it.
func queries(q string) bool {
	for _, method := range colonList(strings.ToLower(q)) {
		if method == "dns/txt" || method == "dns" {
			return true
		}
	}
	return false
}

// quotedPrintable undoes dkim-quoted-printable (section 2.11).
func quotedPrintable(s string) string {
	if strings.IndexByte(s, '=') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '=' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// domainName keeps what is no name out of questions and replies.
func domainName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c < 0x80 {
				return false
			}
		}
	}
	return true
}
