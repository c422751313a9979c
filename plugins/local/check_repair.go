package local

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/mime"
)

// recount makes the counters of the account and its mailboxes what their messages
// are.
func (h *handle) recount() error {
	return h.write(func(c *change) error {
		all, err := c.all()
		if err != nil {
			return err
		}
		c.rec.messages, c.rec.bytes = 0, 0
		for _, x := range all {
			var t totals
			if err := c.eachColumn(x, mime.NewRanges(nil), func(uid uint32, col *columns) error {
				t.add(uid, col)
				return nil
			}); err != nil {
				return err
			}
			c.rec.messages += uint64(t.messages)
			c.rec.bytes += uint64(t.size)
			if x.Messages == t.messages && x.Unseen == t.unseen && x.Deleted == t.deleted && x.Size == t.size && t.lastUID < x.UidNext {
				continue
			}
			x.Messages, x.Unseen, x.Deleted, x.Size = t.messages, t.unseen, t.deleted, t.size
			x.UidNext = max(x.UidNext, t.lastUID+1)
			c.touch(x)
		}
		c.step()
		return nil
	})
}

// takeOut removes a message that cannot be read from its mailbox.
func (h *handle) takeOut(num, uid uint32) error {
	return h.write(func(c *change) error {
		x, err := c.byNum(num)
		if err != nil {
			return err
		}
		gone := mime.Ranges{}.Add(uid)
		err = c.eachColumn(x, gone, func(uid uint32, col *columns) error {
			err := c.remove(x, uid, col, false)
			if errors.Is(err, errTorn) {
				return nil // there is no record to forget
			}
			return err
		})
		if err == nil {
			c.bury(x, gone)
		}
		return err
	})
}

// bodies looks at each body once, whoever has it.
func (c *checker) bodies() error {
	view := c.s.db.NewSnapshot()
	defer view.Close()
	return scan(view, []byte{tabBlob}, func(k, _ []byte) error {
		id := be.Uint64(k[1:])
		if err := c.counted("bodies"); err != nil {
			return err
		}
		text, gone, err := c.body(view, id, -1, true)
		if err != nil || text == "" || gone { // those that are gone were found with their messages
			return err
		}
		var users []string
		if err := scan(view, key8(tabReference, id), func(k, _ []byte) error {
			if len(users) < 5 {
				users = append(users, fmt.Sprintf("account %d message M%d", be.Uint64(k[9:]), be.Uint64(k[17:])))
			}
			return nil
		}); err != nil {
			return err
		}
		return c.wrong("body", "bodies", c.s.blobPath(id), strings.TrimPrefix(text, "the file of ")+"; restore the file from a backup ("+strings.Join(users, ", ")+")", "", nil)
	})
}

// strays are files among the bodies that belong to nobody.
func (c *checker) strays() error {
	dirs, err := c.s.fs.List(c.s.path("blobs"))
	if err != nil {
		return err
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		files, err := c.s.fs.List(c.s.path("blobs", dir))
		if err != nil {
			return err
		}
		for _, name := range files {
			path := c.s.path("blobs", dir, name)
			id, err := strconv.ParseUint(strings.TrimSuffix(name, ".eml"), 16, 64)
			if err == nil {
				stray, err := c.stray(id)
				if err != nil {
					return err
				}
				if !stray {
					continue
				}
			}
			if err := c.wrong("file", "bodies", path, "no message refers to it", "move it to "+c.s.path("aside"), func() error {
				if err := c.s.fs.MkdirAll(c.s.path("aside"), 0o700); err != nil {
					return err
				}
				err := c.s.fs.Rename(path, c.s.path("aside", name))
				if errors.Is(err, os.ErrNotExist) {
					return nil
				}
				return errors.Join(err, c.s.syncDir(c.s.path("aside")), c.s.syncDir(c.s.path("blobs", dir)))
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// stray tells that the number is nobody's, and on its way to nobody.
func (c *checker) stray(id uint64) (bool, error) {
	c.s.blobs.mu.Lock()
	coming := c.s.blobs.inFlight[id]
	c.s.blobs.mu.Unlock()
	if coming {
		return false, nil
	}
	v, err := get(c.s.db, key8(tabBlob, id))
	if err != nil || len(v) > 0 && v[0] == blobFile {
		return false, err
	}
	_, err = c.s.fs.Stat(c.s.blobPath(id)) // it may have been given up just now
	return err == nil, nil
}
