package schedule

import (
	"math"
	"math/rand/v2"
	"time"
)

// warm spreads what is due at a start. Lanes open one after the other and starts
// come in growing numbers, both doubling: the first of them at once, thousands
// after some seconds.
type warm struct {
	begin  time.Time
	opened int
	starts int
}

const (
	warmFor = 15 * time.Second
	// lanesFirst lanes open and startsFirst attempts start in the first second;
	// each second or half-second brings twice as many as the one before.
	lanesFirst, lanesDouble   = 50, time.Second
	startsFirst, startsDouble = 128, time.Second / 2
)

// growth is when the n-th of what begins with first per second is due.
func growth(n, first int, double time.Duration) time.Duration {
	return time.Duration(math.Log2(1+float64(n)*math.Ln2*float64(time.Second)/float64(double)/float64(first)) * float64(double))
}

// opening is when a lane that is seen now may begin; zero: at once.
func (w *warm) opening(now time.Time, random *rand.Rand) time.Time {
	if now.Sub(w.begin) >= warmFor {
		return time.Time{}
	}
	from := growth(w.opened, lanesFirst, lanesDouble)
	w.opened++
	gap := growth(w.opened, lanesFirst, lanesDouble) - from
	if w.opened == 1 {
		return time.Time{}
	}
	return w.begin.Add(from + time.Duration(random.Int64N(int64(gap)+1)))
}

// at is when the next start may be; zero: at once.
func (w *warm) at(now time.Time) time.Time {
	if now.Sub(w.begin) >= warmFor {
		return time.Time{}
	}
	at := w.begin.Add(growth(w.starts, startsFirst, startsDouble))
	if !at.After(now) {
		return time.Time{}
	}
	return at
}
