package server

import "net/netip"

// ipCount counts connections per client; the Server's mutex guards it.
type ipCount map[netip.Addr]int

// clientKey is what one client can hardly change: an IPv4 address, or the /64 of
// an IPv6 address, of which a host has as many as it likes.
func clientKey(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// admit counts c for its address. It returns false when there are too many.
func (s *Server) admit(c *Conn) bool {
	if s.MaxConnectionsPerIP <= 0 || !c.ip.IsValid() {
		return true
	}
	key := clientKey(c.ip)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.perIP[key] >= s.MaxConnectionsPerIP {
		return false
	}
	s.perIP[key]++
	c.counted = key
	return true
}

// dismiss undoes admit.
func (s *Server) dismiss(c *Conn) {
	if !c.counted.IsValid() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.perIP[c.counted]--; s.perIP[c.counted] == 0 {
		delete(s.perIP, c.counted)
	}
	c.counted = netip.Addr{}
}
