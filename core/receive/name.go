package receive

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
)

const (
	// nameTime is what a look-up of a client's name may take; nameWait is how long
	// the client waits for it, from its connection on. Later commands may have it.
	nameTime = 10 * time.Second
	nameWait = 2 * time.Second
	maxNames = 5
)

// Names are DNS's answers about a client's address.
type Names interface {
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
}

// lookedUp is a client's name on its way.
type lookedUp struct {
	done  chan struct{}
	since time.Time
	name  string // after done
}

// lookUp begins to ask for the client's name, unless it is a neighbour on this
// machine, or a proxy has told it.
func lookUp(ctx context.Context, names Names, c *server.Conn) *lookedUp {
	if name := c.XClient().Name; name != "" {
		l := &lookedUp{done: make(chan struct{}), name: name}
		close(l.done)
		return l
	}
	ip := c.RemoteIP()
	if names == nil || !ip.IsValid() || ip.IsLoopback() {
		return nil
	}
	l := &lookedUp{done: make(chan struct{}), since: time.Now()}
	go func() {
		defer close(l.done)
		ctx, cancel := context.WithTimeout(ctx, nameTime)
		defer cancel()
		l.name = verifiedName(ctx, names, ip)
	}()
	return l
}

// verifiedName is the first name of an address that leads back to it (RFC 8601
// section 3, iprev); "" if none does, or nobody answers.
func verifiedName(ctx context.Context, names Names, ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	found, err := names.PTR(ctx, ip)
	if err != nil {
		return ""
	}
	for _, name := range found[:min(len(found), maxNames)] {
		if addrs, err := names.Addrs(ctx, name); err == nil && slices.Contains(addrs, ip) {
			return strings.ToLower(name)
		}
	}
	return ""
}

// wait until the name is there, for as long as a client waits for one.
func (l *lookedUp) wait(ctx context.Context) {
	if l == nil {
		return
	}
	t := time.NewTimer(nameWait - time.Since(l.since))
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
	case <-ctx.Done():
	}
}

// known is the name if it is there.
func (l *lookedUp) known() string {
	if l == nil {
		return ""
	}
	select {
	case <-l.done:
		return l.name
	default:
		return ""
	}
}
