package pluginbench

import (
	"bufio"
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// The yardstick is a process of this binary's that does with gRPC what a plugin
// does, and nothing else: a bidirectional stream per caller, over TLS on a unix
// socket, an empty reply for each call. Beside it stands a TCP listener that says
// one line, for access plugins. What a plugin costs more than this is the price of
// the contract and the plugin's own work.
const (
	yardSocket = "yardstick.sock"
	yardCert   = "yardstick.pem"
)

// bare answers frames with no engine.
type bare struct{ v1.UnimplementedPeerServer }

// Session implements v1.PeerServer.
func (bare) Session(s grpc.BidiStreamingServer[v1.Frame, v1.Frame]) error {
	for {
		f, err := s.Recv()
		if err != nil {
			return nil // the caller has what it wanted
		}
		err = s.Send(&v1.Frame{Id: f.GetId(), Body: &v1.Frame_Reply{Reply: &v1.Reply{
			Response: &v1.Reply_Filter{Filter: &v1.FilterReply{Verdict: &v1.Verdict{}}},
		}}})
		if err != nil {
			return err
		}
	}
}

// ServeYardstick is the child process. It prints where it is, and ends with its
// standard input.
func ServeYardstick(dir string, stdin io.Reader, stdout io.Writer) error {
	pair, cert, _, err := conform.Certificate(elliptic.P256())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, yardCert), cert, 0o600); err != nil {
		return err
	}
	lis, err := net.Listen("unix", filepath.Join(dir, yardSocket))
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&pair)), grpc.MaxRecvMsgSize(stream.MaxMessage))
	v1.RegisterPeerServer(g, bare{})
	served := make(chan error, 2)
	go func() { served <- g.Serve(lis) }()
	go func() { served <- greet(tcp) }()
	if _, err := fmt.Fprintln(stdout, tcp.Addr()); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		g.Stop()
	}()
	return <-served
}

func greet(lis net.Listener) error {
	for {
		c, err := lis.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.WriteString(c, "+OK\r\n")
		}()
	}
}

// yardstick is the parent's end.
type yardstick struct {
	cmd   *exec.Cmd
	stdin io.Closer
	tcp   string
	conn  *grpc.ClientConn
}

// startYardstick runs the child: command is this binary's and its words, dir a
// folder for its socket.
func startYardstick(command []string, dir string) (*yardstick, error) {
	y := &yardstick{cmd: exec.Command(command[0], append(command[1:], dir)...)}
	// A Ctrl-C is for us; it ends with its input.
	y.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := y.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	y.stdin = stdin
	stdout, err := y.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var words strings.Builder
	y.cmd.Stderr = &words
	if err := y.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		y.close()
		return nil, fmt.Errorf("the yardstick does not start: %s", strings.TrimSpace(words.String()))
	}
	y.tcp = strings.TrimSpace(line)
	pem, err := os.ReadFile(filepath.Join(dir, yardCert))
	if err != nil {
		y.close()
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		y.close()
		return nil, errors.New("the yardstick has no certificate")
	}
	y.conn, err = grpc.NewClient("unix:"+filepath.Join(dir, yardSocket), grpc.WithNoProxy(), grpc.WithIdleTimeout(0),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "localhost"})),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(stream.MaxMessage)))
	if err != nil {
		y.close()
	}
	return y, err
}

func (y *yardstick) close() {
	if y.conn != nil {
		_ = y.conn.Close()
	}
	_ = y.stdin.Close()
	_ = y.cmd.Wait()
}

// caller is one stream, in lockstep: the fastest way that gRPC has.
func (y *yardstick) caller(ctx context.Context) (func(*v1.Call) error, error) {
	s, err := v1.NewPeerClient(y.conn).Session(ctx)
	if err != nil {
		return nil, err
	}
	return func(call *v1.Call) error {
		if err := s.Send(&v1.Frame{Id: 1, Body: &v1.Frame_Call{Call: call}}); err != nil {
			return err
		}
		_, err := s.Recv()
		return err
	}, nil
}

// BareStart is what the start of a plugin stands beside: from the order to start the
// yardstick's process, which makes a certificate, until it has answered the first call
// over TLS. dir is an empty folder.
func BareStart(ctx context.Context, command []string, dir string) (time.Duration, error) {
	began := time.Now()
	y, err := startYardstick(command, dir)
	if err != nil {
		return 0, err
	}
	defer y.close()
	ask, err := y.caller(ctx)
	if err == nil {
		err = ask(&v1.Call{Request: &v1.Call_Filter{Filter: &v1.FilterCall{}}})
	}
	return time.Since(began), err
}
