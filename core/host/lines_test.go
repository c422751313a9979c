package host

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestLines(t *testing.T) {
	for in, want := range map[string]string{
		`{"@level":"warn","@message":"slow","@timestamp":"x","n":3}`: `{"level":"warn","plugin":"p","n":3,"message":"slow"}`,
		`{"level":"fatal","message":"end","time":1}`:                 `{"level":"error","plugin":"p","message":"end"}`,
		`{"@message":5,"@level":[]}`:                                 `{"level":"info","plugin":"p","message":"5"}`,
		`{"message":"m","plugin":"other"}`:                           `{"level":"info","plugin":"p","plugin_plugin":"other","message":"m"}`,
		`{"broken`:                                                   `{"level":"info","plugin":"p","message":"{\"broken"}`,
		"plain\r":                                                    `{"level":"info","plugin":"p","message":"plain"}`,
		"panic: oh":                                                  `{"level":"error","plugin":"p","message":"panic: oh"}`,
		"null":                                                       `{"level":"info","plugin":"p","message":"null"}`,
		"  ":                                                         "",
	} {
		var out bytes.Buffer
		w := &lineWriter{log: newLineLog(zerolog.New(&out).With().Str("plugin", "p").Logger(), nil, nil)}
		// Cut anywhere, as a pipe does.
		w.Write([]byte(in)[:len(in)/2])
		w.Write(append([]byte(in)[len(in)/2:], '\n'))
		if got := strings.TrimSpace(out.String()); got != want {
			t.Errorf("%s\n  got %s\n want %s", in, got, want)
		}
	}
}

func TestLongLineIsCut(t *testing.T) {
	var out bytes.Buffer
	w := &lineWriter{log: newLineLog(zerolog.New(&out), nil, nil)}
	w.Write(bytes.Repeat([]byte("x"), 3*maxLine))
	w.Write([]byte("\nnext\n"))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || len(lines[0]) > maxLine+100 || !strings.Contains(lines[0], `"cut":true`) || !strings.Contains(lines[1], "next") {
		t.Errorf("%d lines, the first of %d octets", len(lines), len(lines[0]))
	}
}

func TestFloodIsDroppedAndCounted(t *testing.T) {
	var out bytes.Buffer
	l := newLineLog(zerolog.New(&out), nil, nil)
	now := l.filled
	l.now = func() time.Time { return now }
	w := &lineWriter{log: l}
	for range linesBurst + 5000 {
		w.Write([]byte("flood\n"))
	}
	now = now.Add(time.Second)
	w.Write([]byte("after\n"))
	l.finish()
	logged, dropped := 0, 0
	for line := range strings.Lines(out.String()) {
		var e struct {
			Lines   int
			Message string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		dropped += e.Lines
		if e.Message == "flood" || e.Message == "after" {
			logged++
		}
	}
	if logged != linesBurst+1 || dropped != 5000 {
		t.Errorf("%d logged, %d reported as dropped", logged, dropped)
	}
}

func TestPluginThatFloodsStillServes(t *testing.T) {
	h, log := testHost(t)
	if _, err := provision(h, filterSpec("filter.test.a", "flood")); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, h.Instance("filter.test.a"), "pid")
	eventually(t, "the drop is said", func() bool { return strings.Contains(log.String(), "lines dropped") })
	if n := strings.Count(log.String(), "\n"); n > 4000 {
		t.Errorf("%d lines of the flood's 40000 got into the log", n)
	}
}

func TestPercentiles(t *testing.T) {
	var s stats
	for n := range 100 {
		d := time.Millisecond
		if n >= 98 {
			d = time.Second
		}
		s.record(d, nil)
	}
	s.record(24*time.Hour*365, nil)
	s.record(0, nil)
	var info Info
	s.fill(&info)
	if info.P50 < 800*time.Microsecond || info.P50 > 1200*time.Microsecond || info.P99 < 800*time.Millisecond || info.P99 > 1200*time.Millisecond {
		t.Errorf("p50 %v, p99 %v, want 1ms and 1s", info.P50, info.P99)
	}
}
