package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/bootstrap"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// process is one run of a plugin, from exec to the removal of its sockets.
// Nobody restarts it: who sees it end starts another.
//
// go-plugin does the handshake (cookie, versions, mutual TLS, checksum) and no
// more: its Kill waits without a deadline, and its client leaks a connection if
// the plugin dies at the wrong moment.
type process struct {
	served atomic.Bool // answered a call

	spec *Spec
	log  zerolog.Logger
	dir  string
	// script: an interpreter runs it.
	script bool
	child  *child
	conn   *grpc.ClientConn
	api    v1.PluginClient
	lines  *lineLog
	// troubles of its instance; nil if it has none.
	troubles *troubles
	census   *census
	// tasks are the readers of its output; spoken is closed when the one of its
	// stderr has read it all.
	tasks  sync.WaitGroup
	spoken chan struct{}
	grace  time.Duration

	describe *v1.DescribeResponse
	interest *v1.FilterInterest
	warnings []*v1.Diagnostic
	// caller is nil before serve, and for access plugins, whom nobody calls.
	caller *stream.Conn
	// credits are the calls that it takes at once.
	credits int

	// forget takes it from those that run; nil before it does.
	forget func()

	mu       sync.Mutex
	refused  time.Time // when it was said last that something was (Refuse)
	calls    int
	draining bool
	idle     chan struct{}
	// latest is the last of the deadlines of all its calls.
	latest time.Time
}

// start executes the plugin, does the handshake and asks what it is. What it does
// amiss goes to t, which may be nil. program is executed instead of what the Spec's
// path names, if it is not nil.
func (h *Host) start(ctx context.Context, s *Spec, program *os.File, dir string, files []*os.File, t *troubles) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timing.start)
	defer cancel()
	p := &process{
		spec: s, log: h.logger(s.Instance),
		dir: filepath.Join(dir, strconv.Itoa(h.nextSequence())), grace: h.timing.grace, spoken: make(chan struct{}),
		troubles: t, census: &h.census,
	}
	// Its own lines go into the ring with their fields, not by way of the hook.
	p.lines = newLineLog(h.log.With().Str("plugin", s.Instance).Logger(), h.ring(s.Instance), p.pid)
	p.lines.lost = t
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if foreign(s) {
		if err := os.Chown(p.dir, s.Sandbox.UID, s.Sandbox.GID); err != nil {
			p.end()
			return nil, err
		}
	}
	if err := p.handshake(ctx, h, program, files); err != nil {
		p.end()
		return nil, err
	}
	resp, err := p.api.Describe(ctx, &v1.DescribeRequest{CoreVersion: h.opts.CoreVersion})
	if err != nil {
		err = p.failed("Describe", err)
		p.end()
		return nil, err
	}
	// Who only wants a description need not know what it will be.
	if s.Kind != v1.Kind_KIND_UNSPECIFIED && resp.GetKind() != s.Kind || s.Plugin != "" && resp.GetName() != s.Plugin {
		p.end()
		return nil, fmt.Errorf("this program is the %s plugin %q, not the %s plugin %q; correct the path or the block's labels",
			kindName(resp.GetKind()), resp.GetName(), kindName(s.Kind), s.Plugin)
	}
	p.describe, p.interest = resp, resp.GetFilter()
	return p, nil
}

// pid of the process; 0 before it runs.
func (p *process) pid() int {
	if p.child == nil {
		return 0
	}
	n, _ := strconv.Atoi(p.child.ID())
	return n
}

func kindName(k v1.Kind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "KIND_"))
}

// handshake is what go-plugin's client wants to know of the start-up protocol.
var handshake = plugin.HandshakeConfig{
	ProtocolVersion: sdk.ProtocolVersion, MagicCookieKey: sdk.MagicCookieKey, MagicCookieValue: sdk.MagicCookieValue,
}

