package pop3_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// drain begins to drain with that much time; what Drain returned comes later. It
// returns when nothing is accepted any more.
func (s *site) drain(patience time.Duration) <-chan error {
	s.t.Helper()
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- s.server.Drain(ctx)
	}()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return done
		}
		c.Close()
		if time.Now().After(end) {
			s.t.Fatal("it still accepts connections")
		}
	}
}

// TestDrainKeepsSessions: what began before the drain goes on to its QUIT: a login,
// a message being read, and what is to be removed.
func TestDrainKeepsSessions(t *testing.T) {
	s := start(t, true, nil)
	s.deposit("Subject: 1\r\n\r\none\r\n", "Subject: 2\r\n\r\ntwo\r\n")
	c, early := s.in(), s.raw()
	early.ask("", "+OK")
	early.ask("USER tom@hanks.example", "+OK")
	c.ask("DELE 1", "+OK")
	drained := s.drain(time.Minute)

	c.ask("RETR 2", "+OK")
	for c.line() != "." {
	}
	early.ask("PASS sleep less", "+OK")
	c.ask("QUIT", "+OK Bye, 1 messages removed")
	early.ask("QUIT", "+OK")
	for _, one := range []*raw{c, early} {
		if rest := one.rest(); rest != "" {
			t.Errorf("after QUIT came %q", rest)
		}
	}
	// When the last client has gone, nothing is waited for.
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if n := s.left(); n != 1 {
		t.Errorf("%d messages left, want 1", n)
	}
}

// TestDrainEnds: when the time is nearly over, who is left is told to go.
func TestDrainEnds(t *testing.T) {
	s := start(t, true, nil)
	c := s.in()
	if err := <-s.drain(time.Second); err != nil {
		t.Error(err)
	}
	if got := c.rest(); got != "-ERR [SYS/TEMP] Server is going away\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestDrainCuts: a client that takes nothing of what it asked for is cut off when the
// time is over.
func TestDrainCuts(t *testing.T) {
	s := start(t, true, nil)
	s.deposit("Subject: big\r\n\r\n" + strings.Repeat("123456789012345678901234567890\r\n", 20<<20/32))
	c := s.in()
	c.ask("RETR 1", "+OK")
	if err := <-s.drain(200 * time.Millisecond); err == nil {
		t.Error("Drain says that all have gone")
	}
	if got := c.rest(); strings.HasSuffix(got, "\r\n.\r\n") {
		t.Error("the message came whole")
	}
}

// TestDrainWithoutTime: nobody said how long clients may stay, so they go at once.
func TestDrainWithoutTime(t *testing.T) {
	s := start(t, true, nil)
	c := s.raw()
	c.ask("", "+OK")
	if err := s.server.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if got := c.rest(); got != "-ERR [SYS/TEMP] Server is going away\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestRemovalMeetsARestart: what QUIT removes is removed, though the storage's
// process ends over it, before or after it was done.
func TestRemovalMeetsARestart(t *testing.T) {
	for name, when := range map[string]int32{"before": breaksBefore, "after": breaksAfter} {
		t.Run(name, func(t *testing.T) {
			f := &flaky{}
			s := startOver(t, true, nil, f.over)
			s.deposit("Subject: 1\r\n\r\none\r\n", "Subject: 2\r\n\r\ntwo\r\n")
			c := s.in()
			c.ask("DELE 1", "+OK")
			f.breaks.Store(when)
			c.ask("QUIT", "+OK Bye, 1 messages removed")
			if n := s.left(); n != 1 {
				t.Errorf("%d messages left, want 1", n)
			}
		})
	}
}
