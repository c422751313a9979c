// Package imap serves a storage's mailboxes over IMAP4rev1 and IMAP4rev2
// (RFC 3501, RFC 9051) and their extensions. It keeps no mail and parses none:
// envelopes, structures and places in the message come from the storage, as it
// rendered them. go-imap's client is its test peer, and its types name replies.
package imap

import (
	"context"
	"errors"
	"hash/maphash"
	"net"
	"net/netip"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/connections"
	"github.com/stagecoach-mta/stagecoach/plugins/imap/login"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
)

const inbox = "INBOX"

// Server is one instance: one access block.
type Server struct {
	*connections.Server
	config Config
	host   access.Host
	gate   *admission.Gate
	feeds  *feeds
	shelf  shelf
	marks  marks
	// recents, scram and bearer are shared by all sessions.
	recents recents
	scram   login.SCRAM
	bearer  login.Bearer
	// annotates remembers whether the storage keeps annotations.
	annotates login.Offer
	// progressEvery is the constant of that name, but in tests.
	progressEvery time.Duration
	ctx           context.Context
}

var _ access.Server = (*Server)(nil)

// New makes a server of a valid configuration; Serve starts it.
func New(config Config, host access.Host) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if host.Storage == nil || host.Directory == nil {
		return nil, errors.New("an access \"imap\" block needs storage and auth")
	}
	s := &Server{
		config: config,
		host:   host,
		gate: admission.New(admission.Limits{
			PerAddress: config.MaxAddressConnections, PerAccount: config.MaxUserConnections, Total: config.MaxConnections,
			Delay: config.LoginDelay, MaxDelay: config.MaxLoginDelay,
		}),
		feeds:         newFeeds(host.Log),
		marks:         marks{seed: maphash.MakeSeed()},
		scram:         login.SCRAM{Directory: host.Directory},
		bearer:        login.Bearer{Directory: host.Directory},
		progressEvery: progressEvery,
	}
	var err error
	s.Server, err = connections.New(connections.Options{
		Host: host, Gate: s.gate, Full: "* BYE Too many connections\r\n",
		Begin: func(nc net.Conn, source netip.Prefix) connections.Session { return newConn(s, nc, source) },
		Ended: s.feeds.wait,
	})
	if err != nil {
		return nil, err
	}
	s.ctx = s.Context()
	return s, nil
}

const goingAway = "Server is going away, connect again"

// Serve is part of connections.Session.
func (c *conn) Serve(implicitTLS bool) { c.server.newSession(c).serve(implicitTLS) }

// Leave is part of connections.Session.
func (c *conn) Leave() { c.hangUp(goingAway) }
