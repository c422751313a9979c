// Package directory asks the directory plugins what an address stands for and
// follows aliases to their end. It holds no addresses itself.
package directory

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	// maxDepth of aliases that stand for aliases.
	maxDepth = 16
	// maxTargets of one address in all.
	maxTargets = 10000
	// domainsFresh is how long a directory's list of domains is believed.
	domainsFresh = 5 * time.Second
)

// Named is one configured directory.
type Named struct {
	// Ref is the block: "directory.file.people".
	Ref string
	directory.Directory
}

// Set is the directories that are asked, in order.
type Set struct {
	list []Named

	mu      sync.Mutex
	domains map[string]bool
	fetched time.Time
}

// NewSet asks these, in this order.
func NewSet(list []Named) *Set { return &Set{list: list} }

// Ref returns the directory of that block.
func (s *Set) Ref(ref string) (directory.Directory, bool) {
	for _, n := range s.list {
		if n.Ref == ref {
			return n.Directory, true
		}
	}
	return nil, false
}

// Mine tells whether any directory answers for the domain.
func (s *Set) Mine(ctx context.Context, domain string) (bool, error) {
	s.mu.Lock()
	known, fresh := s.domains, time.Since(s.fetched) < domainsFresh
	s.mu.Unlock()
	if !fresh {
		known = make(map[string]bool)
		for _, n := range s.list {
			r, err := n.Domains(ctx, &v1.DomainsRequest{})
			if err != nil {
				return false, fmt.Errorf("ask %s for its domains: %w", n.Ref, err)
			}
			for _, d := range r.GetDomains() {
				known[strings.ToLower(d)] = true
			}
		}
		s.mu.Lock()
		s.domains, s.fetched = known, time.Now()
		s.mu.Unlock()
	}
	return known[strings.ToLower(domain)], nil
}

// Step asks the directories for one address until one of them knows its domain.
func (s *Set) Step(ctx context.Context, address string) (*v1.ResolveResponse, error) {
	for _, n := range s.list {
		r, err := n.Resolve(ctx, &v1.ResolveRequest{Address: address})
		if err != nil {
			return nil, fmt.Errorf("ask %s for <%s>: %w", n.Ref, address, err)
		}
		if r.GetResult() != v1.ResolveResponse_NOT_MINE {
			return r, nil
		}
	}
	return &v1.ResolveResponse{Result: v1.ResolveResponse_NOT_MINE}, nil
}

// Target is where an address ends: a mailbox here, or an address elsewhere.
type Target struct {
	Address string
	// Account is the mailbox's; "" for an address elsewhere.
	Account string
	Detail  string
	Quota   int64
}

// Expand follows an address to its targets. Without targets the answer says why:
// NO_SUCH_USER, DISABLED or, for an alias that leads to itself or to nobody,
// a fail.Invalid error.
func (s *Set) Expand(ctx context.Context, address string) ([]Target, *v1.ResolveResponse, error) {
	x := expansion{set: s, seen: make(map[string]bool)}
	first, err := x.follow(ctx, address, 0)
	if err != nil {
		return nil, nil, err
	}
	if len(x.targets) == 0 && first.GetResult() == v1.ResolveResponse_ALIAS {
		return nil, first, fail.New(fail.Invalid, "the alias <%s> leads to no mailbox", address)
	}
	return x.targets, first, nil
}

type expansion struct {
	set     *Set
	seen    map[string]bool
	targets []Target
}

func (x *expansion) follow(ctx context.Context, address string, depth int) (*v1.ResolveResponse, error) {
	if depth > maxDepth {
		return nil, fail.New(fail.Invalid, "aliases nested more than %d deep at <%s>", maxDepth, address)
	}
	key := strings.ToLower(address)
	if x.seen[key] {
		return &v1.ResolveResponse{}, nil
	}
	x.seen[key] = true
	r, err := x.set.Step(ctx, address)
	if err != nil {
		return nil, err
	}
	switch r.GetResult() {
	case v1.ResolveResponse_NOT_MINE:
		x.targets = append(x.targets, Target{Address: address})
	case v1.ResolveResponse_MAILBOX:
		t := Target{Address: address, Account: r.GetAccount(), Detail: r.GetDetail(), Quota: r.GetQuotaBytes()}
		if !slices.Contains(x.targets, t) {
			x.targets = append(x.targets, t)
		}
	case v1.ResolveResponse_ALIAS:
		for _, target := range r.GetTargets() {
			if len(x.targets) >= maxTargets {
				return nil, fail.New(fail.Invalid, "<%s> stands for more than %d addresses", address, maxTargets)
			}
			// An alias that names itself keeps a copy there: the mailbox
			// behind it, if there is one, is the directory's to answer.
			if _, err := x.follow(ctx, target, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}
