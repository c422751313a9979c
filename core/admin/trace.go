package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
)

// Traced is what is known of mail by an id, a Message-ID or an address.
type Traced struct {
	*queue.Trace
	// Queued are those of the mails that are in the queue, as they stand.
	Queued map[string]Message `json:"queued,omitempty"`
}

func trace(w http.ResponseWriter, r *http.Request, b QueueBackend) {
	var since time.Time
	if s := r.URL.Query().Get("since"); s != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, s); err != nil {
			answer(w, nil, err)
			return
		}
	}
	most, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		answer(w, nil, err)
		return
	}
	t, err := b.Trace(r.Context(), r.URL.Query().Get("name"), since, most)
	if err != nil {
		answer(w, nil, err)
		return
	}
	out := Traced{Trace: t, Queued: map[string]Message{}}
	for _, s := range t.Mails {
		if e, err := b.Queue().Get(r.Context(), s.ID); err == nil { // else it is gone
			out.Queued[s.ID] = FromEnvelope(e)
		}
	}
	answer(w, out, nil)
}

// Trace tells of the newest most mails that name is the id, the Message-ID or an
// address of, received since then.
func (c *Client) Trace(ctx context.Context, name string, since time.Time, most int) (t Traced, err error) {
	query := url.Values{"name": {name}, "limit": {strconv.Itoa(most)}}
	if !since.IsZero() {
		query.Set("since", since.UTC().Format(time.RFC3339))
	}
	err = c.Call(ctx, http.MethodGet, "/trace", query, &t)
	return t, err
}
