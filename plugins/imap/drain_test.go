package imap_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
)

// successor is a second server on a duplicate of the first one's listening
// socket and on its storage, as the process that replaces it.
func (s *site) successor() *site {
	s.t.Helper()
	f, err := s.clear.(*net.TCPListener).File()
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		s.t.Fatal(err)
	}
	return serve(s.t, s.store, l, listen(s.t), true, imap.DefaultConfig())
}

// drain begins to drain with that much time; what Drain returned comes later.
func (s *site) drain(patience time.Duration) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- s.server.Drain(ctx)
	}()
	return done
}

// refusing waits until the server's own listener is closed.
func (s *site) refusing() {
	for s.clear.(*net.TCPListener).SetDeadline(time.Time{}) == nil {
		time.Sleep(time.Millisecond)
	}
}

// TestDrainKeepsSessions: while another process has the listener, what began
// with this one goes on: commands, a half-sent message, IDLE, a login.
func TestDrainKeepsSessions(t *testing.T) {
	s := start(t, true, nil)
	idle, busy, appending, early := s.raw(true), s.raw(true), s.raw(true), s.raw(false)
	idle.say("a SELECT INBOX\r\nb IDLE\r\n")
	idle.until("+ ")
	busy.say("a SELECT INBOX\r\n")
	busy.until("a OK")
	appending.say("a APPEND INBOX {20}\r\n")
	appending.until("+ ")
	next := s.successor()
	drained := s.drain(time.Minute)
	s.refusing()

	appending.say("Subject: one\r\n\r\n1\r\n\r\n\r\n")
	appending.until("a OK")
	if got := idle.until("* 1 EXISTS"); strings.Contains(got, "BYE") {
		t.Errorf("IDLE while draining: %q", got)
	}
	busy.say("b NOOP\r\nc FETCH 1 (UID)\r\n")
	busy.until("c OK")
	early.say("a LOGIN " + meg + " sleepless\r\n")
	early.until("a OK")

	// A new client comes to the new process, and both see the same mailbox.
	fresh := next.raw(true)
	fresh.say("a SELECT INBOX\r\nb STORE 1 +FLAGS (\\Seen)\r\n")
	fresh.until("b OK")
	if got := idle.until("* 1 FETCH"); !strings.Contains(got, `FLAGS (\Seen`) {
		t.Errorf("the old process's session was not told what happened at the new one: %q", got)
	}

	// When the last client has gone, nothing is waited for.
	idle.say("DONE\r\nc LOGOUT\r\n")
	idle.until("b OK")
	for _, c := range []*raw{busy, appending, early} {
		c.say("c LOGOUT\r\n")
	}
	for _, c := range []*raw{idle, busy, appending, early} {
		if got := c.rest(); strings.Contains(got, "going away") {
			t.Errorf("a client that went by itself was told to: %q", got)
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestDrainEnds: when the time is nearly over, who is left is told to go: at once
// in IDLE or between commands, after its command else.
func TestDrainEnds(t *testing.T) {
	s := start(t, true, nil)
	idle, waiting, appending := s.raw(true), s.raw(true), s.raw(true)
	idle.say("a SELECT INBOX\r\nb IDLE\r\n")
	idle.until("+ ")
	appending.say("a APPEND INBOX {20}\r\n")
	appending.until("+ ")
	drained := s.drain(5 * time.Second)
	for _, c := range []*raw{idle, waiting} {
		if got := c.rest(); !strings.HasPrefix(got, "* BYE Server is going away, connect again\r\n") {
			t.Errorf("a drained client got %q", got)
		}
	}
	appending.say("Subject: one\r\n\r\n1\r\n\r\n\r\n")
	if got := appending.rest(); !strings.HasPrefix(got, "a OK [APPENDUID") || !strings.HasSuffix(got, "* BYE Server is going away, connect again\r\n") {
		t.Errorf("a client in its command got %q", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestDrainCuts: a client that neither goes nor ends its command is cut off when
// the time is over.
func TestDrainCuts(t *testing.T) {
	s := start(t, true, nil)
	stuck := s.raw(true)
	stuck.say("a APPEND INBOX {20}\r\n")
	stuck.until("+ ")
	if err := <-s.drain(200 * time.Millisecond); err == nil {
		t.Error("Drain says that all have gone")
	}
	stuck.rest()
}

// TestDrainWithoutTime: nobody said how long clients may stay, so they go at once.
func TestDrainWithoutTime(t *testing.T) {
	s := start(t, true, nil)
	c := s.raw(true)
	if err := s.server.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if got := c.rest(); !strings.HasPrefix(got, "* BYE") {
		t.Errorf("got %q", got)
	}
}
