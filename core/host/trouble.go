package host

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// TroubleKind is a way not to behave.
type TroubleKind string

// The kinds, by how much they should trouble an operator.
const (
	// Unresponsive does not answer health checks; it is replaced.
	Unresponsive TroubleKind = "unresponsive"
	// Memory: it took more than its limit and was ended, or ended itself at it.
	Memory TroubleKind = "memory"
	// Processes: it has started more processes and threads than its limit.
	Processes TroubleKind = "processes"
	// BadSession: what it sent was no session any more; it is replaced.
	BadSession TroubleKind = "bad_session"
	// Stuck: it ended no call any more; it is replaced.
	Stuck TroubleKind = "stuck"
	// Crash: it ended by itself.
	Crash TroubleKind = "crash"
	// NotStarted: it did not come up again.
	NotStarted TroubleKind = "not_started"
	// FellBack: what was to replace it did not come up, and it serves as before.
	FellBack TroubleKind = "fell_back"
	// BadAnswers to calls, which are none; they failed and it goes on.
	BadAnswers TroubleKind = "bad_answers"
	// LateAnswers never came, or not in time.
	LateAnswers TroubleKind = "late_answers"
	// Trespass: it reached, from its sandbox, for what is the operator's.
	Trespass TroubleKind = "trespass"
	// LogFlood: it writes more than is logged.
	LogFlood TroubleKind = "log_flood"
	// LeftBehind are processes that it had started and that outlived it.
	LeftBehind TroubleKind = "left_behind"
)

// trait is how long a kind is told after its last time, which is also the time
// over which it is counted, and what a line about it says.
type trait struct {
	kept time.Duration
	// says is about n and octets in the time kept; ago is since the last time.
	says func(r *record, n, octets uint64, ago string) string
}

const (
	keptCounts = 10 * time.Minute
	keptEnds   = time.Hour
)

var (
	traits = map[TroubleKind]trait{
		Unresponsive: {keptEnds, ended}, Memory: {keptEnds, ended}, Processes: {keptEnds, ended},
		BadSession: {keptEnds, ended}, Stuck: {keptEnds, ended},
		Crash: {keptEnds, func(r *record, n, _ uint64, ago string) string {
			return fmt.Sprintf("crashed %s%s: %s", ago, times(n), r.detail)
		}},
		NotStarted: {keptEnds, func(r *record, n, _ uint64, ago string) string {
			return fmt.Sprintf("could not be started %s%s: %s", ago, times(n), r.detail)
		}},
		BadAnswers: {keptCounts, func(r *record, n, _ uint64, ago string) string {
			return fmt.Sprintf("answers garbage: %s in the last 10 min, the last %s: %s", count(n, "call"), ago, r.detail)
		}},
		LateAnswers: {keptCounts, func(_ *record, n, _ uint64, ago string) string {
			return fmt.Sprintf("is late: %s without an answer in time in the last 10 min, the last %s", count(n, "call"), ago)
		}},
		Trespass: {keptEnds, func(_ *record, n, _ uint64, ago string) string {
			return fmt.Sprintf("reached for the server's admin socket, which is not in its sandbox, and was refused: %s in the last hour, the last %s", count(n, "time"), ago)
		}},
		LogFlood: {keptCounts, func(_ *record, n, octets uint64, _ string) string {
			return fmt.Sprintf("floods its log: %s (%s) dropped in the last 10 min", count(n, "line"), megabytes(octets))
		}},
		LeftBehind: {keptEnds, func(_ *record, n, _ uint64, ago string) string {
			return fmt.Sprintf("left %s behind when it ended, which were killed, the last %s", count(n, "process"), ago)
		}},
	}
	severity = []TroubleKind{
		Unresponsive, Memory, Processes, BadSession, Stuck, Crash, FellBack, NotStarted, BadAnswers, LateAnswers, Trespass, LogFlood, LeftBehind,
	}
)

func ended(r *record, n, _ uint64, ago string) string {
	return fmt.Sprintf("was ended %s%s: %s", ago, times(n), r.detail)
}

// Trouble is one way in which an instance does not behave, now or not long ago.
type Trouble struct {
	Kind TroubleKind `json:"kind"`
	// Count of endings, calls, lines or processes in the last hour, or the last
	// ten minutes for what an instance may do at any time; 0: it is so just now.
	Count uint64 `json:"count,omitempty"`
	// Octets of the lines of a LogFlood.
	Octets uint64 `json:"bytes,omitempty"`
	// Last time that it happened.
	Last time.Time `json:"last"`
	// Text says it in words.
	Text string `json:"text"`
}

// slices of the time over which a kind is counted.
const troubleSlices = 10