// handshake runs the process up to an open connection.
func (p *process) handshake(ctx context.Context, h *Host, instead *os.File, files []*os.File) error {
	cmd := h.command(p.spec, p.dir, nil, files)
	if cmd.Err != nil {
		return cmd.Err
	}
	p.script = instead == nil && script(cmd.Path)
	var program *pinned
	if instead != nil {
		var err error
		if program, err = hold(instead, cmd.Path, p.spec.SHA256); err != nil {
			return err
		}
		defer program.close()
	} else if p.spec.SHA256 != "" {
		var err error
		if program, err = pin(cmd, p.spec.SHA256, p.dir); err != nil {
			return err
		}
		defer program.close()
		if h.pinChecked != nil {
			h.pinChecked(cmd.Path)
		}
	}
	p.child = newChild(h.forker, func() {
		h.mu.Lock()
		h.running[p] = true
		h.mu.Unlock()
		p.readOutput()
	})
	p.forget = func() {
		h.mu.Lock()
		delete(h.running, p)
		h.mu.Unlock()
	}
	p.child.mark = []byte(socketDirEnv + "=" + p.dir)
	if p.spec.Sandbox != nil {
		p.child.confine = func(cmd *exec.Cmd, namespaces bool) (*confinement, error) {
			return h.confine(cmd, p.spec, program, p.dir, namespaces && !h.noNamespaces)
		}
	}
	// Ours instead of go-plugin's AutoMTLS, which is the same but for the curve:
	// P-521 takes 10 ms of CPU on each side.
	cert, err := bootstrap.Certificate()
	if err != nil {
		return err
	}
	config := &plugin.ClientConfig{
		HandshakeConfig: handshake,
		Plugins:         plugin.PluginSet{}, // nothing is dispensed
		TLSConfig:       &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, ServerName: "localhost"},
		RunnerFunc: func(_ hclog.Logger, theirs *exec.Cmd, _ string) (runner.Runner, error) {
			env := append(theirs.Env, bootstrap.ClientCertEnv+"="+string(bootstrap.PEM(cert)))
			p.child.cmd = h.command(p.spec, p.dir, env, files)
			if p.spec.Sandbox == nil {
				program.execute(p.child.cmd)
			}
			return p.child, nil
		},
		StartTimeout:     h.timing.start + time.Second, // ours comes first
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		// Off: with any other level a line like {"@message":5} on the plugin's
		// stderr panics this process (go-plugin 1.8.0).
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard}),
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: p.dir},
	}
	defer context.AfterFunc(ctx, p.child.kill)()
	addr, err := plugin.NewClient(config).Start()
	if err != nil {
		return p.notStarted(ctx, program.explain(err, cmd.Path))
	}
	if err := program.recheck(cmd, p.spec.SHA256); err != nil {
		return err
	}
	h.complain(p)
	_ = os.WriteFile(filepath.Join(p.dir, "pid"), []byte(p.child.ID()+"\n"), 0o600)
	p.conn, err = grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, addr.Network(), addr.String())
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(config.TLSConfig)),
		grpc.WithNoProxy(), grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(stream.MaxMessage), grpc.MaxCallSendMsgSize(stream.MaxMessage)))
	if err != nil {
		return err
	}
	p.api = v1.NewPluginClient(p.conn)
	p.tasks.Go(p.readStdio)
	return nil
}

// notStarted says why there was no handshake, as far as it can be known.
func (p *process) notStarted(ctx context.Context, err error) error {
	if !p.child.started() {
		return err // exec failed: the error names the path
	}
	late := ctx.Err() != nil
	p.child.kill()
	<-p.child.reaped
	p.tasks.Wait()
	text, _, _ := strings.Cut(err.Error(), "\n")
	line, garbage := strings.CutPrefix(text, "Unrecognized remote plugin message: ")
	switch {
	case late:
		text = "it printed no handshake in time"
	case garbage && line == "":
		text = "it ended before its handshake (" + p.child.status() + ")"
	case garbage:
		text = fmt.Sprintf("its first line on stdout is no plugin handshake: %q; is it a plugin, and does it print before it serves?", shorten(line))
	}
	if last := p.lines.lastLine(); last != "" {
		text += "; its last words: " + last
	}
	return errors.New(text)
}

// readOutput logs what the process writes to its stderr.
func (p *process) readOutput() {
	p.tasks.Go(func() {
		defer close(p.spoken)
		w := &lineWriter{log: p.lines}
		_, _ = io.Copy(w, p.child.stderr)
		w.flush()
	})
}

// readStdio takes what a Go plugin prints after go-plugin replaced os.Stdout and
// os.Stderr with pipes: unread, they would fill and block it. Of the message
// {channel = 1, data = 2}, whose type go-plugin keeps to itself, only data matters.
func (p *process) readStdio() {
	w := &lineWriter{log: p.lines}
	defer w.flush()
	s, err := p.conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio")
	if err != nil || s.SendMsg(&emptypb.Empty{}) != nil || s.CloseSend() != nil {
		return
	}
	for {
		var m emptypb.Empty
		if s.RecvMsg(&m) != nil {
			return
		}
		for b := m.ProtoReflect().GetUnknown(); len(b) > 0; {
			num, typ, n := protowire.ConsumeTag(b)
			if n < 0 {
				break
			}
			b = b[n:]
			if num == 2 && typ == protowire.BytesType {
				data, _ := protowire.ConsumeBytes(b)
				_, _ = w.Write(data)
			}
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				break
			}
			b = b[n:]
		}
	}
}

// failed words the error of a unary call, with the process's end if that is why.
func (p *process) failed(call string, err error) error {
	text := err.Error()
	if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	if p.hasEnded(err) {
		text = "the process ended " + p.epitaph()
	}
	return fmt.Errorf("%s: %s", call, text)
}

// hasEnded tells whether the call failed because the process ended. The
// connection breaks a moment before, a long one on a busy machine.
func (p *process) hasEnded(err error) bool {
	soon := time.Duration(0)
	if status.Code(err) == codes.Unavailable {
		soon = 2 * time.Second
	}
	select {
	case <-p.child.exited:
		return true
	case <-time.After(soon):
		return false
	}
}

