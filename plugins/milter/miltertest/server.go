// Package miltertest is a milter that does what a script says, for tests of the
// other end. It reads packets by a code of its own, not by package protocol's.
package miltertest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
)

// Packet is what the milter sends: a code and its data.
type Packet struct {
	Code byte
	Data string
}

// Say makes a packet of a code and strings, each with a NUL behind it.
func Say(code byte, words ...string) Packet {
	p := Packet{Code: code}
	for _, w := range words {
		p.Data += w + "\x00"
	}
	return p
}

// Indexed is Say with a number of four octets before the strings.
func Indexed(code byte, index uint32, words ...string) Packet {
	p := Say(code, words...)
	p.Data = string(binary.BigEndian.AppendUint32(nil, index)) + p.Data
	return p
}

// Continue goes on.
func Continue() []Packet { return []Packet{{Code: 'c'}} }

// Script says what the milter is.
type Script struct {
	// Version, Actions and Steps of its answer to the negotiation; Version 0 is 6.
	Version, Actions, Steps uint32
	// Macros are behind them: stage and list.
	Macros string
	// Answer says what to send for a command; nil: Continue. An answer of nil is
	// silence, with Hangup the end of the connection. It is called for one command
	// at a time.
	Answer func(command byte, data string) []Packet
}

// Hangup as an answer ends the connection.
func Hangup() []Packet { return []Packet{} }

// Server is a milter that serves.
type Server struct {
	script   Script
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex
	log    []string
	conns  map[net.Conn]bool
	count  int
	closed bool
}

// Serve serves on l until Close.
func Serve(l net.Listener, script Script) *Server {
	s := &Server{script: script, listener: l, conns: map[net.Conn]bool{}}
	s.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.count++
			s.conns[c] = true
			closed := s.closed
			s.mu.Unlock()
			if closed {
				_ = c.Close()
			}
			s.done.Go(func() { s.serve(c) })
		}
	})
	return s
}

// Close ends it and all its connections at once, as a crash does.
func (s *Server) Close() {
	_ = s.listener.Close()
	s.Cut()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Cut()
	s.done.Wait()
}

// Cut ends the connections that there are.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

// Connections is how many there have been.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Log is what the milter was told, a line a command: its letter and its strings.
func (s *Server) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *Server) serve(c net.Conn) {
	defer func() {
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	r := bufio.NewReader(c)
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, packet); err != nil || len(packet) == 0 {
			return
		}
		command, data := packet[0], string(packet[1:])
		if !s.obey(c, command, data) {
			return
		}
	}
}

// obey answers one command; false ends the connection.
func (s *Server) obey(c net.Conn, command byte, data string) bool {
	s.mu.Lock()
	s.log = append(s.log, line(command, data))
	s.mu.Unlock()
	var answer []Packet
	switch command {
	case 'O':
		version := s.script.Version
		if version == 0 {
			version = 6
		}
		b := binary.BigEndian.AppendUint32(nil, version)
		b = binary.BigEndian.AppendUint32(b, s.script.Actions)
		b = binary.BigEndian.AppendUint32(b, s.script.Steps)
		answer = []Packet{{'O', string(b) + s.script.Macros}}
	case 'Q':
		return false
	case 'D', 'A', 'K':
		return true // never answered
	default:
		answer = Continue()
		if s.script.Answer != nil {
			answer = s.script.Answer(command, data)
		}
		if answer != nil && len(answer) == 0 {
			return false
		}
	}
	for _, p := range answer {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(p.Data)+1))
		if _, err := c.Write(append(append(b, p.Code), p.Data...)); err != nil {
			return false
		}
	}
	return true
}

// line writes a command for a person.
func line(command byte, data string) string {
	switch command {
	case 'O':
		return "O"
	case 'B':
		return fmt.Sprintf("B %d", len(data))
	case 'D':
		words := strings.Split(strings.TrimSuffix(data[1:], "\x00"), "\x00")
		out := "D " + data[:1]
		for i := 0; i+1 < len(words); i += 2 {
			out += " " + words[i] + "=" + words[i+1]
		}
		return out
	case 'C':
		host, rest, _ := strings.Cut(data, "\x00")
		if len(rest) < 3 {
			return "C " + host + " " + rest
		}
		return fmt.Sprintf("C %s %c %d %s", host, rest[0], binary.BigEndian.Uint16([]byte(rest[1:3])), strings.TrimSuffix(rest[3:], "\x00"))
	}
	return strings.TrimRight(string(command)+" "+strings.ReplaceAll(data, "\x00", " "), " ")
}
