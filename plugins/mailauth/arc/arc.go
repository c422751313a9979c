// Package arc validates an Authenticated Received Chain (RFC 8617), and adds to it: who handled a
// mail on its way, and what they saw of its authentication when it came to them.
// Whether to believe them is for others to decide.
package arc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// Result is the Chain Validation Status, in the words of Authentication-Results.
type Result string

// The results. TempError: a key could not be asked for, and nothing else is wrong.
const (
	None      Result = "none"
	Pass      Result = "pass"
	Fail      Result = "fail"
	TempError Result = "temperror"
)

// MaxSets is the most ARC sets of a chain (RFC 8617 section 4.2.1).
const MaxSets = 50

// Outcome is what is to be said of a chain.
type Outcome struct {
	Result Result
	// Reason says in a person's words why it is not Pass.
	Reason string
	// Sets is the number of ARC sets, as far as it could be told.
	Sets int
	// Sealers are the domains that sealed, the last first. Only those of a chain
	// that passes are known to be them.
	Sealers []string
	// Results are the sets' ARC-Authentication-Results, the last first, each
	// without its i=.
	Results []string
}

// Verifier validates. Safe for concurrent use.
type Verifier struct {
	Resolver dns.Resolver
	// MinRSABits of a key; 0 is dkim.MinRSABits.
	MinRSABits int
}

// set is the three fields of one instance.
type set struct {
	results message.Field
	message *dkim.Signature
	seal    *dkim.Signature
	cv      string
}

// Check is a validation that waits for the body.
type Check struct {
	v       *Verifier
	header  message.Header
	sets    []*set // by instance, from 1 on
	body    *dkim.BodySum
	keys    []chan fetched // of the newest message signature, then of the seals
	outcome Outcome        // stands if keys is nil
}

type fetched struct {
	key *dkim.Key
	err error
}

// Verify does all of it: the body is read to its end.
func (v *Verifier) Verify(ctx context.Context, m *message.Message) (Outcome, error) {
	bodies := &dkim.Bodies{}
	c := v.Begin(ctx, m.Header, bodies)
	if err := bodies.Read(ctx, m.Body); err != nil {
		return Outcome{}, err
	}
	return c.Finish(), nil
}

// Begin reads the chain, says which hash of the body it needs and asks for all
// keys at once. Finish has to be called, after bodies was read.
func (v *Verifier) Begin(ctx context.Context, h message.Header, bodies *dkim.Bodies) *Check {
	c := &Check{v: v, header: h, outcome: Outcome{Result: None}}
	if err := c.collect(); err != nil {
		c.outcome.Result, c.outcome.Reason = Fail, err.Error()
		return c
	}
	if len(c.sets) == 0 {
		return c
	}
	newest := c.sets[len(c.sets)-1]
	c.body = bodies.Want(newest.message.Body, newest.message.Algorithm.Hash, newest.message.Length)
	c.ask(ctx, newest.message)
	for _, s := range c.sets {
		c.ask(ctx, s.seal)
	}
	return c
}

func (c *Check) ask(ctx context.Context, s *dkim.Signature) {
	ch := make(chan fetched, 1)
	c.keys = append(c.keys, ch)
	go func() {
		k, err := dkim.LookupKey(ctx, c.v.Resolver, s.Domain, s.Selector)
		ch <- fetched{k, err}
	}()
}

// collect reads the ARC sets and looks at the chain's shape (RFC 8617 section 5.2
// steps 1 and 2).
func (c *Check) collect() error {
	var found [3]map[int]message.Field
	most, count := 0, 0
	for i, name := range [3]string{"ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"} {
		found[i] = map[int]message.Field{}
		for _, f := range c.header {
			if !f.Is(name) {
				continue
			}
			if count++; count > 3*MaxSets {
				return fmt.Errorf("more than %d ARC sets", MaxSets)
			}
			n, err := instance(f, i == 0)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if _, twice := found[i][n]; twice {
				return fmt.Errorf("%s i=%d stands there twice", name, n)
			}
			found[i][n] = f
			most = max(most, n)
		}
	}
	c.outcome.Sets = most
	for n := 1; n <= most; n++ {
		s := &set{}
		for i, name := range [3]string{"ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"} {
			f, ok := found[i][n]
			if !ok {
				return fmt.Errorf("there is no %s i=%d", name, n)
			}
			var err error
			switch i {
			case 0:
				s.results = f
			case 1:
				s.message, _, err = dkim.ParseARC(f, false)
			case 2:
				var tags dkim.Tags
				if s.seal, tags, err = dkim.ParseARC(f, true); err == nil {
					s.cv, _ = tags.Get("cv")
				}
			}
			if err != nil {
				return fmt.Errorf("%s i=%d: %w", name, n, err)
			}
		}
		c.sets = append(c.sets, s)
		c.outcome.Sealers = slices.Insert(c.outcome.Sealers, 0, s.seal.Domain)
		_, results, _ := strings.Cut(s.results.Unfolded(), ";")
		c.outcome.Results = slices.Insert(c.outcome.Results, 0, strings.TrimSpace(results))
	}
	return c.shape()
}

