package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
)

// serving is a server of a test.
type serving struct {
	t      *testing.T
	admin  *admin.Client
	out    *safeBuffer
	log    *safeBuffer
	metric string // base of its pages
	smtp   string
}

// safeBuffer is written by a server and read by the test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// eventually waits until f is satisfied, and says what is wrong if it never is.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// serveFile runs a server from a file until the test ends.
func serveFile(t *testing.T, path, dir string) *serving {
	t.Helper()
	s := &serving{t: t, out: &safeBuffer{}, log: &safeBuffer{}, admin: admin.NewClient(filepath.Join(dir, "data", "run", "admin.sock"))}
	ctx, cancel := context.WithCancel(context.Background())
	a := app()
	a.Stdin, a.Stdout, a.Stderr = strings.NewReader(""), s.out, s.log
	done := make(chan int, 1)
	go func() { done <- a.Run(ctx, []string{"serve", "-c", path}) }()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != command.ExitOK {
			t.Errorf("it stopped with %d", code)
		}
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	listening(s, done)
	return s
}

// listening waits until a server says where it listens; ended tells that it has.
func listening[T any](s *serving, ended chan T) {
	s.t.Helper()
	eventually(s.t, func() error {
		select {
		case how := <-ended:
			ended <- how
			s.t.Fatalf("the server ended: %v", how)
		default:
		}
		s.metric, s.smtp = s.printed(`http://([^ ]+)/metrics`), s.printed(`receive\.smtp\.mx +([^ \n]+)`)
		if s.metric == "" || s.smtp == "" {
			return fmt.Errorf("it does not say where it listens: %q", s.out.String())
		}
		return nil
	})
}

// printed finds the last of what the server said of itself.
func (s *serving) printed(pattern string) string {
	all := regexp.MustCompile(pattern).FindAllStringSubmatch(s.out.String(), -1)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1][1]
}

