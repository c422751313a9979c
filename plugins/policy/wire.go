package policy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of an answer and of the connections that wait.
const (
	maxAnswer = 16 << 10
	maxKept   = 32
)

// pool keeps connections that nobody uses at the moment. The protocol has one
// question at a time on each.
type pool struct {
	network, place string
	config         *Config

	mu     sync.Mutex
	kept   []*conn // the longest waiting first
	closed bool
}

type conn struct {
	net.Conn
	r     *bufio.Reader
	timer *time.Timer
}

func newPool(network, place string, c *Config) *pool {
	return &pool{network: network, place: place, config: c}
}

// exchange sends a request and returns the action of the answer. A server may end
// a connection that waits when it likes: then a new one is asked.
func (p *pool) exchange(ctx context.Context, request []byte) (string, error) {
	for {
		c, kept := p.take(), true
		if c == nil {
			d := net.Dialer{Timeout: p.config.ConnectTimeout}
			nc, err := d.DialContext(ctx, p.network, p.place)
			if err != nil {
				return "", err
			}
			c, kept = &conn{Conn: nc, r: bufio.NewReaderSize(nc, maxAnswer)}, false
		}
		said, err := p.ask(ctx, c, request)
		var late net.Error
		if err == nil || !kept || ctx.Err() != nil || errors.Is(err, errAnswer) || errors.As(err, &late) && late.Timeout() {
			return said, err
		}
	}
}

func (p *pool) ask(ctx context.Context, c *conn, request []byte) (string, error) {
	deadline := time.Now().Add(p.config.ReplyTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	err := c.SetDeadline(deadline)
	release := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	said := ""
	if err == nil {
		_, err = c.Write(request)
	}
	if err == nil {
		said, err = readAnswer(c.r)
	}
	if !release() || err != nil {
		_ = c.Close()
		if err == nil {
			err = ctx.Err()
		}
		return "", err
	}
	p.put(c)
	return said, nil
}

// errAnswer: the other end does not speak the protocol.
var errAnswer = errors.New("the answer is none of a policy server")

// readAnswer reads attributes up to an empty line and returns the action. r has a
// buffer of maxAnswer octets.
func readAnswer(r *bufio.Reader) (string, error) {
	said, found, size := "", false, 0
	for {
		line, err := r.ReadSlice('\n')
		if size += len(line); errors.Is(err, bufio.ErrBufferFull) || size > maxAnswer {
			return "", fmt.Errorf("%w: it is longer than %d octets", errAnswer, maxAnswer)
		} else if err != nil {
			if errors.Is(err, io.EOF) && size > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			break
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return "", fmt.Errorf("%w: the line %q is not NAME=VALUE", errAnswer, printable(text))
		}
		// Others are for extensions; of two actions the first one counts.
		if name == "action" && !found {
			said, found = value, true
		}
	}
	if !found {
		return "", fmt.Errorf("%w: it has no action", errAnswer)
	}
	return said, nil
}

func (p *pool) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kept) == 0 {
		return nil
	}
	c := p.kept[len(p.kept)-1]
	p.kept = p.kept[:len(p.kept)-1]
	c.timer.Stop()
	return c
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.config.Keep == 0 || len(p.kept) == maxKept {
		_ = c.Close()
		return
	}
	p.kept = append(p.kept, c)
	c.timer = time.AfterFunc(p.config.Keep, func() { p.drop(c) })
}

// drop ends a connection that waited in vain.
func (p *pool) drop(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.kept, c); i >= 0 {
		p.kept = slices.Delete(p.kept, i, i+1)
		_ = c.Close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.kept {
		c.timer.Stop()
		_ = c.Close()
	}
	p.kept, p.closed = nil, true
}
