package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// Backend is what the socket's commands act on.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	// Reload reads the files again; the error's text is what was wrong, as
	// `stagecoach validate` prints it.
	Reload(ctx context.Context) error
	QueueBackend
	PluginBackend
	StorageBackend
}

// PluginBackend is what the commands about one plugin act on.
type PluginBackend interface {
	Plugins(ctx context.Context) ([]Plugin, error)
	RestartPlugin(ctx context.Context, instance string) error
	// ReloadPlugin reads the files again for one instance; errors as of Reload.
	ReloadPlugin(ctx context.Context, instance string) error
	// PluginLogs gives each the last n lines of an instance's log (0: all that are
	// kept), and those to come if follow, until ctx or the instance ends. flush is
	// called when there is nothing more for the moment.
	PluginLogs(ctx context.Context, instance string, n int, follow bool, each func(LogLine) error, flush func()) error
}

// Server answers on the socket.
type Server struct {
	http http.Server
	ln   net.Listener
	path string
}

// Listen opens the socket, readable and writable by its owner only. The guard may be
// nil.
func Listen(path string, b Backend, guard Guard) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	_ = os.Remove(path) // the data directory's lock says that nobody else serves it
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	s := &Server{ln: ln, path: path}
	s.http = http.Server{Handler: guarded(handler(b)), ReadHeaderTimeout: 10 * time.Second}
	if guard != nil {
		s.http.ConnContext = guard.admit
	}
	return s, nil
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends the socket and what it was answering.
func (s *Server) Close() error { return s.http.Close() }

func handler(b Backend) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		st, err := b.Status(r.Context())
		answer(w, st, err)
	})
	m.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, b.Reload(r.Context()))
	})
	queueRoutes(m, b)
	storageRoutes(m, b)
	m.HandleFunc("GET /plugins", func(w http.ResponseWriter, r *http.Request) {
		p, err := b.Plugins(r.Context())
		answer(w, p, err)
	})
	m.HandleFunc("POST /plugins/{instance}/restart", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, b.RestartPlugin(r.Context(), r.PathValue("instance")))
	})
	m.HandleFunc("POST /plugins/{instance}/reload", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, b.ReloadPlugin(r.Context(), r.PathValue("instance")))
	})
	m.HandleFunc("GET /plugins/{instance}/logs", func(w http.ResponseWriter, r *http.Request) { logs(w, r, b) })
	return m
}

// logs streams one line of an instance's log a line.
func logs(w http.ResponseWriter, r *http.Request, b Backend) {
	n := 0
	if s := r.URL.Query().Get("n"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 0 {
			answer(w, nil, errors.New("n must be a number of lines"))
			return
		}
	}
	begun := false
	enc := json.NewEncoder(w)
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
	}
	flush := func() {
		begin()
		_ = http.NewResponseController(w).Flush() // the client has gone, if this fails
	}
	err := b.PluginLogs(r.Context(), r.PathValue("instance"), n, r.URL.Query().Get("follow") != "", func(l LogLine) error {
		begin()
		return enc.Encode(l)
	}, flush)
	switch {
	case err == nil || r.Context().Err() != nil:
	case begun:
		_ = enc.Encode(Problem{err.Error()})
	default:
		answer(w, nil, err)
	}
}

func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		reject(w, http.StatusNotFound, err.Error())
	case err != nil:
		reject(w, http.StatusUnprocessableEntity, err.Error())
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client has gone, if this fails
	}
}

func reject(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(Problem{why}) // as above
}