// record counts one kind in slices of its time.
type record struct {
	n, octets [troubleSlices]uint64
	slice     int64 // number of the latest one, since the epoch
	last      time.Time
	detail    string
}

// turn empties the slices that have become too old.
func (r *record) turn(now time.Time, kept time.Duration) {
	slice := now.UnixNano() / int64(kept/troubleSlices)
	for k := max(r.slice+1, slice-troubleSlices+1); k <= slice; k++ {
		r.n[k%troubleSlices], r.octets[k%troubleSlices] = 0, 0
	}
	r.slice = max(r.slice, slice)
}

// troubles remembers those of one instance, over its processes. A nil one
// remembers nothing.
type troubles struct {
	now func() time.Time

	mu      sync.Mutex
	records map[TroubleKind]*record
	// live is what is so just now, in words.
	live map[TroubleKind]string
	// Lines and octets that were dropped of its log, ever.
	droppedLines, droppedOctets uint64
}

func newTroubles() *troubles {
	return &troubles{now: time.Now, records: map[TroubleKind]*record{}, live: map[TroubleKind]string{}}
}

// note counts n more of a kind.
func (t *troubles) note(kind TroubleKind, n, octets uint64, detail string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[kind]
	if r == nil {
		r = &record{}
		t.records[kind] = r
	}
	now := t.now()
	r.turn(now, traits[kind].kept)
	r.n[r.slice%troubleSlices] += n
	r.octets[r.slice%troubleSlices] += octets
	r.last, r.detail = now, detail
}

// dropped counts what the log did not take.
func (t *troubles) dropped(lines, octets uint64) {
	if t == nil {
		return
	}
	t.note(LogFlood, lines, octets, "")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.droppedLines += lines
	t.droppedOctets += octets
}

// state says what is so just now, until it says something else; "": no longer. It
// tells whether that is news.
func (t *troubles) state(kind TroubleKind, text string) (begins bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	begins = text != "" && t.live[kind] == ""
	t.live[kind] = text
	return begins
}

// calm says that nothing is so just now: there is another process.
func (t *troubles) calm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.live)
}

// end notes why a process had to be replaced. What was so of it is over.
func (t *troubles) end(problem error, otherwise TroubleKind) {
	t.calm()
	if e, ok := problem.(*ending); ok {
		otherwise = e.kind
	}
	t.note(otherwise, 1, 0, problem.Error())
}

// fill puts what is still worth telling into info, the worst first.
func (t *troubles) fill(info *Info) {
	t.mu.Lock()
	defer t.mu.Unlock()
	info.DroppedLines, info.DroppedOctets = t.droppedLines, t.droppedOctets
	now := t.now()
	for kind, text := range t.live {
		if text != "" {
			info.Troubles = append(info.Troubles, Trouble{Kind: kind, Last: now, Text: text})
		}
	}
	for kind, r := range t.records {
		if t.live[kind] != "" {
			continue
		}
		r.turn(now, traits[kind].kept)
		one := Trouble{Kind: kind, Last: r.last}
		for k := range troubleSlices {
			one.Count += r.n[k]
			one.Octets += r.octets[k]
		}
		// One long line is cut, and that is no flood.
		if one.Count == 0 && one.Octets < octetsBurst {
			continue
		}
		one.Text = traits[kind].says(r, one.Count, one.Octets, since(now.Sub(r.last)))
		info.Troubles = append(info.Troubles, one)
	}
	slices.SortFunc(info.Troubles, func(a, b Trouble) int {
		return cmp.Compare(slices.Index(severity, a.Kind), slices.Index(severity, b.Kind))
	})
}

// ending is why a process was ended, or ended by itself.
type ending struct {
	kind TroubleKind
	text string
}

func (e *ending) Error() string { return e.text }

func endedFor(kind TroubleKind, format string, args ...any) error {
	return &ending{kind, fmt.Sprintf(format, args...)}
}

// endedAtLimit tells the end of a process that asked for memory and got none.
func endedAtLimit(words string) bool {
	for _, w := range []string{"out of memory", "allocate memory", "memory allocation", "MemoryError", "bad_alloc", "failed to allocate"} {
		if strings.Contains(words, w) {
			return true
		}
	}
	return false
}

func times(n uint64) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(", %s times in the last hour", grouped(n))
}

func count(n uint64, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "s"):
		what += "e"
	}
	return grouped(n) + " " + what + "s"
}

// grouped has a comma after each thousand.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

func megabytes(n uint64) string {
	if n < 1e6 {
		return fmt.Sprintf("%d kB", (n+999)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

func since(d time.Duration) string {
	switch {
	case d < time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	}
	return fmt.Sprintf("%d min ago", int(d.Minutes()))
}