// shape looks at what the sealers said of the chain before them, and that no
// message signature depends on seals (section 4.1.2).
func (c *Check) shape() error {
	for i, s := range c.sets {
		want := "pass"
		if i == 0 {
			want = "none"
		}
		if s.cv != want {
			return fmt.Errorf("ARC-Seal i=%d: cv=%s", i+1, s.cv)
		}
		for _, name := range s.message.Fields {
			if strings.EqualFold(name, "ARC-Seal") {
				return fmt.Errorf("ARC-Message-Signature i=%d: h= names ARC-Seal", i+1)
			}
		}
	}
	return nil
}

// instance reads i=: a tag of the signatures, the first thing in the results.
func instance(f message.Field, results bool) (int, error) {
	value := ""
	if results {
		first, _, ok := strings.Cut(f.Unfolded(), ";")
		name, v, eq := strings.Cut(first, "=")
		if !ok || !eq || strings.TrimSpace(name) != "i" {
			return 0, errors.New("it does not begin with i=")
		}
		value = strings.TrimSpace(v)
	} else {
		tags, err := dkim.ParseTags(string(f.Value()))
		if err != nil {
			return 0, err
		}
		value, _ = tags.Get("i")
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > MaxSets || value[0] < '1' {
		return 0, fmt.Errorf("i=%.20s is no number from 1 to %d", value, MaxSets)
	}
	return n, nil
}

// Finish waits for the keys and gives the result.
func (c *Check) Finish() Outcome {
	if c.keys == nil {
		return c.outcome
	}
	var temporary error
	for i, ch := range c.keys {
		got := <-ch
		name, s := fmt.Sprintf("ARC-Seal i=%d", i), c.sets[max(i-1, 0)].seal
		if i == 0 {
			name, s = fmt.Sprintf("ARC-Message-Signature i=%d", len(c.sets)), c.sets[len(c.sets)-1].message
		}
		err := got.err
		if err == nil {
			err = c.usable(got.key, s.Algorithm)
		} else if ke := (*dkim.KeyError)(nil); !errors.As(err, &ke) {
			temporary = fmt.Errorf("%s: %w", name, err)
			continue
		}
		if err == nil {
			err = c.verify(i, s, got.key)
		}
		if err != nil && c.outcome.Result != Fail {
			c.outcome.Result, c.outcome.Reason = Fail, name+": "+err.Error()
		}
	}
	switch {
	case c.outcome.Result == Fail:
	case temporary != nil:
		c.outcome.Result, c.outcome.Reason = TempError, temporary.Error()
	default:
		c.outcome.Result = Pass
	}
	return c.outcome
}

func (c *Check) usable(k *dkim.Key, a dkim.Algorithm) error {
	least := c.v.MinRSABits
	if least == 0 {
		least = dkim.MinRSABits
	}
	switch reason := k.Unusable(a); {
	case reason != "":
		return errors.New("the public key " + reason)
	case k.Bits() > 0 && k.Bits() < least:
		return fmt.Errorf("the key has %d bits, fewer than %d", k.Bits(), least)
	}
	return nil
}

// verify checks the newest message signature (0), or the seal of an instance,
// which signs all sets up to it (sections 5.1.1 and 5.2).
func (c *Check) verify(i int, s *dkim.Signature, k *dkim.Key) error {
	if i == 0 {
		if err := s.CheckBody(c.body); err != nil {
			return err
		}
		return s.CheckHeader(c.header, k)
	}
	sum := s.Algorithm.Hash.New()
	var buf []byte
	for n, set := range c.sets[:i] {
		fields := []message.Field{set.results, set.message.Field, set.seal.Field}
		if n == i-1 {
			fields = fields[:2] // its own is without its b=
		}
		for _, f := range fields {
			buf = dkim.Relaxed.AppendField(buf[:0], f)
			_, _ = sum.Write(buf) // a hash never fails
		}
	}
	return s.CheckSum(sum, dkim.Relaxed, k)
}
