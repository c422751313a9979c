package admission

import (
	"net"
	"testing"
	"time"
)

func addr(s string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: 1} }

func TestGateCounts(t *testing.T) {
	g := New(Limits{PerAddress: 2, PerAccount: 1, Total: 3})
	a, b := Source(addr("192.0.2.1")), Source(addr("192.0.2.2"))
	if !g.Enter(a) || !g.Enter(a) || g.Enter(a) {
		t.Fatal("an address has more or less than two connections")
	}
	if !g.Enter(b) || g.Enter(b) {
		t.Fatal("there are more or less than three connections")
	}
	g.Leave(a)
	if !g.Enter(b) {
		t.Fatal("a connection that left is still counted")
	}
	if !g.Join("meg") || g.Join("meg") || !g.Join("tom") {
		t.Fatal("an account has more or less than one session")
	}
	g.Part("meg")
	if !g.Join("meg") {
		t.Fatal("a session that ended is still counted")
	}
}

func TestOneCustomerIsOneSource(t *testing.T) {
	if Source(addr("2001:db8::1")) != Source(addr("2001:db8::ffff")) {
		t.Error("two addresses of one /64 are counted apart")
	}
	if Source(addr("192.0.2.1")) != Source(addr("::ffff:192.0.2.1")) {
		t.Error("a mapped IPv4 address is counted apart")
	}
}

func TestWrongPasswordsGetDearer(t *testing.T) {
	g := New(Limits{Delay: time.Second, MaxDelay: 5 * time.Second})
	a := Source(addr("192.0.2.1"))
	for i, want := range []time.Duration{1, 2, 4, 5, 5} {
		if d := g.Failed(a); d != want*time.Second {
			t.Errorf("wrong password %d costs %v, want %vs", i+1, d, int(want))
		}
	}
}
