package directory

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

const (
	// mostFresh bounds what a directory says of its answers.
	mostFresh = time.Minute
	// mostRemembered answers, of addresses no longer than SMTP allows.
	mostRemembered = 8192
	maxAddress     = 320
)

// Remember gives a directory's answers again for as long as it said that they are
// fresh. What it answers is for reading only.
func Remember(d directory.Directory) directory.Directory {
	return &memory{Directory: d, known: map[string]remembered{}}
}

type memory struct {
	directory.Directory
	mu    sync.Mutex
	known map[string]remembered
}

type remembered struct {
	answer *v1.ResolveResponse
	until  time.Time
}

// Resolve implements directory.Directory.
func (m *memory) Resolve(ctx context.Context, req *v1.ResolveRequest) (*v1.ResolveResponse, error) {
	addr, now := req.GetAddress(), time.Now()
	m.mu.Lock()
	r, ok := m.known[addr]
	m.mu.Unlock()
	if ok && now.Before(r.until) {
		return r.answer, nil
	}
	answer, err := m.Directory.Resolve(ctx, req)
	if err != nil || answer.GetFreshMs() <= 0 || len(addr) > maxAddress || proto.Size(answer) > maxAddress*4 {
		return answer, err
	}
	fresh := min(time.Duration(min(answer.GetFreshMs(), mostFresh.Milliseconds()))*time.Millisecond, mostFresh)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= mostRemembered {
		m.forget(now)
	}
	m.known[addr] = remembered{answer, now.Add(fresh)}
	return answer, nil
}

// VerifyToken implements directory.TokenVerifier, if the directory does.
func (m *memory) VerifyToken(ctx context.Context, req *v1.VerifyTokenRequest) (*v1.VerifyTokenResponse, error) {
	return directory.VerifyToken(ctx, m.Directory, req)
}

// forget makes room: what is over, or else all.
func (m *memory) forget(now time.Time) {
	for addr, r := range m.known {
		if !now.Before(r.until) {
			delete(m.known, addr)
		}
	}
	if len(m.known) >= mostRemembered {
		clear(m.known)
	}
}
