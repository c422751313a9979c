package queue

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"google.golang.org/protobuf/proto"
)

// ErrCorrupt: a record is torn or was changed; it is set aside.
var ErrCorrupt = errors.New("corrupt record")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends the checksum over key and record: a whole record at a wrong key
// is as bad as a torn one.
func seal(key, rec []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rec)
	return binary.LittleEndian.AppendUint32(rec, sum)
}

// unseal checks and removes the checksum.
func unseal(key, rec []byte) ([]byte, error) {
	n := len(rec) - 4
	if n < 1 {
		return nil, ErrCorrupt
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rec[:n])
	if binary.LittleEndian.Uint32(rec[n:]) != sum {
		return nil, ErrCorrupt
	}
	return rec[:n], nil
}

// writer appends fields: numbers as varints, strings with their length in front.
type writer struct{ b []byte }

func (w *writer) byte(v byte)  { w.b = append(w.b, v) }
func (w *writer) int(v int64)  { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) len(v int)    { w.b = binary.AppendUvarint(w.b, uint64(v)) }
func (w *writer) str(s string) { w.len(len(s)); w.b = append(w.b, s...) }
func (w *writer) raw(b []byte) { w.len(len(b)); w.b = append(w.b, b...) }
func (w *writer) strs(s []string) {
	w.len(len(s))
	for _, v := range s {
		w.str(v)
	}
}

func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
	} else {
		w.byte(0)
	}
}

// time keeps nanoseconds; the zero time is kept apart from 1970.
func (w *writer) time(t time.Time) {
	w.bool(!t.IsZero())
	if !t.IsZero() {
		w.int(t.Unix())
		w.len(t.Nanosecond())
	}
}

// message writes a protobuf message of the contract; present says whether it is nil.
func (w *writer) message(present bool, m proto.Message) error {
	w.bool(present)
	if !present {
		return nil
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	w.raw(b)
	return nil
}

// reader takes the fields back. After the first error all else is zero, and err
// is ErrCorrupt.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() { r.b, r.err = nil, ErrCorrupt }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bool() bool { return r.byte() != 0 }

func (r *reader) fixed32() uint32 {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// len reads a length or a count; each thing counted takes an octet at least.
func (r *reader) len() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n) {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) raw() []byte {
	n := r.len()
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) str() string { return string(r.raw()) }

func (r *reader) strs() []string {
	n := r.len()
	if n == 0 {
		return nil
	}
	s := make([]string, n)
	for i := range s {
		s[i] = r.str()
	}
	return s
}

func (r *reader) time() time.Time {
	if !r.bool() {
		return time.Time{}
	}
	sec := r.int()
	return time.Unix(sec, int64(r.uint()%1e9)).UTC()
}

// message reads into m; it tells whether there was one.
func (r *reader) message(m proto.Message) bool {
	if !r.bool() {
		return false
	}
	if b := r.raw(); r.err == nil && proto.Unmarshal(b, m) != nil {
		r.fail()
	}
	return r.err == nil
}
