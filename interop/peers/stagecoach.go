package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// stagecoach is the server of this repository, as it is built, with the defaults
// of its configuration, but for the connections of one address: the load is all from
// one, and Postfix counts none of mynetworks, where loopback is.
type stagecoach struct{ bin, dir string }

var _ peer = (*stagecoach)(nil)

func (*stagecoach) name() string { return "stagecoach" }
func (*stagecoach) port() int    { return 2529 }

const metricsAddr = "127.0.0.1:9329"

func (s *stagecoach) config() string { return filepath.Join(s.dir, "server.hcl") }

func (s *stagecoach) prepare(dir, mode string, sink int) error {
	s.dir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("hostname = \"mx.ryan.example\"\ndata_dir = %q\n"+
		"log { level = \"warn\" }\nmetrics { listen = %q }\n", filepath.Join(dir, "data"), metricsAddr)
	var filters []string
	if mode == past5 {
		for n := range 5 {
			what := `require = ["From"]` // smtp-source writes From, To, Date and Message-Id
			if n%2 == 1 {
				what = fmt.Sprintf(`add = { "X-Seen-By-%d" = "mx" }`, n)
			}
			text += fmt.Sprintf("filter \"headers\" \"f%d\" { %s }\n", n, what)
			filters = append(filters, fmt.Sprintf("filter.headers.f%d", n))
		}
	}
	if mode == local {
		text += fmt.Sprintf(`directory "file" "people" { path = "people.hcl" }
storage "local" "mail" {}
receive "smtp" "mx" {
  listen                 = ["127.0.0.1:%d"]
  max_connections_per_ip = 1000
}
route "here" {
  when    = has(directory.file.people, recipient)
  deliver = deliver.storage.mail
}
deliver "storage" "mail" { storage = storage.local.mail }
`, s.port())
	} else {
		text += fmt.Sprintf(`receive "smtp" "mx" {
  listen     = ["127.0.0.1:%d"]
  relay_from = ["127.0.0.0/8"]
  filters    = [%s]
}
route "out" { deliver = deliver.smtp.sink }
deliver "smtp" "sink" {
  hosts = ["127.0.0.1:%d"]
  tls   = "none"
}
`, s.port(), strings.Join(filters, ", "), sink)
	}
	var people strings.Builder
	for u := range users {
		fmt.Fprintf(&people, "user \"u%d@ryan.example\" {}\n", u)
	}
	for file, text := range map[string]string{"server.hcl": text, "people.hcl": people.String()} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s *stagecoach) start(g *group, log *os.File) error {
	cmd, err := g.start(log, s.bin, "serve", "--quiet", "-c", s.config())
	if err == nil {
		go cmd.Wait() //nolint:errcheck // the group tells when it has ended
	}
	return err
}

func (s *stagecoach) stop(g *group) error {
	// The core ends its plugins itself.
	if pids := g.pids(); len(pids) > 0 {
		core, err := os.FindProcess(pids[0])
		if err == nil {
			err = core.Signal(os.Interrupt)
		}
		if err != nil {
			return err
		}
	}
	for end := time.Now().Add(10 * time.Second); len(g.pids()) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	return g.stop(time.Second)
}

// core is the pid of the process that has the queue.
func (s *stagecoach) core(g *group) int {
	for _, pid := range g.pids() {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(b), "\x00serve\x00--quiet\x00") {
			return pid
		}
	}
	return 0
}

func (s *stagecoach) stored() (int, error) {
	return s.metric(`stagecoach_deliver_results_total{`, `state="delivered"`)
}

// metric adds up the samples whose line begins with one text and has the other.
func (s *stagecoach) metric(prefix, has string) (int, error) {
	resp, err := http.Get("http://" + metricsAddr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	sum := 0.0
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, prefix) && strings.Contains(line, has) {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return int(sum), lines.Err()
}
