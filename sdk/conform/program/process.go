package program

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
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
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stagecoach-mta/stagecoach/sdk"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// maxOutput is how much of what a process writes is kept, per pipe.
const maxOutput = 64 << 10

// process is one run of the plugin: started, shaken hands with, and watched. It
// does by itself what go-plugin's client does, to see each step.
type process struct {
	cmd    *exec.Cmd
	pid    int
	dir    string // for its socket
	line   handshakeLine
	conn   *grpc.ClientConn
	api    v1.PluginClient
	exited chan struct{}

	// set by open
	interest *v1.FilterInterest
	caller   *stream.Conn
	place    *place

	mu     sync.Mutex
	stdout []byte // after the handshake line, and what go-plugin streams of it
	stderr []byte
	tasks  sync.WaitGroup
}

// handshakeLine is go-plugin's: core|protocol|network|address|kind|certificate.
type handshakeLine struct {
	address string
	cert    *x509.Certificate
}

// launch says how a process is started.
type launch struct {
	env   []string   // beside the usual ones
	files []*os.File // from descriptor 3 on
	via   []string   // a program that starts it
	tmp   string     // TMPDIR
	// leaveGroup: what is left of its process group when it ends is let live.
	leaveGroup bool
}

// passedEnv are the variables that the core passes on (core/host).
var passedEnv = []string{"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "GOCOVERDIR"}

// exec starts the program and returns without having spoken to it.
func (s *suite) exec(ctx context.Context, l launch, cookie bool) (p *process, stdout *os.File, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(s.dir, "p")
	if err != nil {
		return nil, nil, err
	}
	argv := append(append([]string{}, l.via...), s.opts.Command...)
	p = &process{cmd: exec.Command(argv[0], argv[1:]...), dir: dir, exited: make(chan struct{})}
	p.cmd.Env = []string{}
	for _, name := range passedEnv {
		if v, ok := os.LookupEnv(name); ok {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	p.cmd.Env = append(p.cmd.Env, s.opts.Env...)
	if l.tmp != "" {
		p.cmd.Env = append(p.cmd.Env, "TMPDIR="+l.tmp)
	}
	if cookie {
		p.cmd.Env = append(p.cmd.Env, sdk.MagicCookieKey+"="+sdk.MagicCookieValue)
	}
	p.cmd.Env = append(p.cmd.Env, "PLUGIN_MIN_PORT=10000", "PLUGIN_MAX_PORT=25000",
		fmt.Sprintf("PLUGIN_PROTOCOL_VERSIONS=%d", sdk.ProtocolVersion), "PLUGIN_UNIX_SOCKET_DIR="+dir)
	p.cmd.Env = append(p.cmd.Env, "PLUGIN_CLIENT_CERT="+string(s.certPEM))
	p.cmd.Env = append(p.cmd.Env, l.env...)
	p.cmd.ExtraFiles = l.files
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		outRead.Close()
		outWrite.Close()
		return nil, nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = outWrite, errWrite
	err = p.cmd.Start()
	outWrite.Close()
	errWrite.Close()
	if err != nil {
		outRead.Close()
		errRead.Close()
		return nil, nil, err
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait()
		if !l.leaveGroup {
			_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		}
		close(p.exited)
		if l.leaveGroup {
			return
		}
		// Somebody outside of the group, or an orphan, may hold the pipes.
		soon := time.Now().Add(200 * time.Millisecond)
		_ = outRead.SetReadDeadline(soon)
		_ = errRead.SetReadDeadline(soon)
	}()
	p.tasks.Go(func() { p.keep(errRead, &p.stderr) })
	return p, outRead, nil
}

// start executes the program and does the handshake. The process is ended by the
// check's cleanup, if not before.
func (s *suite) start(ctx context.Context, l launch) (*process, error) {
	p, stdout, err := s.exec(ctx, l, true)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Start)
	defer cancel()
	r := bufio.NewReaderSize(stdout, maxOutput)
	first := make(chan string, 1)
	p.tasks.Go(func() {
		text, err := r.ReadString('\n')
		if err != nil {
			text += "\x00" // no line end: it ended, or was ended
		}
		first <- text
		p.keep(struct {
			io.Reader
			io.Closer
		}{r, stdout}, &p.stdout)
	})
	var text string
	select {
	case text = <-first:
	case <-ctx.Done():
		p.kill()
		part := strings.TrimRight(<-first, "\x00")
		return nil, &startError{fmt.Sprintf("no handshake line on its standard output within %s (read %q)", s.opts.Start, short(part)), p.words()}
	}
	if strings.HasSuffix(text, "\x00") {
		<-p.exited
		p.kill()
		return nil, &startError{fmt.Sprintf("it ended before a handshake line (%s; standard output %q)", p.cmd.ProcessState, short(strings.TrimRight(text, "\x00"))), p.words()}
	}
	if p.line, err = s.parse(strings.TrimSpace(text)); err == nil {
		err = p.connect(s)
	}
	if err != nil {
		p.kill()
		return nil, &startError{err.Error(), p.words()}
	}
	return p, nil
}

// startError is why there was no handshake, with the process's last words.
type startError struct{ text, words string }

func (e *startError) Error() string {
	if e.words == "" {
		return e.text
	}
	return e.text + "; on its standard error: " + e.words
}

// parse reads a handshake line as go-plugin's client does, and says what is
// wrong with it more plainly.
func (s *suite) parse(line string) (h handshakeLine, err error) {
	f := strings.Split(line, "|")
	if len(f) < 5 {
		return h, fmt.Errorf("the first line on its standard output is no handshake: %q; it is 1|1|unix|PATH|grpc|CERTIFICATE", short(line))
	}
	switch {
	case f[0] != "1":
		return h, fmt.Errorf("the handshake's core version is %q, not 1", f[0])
	case f[1] != strconv.Itoa(sdk.ProtocolVersion):
		return h, fmt.Errorf("the handshake's protocol version is %q, and PLUGIN_PROTOCOL_VERSIONS offered %d", f[1], sdk.ProtocolVersion)
	case f[2] != "unix" && f[2] != "tcp":
		return h, fmt.Errorf("the handshake's network is %q, not unix", f[2])
	case f[4] != "grpc":
		return h, fmt.Errorf("the handshake's kind is %q, not grpc", f[4])
	}
	h.address = f[2] + ":" + f[3]
	if len(f) < 6 || f[5] == "" {
		return h, errors.New("the handshake has no certificate in its sixth field, but PLUGIN_CLIENT_CERT asked for TLS (AutoMTLS)")
	}
	der, err := base64.RawStdEncoding.DecodeString(f[5])
	if err != nil {
		return h, fmt.Errorf("the handshake's certificate is not base64 without padding: %w", err)
	}
	if h.cert, err = x509.ParseCertificate(der); err != nil {
		return h, fmt.Errorf("the handshake's certificate is no DER of X.509: %w", err)
	}
	return h, nil
}

func (p *process) dialer(ctx context.Context, _ string) (net.Conn, error) {
	var d net.Dialer
	network, address, _ := strings.Cut(p.line.address, ":")
	return d.DialContext(ctx, network, address)
}

func (p *process) connect(s *suite) (err error) {
	roots := x509.NewCertPool()
	roots.AddCert(p.line.cert)
	p.conn, err = grpc.NewClient("passthrough:///plugin", grpc.WithContextDialer(p.dialer),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{s.cert}, RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12,
		})),
		grpc.WithNoProxy(), grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(stream.MaxMessage), grpc.MaxCallSendMsgSize(stream.MaxMessage)))
	if err != nil {
		return err
	}
	p.api = v1.NewPluginClient(p.conn)
	p.tasks.Go(p.readStdio)
	return nil
}