// send is one mail from Tom, in plain text.
func (s *serving) send(to string, mail []byte) error {
	c, err := smtp.Dial(s.smtp)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mail("tom@hanks.example"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(mail); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

func get(url string) (int, http.Header, string, error) {
	c := http.Client{Timeout: 20 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

// page reads /metrics as Prometheus does.
func (s *serving) page() map[string]*dto.MetricFamily {
	s.t.Helper()
	code, header, text, err := get("http://" + s.metric + "/metrics")
	if err != nil || code != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/plain; version=0.0.4") {
		s.t.Fatalf("%d %v %v\n%s", code, header, err, text)
	}
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		s.t.Fatalf("Prometheus would not read it: %v\n%s", err, text)
	}
	return families
}

// value of the one series with these labels ("name=value"); false if there is none.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
next:
	for _, m := range families[name].GetMetric() {
		has := map[string]bool{}
		for _, l := range m.GetLabel() {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		for _, l := range labels {
			if !has[l] {
				continue next
			}
		}
		switch {
		case m.GetCounter() != nil:
			return m.GetCounter().GetValue(), true
		case m.GetHistogram() != nil:
			return float64(m.GetHistogram().GetSampleCount()), true
		}
		return m.GetGauge().GetValue(), true
	}
	return 0, false
}

// TestMetrics: a mail passes through the development server, and the page that
// Prometheus reads tells of every stage and of the plugins' own figures; a plugin
// that hangs costs its own figures alone; a reload keeps and moves the page.
func TestMetrics(t *testing.T) {
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	s := serveFile(t, path, dir)
	mail := []byte("From: tom@hanks.example\r\nTo: meg@ryan.example\r\nSubject: You have got mail\r\n\r\nHello Meg\r\n")
	if err := s.send("meg@ryan.example", mail); err != nil {
		t.Fatal(err)
	}
	if err := s.send("nobody@ryan.example", mail); err == nil {
		t.Fatal("mail for nobody was taken")
	}
	eventually(t, func() error {
		return has(s.page(), map[string]float64{
			"stagecoach_receive_transactions_total listener=receive.smtp.mx result=accepted": 2,
			"stagecoach_receive_recipients_total listener=receive.smtp.mx result=accepted":   1,
			"stagecoach_receive_recipients_total listener=receive.smtp.mx result=refused":    1,
			"stagecoach_receive_messages_total listener=receive.smtp.mx result=accepted":     1,
			"stagecoach_receive_connections_total listener=receive.smtp.mx":                  2,
			"stagecoach_receive_connections listener=receive.smtp.mx":                        0,
			"stagecoach_receive_bytes_total listener=receive.smtp.mx":                        float64(len(mail)),
			"stagecoach_queue_added_total origin=receive.smtp.mx":                            1,
			"stagecoach_queue_messages":                                                      0,
			"stagecoach_queue_oldest_age_seconds":                                            0,
			"stagecoach_deliver_results_total deliver=deliver.storage.mail state=delivered":  1,
			"stagecoach_deliver_seconds deliver=deliver.storage.mail":                        1,
			"stagecoach_plugin_up plugin=storage.local.mail kind=storage":                    1,
			"stagecoach_plugin_restarts_total plugin=storage.local.mail":                     0,
			"stagecoach_plugin_state plugin=access.pop3.pop3 state=ready":                    1,
			"stagecoach_plugin_local_storage_deposits_total plugin=storage.local.mail":       1,
			"stagecoach_plugin_pop3_connections plugin=access.pop3.pop3":                     0,
			"stagecoach_plugin_scrape_errors_total plugin=storage.local.mail":                0,
			"stagecoach_plugin_call_errors_total plugin=storage.local.mail":                  0,
			"stagecoach_build_info contract=v1":                                              1,
		})
	})
	if n, ok := value(s.page(), "stagecoach_plugin_call_seconds", "plugin=storage.local.mail"); !ok || n < 1 {
		t.Errorf("%v calls of the storage", n)
	}
	if n, ok := value(s.page(), "stagecoach_plugin_resident_memory_bytes", "plugin=storage.local.mail"); !ok || n < 1<<20 {
		t.Errorf("the storage has %v octets", n)
	}
	if code, _, text, err := get("http://" + s.metric + "/healthz"); err != nil || code != http.StatusOK || text != "ok\n" {
		t.Errorf("/healthz: %d %q %v", code, text, err)
	}

	t.Run("a plugin that hangs", func(t *testing.T) { testStuckScrape(t, s) })
	t.Run("reload", func(t *testing.T) { testMetricsReload(t, s, path) })
}

// apart gives each listener a loopback address of its own: two of port 0 on one
// address are one socket.
func apart(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	text := regexp.MustCompile(`127\.0\.0\.1:0`).ReplaceAllStringFunc(string(b), func(string) string {
		n++
		return fmt.Sprintf("127.0.0.%d:0", n)
	})
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// has tells what is missing of "name label=value …".
func has(families map[string]*dto.MetricFamily, want map[string]float64) error {
	for series, n := range want {
		f := strings.Fields(series)
		if got, ok := value(families, f[0], f[1:]...); !ok || got != n {
			return fmt.Errorf("%s is %v (there: %t), want %v", series, got, ok, n)
		}
	}
	return nil
}

func testStuckScrape(t *testing.T, s *serving) {
	var plugins []admin.Plugin
	if err := s.admin.Call(context.Background(), "GET", "/plugins", nil, &plugins); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for _, p := range plugins {
		if p.Instance == "access.pop3.pop3" {
			pid = p.PID
		}
	}
	if pid == 0 || syscall.Kill(pid, syscall.SIGSTOP) != nil {
		t.Fatal("pop3 could not be stopped", pid)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // the supervisor may have killed it
	// The signal takes effect thread by thread.
	eventually(t, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, thread := range threads {
			if stat, err := os.ReadFile(thread); err == nil && !strings.Contains(string(stat), ") T ") {
				return fmt.Errorf("%s is not stopped: %s", thread, stat)
			}
		}
		return err
	})
	begin := time.Now()
	families := s.page()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the page took %s", took)
	}
	if _, ok := value(families, "stagecoach_plugin_pop3_connections"); ok {
		t.Error("a plugin that hangs told its figures")
	}
	if err := has(families, map[string]float64{
		"stagecoach_plugin_scrape_errors_total plugin=access.pop3.pop3":            1,
		"stagecoach_plugin_local_storage_deposits_total plugin=storage.local.mail": 1,
	}); err != nil {
		t.Error(err)
	}
}

func testMetricsReload(t *testing.T, s *serving, path string) {
	reload := func(change func(string) string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(change(string(b))), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.admin.Call(context.Background(), "POST", "/reload", nil, &struct{}{}); err != nil {
			t.Fatal(err)
		}
	}
	// Another policy, the same page: counters go on.
	reload(func(c string) string { return strings.Replace(c, `retry = ["1m",`, `retry = ["2m",`, 1) })
	if err := has(s.page(), map[string]float64{"stagecoach_queue_added_total origin=receive.smtp.mx": 1}); err != nil {
		t.Error(err)
	}
	// Another address: the old one ends.
	socket := filepath.Join(filepath.Dir(path), "m.sock")
	metricsBlock := regexp.MustCompile(`(?s)metrics \{.*?\n\}\n`)
	reload(func(c string) string {
		return metricsBlock.ReplaceAllString(c, "metrics {\n  listen = \"unix://"+socket+"\"\n}\n")
	})
	eventually(t, func() error {
		if _, _, _, err := get("http://" + s.metric + "/metrics"); err == nil {
			return fmt.Errorf("the old address still answers")
		}
		return nil
	})
	if info, err := os.Stat(socket); err != nil || info.Mode()&os.ModeSocket == 0 {
		t.Error("no page on the new address:", err)
	}
	reload(func(c string) string { return metricsBlock.ReplaceAllString(c, "") })
	eventually(t, func() error {
		if _, err := os.Stat(socket); err == nil {
			return fmt.Errorf("the page is still there")
		}
		return nil
	})
}
