package transfer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Ledger is the file that says what of a source an account has, so that nothing comes
// twice: not in a later run, not after a kill or a power cut.
//
// A batch is written down, and synced, before the storage is asked to store it, and
// again with its UIDs afterwards. One that has no UIDs when the file is opened is in
// doubt: it is looked for in the mailbox, and if it is not there, stored under the
// same request key, for the storage may be about to store it still.
//
// Each line ends with its CRC-32C; what a power cut left torn at the end is cut off.
type Ledger struct {
	file  *os.File
	have  map[itemID]stored
	boxes []string // ids of mailboxes, which stored names by number
	doubt []*batch
}

// itemID is what remains of the names of a message and its mailbox.
type itemID [16]byte

type stored struct {
	box int32
	uid uint32
}

// batch is what is stored by one call.
type batch struct {
	key     string
	from    string // the mailbox of the source
	box     string // the mailbox's id
	uidNext uint32
	items   []item
}

type item struct {
	id   itemID
	size int64
	sum  [sha256.Size]byte
}

func idOf(mailbox, message string) (id itemID) {
	sum := sha256.Sum256([]byte(mailbox + "\x00" + message))
	copy(id[:], sum[:])
	return id
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBusy says that another run has the ledger.
var ErrBusy = errors.New("another import of the same source into the same account is under way")

// OpenLedger opens the file, or begins it, and keeps other runs out.
func OpenLedger(path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Ledger{file: f, have: map[itemID]stored{}}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, err
	}
	if err := l.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, syncDir(filepath.Dir(path))
}

// mostLine octets a line has at most: a batch of mostBatch messages.
const mostLine = 64 << 10

func (l *Ledger) load() error {
	fi, err := l.file.Stat()
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(l.file, mostLine)
	good := int64(0)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return err
		}
		if err != nil || !l.apply(line) {
			break
		}
		good += int64(len(line))
	}
	// What a power cut may spoil is what was not synced: two lines.
	if fi.Size()-good > 2*mostLine {
		return errors.New("it is damaged: with --again all of the source is imported anew")
	}
	if err := l.file.Truncate(good); err != nil {
		return err
	}
	_, err = l.file.Seek(good, io.SeekStart)
	return err
}

// apply takes a line; false: it is none.
func (l *Ledger) apply(line []byte) bool {
	text, crc, ok := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte(" #"))
	if !ok || fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) != string(crc) {
		return false
	}
	words := strings.Split(string(text), " ")
	if len(words) < 2 {
		return false
	}
	switch key := words[1]; words[0] {
	case "begun":
		b, ok := parseBatch(words)
		if ok {
			l.doubt = append(l.doubt, b)
		}
		return ok
	case "stored":
		b := l.settled(key)
		if b == nil || len(words)-2 != len(b.items) {
			return false
		}
		uids := make([]uint32, len(b.items))
		for n := range uids {
			uid, err := strconv.ParseUint(words[2+n], 10, 32)
			if err != nil {
				return false
			}
			uids[n] = uint32(uid)
		}
		l.take(b, uids)
	case "void":
		return l.settled(key) != nil
	default:
		return false
	}
	return true
}

// parseBatch reads "begun KEY FROM MAILBOX UIDNEXT ID:SIZE:SUM…".
func parseBatch(words []string) (*batch, bool) {
	if len(words) < 6 {
		return nil, false
	}
	next, err := strconv.ParseUint(words[4], 10, 32)
	from, fromErr := hex.DecodeString(words[2])
	box, boxErr := hex.DecodeString(words[3])
	if err != nil || fromErr != nil || boxErr != nil {
		return nil, false
	}
	b := &batch{key: words[1], from: string(from), box: string(box), uidNext: uint32(next)}
	for _, w := range words[5:] {
		parts := strings.Split(w, ":")
		if len(parts) != 3 {
			return nil, false
		}
		var it item
		id, idErr := hex.DecodeString(parts[0])
		sum, sumErr := hex.DecodeString(parts[2])
		if it.size, err = strconv.ParseInt(parts[1], 10, 64); err != nil || idErr != nil || sumErr != nil ||
			copy(it.id[:], id) != len(it.id) || copy(it.sum[:], sum) != len(it.sum) {
			return nil, false
		}
		b.items = append(b.items, it)
	}
	return b, true
}

// settled takes a batch out of doubt.
func (l *Ledger) settled(key string) *batch {
	for n, b := range l.doubt {
		if b.key == key {
			l.doubt = append(l.doubt[:n], l.doubt[n+1:]...)
			return b
		}
	}
	return nil
}

func (l *Ledger) take(b *batch, uids []uint32) {
	at := -1
	for n, id := range l.boxes {
		if id == b.box {
			at = n
		}
	}
	if at < 0 {
		at, l.boxes = len(l.boxes), append(l.boxes, b.box)
	}
	for n, it := range b.items {
		l.have[it.id] = stored{int32(at), uids[n]}
	}
}

// uidsOf are the UIDs from first on that came into a mailbox by this ledger.
func (l *Ledger) uidsOf(box string, first uint32) map[uint32]bool {
	uids := map[uint32]bool{}
	for _, s := range l.have {
		if l.boxes[s.box] == box && s.uid >= first {
			uids[s.uid] = true
		}
	}
	return uids
}

func (l *Ledger) write(text string) error {
	_, err := fmt.Fprintf(l.file, "%s #%08x\n", text, crc32.Checksum([]byte(text), castagnoli))
	return err
}

// begin writes a batch down, durably.
func (l *Ledger) begin(b *batch) error {
	var s strings.Builder
	fmt.Fprintf(&s, "begun %s %x %x %d", b.key, b.from, b.box, b.uidNext)
	for _, it := range b.items {
		fmt.Fprintf(&s, " %x:%d:%x", it.id[:], it.size, it.sum[:])
	}
	if err := l.write(s.String()); err != nil {
		return err
	}
	l.doubt = append(l.doubt, b)
	return l.file.Sync()
}

// stored writes down what became of a batch. If that is lost, the batch is in doubt
// again, no more.
func (l *Ledger) stored(b *batch, uids []uint32) error {
	var s strings.Builder
	fmt.Fprintf(&s, "stored %s", b.key)
	for _, uid := range uids {
		fmt.Fprintf(&s, " %d", uid)
	}
	l.settled(b.key)
	l.take(b, uids)
	return l.write(s.String())
}

// void says that the storage has not stored a batch, and will not.
func (l *Ledger) void(b *batch) error {
	l.settled(b.key)
	return l.write("void " + b.key)
}

// Close makes durable what is written and lets another run begin.
func (l *Ledger) Close() error { return errors.Join(l.file.Sync(), l.file.Close()) }

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Forget empties it.
func (l *Ledger) Forget() error {
	l.have, l.boxes, l.doubt = map[itemID]stored{}, nil, nil
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return errors.Join(l.file.Truncate(0), l.file.Sync())
}
