package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/pipeline"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func (a *App) serve() *cobra.Command {
	var (
		src   source
		quiet bool
	)
	c := &cobra.Command{
		Use: "serve -c FILE", Short: "Run the server", Args: cobra.NoArgs,
		Long: `Run the server in the foreground. The log goes to standard error.

SIGHUP (or ` + "`stagecoach reload`" + `) reads the configuration again: everything new is brought up
first, then swapped; a file with mistakes changes nothing. SIGINT and SIGTERM end the
server: transactions under way may end, what is not delivered stays in the queue.`,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(cmd, src)
			if err != nil {
				return err
			}
			s := &running{app: a, src: src, since: time.Now(), log: logger(cmd.ErrOrStderr(), cfg.Log)}
			return s.run(cmd.Context(), cfg, func(p *pipeline.Pipeline) {
				if !quiet {
					greet(cmd.OutOrStdout(), p, cfg)
				}
			})
		}),
	}
	src.flags(c)
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not print what listens")
	return c
}

// logger writes JSON, or lines for people, as the configuration says.
func logger(w io.Writer, l config.Log) zerolog.Logger {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	level, err := zerolog.ParseLevel(l.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	if l.Format == "console" {
		w = zerolog.ConsoleWriter{Out: w, FieldsOrder: []string{"queue_id", "from", "to"}, TimeFormat: "15:04:05.000", NoColor: !terminal(w)}
	}
	// Plugins and stages log at the same time.
	return zerolog.New(zerolog.SyncWriter(w)).Level(level).With().Timestamp().Logger()
}

// running is one serving process.
type running struct {
	app      *App
	src      source
	since    time.Time
	log      zerolog.Logger
	pipeline *pipeline.Pipeline
}

var _ admin.Backend = (*running)(nil)

func (s *running) run(ctx context.Context, cfg *config.Config, up func(*pipeline.Pipeline)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Signals are ours from here on: one that comes during the start ends it
	// cleanly too.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	s.log.Info().Str("version", s.app.Version).Strs("config", cfg.Files).Str("data_dir", cfg.DataDir).Msg("starting")
	if s.pipeline, err = pipeline.Start(ctx, cfg, pipeline.Options{Executable: self, Version: s.app.Version, Log: s.log}); err != nil {
		return s.explain(cfg, err)
	}
	adm, err := admin.Listen(cfg.Admin.Socket, s, s.pipeline.Host().Refuse)
	if err != nil {
		return errors.Join(err, s.pipeline.Stop(context.Background()))
	}
	go func() {
		if err := adm.Serve(); err != nil {
			s.log.Error().Err(err).Msg("the admin socket ended")
		}
	}()
	up(s.pipeline)
	cause := s.wait(ctx, signals)
	_ = adm.Close()
	s.log.Info().Msg("stopping")
	// A second signal means now.
	go func() {
		for sig := range signals {
			if sig != syscall.SIGHUP {
				s.log.Warn().Msg("stopped at once; what was not delivered is in the queue")
				os.Exit(ExitFailed)
			}
		}
	}()
	err = errors.Join(cause, s.pipeline.Stop(context.WithoutCancel(ctx)))
	s.log.Info().Msg("stopped")
	return err
}

// wait returns when the server is to end; an error if it must.
func (s *running) wait(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.pipeline.Failed():
			return fmt.Errorf("the server can promise nothing any more: %w", err)
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return nil
			}
			if err := s.Reload(ctx); err != nil {
				s.log.Error().Msg("the configuration was not changed:\n" + err.Error())
			}
		}
	}
}

// explain points a plugin's own complaint at the line it is about.
func (s *running) explain(cfg *config.Config, err error) error {
	code, head, diags := ExitFailed, "it cannot start", config.Diagnostics(nil)
	each(err, func(err error) bool {
		switch e := err.(type) {
		case *host.ConfigError:
			code, head = ExitConfig, "the configuration has mistakes"
			for _, d := range e.Diagnostics {
				diags = append(diags, cfg.Locate(e.Instance, d)...)
			}
		case *host.StartError:
			var pin *host.PinError
			if errors.As(e, &pin) {
				code = ExitConfig
				diags = append(diags, cfg.LocatePin(e.Instance)...)
				return true
			}
			// Which call it was tells a plugin's author, not the operator.
			text := strings.TrimPrefix(strings.TrimPrefix(e.Err.Error(), "Ready: "), "Configure: ")
			diags = append(diags, cfg.LocateStart(e.Instance, text)...)
		case *pipeline.ListenError:
			diags = append(diags, e.Diagnostic(cfg)...)
		default:
			return false
		}
		return true
	})
	if len(diags) == 0 {
		return err
	}
	var b bytes.Buffer
	if werr := diags.WriteText(&b, false); werr != nil {
		return err
	}
	return &exit{code, errors.New(head + "\n" + strings.TrimSpace(b.String()))}
}

// each visits err and what it wraps, not below what visit has taken.
func each(err error, visit func(error) bool) {
	if err == nil || visit(err) {
		return
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			each(one, visit)
		}
	case interface{ Unwrap() error }:
		each(e.Unwrap(), visit)
	}
}

