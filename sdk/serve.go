package sdk

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"github.com/stagecoach-mta/stagecoach/sdk/bootstrap"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// What both ends of the start-up agree on (docs/contract.md). The protocol version
// is the contract's major version.
const (
	ProtocolVersion  = 1
	MagicCookieKey   = "STAGECOACH_PLUGIN"
	MagicCookieValue = "dbcf8a2c-stagecoach-plugin-v1"
)

// termGrace is how long a plugin that gets SIGTERM drains.
const termGrace = 5 * time.Second

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
	if kind, _ := p.Kind(); kind == v1.Kind_KIND_FILTER {
		s.processors = frugal()
	}
	go s.endOnTerm()
	go endWithParent(os.Getppid())
	go rest()
	if err := s.serve(); err != nil {
		s.log.Error().Err(err).Msg("cannot serve")
		os.Exit(1)
	}
	if err := s.Close(); err != nil {
		s.log.Error().Err(err).Msg("could not close")
		os.Exit(1)
	}
}

// serve takes the core's calls until it says Shutdown.
func (s *Server) serve() error {
	lis, err := bootstrap.Listen()
	if err != nil {
		return err
	}
	g := newGRPCServer(lis.Options()...)
	v1.RegisterPluginServer(g, s)
	bootstrap.Register(g)
	// A Ctrl-C goes to the whole foreground group, and the core ends us in order.
	// Not signal.Ignore, which the programs that a plugin starts would inherit.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	if _, err := fmt.Println(lis.Line(ProtocolVersion)); err != nil {
		return err
	}
	// What a plugin prints belongs into the log: nobody reads its stdout any more.
	os.Stdout = os.Stderr
	return g.Serve(lis)
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
func newGRPCServer(opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(stream.MaxMessage), grpc.MaxSendMsgSize(stream.MaxMessage))...)
}

// processLogger writes zerolog to stderr with hclog's keys, which every go-plugin
// host understands. The keys are package globals: so only in a plugin's main.
func processLogger() zerolog.Logger {
	zerolog.MessageFieldName = "@message"
	zerolog.LevelFieldName = "@level"
	zerolog.TimestampFieldName = "@timestamp"
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000000Z07:00"
	return zerolog.New(os.Stderr).With().Timestamp().Logger()
}

// endOnTerm drains and ends at SIGTERM.
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
	g := newGRPCServer()
	v1.RegisterPluginServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(lis)
	if cerr := s.Close(); err == nil || ctx.Err() != nil {
		err = cerr
	}
	return err
}
