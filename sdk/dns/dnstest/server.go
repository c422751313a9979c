// Package dnstest is a small DNS server on the loopback interface that knows what
// a test tells it. It is not a name server for the world.
package dnstest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	mailauth "github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// Trouble is how a name answers in place of its records.
type Trouble int

const (
	// Servfail answers SERVFAIL for every type that the name has no record of.
	Servfail Trouble = iota + 1
	// Silent never answers.
	Silent
	// Truncate answers over UDP that the answer does not fit, over TCP in full.
	Truncate
	// Forged sends a wrong answer with another id before the right one.
	Forged
)

// NegativeTTL is the MINIMUM of the SOA in negative answers, in seconds.
const NegativeTTL = 30

// Server answers for every name: with its records, or that it does not exist.
type Server struct {
	addr    string
	servers []*dns.Server
	wg      sync.WaitGroup

	mu      sync.Mutex
	records map[string][]dns.RR // by lower-case name with the final dot
	trouble map[string]Trouble
	queries map[string]int // "name TYPE", without the final dot
}

// Start listens on 127.0.0.1 on a free port, over UDP and TCP, until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{records: map[string][]dns.RR{}, trouble: map[string]Trouble{}, queries: map[string]int{}}
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, srv := range s.servers {
			_ = srv.Shutdown()
		}
		s.wg.Wait()
	})
	return s
}

func (s *Server) listen() error {
	// The port that UDP got may be taken for TCP: try again.
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err != nil {
			pc.Close()
			continue
		}
		s.addr = l.Addr().String()
		for _, srv := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: l, Handler: s}} {
			started := make(chan struct{})
			srv.NotifyStartedFunc = func() { close(started) }
			s.servers = append(s.servers, srv)
			s.wg.Go(func() { _ = srv.ActivateAndServe() })
			<-started
		}
		return nil
	}
	return errors.New("dnstest: no port is free for both UDP and TCP")
}

// Addr is the server's address.
func (s *Server) Addr() string { return s.addr }

// Client is a resolver that asks this server, with a new cache.
func (s *Server) Client(t testing.TB) *mailauth.Client {
	t.Helper()
	c, err := mailauth.New(mailauth.Config{Servers: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Add adds a record in a zone file's words: Add("ryan.example", "MX 10 mx.ryan.example.").
func (s *Server) Add(t testing.TB, name, record string) {
	t.Helper()
	rr, err := dns.NewRR(dns.Fqdn(name) + " 60 IN " + record)
	if err != nil {
		t.Fatalf("%s %s: %v", name, record, err)
	}
	s.AddRR(rr)
}

// AddTXT adds a TXT record of any octets, in strings of 255.
func (s *Server) AddTXT(name string, parts ...string) {
	rr := &dns.TXT{Hdr: dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}
	for _, p := range parts {
		for len(p) > 255 {
			rr.Txt, p = append(rr.Txt, escape(p[:255])), p[255:]
		}
		rr.Txt = append(rr.Txt, escape(p))
	}
	if len(rr.Txt) == 0 {
		rr.Txt = []string{""}
	}
	s.AddRR(rr)
}

// AddAddr adds an A or AAAA record.
func (s *Server) AddAddr(name string, a netip.Addr) {
	h := dns.RR_Header{Name: dns.Fqdn(name), Class: dns.ClassINET, Ttl: 60}
	if a.Is4() {
		h.Rrtype = dns.TypeA
		s.AddRR(&dns.A{Hdr: h, A: a.AsSlice()})
		return
	}
	h.Rrtype = dns.TypeAAAA
	s.AddRR(&dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
}

// escape writes octets in the packet library's presentation form.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '\\' || c == '"' {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// AddRR adds a record.
func (s *Server) AddRR(rr dns.RR) {
	name := strings.ToLower(rr.Header().Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[name] = append(s.records[name], rr)
}

// Make makes a name answer badly; it then exists.
func (s *Server) Make(name string, t Trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble[strings.ToLower(dns.Fqdn(name))] = t
}

// Clear forgets all records and troubles.
func (s *Server) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.records)
	clear(s.trouble)
}

// Queries tells how often a name was asked for a type.
func (s *Server) Queries(name, qtype string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries[strings.ToLower(name)+" "+qtype]
}

// Asked lists all questions so far, sorted.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.queries))
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	q := r.Question[0]
	name := strings.ToLower(q.Name)
	m := new(dns.Msg)
	m.SetReply(r)
	m.RecursionAvailable = true

	s.mu.Lock()
	s.queries[strings.TrimSuffix(name, ".")+" "+dns.TypeToString[q.Qtype]]++
	trouble := s.trouble[name]
	var found []dns.RR
	for at := name; ; {
		next := ""
		for _, rr := range s.records[at] {
			if cn, ok := rr.(*dns.CNAME); ok {
				next = strings.ToLower(cn.Target)
			}
			if t := rr.Header().Rrtype; t == q.Qtype || t == dns.TypeCNAME {
				found = append(found, rr)
			}
		}
		if next == "" || len(found) > 20 {
			break
		}
		at = next
	}
	exists := trouble != 0
	for known := range s.records {
		exists = exists || known == name || strings.HasSuffix(known, "."+name) // an empty non-terminal
	}
	s.mu.Unlock()

	_, udp := w.RemoteAddr().(*net.UDPAddr)
	switch {
	case trouble == Silent:
		return
	case trouble == Servfail && len(found) == 0:
		m.Rcode = dns.RcodeServerFailure
	case trouble == Truncate && udp:
		m.Truncated = true
	case !exists:
		m.Rcode = dns.RcodeNameError
	default:
		m.Answer = found
	}
	if len(m.Answer) == 0 && m.Rcode != dns.RcodeServerFailure {
		m.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 3600}, Ns: ".", Mbox: ".", Minttl: NegativeTTL,
		}}
	}
	if trouble == Forged {
		f := m.Copy()
		f.Id++
		f.Answer = nil
		_ = w.WriteMsg(f)
	}
	if udp && m.Len() > 1232 {
		m.Answer, m.Truncated = nil, true
	}
	_ = w.WriteMsg(m)
}
