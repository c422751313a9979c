package queue

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// oldestFormat is the first one that raise knows.
const oldestFormat = 2

// raisedSpaces are the indexes that changed since then.
var raisedSpaces = indexSpaces

// raise brings an older queue to this program's format, but for the record that says
// so: start writes that, and syncs. A crash before it begins anew.
//
// Format 3 brought the index by destination, and counts that are its sum; format 4 the
// bucket of the sender in a lane's keys, and a checksum of large bodies, which what an
// older program put does not have; format 5 the bucket in the due index. All indexes are
// made anew, from any of them.
func (e *Engine) raise() error {
	format, err := e.meta(metaFormat, formatVersion)
	if err != nil || format == formatVersion {
		return err
	}
	if format < oldestFormat || format > formatVersion {
		return fmt.Errorf("it has format %d, this program knows %d to %d: start the program that wrote it, or a newer one", format, oldestFormat, formatVersion)
	}
	e.log.Info().Uint64("from", format).Int("to", formatVersion).Msg("queue: an older program wrote it; each message gets its places in the indexes anew")
	// What a crash left: the older program may have run since.
	b := e.db.NewBatch()
	for _, space := range raisedSpaces {
		if err := b.DeleteRange([]byte{space}, []byte{space + 1}, nil); err != nil {
			return err
		}
	}
	var sum counts
	var werr error
	messages := 0
	err = e.scan(0, func(s *stored) bool {
		if s.err != nil {
			return true // who claims it sets it aside
		}
		messages++
		sum.add(total(s.state.destinations(s.id)))
		for _, k := range s.indexKeys() {
			if bytes.IndexByte(raisedSpaces, k[0]) < 0 {
				continue
			}
			if werr = b.Set(k, nil, nil); werr != nil {
				return false
			}
		}
		if b.Len() >= maxGroup {
			if werr = guard(e.stop, func() error { return b.Commit(pebble.NoSync) }); werr == nil {
				b = e.db.NewBatch()
			}
		}
		return werr == nil
	})
	if err == nil {
		err = werr
	}
	if err == nil {
		err = b.Set(metaCounts, sum.record(), nil)
	}
	if err == nil {
		err = guard(e.stop, func() error { return b.Commit(pebble.NoSync) })
	}
	if err != nil {
		return fmt.Errorf("raise it from format %d to %d: %w", format, formatVersion, err)
	}
	e.log.Info().Int("messages", messages).Msg("queue: the indexes are complete")
	return nil
}
