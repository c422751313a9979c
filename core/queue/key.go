package queue

import (
	"cmp"
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
	placeLen      = 1 + 1 + 8 + 8
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

// due is a place in the due index, or in that of a lane: the higher priority first,
// within it a bucket of senders, and of these the longest due. The bucket stands before
// the time, so that what another sender has there need not be read past.
//
// Rejected: a name for each sender in the key. Strangers choose the names, and a claim
// would have to look at each of them; what shares a bucket shares its turn.
type due struct {
	class  int
	bucket byte
	at     int64 // Unix nanoseconds; never: nothing is due
	id     id
}

const never = math.MaxInt64

func (d due) appendPlace(k []byte) []byte {
	k = append(k, byte(d.class), d.bucket)
	k = binary.BigEndian.AppendUint64(k, uint64(d.at))
	return binary.BigEndian.AppendUint64(k, uint64(d.id))
}

func (d due) key() []byte { return d.appendPlace(append(make([]byte, 0, 1+placeLen), keyDue)) }

// parsePlace reads what follows the name of an index.
func parsePlace(b []byte) (due, bool) {
	if len(b) != placeLen || b[0] >= classes {
		return due{}, false
	}
	return due{int(b[0]), b[1], int64(binary.BigEndian.Uint64(b[2:])), id(binary.BigEndian.Uint64(b[10:]))}, true
}

func parseDue(k []byte) (due, bool) {
	if len(k) == 0 || k[0] != keyDue {
		return due{}, false
	}
	return parsePlace(k[1:])
}

// before orders two places of one class and bucket.
func (d due) before(o due) bool { return d.at < o.at || d.at == o.at && d.id < o.id }

// row orders classes, and buckets within them.
func (d due) row(o due) int {
	return cmp.Or(cmp.Compare(d.class, o.class), cmp.Compare(d.bucket, o.bucket))
}

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
