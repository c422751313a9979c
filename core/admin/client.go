package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// ErrNotRunning: nobody answers on the socket.
var ErrNotRunning = errors.New("the server is not running")

// Client talks to the server of one socket.
type Client struct {
	path string
	http http.Client
}

// NewClient connects at the first call.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "stagecoach", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody answers on %s", ErrNotRunning, c.path)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("not allowed to open %s: run this as the server's user", c.path)
	case err != nil:
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		var p Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return nil, fmt.Errorf("the server answered %s", resp.Status)
		}
		return nil, errors.New(p.Error)
	}
	return resp, nil
}

// Call makes a request and reads its answer into v.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, v any) error {
	resp, err := c.do(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(v)
}

// List calls each for every queued message that matches.
func (c *Client) List(ctx context.Context, query url.Values, each func(Message) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/queue", query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var m struct {
			Message
			Problem
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		if err := each(m.Message); err != nil {
			return err
		}
	}
	return lines.Err()
}
