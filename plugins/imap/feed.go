package imap

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// feeds holds one change stream per account, shared by the account's sessions
// in this process. It only says that something changed: each session looks for
// what, at a moment when it may tell its client.
type feeds struct {
	log zerolog.Logger

	mu   sync.Mutex
	open map[string]*feed
	// ended: nobody comes any more.
	ended bool
	wg    sync.WaitGroup
}

// linger is how long a stream stays open that nobody listens to: a client that
// leaves a mailbox mostly opens another.
const linger = 5 * time.Second

type feed struct {
	cancel      context.CancelFunc
	subscribers map[*subscription]struct{}
	// closing ends a stream without subscribers.
	closing *time.Timer
}

// subscription is one session's ear. After a change it is pending, and if the
// session is listening at that moment, it is woken.
type subscription struct {
	account string
	// mailbox; empty: all of the account.
	mailbox   string
	wake      func()
	pending   atomic.Bool
	listening atomic.Bool
}

// listen makes changes wake the session from now on; one that has come already is
// pending. Order matters: notice sets pending first and looks at listening then.
func (s *subscription) listen() { s.listening.Store(true) }

func (s *subscription) deaf() { s.listening.Store(false) }

func (s *subscription) notice() {
	s.pending.Store(true)
	if s.listening.Load() {
		s.wake()
	}
}

func newFeeds(log zerolog.Logger) *feeds {
	return &feeds{log: log, open: map[string]*feed{}}
}

// subscribe to the changes of a mailbox; leave must be called in the end.
func (f *feeds) subscribe(name string, account storage.Account, mailbox string, wake func()) *subscription {
	s := &subscription{account: name, mailbox: mailbox, wake: wake}
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.open[name]
	if fd == nil {
		ctx, cancel := context.WithCancel(context.Background())
		fd = &feed{cancel: cancel, subscribers: map[*subscription]struct{}{}}
		f.open[name] = fd
		f.wg.Go(func() { f.run(ctx, fd, name, account) })
	}
	if fd.closing != nil {
		fd.closing.Stop()
		fd.closing = nil
	}
	fd.subscribers[s] = struct{}{}
	return s
}

func (f *feeds) leave(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.open[s.account]
	if fd == nil {
		return
	}
	delete(fd.subscribers, s)
	switch {
	case len(fd.subscribers) > 0 || fd.closing != nil:
	case f.ended:
		f.close(s.account, fd)
	default:
		fd.closing = time.AfterFunc(linger, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.close(s.account, fd)
		})
	}
}

// close ends a stream that has no subscribers; f is locked.
func (f *feeds) close(account string, fd *feed) {
	if len(fd.subscribers) > 0 || f.open[account] != fd {
		return
	}
	if fd.closing != nil {
		fd.closing.Stop()
	}
	fd.cancel()
	delete(f.open, account)
}

// wait until all streams have ended; nobody may subscribe any more.
func (f *feeds) wait() {
	f.mu.Lock()
	f.ended = true
	for account, fd := range f.open {
		f.close(account, fd)
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// run keeps the stream open. After a break it does not know what it missed, so
// everybody looks.
func (f *feeds) run(ctx context.Context, fd *feed, name string, account storage.Account) {
	pause := 100 * time.Millisecond
	for ctx.Err() == nil {
		first := true
		err := account.Watch(ctx, &v1.WatchRequest{}, func(e *v1.ChangeEvent) error {
			pause = 100 * time.Millisecond
			f.tell(fd, e, first)
			first = false
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		f.log.Warn().Err(err).Str("account", name).Msg("change stream broke, opening it again")
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, 10*time.Second)
	}
}

func (f *feeds) tell(fd *feed, e *v1.ChangeEvent, everybody bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range fd.subscribers {
		if everybody || s.mailbox == "" || e.GetMailboxes() || len(e.GetMailboxIds()) == 0 || slices.Contains(e.GetMailboxIds(), s.mailbox) {
			s.notice()
		}
	}
}
