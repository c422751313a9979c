// Package dnstest is a small authoritative DNS server on the loopback
// interface, for tests and the demo. It is not a name server for the world: no
// zones, no transfers, no DNSSEC.
package dnstest

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Behaviour makes the server misbehave for one name.
type Behaviour struct {
	Rcode    int           // answer with this code (dns.RcodeServerFailure …); 0: the records
	Delay    time.Duration // answer after this time
	Drop     bool          // never answer
	Truncate bool          // answer UDP with the TC bit and nothing else
	WrongID  bool          // before the answer send a forged one with another id
}

// NegativeTTL is the MINIMUM of the SOA in negative answers, in seconds.
const NegativeTTL = 30

// Server answers for every name: with the records set, or NXDOMAIN.
type Server struct {
	addr    string
	servers [2]*dns.Server
	done    chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	records map[string][]dns.RR // by lower-case name with final dot
	odd     map[string]Behaviour
	queries map[string]int // "name TYPE" -> times asked
	tcp     int
}

// Start listens on 127.0.0.1 on a free port, UDP and TCP.
func Start() (*Server, error) {
	s := &Server{
		done:    make(chan struct{}),
		records: map[string][]dns.RR{},
		odd:     map[string]Behaviour{},
		queries: map[string]int{},
	}
	// The port that UDP got may be taken for TCP: try again.
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err != nil {
			pc.Close()
			continue
		}
		s.addr = l.Addr().String()
		s.serve(0, &dns.Server{PacketConn: pc, Handler: s})
		s.serve(1, &dns.Server{Listener: l, Handler: s})
		return s, nil
	}
	return nil, errors.New("dnstest: no port is free for both UDP and TCP")
}

func (s *Server) serve(i int, srv *dns.Server) {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	s.servers[i] = srv
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		_ = srv.ActivateAndServe()
	}()
	<-started
}

// Addr is the server's address, 127.0.0.1:port.
func (s *Server) Addr() string { return s.addr }

// Close stops the server and waits for it.
func (s *Server) Close() {
	close(s.done)
	for _, srv := range s.servers {
		_ = srv.Shutdown()
	}
	s.wg.Wait()
}

// Set replaces the records of a name. A record is written as in a zone file
// without its owner, with an optional TTL (default 60 s): "MX 10 mx.example.",
// "5 A 192.0.2.1", "TXT \"v=spf1 -all\"". No record: the name is forgotten.
func (s *Server) Set(name string, records ...string) error {
	key := canonical(name)
	var rrs []dns.RR
	for _, r := range records {
		ttl := ""
		if r == "" || r[0] < '0' || r[0] > '9' {
			ttl = "60 "
		}
		rr, err := dns.NewRR(key + " " + ttl + r)
		if err != nil {
			return fmt.Errorf("dnstest: %s %s: not a record: %w", name, r, err)
		}
		if rr == nil {
			return fmt.Errorf("dnstest: %s %s: not a record", name, r)
		}
		rrs = append(rrs, rr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(rrs) == 0 {
		delete(s.records, key)
		return nil
	}
	s.records[key] = rrs
	return nil
}

// SetAll sets the records of every name in the map; others stay.
func (s *Server) SetAll(zone map[string][]string) error {
	for name, records := range zone {
		if err := s.Set(name, records...); err != nil {
			return err
		}
	}
	return nil
}

// Misbehave sets the behaviour for a name; the zero Behaviour ends it.
func (s *Server) Misbehave(name string, b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.odd[canonical(name)] = b
}

// Queries tells how often name was asked for the type ("MX").
func (s *Server) Queries(name, qtype string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries[canonical(name)+" "+qtype]
}

// TCPQueries tells how many questions came by TCP.
func (s *Server) TCPQueries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tcp
}

// ServeDNS answers one question.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m)
		return
	}
	udp := w.LocalAddr().Network() == "udp"
	name, qtype := canonical(q.Question[0].Name), q.Question[0].Qtype

	s.mu.Lock()
	s.queries[name+" "+dns.TypeToString[qtype]]++
	if !udp {
		s.tcp++
	}
	odd := s.odd[name]
	s.answer(m, name, qtype)
	s.mu.Unlock()

	if odd.Delay > 0 {
		select {
		case <-time.After(odd.Delay):
		case <-s.done:
			return
		}
	}
	switch {
	case odd.Drop:
		return
	case odd.Rcode != 0:
		m.Answer, m.Ns, m.Rcode = nil, nil, odd.Rcode
	case odd.Truncate && udp:
		m.Answer, m.Ns, m.Truncated = nil, nil, true
	}
	if odd.WrongID {
		forged := m.Copy()
		forged.Id++
		forged.Answer, forged.Rcode = nil, dns.RcodeNameError
		_ = w.WriteMsg(forged)
	}
	_ = w.WriteMsg(m)
}

// answer fills in the records, aliases followed as a recursive server does.
func (s *Server) answer(m *dns.Msg, name string, qtype uint16) {
	for range 16 {
		rrs, exists := s.records[name]
		next := ""
		found := false
		for _, rr := range rrs {
			switch {
			case rr.Header().Rrtype == qtype:
				m.Answer, found = append(m.Answer, rr), true
			case rr.Header().Rrtype == dns.TypeCNAME:
				m.Answer, next = append(m.Answer, rr), canonical(rr.(*dns.CNAME).Target)
			}
		}
		if found {
			return
		}
		if next != "" {
			name = next
			continue
		}
		if !exists && !s.hasBelow(name) {
			m.Rcode = dns.RcodeNameError
		}
		soa, _ := dns.NewRR(fmt.Sprintf("example. 3600 SOA ns.example. root.example. 1 3600 600 86400 %d", NegativeTTL))
		m.Ns = append(m.Ns, soa)
		return
	}
}

// hasBelow tells whether the name exists because one below it does (RFC 8020).
func (s *Server) hasBelow(name string) bool {
	for n := range s.records {
		if strings.HasSuffix(n, "."+name) {
			return true
		}
	}
	return false
}

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }
