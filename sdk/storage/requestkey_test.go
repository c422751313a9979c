package storage_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// mortal is a storage that dies when it has done what it was asked, and has not
// said so.
type mortal struct {
	box
	mu      sync.Mutex
	die     func()
	answers map[string]uint32
	uid     uint32
}

func (m *mortal) Open(context.Context, string) (storage.Account, error) { return m, nil }

func (m *mortal) Append(ctx context.Context, _ *v1.AppendRequest) (*v1.AppendResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := storage.RequestKey(ctx)
	uid, known := m.answers[key]
	if !known {
		m.uid++
		uid, m.answers[key] = m.uid, m.uid
	}
	if die := m.die; die != nil {
		m.die = nil
		die()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &v1.AppendResponse{Uids: []uint32{uid}}, nil
}

// TestAChangeGoesOnAfterARestart: it is made once, and its caller sees a pause; but
// only if both processes keep the keys.
func TestAChangeGoesOnAfterARestart(t *testing.T) {
	keeps := []string{storage.RequestKeys}
	for _, test := range []struct {
		name        string
		first, next []string
		goesOn      bool
	}{
		{"both keep keys", keeps, keeps, true},
		{"the old one does not", nil, keeps, false},
		{"the new one does not", keeps, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &mortal{answers: map[string]uint32{}}
			p := serve(t, m)
			first := p.next(test.first...)
			stopped := make(chan struct{})
			m.die = func() {
				go func() {
					first.Stop()
					p.next(test.next...)
					close(stopped)
				}()
			}
			a, _ := storage.NewClient(p.dial()).Open(minute(t), "meg@ryan.example")
			resp, err := a.Append(minute(t), &v1.AppendRequest{})
			<-stopped
			if !test.goesOn {
				if !fail.Is(err, fail.Unavailable) || m.uid != 1 {
					t.Errorf("answered %v %v, %d times done", resp, err, m.uid)
				}
				return
			}
			if err != nil || m.uid != 1 || len(resp.GetUids()) != 1 || resp.GetUids()[0] != 1 {
				t.Errorf("answered %v %v, %d times done", resp, err, m.uid)
			}
			if resp, err = a.Append(minute(t), &v1.AppendRequest{}); err != nil || resp.GetUids()[0] != 2 {
				t.Errorf("another Append: %v %v", resp, err)
			}
		})
	}
}

// TestKeysOfRequests: a chosen key arrives, one that is too long is refused, and a key
// that was received goes no further.
func TestKeysOfRequests(t *testing.T) {
	m := &mortal{answers: map[string]uint32{}}
	p := serve(t, m)
	p.next()
	s := storage.NewClient(p.dial())
	a, _ := s.Open(minute(t), "meg@ryan.example")
	for range 2 {
		if _, err := a.Append(storage.WithRequestKey(minute(t), "mine"), &v1.AppendRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if m.uid != 1 || m.answers["mine"] != 1 {
		t.Errorf("done %d times, under %v", m.uid, m.answers)
	}
	_, err := a.Append(storage.WithRequestKey(minute(t), strings.Repeat("x", 65)), &v1.AppendRequest{})
	if !fail.Is(err, fail.Invalid) {
		t.Errorf("a key of 65 octets: %v", err)
	}
	// A storage that asks another one.
	proxy := serve(t, forwarding{box: &box{}, to: a})
	proxy.next()
	a, _ = storage.NewClient(proxy.dial()).Open(minute(t), "meg@ryan.example")
	if _, err := a.Append(storage.WithRequestKey(minute(t), "outer"), &v1.AppendRequest{}); err != nil {
		t.Fatal(err)
	}
	if m.uid != 3 || m.answers["outer"] != 0 {
		t.Errorf("two requests of one that had a key: done %d times, under %v", m.uid, m.answers)
	}
}

// forwarding asks another storage twice.
type forwarding struct {
	*box
	to storage.Account
}

func (f forwarding) Open(context.Context, string) (storage.Account, error) { return f, nil }

func (f forwarding) Append(ctx context.Context, req *v1.AppendRequest) (*v1.AppendResponse, error) {
	if _, err := f.to.Append(ctx, req); err != nil {
		return nil, err
	}
	return f.to.Append(ctx, req)
}
