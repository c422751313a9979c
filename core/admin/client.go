package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
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
	return c.send(ctx, method, path, query, nil)
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://stagecoach"+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody answers on %s", ErrNotRunning, c.path)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("not allowed to open %s: run this as the server's user", c.path)
	case errors.Is(err, syscall.EINVAL):
		return nil, fmt.Errorf("%w: no server could listen on %s, the path is too long for a socket", ErrNotRunning, c.path)
	case err != nil:
		var inner *url.Error // its URL is none that anybody knows
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, fmt.Errorf("ask the server on %s: %w", c.path, err)
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

// Call makes a request, whose path is escaped already, and reads its answer into v.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, v any) error {
	resp, err := c.do(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(v)
}

// PluginLogs calls each for the last n lines of an instance's log (0: all that are
// kept) and, if follow, for those to come, until ctx or the instance ends.
func (c *Client) PluginLogs(ctx context.Context, instance string, n int, follow bool, each func(LogLine) error) error {
	query := url.Values{"n": {strconv.Itoa(n)}}
	if follow {
		query.Set("follow", "1")
	}
	return stream(ctx, c, http.MethodGet, "/plugins/"+url.PathEscape(instance)+"/logs", query, each)
}

// stream reads an answer of one T a line, or a Problem.
func stream[T any](ctx context.Context, c *Client, method, path string, query url.Values, each func(T) error) error {
	resp, err := c.do(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var p Problem
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return err
		}
		if p.Error != "" {
			return errors.New(p.Error)
		}
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return err
		}
		if err := each(v); err != nil {
			return err
		}
	}
	return lines.Err()
}
