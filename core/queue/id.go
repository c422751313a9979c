package queue

import (
	"fmt"
	"sync/atomic"
	"time"
)

// An id is 63 bits: 51 of microseconds since idStart and 12 of the epoch, the
// count of starts of this queue. Within one epoch the microseconds only grow;
// two epochs differ in the low bits, so a clock set back makes no id twice. Its
// text is 11 digits of base 62, in ASCII order: ids sort by the time of Put.
type id uint64

const (
	idLen     = 11
	epochBits = 12
	idDigits  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

var idStart = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// idAt is the least id of the moment t.
func idAt(t time.Time) id {
	return id(max(0, t.Sub(idStart).Microseconds())) << epochBits
}

// time of the Put, to the microsecond.
func (i id) time() time.Time {
	return idStart.Add(time.Duration(i>>epochBits) * time.Microsecond)
}

func (i id) String() string {
	var b [idLen]byte
	for p := idLen - 1; p >= 0; p-- {
		b[p] = idDigits[i%62]
		i /= 62
	}
	return string(b[:])
}

// parseID gives ErrNotFound for what can be no id: nobody has such a message.
func parseID(s string) (id, error) {
	if i, ok := readID(s); ok {
		return i, nil
	}
	return 0, fmt.Errorf("%w: %q", ErrNotFound, s)
}

func readID(s string) (i id, ok bool) {
	if len(s) != idLen {
		return 0, false
	}
	for p := range idLen {
		var d byte
		switch c := s[p]; {
		case '0' <= c && c <= '9':
			d = c - '0'
		case 'A' <= c && c <= 'Z':
			d = c - 'A' + 10
		case 'a' <= c && c <= 'z':
			d = c - 'a' + 36
		default:
			return 0, false
		}
		if i > (1<<63)/62 {
			return 0, false
		}
		i = i*62 + id(d)
	}
	return i, true
}

// idMaker makes ids for one epoch.
type idMaker struct {
	epoch uint64
	last  atomic.Int64
}

func (m *idMaker) next(now time.Time) id {
	us := now.Sub(idStart).Microseconds()
	for {
		last := m.last.Load()
		us = max(us, last+1)
		if m.last.CompareAndSwap(last, us) {
			return id(us)<<epochBits | id(m.epoch&(1<<epochBits-1))
		}
	}
}
