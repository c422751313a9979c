package imap

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// status is STATUS, with the items of STATUS=SIZE (RFC 8438), CONDSTORE,
// APPENDLIMIT (RFC 7889), OBJECTID (RFC 8474) and QUOTA (RFC 9208).
func (ss *session) status(cmd *command) error {
	p := cmd.p
	p.SP()
	name := ss.mailbox(p)
	p.SP()
	items := ss.statusItems(p)
	if err := cmd.end(); err != nil {
		return err
	}
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.counters(ctx, name)
	if err != nil {
		return err
	}
	return ss.statusLine(ctx, m, items)
}

func (ss *session) statusItems(p *wire.Parser) []string {
	items := []string{}
	p.List(func() {
		switch item := p.Word(); item {
		case "MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "APPENDLIMIT", "MAILBOXID", "DELETED-STORAGE":
			items = append(items, item)
		case "HIGHESTMODSEQ":
			items = append(items, item)
		default:
			p.Fail("STATUS does not know %s", item)
		}
	})
	if len(items) == 0 {
		p.Fail("STATUS wants one item at least")
	}
	return items
}

// statusLine writes a mailbox's counters. The storage keeps them, but for two
// that are asked for seldom.
func (ss *session) statusLine(ctx context.Context, m *v1.Mailbox, items []string) error {
	values := make([]uint64, len(items))
	for i, item := range items {
		var err error
		switch item {
		case "MESSAGES":
			values[i] = uint64(m.GetMessages())
		case "RECENT":
			values[i], err = ss.countRecent(ctx, m)
		case "UIDNEXT":
			values[i] = uint64(m.GetUidNext())
		case "UIDVALIDITY":
			values[i] = uint64(m.GetUidValidity())
		case "UNSEEN":
			values[i] = uint64(m.GetUnseen())
		case "DELETED":
			values[i] = uint64(m.GetDeleted())
		case "SIZE":
			values[i] = uint64(max(0, m.GetSize()))
		case "HIGHESTMODSEQ":
			values[i] = highest(m)
		case "APPENDLIMIT":
			values[i] = uint64(ss.s.config.MaxMessage)
		case "DELETED-STORAGE":
			values[i], err = ss.deletedStorage(ctx, m)
		}
		if err != nil {
			return ss.refusal(err)
		}
		if item == "HIGHESTMODSEQ" {
			if err := ss.useCondstore(); err != nil {
				return err
			}
		}
	}
	ss.out.raw("* STATUS ")
	ss.out.mailbox(m.GetName())
	ss.out.raw(" (")
	for i, item := range items {
		if i > 0 {
			ss.out.raw(" ")
		}
		ss.out.raw(item + " ")
		if item == "MAILBOXID" {
			ss.out.raw("(" + objectID(m.GetId()) + ")")
			continue
		}
		ss.out.number(values[i])
	}
	ss.out.raw(")")
	ss.out.end()
	return nil
}

func (ss *session) countRecent(ctx context.Context, m *v1.Mailbox) (uint64, error) {
	from := ss.s.recents.since(keyOf(ss.account, m), m.GetUidNext())
	if from >= m.GetUidNext() || m.GetMessages() == 0 {
		return 0, nil
	}
	s, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: m.GetId(), Uids: []*v1.UIDRange{{First: from}}})
	return uint64(len(s.GetUids())), err
}

// deletedStorage is what an EXPUNGE would free.
func (ss *session) deletedStorage(ctx context.Context, m *v1.Mailbox) (sum uint64, err error) {
	if m.GetDeleted() == 0 {
		return 0, nil
	}
	s, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: m.GetId()})
	for i, flags := range s.GetFlags() {
		if flags&uint32(v1.Flag_FLAG_DELETED) != 0 {
			sum += uint64(s.GetSizes()[i])
		}
	}
	return sum, err
}

// quota is the account's limit in octets; 0: none.
func (ss *session) quotaLimit(ctx context.Context) (int64, error) {
	r, err := ss.s.host.Directory.Resolve(ctx, &v1.ResolveRequest{Address: ss.account})
	return r.GetQuotaBytes(), err
}

// getQuota is RFC 9208 section 4.1.2: an account has one quota root, "".
func (ss *session) getQuota(cmd *command) error {
	p := cmd.p
	p.SP()
	root := p.AString()
	if err := cmd.end(); err != nil {
		return err
	}
	if root != "" {
		return no("NONEXISTENT", "There is no such quota root: the account's is \"\"")
	}
	return ss.quotaLine()
}

func (ss *session) getQuotaRoot(cmd *command) error {
	name, err := ss.oneName(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := ss.call()
	defer cancel()
	m, err := ss.find(ctx, name)
	if err != nil {
		return err
	}
	ss.out.raw("* QUOTAROOT ")
	ss.out.mailbox(m.GetName())
	ss.out.raw(` ""`)
	ss.out.end()
	return ss.quotaLine()
}

// quotaLine: STORAGE counts in units of 1024 octets (section 5.1), rounded up. An
// account without a limit has a root without resources.
func (ss *session) quotaLine() error {
	ctx, cancel := ss.call()
	defer cancel()
	limit, err := ss.quotaLimit(ctx)
	if err != nil {
		return ss.refusal(err)
	}
	if limit <= 0 {
		ss.out.line(`* QUOTA "" ()`)
		return nil
	}
	used, err := ss.store.Quota(ctx)
	if err != nil {
		return ss.refusal(err)
	}
	ss.out.line(`* QUOTA "" (STORAGE %d %d)`, (used.GetUsedBytes()+1023)/1024, (limit+1023)/1024)
	return nil
}