// epitaph is how a process that has ended did so, and what it said last.
func (p *process) epitaph() string {
	<-p.child.reaped
	<-p.spoken
	text := "(" + p.child.status() + ")"
	if last := p.lines.lastLine(); last != "" {
		text += "; its last words: " + last
	}
	return text
}

// configure hands over the configuration; a *ConfigError if the plugin refuses it.
func (p *process) configure(ctx context.Context, req *v1.ConfigureRequest) error {
	resp, err := p.api.Configure(ctx, req)
	if err != nil {
		return p.failed("Configure", err)
	}
	var wrong []*v1.Diagnostic
	for _, d := range resp.GetDiagnostics() {
		if d.GetSeverity() == v1.Diagnostic_ERROR {
			wrong = append(wrong, d)
		} else {
			p.warnings = append(p.warnings, d)
		}
	}
	if len(wrong) > 0 {
		return &ConfigError{Instance: p.spec.Instance, Diagnostics: wrong}
	}
	if resp.GetFilter() != nil {
		p.interest = resp.GetFilter()
	}
	return nil
}

// serve waits until the plugin is ready and opens its session.
func (p *process) serve(ctx context.Context) error {
	if _, err := p.api.Ready(ctx, &v1.ReadyRequest{}); err != nil {
		return p.failed("Ready", err)
	}
	if p.spec.Kind == v1.Kind_KIND_ACCESS {
		return nil
	}
	sessionCtx, cancel := context.WithCancel(context.Background())
	s, err := p.api.Session(sessionCtx)
	if err != nil {
		cancel()
		return p.failed("Session", err)
	}
	credits := int(p.describe.GetMaxConcurrent())
	if credits <= 0 {
		credits = stream.DefaultCredits
	}
	if p.spec.MaxConcurrent > 0 {
		credits = min(credits, p.spec.MaxConcurrent)
	}
	p.credits = credits
	p.caller = stream.NewCaller(s, stream.Credits(credits), stream.OnClose(cancel))
	return nil
}

// sessionDone is closed when the session broke; never for access plugins.
func (p *process) sessionDone() <-chan struct{} {
	if p.caller == nil {
		return nil
	}
	return p.caller.Done()
}

// acquire counts a call in; false if the process takes none any more.
func (p *process) acquire() bool {
	select {
	case <-p.sessionDone():
		return false
	case <-p.child.exited:
		return false
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return false
	}
	p.calls++
	return true
}

// expect notes when a call will have ended at the latest.
func (p *process) expect(ctx context.Context) {
	if d, ok := ctx.Deadline(); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		if d.After(p.latest) {
			p.latest = d
		}
	}
}

// lastDeadline of the calls under way; zero if there are none.
func (p *process) lastDeadline() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls == 0 {
		return time.Time{}
	}
	return p.latest
}

func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls--
	if p.calls == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

func (p *process) inFlight() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// stop ends the process in good order: the calls under way, then what else it
// does (Drain), then itself. When ctx ends it is killed.
func (p *process) stop(ctx context.Context) {
	defer p.end()
	p.mu.Lock()
	p.draining = true
	idle := make(chan struct{})
	if p.calls == 0 {
		close(idle)
	} else {
		p.idle = idle
	}
	p.mu.Unlock()
	select {
	case <-idle:
	case <-p.sessionDone():
	case <-p.child.exited:
		return
	case <-ctx.Done():
		p.log.Warn().Int("calls", p.inFlight()).Msg("plugin is ended with calls under way: they took longer than its stop timeout")
		return
	}
	req := &v1.DrainRequest{}
	if d, ok := ctx.Deadline(); ok {
		req.DeadlineMs = max(1, time.Until(d).Milliseconds())
	}
	if _, err := p.api.Drain(ctx, req); err != nil {
		p.log.Warn().Err(p.failed("Drain", err)).Msg("plugin did not drain")
	}
	p.quit(ctx)
}

// quit asks the process to end and gives it the grace to do so.
func (p *process) quit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.grace)
	defer cancel()
	if p.caller != nil {
		p.caller.Close()
	}
	_ = p.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	select {
	case <-p.child.exited:
	case <-ctx.Done():
		p.log.Warn().Str("pid", p.child.ID()).Msg("plugin did not end when told to and is killed")
	}
}

// end kills what is left and removes every trace: connection, pipes, sockets.
func (p *process) end() {
	started := p.child != nil && p.child.started()
	if started {
		p.child.kill()
		<-p.child.reaped
		if n := p.child.orphans; n > 0 {
			p.log.Warn().Int("processes", n).Msgf("plugin left %s behind when it ended: they are killed", count(uint64(n), "process"))
			p.troubles.note(LeftBehind, uint64(n), 0, "")
		}
	}
	if p.caller != nil {
		p.caller.Close()
	}
	if p.conn != nil {
		p.conn.Close()
	}
	p.tasks.Wait()
	if started {
		p.child.stdout.Close()
		p.child.stderr.Close()
	}
	p.lines.finish()
	if p.forget != nil {
		p.forget()
	}
	os.RemoveAll(p.dir)
}