// Reload reads the files again. The error is what was wrong with them.
func (s *running) Reload(ctx context.Context) error {
	begin := time.Now()
	cfg, err := s.again(ctx)
	if err != nil {
		return err
	}
	if err := s.pipeline.Reload(ctx, cfg); err != nil {
		return s.explain(cfg, err)
	}
	s.log.Info().Strs("config", cfg.Files).Dur("took", time.Since(begin)).Msg("configuration reloaded")
	return nil
}

// again reads the files of the configuration; the error is what is wrong in them.
func (s *running) again(ctx context.Context) (*config.Config, error) {
	cfg, diags := s.app.parse(ctx, s.src)
	if diags.HasErrors() {
		var b bytes.Buffer
		if err := diags.WriteText(&b, false); err != nil {
			return nil, err
		}
		return nil, errors.New(strings.TrimSpace(b.String()))
	}
	return cfg, nil
}

// Status for the admin socket.
func (s *running) Status(ctx context.Context) (admin.Status, error) {
	cfg := s.pipeline.Config()
	st, err := s.pipeline.Queue().Stats(ctx)
	return admin.Status{
		Version: s.app.Version, PID: os.Getpid(), Hostname: cfg.Hostname, Since: s.since,
		Config: cfg.Files, DataDir: cfg.DataDir, Queue: st,
	}, err
}

// Queue for the admin socket.
func (s *running) Queue() queue.Queue { return s.pipeline.Queue() }

// Flush for the admin socket.
func (s *running) Flush(ctx context.Context, f queue.Filter) (int, error) {
	return s.pipeline.Flush(ctx, f)
}

// RestartPlugin for the admin socket.
func (s *running) RestartPlugin(ctx context.Context, instance string) error {
	if err := s.pipeline.Host().Restart(ctx, instance); err != nil {
		return s.explain(s.pipeline.Config(), err)
	}
	return nil
}

// greet says what listens, and what the configuration wants said.
func greet(w io.Writer, p *pipeline.Pipeline, cfg *config.Config) {
	fmt.Fprintf(w, "%s is up. Data: %s\n\n", cfg.Hostname, cfg.DataDir)
	for _, r := range cfg.Receives {
		for _, l := range r.Listen {
			fmt.Fprintf(w, "  %-28s %s%s\n", r.Ref, p.Addr(l), tlsNote(l, r.TLS != nil))
		}
	}
	bound := map[string][]string{}
	for _, i := range p.Host().List() {
		bound[i.Instance] = i.Listeners
	}
	for _, i := range cfg.ByKind(v1.Kind_KIND_ACCESS) {
		for n, l := range i.Listen {
			address := l.Address
			if at := bound[i.Ref]; n < len(at) {
				address = at[n]
			}
			fmt.Fprintf(w, "  %-28s %s%s\n", i.Ref, address, tlsNote(l, i.TLS != nil))
		}
	}
	if m := cfg.Metrics.Listen; m != nil {
		fmt.Fprintf(w, "  %-28s http://%s/metrics\n", "metrics", p.Addr(*m))
	}
	if cfg.Welcome != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimRight(cfg.Welcome, "\n"))
	}
	fmt.Fprintln(w)
}

func tlsNote(l config.Listen, tls bool) string {
	switch {
	case l.ImplicitTLS:
		return " (TLS)"
	case tls:
		return " (STARTTLS)"
	}
	return ""
}

func (a *App) reload() *cobra.Command {
	var src source
	c := &cobra.Command{
		Use: "reload -c FILE", Short: "Let the running server read its configuration again", Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client(cmd, src)
			if err != nil {
				return err
			}
			if err := cl.Call(cmd.Context(), "POST", "/reload", nil, &struct{}{}); err != nil {
				if errors.Is(err, admin.ErrNotRunning) {
					return &exit{ExitNotRunning, err}
				}
				return &exit{ExitConfig, fmt.Errorf("the configuration was not changed:\n%w", err)}
			}
			fmt.Fprintln(cmd.OutOrStdout(), "The new configuration holds.")
			return nil
		}),
	}
	src.flags(c)
	return c
}

// client connects to the server of a configuration. The configuration is only
// asked for the socket: it may be wrong in all else.
func (a *App) client(cmd *cobra.Command, src source) (*admin.Client, error) {
	if len(src.paths) == 0 && src.dataDir != "" {
		return admin.NewClient(filepath.Join(src.dataDir, "run", "admin.sock")), nil
	}
	// Without schemas: no plugin is started to find a socket.
	o := a.options(src)
	o.Schemas, o.Bundled = nil, nil
	cfg, diags := config.Load(cmd.Context(), src.where(), o)
	if cfg.Admin.Socket == "" {
		_ = diags.WriteText(cmd.ErrOrStderr(), terminal(cmd.ErrOrStderr()))
		return nil, &exit{ExitConfig, errPrinted}
	}
	return admin.NewClient(cfg.Admin.Socket), nil
}
