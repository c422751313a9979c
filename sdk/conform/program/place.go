package program

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/stagecoach-mta/stagecoach/sdk/access/accesstest"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/conform/block"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// place is what outlives a process of an instance: its data, its data socket and
// its listeners.
type place struct {
	dir     string
	dataDir string
	socket  string
	token   string
	// files are passed from descriptor 3 on; dataFD and listenFD are theirs.
	files     []*os.File
	dataFD    int32
	listeners []*v1.Listener
	once      sync.Once
}

func (pl *place) close() {
	pl.once.Do(func() {
		for _, f := range pl.files {
			f.Close()
		}
		os.RemoveAll(pl.dir)
	})
}

// pass adds a listener's file to those that the process inherits.
func (pl *place) pass(l interface{ File() (*os.File, error) }) (fd int32, err error) {
	f, err := l.File()
	if err != nil {
		return 0, err
	}
	pl.files = append(pl.files, f)
	return int32(2 + len(pl.files)), nil
}

func (s *suite) newPlace() (*place, error) {
	dir, err := os.MkdirTemp(s.dir, "i")
	if err != nil {
		return nil, err
	}
	s.seq++
	pl := &place{dir: dir, socket: filepath.Join(dir, "data.sock"), token: fmt.Sprintf("token-%d", s.seq)}
	if s.describe.GetNeeds().GetDataDir() {
		pl.dataDir = filepath.Join(dir, "data")
		if err := os.Mkdir(pl.dataDir, 0o700); err != nil {
			return nil, err
		}
	}
	switch s.kind() {
	case v1.Kind_KIND_STORAGE, v1.Kind_KIND_DIRECTORY:
		l, err := net.Listen("unix", pl.socket)
		if err != nil {
			return nil, err
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		pl.dataFD, err = pl.pass(l.(*net.UnixListener))
		l.Close()
		if err != nil {
			return nil, err
		}
	case v1.Kind_KIND_ACCESS:
		if s.access == nil {
			if s.access, err = newAccessPeers(s.dir); err != nil {
				return nil, err
			}
		}
		for _, implicit := range []bool{false, true} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			fd, err := pl.pass(l.(*net.TCPListener))
			pl.listeners = append(pl.listeners, &v1.Listener{Fd: fd, Address: l.Addr().String(), ImplicitTls: implicit})
			l.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	return pl, nil
}

// request is what a process in that place is told.
func (s *suite) request(pl *place) *v1.ConfigureRequest {
	word := strings.ToLower(strings.TrimPrefix(s.kind().String(), "KIND_"))
	req := &v1.ConfigureRequest{
		Instance: word + "." + s.describe.GetName() + ".conform", ConfigJson: s.js, ConfigMsgpack: s.pack,
		DataDir: pl.dataDir, Hostname: "mx.ryan.example", SpoolDirs: []string{s.spool}, DataSocketFd: pl.dataFD, Listeners: pl.listeners,
	}
	if pl.dataFD != 0 {
		req.DataTokens = []string{pl.token}
	}
	if s.access != nil {
		req.Tls = &v1.TLS{CertPem: s.access.certPEM, KeyPem: s.access.keyPEM}
		req.Grants = s.access.grants(pl.dir)
	}
	return req
}

// open starts a process in a place and brings it to where calls can be made.
func (s *suite) open(ctx context.Context, pl *place, change func(*v1.ConfigureRequest)) (*process, error) {
	p, err := s.start(ctx, launch{files: pl.files})
	if err != nil {
		return nil, err
	}
	s.all = append(s.all, p)
	if err := s.bring(ctx, p, pl, change); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

func (s *suite) bring(ctx context.Context, p *process, pl *place, change func(*v1.ConfigureRequest)) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Start)
	defer cancel()
	p.place = pl
	req := s.request(pl)
	if change != nil {
		change(req)
	}
	resp, err := p.api.Configure(ctx, req)
	if err != nil {
		return fmt.Errorf("Configure: %w; %s", err, p.state())
	}
	for _, d := range resp.GetDiagnostics() {
		if d.GetSeverity() == v1.Diagnostic_ERROR {
			return errors.New("Configure: " + diagnostic(d))
		}
	}
	if p.interest = resp.GetFilter(); p.interest == nil {
		p.interest = s.describe.GetFilter()
	}
	if _, err := p.api.Ready(ctx, &v1.ReadyRequest{}); err != nil {
		return fmt.Errorf("Ready: %w; %s", err, p.state())
	}
	if s.kind() == v1.Kind_KIND_ACCESS {
		return nil
	}
	life, end := context.WithCancel(context.Background())
	st, err := p.api.Session(life)
	if err != nil {
		end()
		return fmt.Errorf("Session: %w; %s", err, p.state())
	}
	p.caller = stream.NewCaller(st, stream.Credits(s.credits()), stream.OnClose(end))
	return nil
}

func (s *suite) credits() int {
	if n := int(s.describe.GetMaxConcurrent()); n > 0 {
		return n
	}
	return stream.DefaultCredits
}

// running is a process that lives, shared by the checks that leave it alive. A
// check that finds it dead gets another.
func (s *suite) running(t conform.T) *process {
	t.Helper()
	s.need(t)
	if s.shared != nil && s.shared.alive() {
		return s.shared
	}
	if s.shared != nil {
		s.shared.kill()
		s.shared.place.close()
		s.shared = nil
	}
	pl, err := s.newPlace()
	if err != nil {
		t.Fatalf("%v", err)
	}
	if s.shared, err = s.open(t.Context(), pl, nil); err != nil {
		pl.close()
		t.Fatalf("%v", err)
	}
	return s.shared
}

// fresh is a process of the check's own, in a place of its own.
func (s *suite) fresh(t conform.T, change func(*v1.ConfigureRequest)) *process {
	t.Helper()
	s.alone()
	pl, err := s.newPlace()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(pl.close)
	return s.again(t, pl, change)
}

// again is a process in a place that one had before.
func (s *suite) again(t conform.T, pl *place, change func(*v1.ConfigureRequest)) *process {
	t.Helper()
	p, err := s.open(t.Context(), pl, change)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(p.kill)
	return p
}

// alone ends the shared process of a plugin that must have its data alone: the
// configuration may name a path that all its processes use.
func (s *suite) alone() {
	if s.shared != nil && s.describe.GetNeeds().GetExclusive() {
		s.shared.kill()
	}
}

// slow changes the configuration to the one of the facts with which calls take
// long; nil if there is none.
func (s *suite) slow(t conform.T) func(*v1.ConfigureRequest) {
	t.Helper()
	if s.opts.Facts.Slow == "" {
		return nil
	}
	var js, pack []byte
	var v cty.Value
	v, err := block.Decode(s.describe.GetSchema(), "slow", s.opts.Facts.Slow)
	if err == nil {
		js, pack, err = block.Wire(s.describe.GetSchema(), v)
	}
	if err != nil {
		t.Fatalf("the slow configuration of the facts does not fit the schema:\n%v", err)
	}
	return func(r *v1.ConfigureRequest) { r.ConfigJson, r.ConfigMsgpack = js, pack }
}

// accessPeers are the storage and the directory that an access plugin calls.
type accessPeers struct {
	dir             string
	directory       *accesstest.Directory
	certPEM, keyPEM []byte
	roots           *x509.CertPool
	stop            func()
}

const peerToken = "conformance"

func newAccessPeers(dir string) (*accessPeers, error) {
	a := &accessPeers{dir: dir, directory: &accesstest.Directory{}, roots: x509.NewCertPool()}
	var err error
	if _, a.certPEM, a.keyPEM, err = conform.Certificate(elliptic.P256()); err != nil {
		return nil, err
	}
	a.roots.AppendCertsFromPEM(a.certPEM)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	a.stop = func() { cancel(); serving.Wait() }
	for role, h := range map[string]stream.Handler{"storage": storage.Handler(accesstest.Storage{}), "auth": directory.Handler(a.directory)} {
		l, err := net.Listen("unix", filepath.Join(dir, role+".sock"))
		if err != nil {
			a.stop()
			return nil, err
		}
		serving.Go(func() { _ = stream.ServePeer(ctx, l, stream.NewTokens(peerToken), 4096, h) })
	}
	return a, nil
}

func (a *accessPeers) grants(uploads string) []*v1.Grant {
	var out []*v1.Grant
	for _, role := range []string{"storage", "auth"} {
		out = append(out, &v1.Grant{
			Role: role, Instance: role + ".double.conform", Address: filepath.Join(a.dir, role+".sock"), Token: peerToken, UploadDir: uploads,
		})
	}
	return out
}

// subject is the access suite's view of a process.
func (s *suite) subject(p *process) *accesstest.Subject {
	return &accesstest.Subject{
		Address: p.place.listeners[0].GetAddress(), TLSAddress: p.place.listeners[1].GetAddress(),
		Roots: s.access.roots, Asked: s.access.directory.Asked,
		Drain: func(ctx context.Context) error {
			ms := int64(60_000)
			if d, ok := ctx.Deadline(); ok {
				ms = max(1, time.Until(d).Milliseconds())
			}
			// The plugin may use all of that time: its answer comes after it.
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(ms)*time.Millisecond+2*s.opts.Grace)
			defer cancel()
			_, err := p.api.Drain(late, &v1.DrainRequest{DeadlineMs: ms})
			return err
		},
	}
}
