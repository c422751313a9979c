package trigram

import (
	"errors"
	"hash/crc32"
	"io"
)

// Verify reads all of the block; ErrDamaged if it is not what was written.
func (b *Block) Verify() error {
	for at := atBuckets; at < atEnd; at += 8 {
		from, sum, to := le.Uint32(b.header[at:]), le.Uint32(b.header[at+4:]), le.Uint32(b.header[at+8:])
		if to == from {
			continue
		}
		if to < from {
			return ErrDamaged
		}
		got := crc32.New(castagnoli)
		if n, err := io.Copy(got, io.NewSectionReader(b.r, int64(from), int64(to-from))); err != nil && !errors.Is(err, io.EOF) {
			return err
		} else if n != int64(to-from) || got.Sum32() != sum {
			return ErrDamaged
		}
	}
	return nil
}
