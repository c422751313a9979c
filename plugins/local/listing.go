package local

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// listed returns the mailboxes that have this id and this checked name, by name;
// empty: any. One that is asked for is looked up: a client that has hundreds asks
// for each by itself.
func listed(r pebble.Reader, account uint64, id, name string) ([]*v1.Mailbox, error) {
	if id == "" && name == "" {
		all, err := readMailboxes(r, account)
		return addContainers(all), err
	}
	num, ok := parseBoxID(id)
	if id != "" && !ok {
		return nil, nil
	}
	if id == "" {
		v, err := get(r, keyName(account, name))
		if err != nil {
			return nil, err
		}
		if v == nil {
			return container(r, account, name)
		}
		num = be.Uint32(v)
	}
	m, err := readMailbox(r, account, num)
	if fail.Is(err, fail.NotFound) || err == nil && name != "" && m.Name != name {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []*v1.Mailbox{m}, nil
}

// container returns the name if it only has children.
func container(r pebble.Reader, account uint64, name string) ([]*v1.Mailbox, error) {
	below := keyName(account, name+"/")
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: below, UpperBound: after(below)})
	if err != nil {
		return nil, err
	}
	has := it.First()
	if err := it.Close(); err != nil || !has {
		return nil, err
	}
	return []*v1.Mailbox{{Name: name, Container: true}}, nil
}

// addContainers adds the names that only have children, and sorts by name.
func addContainers(all []*v1.Mailbox) []*v1.Mailbox {
	names := make(map[string]bool, len(all))
	for _, m := range all {
		names[m.Name] = true
	}
	for _, m := range all {
		for name := m.Name; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			if name = name[:i]; !names[name] {
				names[name] = true
				all = append(all, &v1.Mailbox{Name: name, Container: true})
			}
		}
	}
	slices.SortFunc(all, func(a, b *v1.Mailbox) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
