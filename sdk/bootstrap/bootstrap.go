// Package bootstrap is how a core and a plugin's process meet: the start-up
// protocol of hashicorp/go-plugin, for which docs/contract.md has the words. Listen
// is the plugin's side; Certificate is for both. It is not for plugin authors:
// sdk.Serve does all of it.
//
// The library itself is not used here. It would make keys on the curve P-521,
// whose arithmetic costs each start some 20 ms of CPU and each process half a
// megabyte of tables, and it would put the plugin's stderr behind a pipe in which
// the last words of one that dies are lost.
package bootstrap

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"
)

// The environment in which the core starts a plugin.
const (
	// ClientCertEnv holds the core's certificate as PEM; unset: no TLS.
	ClientCertEnv = "PLUGIN_CLIENT_CERT"
	// SocketDirEnv is the directory for the socket; unset: the temporary one.
	SocketDirEnv = "PLUGIN_UNIX_SOCKET_DIR"
)

// shutdownGrace is how long calls may go on that are under way at Shutdown: the
// core has let all end before, and kills at last.
const shutdownGrace = 500 * time.Millisecond

// Listener is a plugin's socket before it serves.
type Listener struct {
	net.Listener
	cert *tls.Certificate // nil: no TLS
	pool *x509.CertPool
}

// Listen opens the socket on which the core will call, as the environment says.
func Listen() (*Listener, error) {
	l := &Listener{}
	if text := os.Getenv(ClientCertEnv); text != "" {
		l.pool = x509.NewCertPool()
		if !l.pool.AppendCertsFromPEM([]byte(text)) {
			return nil, errors.New(ClientCertEnv + " holds no certificate in PEM form")
		}
		cert, err := Certificate()
		if err != nil {
			return nil, err
		}
		l.cert = &cert
	}
	dir := os.Getenv(SocketDirEnv)
	if dir == "" {
		dir = os.TempDir()
	}
	var err error
	// Unix socket paths have room for about 100 octets: a short name.
	l.Listener, err = net.Listen("unix", filepath.Join(dir, "plugin"+rand.Text()[:8]))
	return l, err
}

// Options are those that the gRPC server on the listener needs.
func (l *Listener) Options() []grpc.ServerOption {
	if l.cert == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{*l.cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    l.pool,
		MinVersion:   tls.VersionTLS12,
	}))}
}

// Line is the handshake: what the process prints, first of all and flushed, on
// its stdout when the socket is open. version is the contract's major version.
func (l *Listener) Line(version int) string {
	cert := ""
	if l.cert != nil {
		cert = base64.RawStdEncoding.EncodeToString(l.cert.Certificate[0])
	}
	return fmt.Sprintf("1|%d|unix|%s|grpc|%s", version, l.Addr(), cert)
}

// Register adds what go-plugin's hosts call beside the contract: the health
// service, and Shutdown, which ends g and with it g.Serve.
func Register(g *grpc.Server) {
	h := health.NewServer()
	h.SetServingStatus("plugin", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(g, h)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "plugin.GRPCController",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Shutdown",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				if err := decode(&emptypb.Empty{}); err != nil {
					return nil, err
				}
				go func() { // after the answer, which is a call under way, too
					defer time.AfterFunc(shutdownGrace, g.Stop).Stop()
					g.GracefulStop()
				}()
				return &emptypb.Empty{}, nil
			},
		}},
	}, nil)
}
