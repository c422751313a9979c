package receive

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/spool"
)

// A mail that was brought to its mailboxes at once is answered like any other and
// never queued; one that was not is queued, by the id that it was given.
func TestAtOnce(t *testing.T) {
	r := newRig(t, nil)
	var mu sync.Mutex
	takes := true
	r.b.AtOnce = func(_ context.Context, env *queue.Envelope, body spool.Body) bool {
		mu.Lock()
		defer mu.Unlock()
		env.ID = "P1"
		if env.Recipients[0].Account != "meg@ryan.example" || !strings.HasPrefix(string(body.Bytes()), "Received: ") {
			t.Errorf("given %+v and %q", env.Recipients[0], body.Bytes())
		}
		return takes
	}
	c := r.client(t)
	if err := send(c, "tom@hanks.example", text, "meg@ryan.example"); err != nil {
		t.Fatal(err)
	}
	if n := len(r.queue.env); n != 0 {
		t.Fatalf("%d mails are queued that are in the mailbox", n)
	}
	mu.Lock()
	takes = false
	mu.Unlock()
	if err := send(c, "tom@hanks.example", text, "meg@ryan.example"); err != nil {
		t.Fatal(err)
	}
	r.queue.last(t)
	r.queue.err = errors.New("the queue is away")
	if err := send(c, "tom@hanks.example", text, "meg@ryan.example"); code(err) != "451 4.3.0" {
		t.Errorf("neither the storage nor the queue took it, and the client hears %s", code(err))
	}
}
