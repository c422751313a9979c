package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

// Source is what the page asks beside the meters.
type Source struct {
	Version string
	Since   time.Time
	Queue   func(ctx context.Context) (queue.Stats, error)
	// Plugins that are configured now.
	Plugins func() []Plugin
	// Destinations are those with the most in the queue, and Lanes what the scheduler
	// knows of them; Corrupted is how many records were set aside. nil: not told.
	Destinations func(top int) (ds []queue.Destination, others queue.Destination, ok bool)
	Lanes        func(each func(schedule.Lane))
	Corrupted    func() int64
}

// Server answers /metrics and /healthz over plain HTTP. It has no login: who may
// reach it may read it.
type Server struct {
	http   http.Server
	meters *Meters
	source Source
	log    zerolog.Logger
	pages  chan struct{} // two pages at once: a third waits its turn

	mu sync.Mutex
	// told is what was wrong with a plugin's figures when it was last logged:
	// once, not with every page.
	told map[string]string
}

// NewServer makes a server; Serve runs it.
func NewServer(m *Meters, s Source, log zerolog.Logger) *Server {
	srv := &Server{meters: m, source: s, log: log, pages: make(chan struct{}, 2), told: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", srv.metrics)
	mux.HandleFunc("GET /healthz", srv.health)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, "Stagecoach: /metrics for Prometheus, /healthz for a monitor.\n")
	})
	srv.http = http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	return srv
}

// Serve answers on lis until Shutdown.
func (s *Server) Serve(lis net.Listener) error {
	if err := s.http.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown takes no new requests and waits for those under way, or until ctx
// ends.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close() // the wait is over either way
	}
	return err
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	select {
	case s.pages <- struct{}{}:
		defer func() { <-s.pages }()
	case <-r.Context().Done():
		return
	}
	p := s.page(r.Context())
	w.Header().Set("Content-Type", contentType)
	_ = p.write(w) // the client has gone, if this fails
}

// page gathers everything. What cannot be had is absent.
func (s *Server) page(ctx context.Context) *page {
	p := newPage()
	p.put("stagecoach_build_info", gauge, "1; what runs.", 1, label{"version", s.source.Version}, label{"contract", "v1"}, label{"go", runtime.Version()})
	collectProcess(p, s.source.Since)
	if st, err := s.source.Queue(ctx); err == nil {
		collectQueue(p, st, time.Now())
	} else {
		s.log.Warn().Err(err).Msg("the queue's figures are missing from /metrics")
	}
	if s.source.Destinations != nil {
		collectDestinations(p, s.source.Destinations)
	}
	if s.source.Lanes != nil {
		collectLanes(p, s.source.Lanes, time.Now())
	}
	if s.source.Corrupted != nil {
		p.put("stagecoach_queue_corrupt_total", counter, "Records and bodies found corrupt since the start: set aside, or their mail held.", float64(s.source.Corrupted()))
	}
	plugins := scrape(ctx, s.source.Plugins())
	for i := range plugins {
		collectPlugin(p, &plugins[i])
	}
	// The core's families stand first: no plugin takes a name of theirs.
	for _, v := range s.meters.all() {
		if v != s.meters.scrapeErrors {
			v.collect(p)
		}
	}
	for i := range plugins {
		pl := &plugins[i]
		errs := s.meters.scrapeErrors.with(pl.info.Instance)
		err := errors.Join(pl.err, collectOwn(p, pl))
		if err != nil {
			errs.add(1)
		}
		s.tell(pl.info.Instance, err)
	}
	s.meters.scrapeErrors.collect(p)
	for _, err := range p.faults {
		s.log.Error().Err(err).Msg("missing from /metrics")
	}
	return p
}

// tell logs what is wrong with a plugin's figures, when it changes.
func (s *Server) tell(plugin string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[plugin] == text {
		return
	}
	s.told[plugin] = text
	if err != nil {
		s.log.Warn().Str("plugin", plugin).Err(err).Msg("not all of this plugin's figures are in /metrics")
	}
}

func collectQueue(p *page, st queue.Stats, now time.Time) {
	p.put("stagecoach_queue_messages", gauge, "Messages in the queue.", float64(st.Messages))
	p.put("stagecoach_queue_recipients", gauge, "Recipients that are still open.", float64(st.Recipients))
	p.put("stagecoach_queue_held", gauge, "Recipients that wait for an operator.", float64(st.Held))
	for _, d := range []struct {
		state string
		n     int64
	}{{"fresh", st.Recipients - st.Held - st.Tried}, {"deferred", st.Tried}, {"held", st.Held}} {
		p.put("stagecoach_queue_depth", gauge, "Open recipients by state; fresh: before the first attempt, deferred: after one, held: for an operator.", float64(d.n), label{"state", d.state})
	}
	p.put("stagecoach_queue_leased", gauge, "Messages that are being routed and delivered.", float64(st.Leased))
	p.put("stagecoach_queue_bytes", gauge, "Octets of the messages in the queue.", float64(st.Bytes))
	age := 0.0
	if !st.OldestReceived.IsZero() {
		age = max(0, now.Sub(st.OldestReceived).Seconds())
	}
	p.put("stagecoach_queue_oldest_age_seconds", gauge, "Age of the oldest message in the queue; 0 if it is empty.", age)
}

// health is 200 while mail is taken. A plugin that is down is told and no reason
// for 503: its mail waits, and a restart of everything would help nobody.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), scrapeTimeout)
	defer cancel()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := s.source.Queue(ctx); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "the queue takes no mail: %v\n", err)
		return
	}
	fmt.Fprintln(w, "ok")
	for _, p := range s.source.Plugins() {
		i := p.Info()
		if i.State != host.Ready {
			fmt.Fprintln(w, strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", i.Instance, i.State, i.LastError), ": "))
		} else if i.Health != "" {
			fmt.Fprintf(w, "%s says: %s\n", i.Instance, i.Health)
		}
	}
}
