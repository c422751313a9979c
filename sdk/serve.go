package sdk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Handshake is what both ends of go-plugin's start-up agree on. The protocol
// version is the contract's major version.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  ProtocolVersion,
	MagicCookieKey:   MagicCookieKey,
	MagicCookieValue: MagicCookieValue,
}

// The parts of Handshake, for plugins in other languages.
const (
	ProtocolVersion  = 1
	MagicCookieKey   = "STAGECOACH_PLUGIN"
	MagicCookieValue = "dbcf8a2c-stagecoach-plugin-v1"
)

// PluginName is the one entry of PluginMap.
const PluginName = "stagecoach"

// termGrace is how long a plugin that gets SIGTERM drains.
const termGrace = 5 * time.Second

// GRPCPlugin joins the contract to go-plugin; both ends use it.
type GRPCPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	// Impl is the serving end's; nil at the calling end.
	Impl *Server
}

var _ plugin.GRPCPlugin = (*GRPCPlugin)(nil)

// Client is what the calling end dispenses.
type Client struct {
	v1.PluginClient
	// Conn is whose connection it uses.
	Conn *grpc.ClientConn
	// Context ends when go-plugin has seen the process exit.
	Context context.Context
}

// GRPCServer implements plugin.GRPCPlugin.
func (g *GRPCPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if g.Impl == nil {
		return errors.New("no plugin to serve")
	}
	v1.RegisterPluginServer(s, g.Impl)
	return nil
}

// GRPCClient implements plugin.GRPCPlugin.
func (g *GRPCPlugin) GRPCClient(ctx context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return &Client{PluginClient: v1.NewPluginClient(c), Conn: c, Context: ctx}, nil
}

// PluginMap is go-plugin's set of plugins for the calling end.
func PluginMap() plugin.PluginSet {
	return plugin.PluginSet{PluginName: &GRPCPlugin{}}
}

// Serve is the main of a plugin. It returns when the core has told the process
// to end; a process that a person started by hand says what it is on stderr and
// exits with status 2.
func Serve(p Plugin) {
	if os.Getenv(MagicCookieKey) != MagicCookieValue {
		byHand(p)
		os.Exit(2)
	}
	if _, err := Describe(p); err != nil {
		fmt.Fprintln(os.Stderr, "stagecoach plugin:", err)
		os.Exit(1)
	}
	s := NewServer(p, processLogger())
	go s.endOnTerm()
	go endWithParent(os.Getppid())
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins:         plugin.PluginSet{PluginName: &GRPCPlugin{Impl: s}},
		GRPCServer:      newGRPCServer,
		// go-plugin's own messages about itself are the core's business.
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
	})
	if err := s.Close(); err != nil {
		s.log.Error().Err(err).Msg("could not close")
		os.Exit(1)
	}
}

func byHand(p Plugin) {
	kind, _ := p.Kind()
	word := map[v1.Kind]string{
		v1.Kind_KIND_FILTER: "filter", v1.Kind_KIND_STORAGE: "storage", v1.Kind_KIND_ACCESS: "access",
		v1.Kind_KIND_DELIVER: "deliver", v1.Kind_KIND_DIRECTORY: "directory",
	}[kind]
	fmt.Fprintf(os.Stderr, `This is a Stagecoach plugin: %s %q %s
%s
Stagecoach starts it itself. Name it in the configuration:

  plugin %q { path = %q }
  %s %q "my" { }
`, word, p.Name, p.Version, p.Summary, p.Name, os.Args[0], word, p.Name)
}

// newGRPCServer has no 4 MiB limit on what it receives.
func newGRPCServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(stream.MaxMessage), grpc.MaxSendMsgSize(stream.MaxMessage))...)
}

// processLogger writes zerolog to stderr with hclog's keys, which every go-plugin
// host understands. The keys are package globals: so only in a plugin's main.
func processLogger() zerolog.Logger {
	zerolog.MessageFieldName = "@message"
	zerolog.LevelFieldName = "@level"
	zerolog.TimestampFieldName = "@timestamp"
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000000Z07:00"
	// go-plugin replaces os.Stderr by a pipe of its own; this is the real one.
	return zerolog.New(os.Stderr).With().Timestamp().Logger()
}

// endOnTerm drains and ends at SIGTERM. SIGINT is ignored (by go-plugin): a
// Ctrl-C goes to the whole foreground group, and the core ends us in order.
func (s *Server) endOnTerm() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	s.end()
}

func (s *Server) end() {
	_, _ = s.Drain(context.Background(), &v1.DrainRequest{DeadlineMs: termGrace.Milliseconds()})
	if s.Close() != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// endWithParent ends the process when the core is gone: the kernel then gives it
// another parent. It backs up the core's Pdeathsig, which not every way of
// starting a process has.
func endWithParent(parent int) {
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			os.Exit(3)
		}
	}
}

// ServeInstance serves s on a listener until ctx ends: the plugin's side of the
// contract without a process of its own, for tests. It closes s.
func ServeInstance(ctx context.Context, lis net.Listener, s *Server) error {
	g := newGRPCServer(nil)
	v1.RegisterPluginServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(lis)
	if cerr := s.Close(); err == nil || ctx.Err() != nil {
		err = cerr
	}
	return err
}
