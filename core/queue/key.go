package queue

import (
	"encoding/binary"
	"math"
	"time"
)

// The first octet of a key; what follows is made by the functions below.
const (
	keyBody        = 'b'
	keyDestination = 't'
	keyDue         = 'd'
	keyFeed        = 'f'
	keyLane        = 'l'
	keyMessage     = 'm'
	keyObserver    = 'o'
	keyQuarantine  = 'q'
	keyMeta        = 'x'
)

// indexSpaces hold what is made of the messages alone.
var indexSpaces = []byte{keyDestination, keyDue, keyLane}

var (
	metaFormat = []byte{keyMeta, 'f'}
	metaEpoch  = []byte{keyMeta, 'e'}
	metaCounts = []byte{keyMeta, 'c'}
)

const (
	messageKeyLen = 1 + 8
	journalKeyLen = messageKeyLen + 4
	dueKeyLen     = 1 + 1 + 8 + 8
)

func messageKey(i id) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyMessage}, uint64(i))
}

func bodyKey(i id) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyBody}, uint64(i))
}

func journalKey(i id, seq uint32) []byte {
	return binary.BigEndian.AppendUint32(messageKey(i), seq)
}

// Priorities are those of RFC 6710: -9 to 9, others are cut.
const classes = 19

// classOf sorts the highest priority first.
func classOf(priority int) int { return 9 - min(max(priority, -9), 9) }

// due is a place in the due index: the higher priority first, within it the
// longest due.
type due struct {
	class int
	at    int64 // Unix nanoseconds; never: nothing is due
	id    id
}

const never = math.MaxInt64

func (d due) key() []byte {
	k := append(make([]byte, 0, dueKeyLen), keyDue, byte(d.class))
	k = binary.BigEndian.AppendUint64(k, uint64(d.at))
	return binary.BigEndian.AppendUint64(k, uint64(d.id))
}

func parseDue(k []byte) (due, bool) {
	if len(k) != dueKeyLen || k[0] != keyDue || k[1] >= classes {
		return due{}, false
	}
	return due{int(k[1]), int64(binary.BigEndian.Uint64(k[2:])), id(binary.BigEndian.Uint64(k[10:]))}, true
}

// before orders two places of one class.
func (d due) before(o due) bool { return d.at < o.at || d.at == o.at && d.id < o.id }

// next is the place right after d.
func (d due) next() due { d.id++; return d }

// nanos of a time for the index: before 1970 and zero are 0, that is at once.
func nanos(t time.Time) int64 {
	if t.IsZero() || t.Year() < 1970 {
		return 0
	}
	if t.Year() > 2200 {
		return never - 1
	}
	return t.UnixNano()
}
