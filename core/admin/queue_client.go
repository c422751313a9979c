package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// Message is one queued message.
func (c *Client) Message(ctx context.Context, id string) (m Message, err error) {
	if id == "" {
		return m, queue.ErrNotFound
	}
	err = c.Call(ctx, http.MethodGet, "/queue/"+url.PathEscape(id), nil, &m)
	return m, err
}

// List calls each for every queued message that matches.
func (c *Client) List(ctx context.Context, f queue.Filter, each func(Message) error) error {
	return stream(ctx, c, http.MethodGet, "/queue", asQuery("select", f), each)
}

// Flush makes what matches due now.
func (c *Client) Flush(ctx context.Context, f queue.Filter) (n Flushed, err error) {
	err = c.Call(ctx, http.MethodPost, "/queue/flush", asQuery("select", f), &n)
	return n, err
}

// Act does something with every message that matches, and calls each with what
// became of it.
func (c *Client) Act(ctx context.Context, f queue.Filter, a Action, each func(Acted) error) error {
	query := asQuery("select", f)
	query.Set("action", asQuery("action", a).Get("action"))
	return stream(ctx, c, http.MethodPost, "/queue/act", query, each)
}

// Stats breaks down what matches, with the top greatest shares of each kind; 0: all.
func (c *Client) Stats(ctx context.Context, f queue.Filter, top int, exact bool) (b queue.Breakdown, err error) {
	query := asQuery("select", f)
	query.Set("top", strconv.Itoa(top))
	if exact {
		query.Set("exact", "1")
	}
	err = c.Call(ctx, http.MethodGet, "/queue/stats", query, &b)
	return b, err
}

// Contents copies a queued message's octets to w.
func (c *Client) Contents(ctx context.Context, id string, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/queue/"+url.PathEscape(id)+"/message", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err == nil && n != resp.ContentLength {
		err = fmt.Errorf("%d octets of %d came of message %s", n, resp.ContentLength, id)
	}
	return err
}

// asQuery is a value in JSON; those that are given here can always be encoded.
func asQuery(name string, v any) url.Values {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return url.Values{name: {string(b)}}
}