// keep stores what comes, up to maxOutput, and reads on.
func (p *process) keep(r io.ReadCloser, into *[]byte) {
	defer r.Close()
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		p.store(into, buf[:n])
		if err != nil {
			return
		}
	}
}

func (p *process) store(into *[]byte, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*into = append(*into, b...)
	if n := len(*into); n > maxOutput {
		*into = (*into)[n-maxOutput:]
	}
}

// readStdio takes what a Go plugin prints after go-plugin put pipes in the place
// of os.Stdout and os.Stderr: {channel = 1 (1 is stdout), data = 2}.
func (p *process) readStdio() {
	s, err := p.conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio")
	if err != nil || s.SendMsg(&emptypb.Empty{}) != nil || s.CloseSend() != nil {
		return
	}
	for {
		var m emptypb.Empty
		if s.RecvMsg(&m) != nil {
			return
		}
		into := &p.stderr
		for b := m.ProtoReflect().GetUnknown(); len(b) > 0; {
			num, typ, n := protowire.ConsumeTag(b)
			if n < 0 {
				break
			}
			b = b[n:]
			switch {
			case num == 1 && typ == protowire.VarintType:
				if v, _ := protowire.ConsumeVarint(b); v == 1 {
					into = &p.stdout
				}
			case num == 2 && typ == protowire.BytesType:
				data, _ := protowire.ConsumeBytes(b)
				p.store(into, data)
			}
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				break
			}
			b = b[n:]
		}
	}
}

// words are the last lines on its standard error.
func (p *process) words() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(p.stderr)), "\n")
	return short(strings.Join(lines[max(0, len(lines)-3):], " / "))
}

// printed is what it wrote to its standard output after the handshake.
func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.stdout)
}

func short(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// alive tells whether the process lives and, if it has one, its session.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
	}
	if p.caller == nil {
		return true
	}
	select {
	case <-p.caller.Done():
		return false
	default:
		return true
	}
}

// ended waits for the end of the process; false if it did not come in time.
func (p *process) ended(within time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(within):
		return false
	}
}

// state says how it is with the process, for a failure's text. One that just
// closed its connections is most likely about to end.
func (p *process) state() string {
	p.ended(100 * time.Millisecond)
	select {
	case <-p.exited:
		out := "the process ended: " + p.cmd.ProcessState.String()
		if w := p.words(); w != "" {
			out += "; its last words: " + w
		}
		return out
	default:
		return "the process lives"
	}
}

// kill ends it at once and takes away all that belonged to it.
func (p *process) kill() {
	select {
	case <-p.exited:
	default:
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.exited
	}
	if p.caller != nil {
		p.caller.Close()
	}
	if p.conn != nil {
		p.conn.Close()
	}
	p.tasks.Wait()
	os.RemoveAll(p.dir)
}

// shutdown asks it to end as the core does.
func (p *process) shutdown(ctx context.Context) {
	_ = p.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
}

// socketInside tells whether its socket lies where it was told to put it.
func (p *process) socketInside() bool {
	path, ok := strings.CutPrefix(p.line.address, "unix:")
	rel, err := filepath.Rel(p.dir, path)
	return ok && err == nil && filepath.IsLocal(rel)
}
