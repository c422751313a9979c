package greylist

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// memory is who came when: in memory, and in a file of records that are appended
// and now and then written anew. It is not synced: what a power cut takes, waits
// once more.
type memory struct {
	config *Config
	now    func() time.Time
	path   string

	mu      sync.Mutex
	entries map[id]entry
	file    *os.File
	records int // in the file
	trouble error
}

// entry is what is known of one; seconds since 1970.
type entry struct {
	first, last uint32
	taken       uint32 // of a triplet 0 or 1, of a network how many triplets were
}

const (
	recordSize = len(id{}) + 3*4 + 4
	header     = "greylist 1\n"
	// slack of records that say what later ones say again.
	slack = 10_000
)

// remember reads the file; a torn or rotten record is left out.
func remember(dir string, c *Config, now func() time.Time) (*memory, error) {
	m := &memory{config: c, now: now, path: filepath.Join(dir, "senders"), entries: map[id]entry{}}
	b, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, m.rewrite()
	}
	if err != nil {
		return nil, err
	}
	defer b.Close()
	r := bufio.NewReaderSize(b, 64<<10)
	begin := make([]byte, len(header))
	if _, err := io.ReadFull(r, begin); err != nil || string(begin) != header {
		return nil, fmt.Errorf("%s is not this filter's: move it away, and all senders are new", m.path)
	}
	var record [recordSize]byte
	for {
		if _, err := io.ReadFull(r, record[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if k, e, ok := decode(record[:]); ok {
			m.entries[k] = e
		}
	}
	return m, m.rewrite()
}

func encode(k id, e entry) []byte {
	b := append(make([]byte, 0, recordSize), k[:]...)
	for _, n := range []uint32{e.first, e.last, e.taken} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func decode(b []byte) (k id, e entry, ok bool) {
	n := copy(k[:], b)
	e.first, e.last, e.taken = binary.LittleEndian.Uint32(b[n:]), binary.LittleEndian.Uint32(b[n+4:]), binary.LittleEndian.Uint32(b[n+8:])
	return k, e, crc32.ChecksumIEEE(b[:n+12]) == binary.LittleEndian.Uint32(b[n+12:])
}

// see tells what a triplet is found to be: "known", "trusted" (its network is),
// "retried" (it has waited), "new" or "early", and how long it still has to wait.
func (m *memory) see(triplet, network id) (result string, wait time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.now()
	now := uint32(at.Unix())
	seconds := func(d time.Duration) uint32 { return uint32(d / time.Second) }
	e, known := m.entries[triplet]
	if known && m.expired(e, now) {
		known = false
	}
	n, trusted := m.entries[network]
	if trusted && m.expired(n, now) {
		n, trusted = entry{}, false
	}
	switch {
	case known && e.taken > 0:
		e.last = now
		m.set(triplet, e)
		if trusted {
			n.last = now
			m.set(network, n)
		}
		return "known", 0, nil
	case trusted && m.config.TrustAfter > 0 && int(n.taken) >= m.config.TrustAfter:
		n.last = now
		m.set(network, n)
		return "trusted", 0, nil
	case !known:
		m.set(triplet, entry{first: now, last: now})
		return "new", m.config.Delay, nil
	case now-e.first < seconds(m.config.Delay):
		return "early", m.config.Delay - time.Duration(now-e.first)*time.Second, nil
	}
	e.last, e.taken = now, 1
	m.set(triplet, e)
	if n.first == 0 {
		n.first = now
	}
	n.last = now
	n.taken++
	m.set(network, n)
	return "retried", 0, nil
}

func (m *memory) expired(e entry, now uint32) bool {
	if e.taken > 0 {
		return time.Duration(now-e.last)*time.Second > m.config.Keep
	}
	return time.Duration(now-e.first)*time.Second > m.config.Window
}

// set remembers, in memory first: a disk that is full puts off nobody for longer.
func (m *memory) set(k id, e entry) {
	if _, known := m.entries[k]; !known && len(m.entries) >= m.config.MaxEntries {
		m.forget()
	}
	m.entries[k] = e
	if m.file == nil || m.records > 2*len(m.entries)+slack {
		m.trouble = m.rewrite()
		return
	}
	m.records++
	if _, m.trouble = m.file.Write(encode(k, e)); m.trouble != nil {
		m.file.Close() // it may end in half a record: the next one begins a new file
		m.file = nil
	}
}

// forget makes room: what has expired, else what waits, else anything.
func (m *memory) forget() {
	now := uint32(m.now().Unix())
	room := max(m.config.MaxEntries/10, 1)
	for _, may := range []func(entry) bool{
		func(e entry) bool { return m.expired(e, now) },
		func(e entry) bool { return e.taken == 0 },
		func(entry) bool { return true },
	} {
		for k, e := range m.entries {
			if m.config.MaxEntries-len(m.entries) >= room {
				return
			}
			if may(e) {
				delete(m.entries, k)
			}
		}
	}
}

// rewrite writes the file anew, without what has expired.
func (m *memory) rewrite() error {
	now := uint32(m.now().Unix())
	next, err := os.OpenFile(m.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(next, 64<<10)
	_, _ = w.WriteString(header) // Flush tells
	for k, e := range m.entries {
		if m.expired(e, now) {
			delete(m.entries, k)
			continue
		}
		_, _ = w.Write(encode(k, e))
	}
	if err := errors.Join(w.Flush(), os.Rename(m.path+".new", m.path)); err != nil {
		next.Close()
		return err
	}
	if m.file != nil {
		m.file.Close()
	}
	m.file, m.records = next, len(m.entries)
	return nil
}

func (m *memory) health() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trouble != nil {
		return fmt.Errorf("what is learnt of senders is not written down and is gone with a restart: %w", m.trouble)
	}
	return nil
}

func (m *memory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}
