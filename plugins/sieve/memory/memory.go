// Package memory remembers keys for a time, durably and within a bound: who was
// told that a user is away, which mail was seen before. It keeps digests, not the
// keys, so nothing can be read from its file.
package memory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// A record of the file: the key's digest, the delivery's, until when, a checksum.
const recordLen = 16 + 8 + 8 + 4

// Max keys at once; over it, those that end first are forgotten.
const Max = 1_000_000

type key [16]byte

type entry struct {
	delivery [8]byte
	until    int64 // Unix seconds
}

// Memory is one file, which one process has.
type Memory struct {
	dir string
	max int
	now func() time.Time

	mu      sync.Mutex
	file    *os.File
	records int
	keys    map[key]entry
	broken  error
}

// Open reads what is in the directory. A record that a crash tore is the last one,
// and is left out.
func Open(dir string, now func() time.Time) (*Memory, error) { return open(dir, Max, now) }

func open(dir string, most int, now func() time.Time) (*Memory, error) {
	m := &Memory{dir: dir, max: most, now: now, keys: map[key]entry{}}
	f, err := os.OpenFile(m.path(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("memory of Sieve: %w", err)
	}
	m.file = f
	b, err := io.ReadAll(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("memory of Sieve: %w", err)
	}
	limit := now().Unix()
	for ; len(b) >= recordLen; b = b[recordLen:] {
		k, e, ok := decode(b[:recordLen])
		if !ok {
			continue // damaged: at worst somebody is told twice
		}
		if m.records++; e.until > limit {
			m.keys[k] = e
		}
	}
	// Written anew, so that a torn end and what is over are gone.
	if err := m.compact(); err != nil {
		m.file.Close()
		return nil, err
	}
	return m, nil
}

func (m *Memory) path() string { return filepath.Join(m.dir, "memory") }

func digest(account, s string) (k key) {
	sum := sha256.Sum256([]byte(account + "\x00" + s))
	copy(k[:], sum[:])
	return k
}

func deliveryOf(s string) (d [8]byte) {
	sum := sha256.Sum256([]byte(s))
	copy(d[:], sum[:])
	return d
}

func encode(b []byte, k key, e entry) []byte {
	begin := len(b)
	b = append(b, k[:]...)
	b = append(b, e.delivery[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.until))
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[begin:]))
}

func decode(b []byte) (k key, e entry, ok bool) {
	body, sum := b[:recordLen-4], binary.BigEndian.Uint32(b[recordLen-4:])
	copy(k[:], body)
	copy(e.delivery[:], body[16:])
	e.until = int64(binary.BigEndian.Uint64(body[24:]))
	return k, e, crc32.ChecksumIEEE(body) == sum
}

// Seen tells whether a key was remembered by another delivery, and its time is not
// over: a delivery that is tried again has not seen itself.
func (m *Memory) Seen(account, s, delivery string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.keys[digest(account, s)]
	return ok && e.until > m.now().Unix() && e.delivery != deliveryOf(delivery)
}

// Key to remember.
type Key struct {
	Name string
	For  time.Duration
}

// Remember keys of one delivery; they are on stable storage when it returns nil.
func (m *Memory) Remember(account, delivery string, keys []Key) error {
	if len(keys) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	var b []byte
	now := m.now()
	for _, k := range keys {
		d := digest(account, k.Name)
		e := entry{delivery: deliveryOf(delivery), until: now.Add(k.For).Unix()}
		b = encode(b, d, e)
		m.keys[d] = e
	}
	m.records += len(keys)
	_, err := m.file.Write(b)
	if err == nil {
		err = m.file.Sync()
	}
	if err != nil {
		// What a failed fsync left nobody knows: nothing is retried on this file.
		m.broken = fmt.Errorf("memory of Sieve: %w", err)
		return m.broken
	}
	if len(m.keys) > m.max || m.records > 1000 && m.records > 2*len(m.keys) {
		return m.compact()
	}
	return nil
}

// compact writes what still counts into a new file and puts it in place.
func (m *Memory) compact() error {
	now := m.now().Unix()
	for k, e := range m.keys {
		if e.until <= now {
			delete(m.keys, k)
		}
	}
	m.forget()
	var b bytes.Buffer
	for k, e := range m.keys {
		b.Write(encode(nil, k, e))
	}
	f, err := os.OpenFile(m.path()+".new", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("memory of Sieve: %w", err)
	}
	_, err = f.Write(b.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(m.path()+".new", m.path())
	}
	if err == nil {
		err = syncDir(m.dir)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("memory of Sieve: %w", err)
	}
	m.file.Close()
	m.file, m.records = f, len(m.keys)
	return nil
}

// forget brings the keys within nine tenths of the bound: those that end first go.
func (m *Memory) forget() {
	if len(m.keys) <= m.max {
		return
	}
	oldest := make([]int64, 0, len(m.keys))
	for _, e := range m.keys {
		oldest = append(oldest, e.until)
	}
	slices.Sort(oldest)
	limit := oldest[len(oldest)-m.max*9/10]
	for k, e := range m.keys {
		if e.until < limit || e.until == limit && len(m.keys) > m.max*9/10 {
			delete(m.keys, k)
		}
	}
}

// Len is how many keys are remembered.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.keys)
}

// Health is why nothing more can be remembered; nil: it can.
func (m *Memory) Health() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

// Close the file.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = errors.New("memory of Sieve: closed")
	return m.file.Close()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
