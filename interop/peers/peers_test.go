package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestLastCount(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "sess=1 quit=0 mesg=7 ": 7, "mesg=41 \rmesg=42 \rmesg=4": 42, "mesg=4": 0,
	} {
		if got := lastCount(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// TestCompare: ratios are made within a round, their median counts, and of CPU
// time less is better.
func TestCompare(t *testing.T) {
	var results []*result
	for round, ours := range []float64{800, 100, 1000} {
		results = append(results,
			&result{Workload: "kept20", Peer: "stagecoach", Round: round, Rate: ours, CPU: 0.5, Load: 0.25},
			&result{Workload: "kept20", Peer: "postfix", Round: round, Rate: 100, CPU: 5})
	}
	rows := compare(results, []peer{&stagecoach{}, &postfix{}}, 2)
	if len(rows) != 3 || rows[0].Ratio != 8 || rows[0].Holds || rows[1].Ratio != 10 || !rows[1].Holds {
		t.Fatalf("%+v", rows)
	}
	if most := rows[2]; most.Ours != 8000 || most.Ratio != 80 || !most.Holds {
		t.Errorf("two processors with 0.25 ms a mail do %v mails a second", most.Ours)
	}
	var out bytes.Buffer
	if err := table(&out, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[1], "8.00x") || !strings.Contains(lines[1], "!") || strings.Contains(lines[2], "!") {
		t.Errorf("the goal that is missed is not the one with a mark:\n%s", &out)
	}
}

func TestChoose(t *testing.T) {
	if got, backlog, err := choose("big,backlog"); err != nil || !backlog || len(got) != 1 || got[0].name != "big" {
		t.Errorf("%v %v %v", got, backlog, err)
	}
	if _, _, err := choose("bog"); err == nil || !strings.Contains(err.Error(), "kept20") {
		t.Errorf("the error does not name what there is: %v", err)
	}
}

// TestLoad: each mail is sent once, whole, at the rate asked for, and a refusal
// is an error.
func TestLoad(t *testing.T) {
	var mails, octets atomic.Int64
	var refuse atomic.Bool
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go answer(c, &mails, &octets, &refuse)
		}
	}()
	l := load{tool: "kept", sessions: 3, size: 2048, mails: 50, to: all, rate: 500}
	port := ln.Addr().(*net.TCPAddr).Port
	s, err := l.run(nil, tools{}, port)
	if err != nil {
		t.Fatal(err)
	}
	if mails.Load() != 50 || len(s.latency) != 50 || octets.Load() < 50*2048 || octets.Load() > 50*2200 {
		t.Errorf("%d mails, %d latencies, %d octets", mails.Load(), len(s.latency), octets.Load())
	}
	if least := 49 * time.Second / 500; s.took < least {
		t.Errorf("it took %s, less than %s", s.took, least)
	}
	refuse.Store(true)
	if _, err := l.run(nil, tools{}, port); err == nil || !strings.Contains(err.Error(), "452") {
		t.Errorf("a refusal gave %v", err)
	}
}

func answer(c net.Conn, mails, octets *atomic.Int64, refuse *atomic.Bool) {
	defer c.Close()
	fmt.Fprint(c, "220 mx.ryan.example\r\n")
	lines := bufio.NewScanner(c)
	for data := false; lines.Scan(); {
		line := lines.Text()
		switch {
		case data && line != ".":
			octets.Add(int64(len(line)) + 2)
			continue
		case data:
			data = false
			mails.Add(1)
		case line == "DATA":
			data = true
			fmt.Fprint(c, "354 go on\r\n")
			continue
		case line == "QUIT":
			fmt.Fprint(c, "221 bye\r\n")
			return
		case strings.HasPrefix(line, "RCPT") && refuse.Load():
			fmt.Fprint(c, "452 4.3.1 full\r\n")
			continue
		}
		fmt.Fprint(c, "250-mx\r\n250 ok\r\n")
	}
}
