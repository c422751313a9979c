package local

import (
	"encoding/binary"
)

// The key space. Numbers are big-endian, so that keys sort by them; an account
// and a message are 8 octets, a mailbox and a UID 4.
//
//	A name                       account number
//	a account                    account record
//	m account mailbox            mailbox record, with its counters
//	n account name               mailbox number
//	u account name               subscription of a name without a mailbox
//	o account mailbox name       annotation; mailbox 0: the account's own
//	p account                    MODSEQ of the last change of an annotation
//	c account mailbox uid        column record: what a snapshot needs, ~50 octets
//	v account mailbox modseq uid tombstones from uid to the value's UID
//	r account message            rendered record: summary, structure, preview, prefix
//	q account message            places the message has, if more than one
//	h account hash               thread and message of a Message-ID
//	b blob                       small body, or the size of a large one's file and its CRC-32C
//	f blob account message       reference to a blob
//	g blob                       blob that lost a reference
//	d queue-id 0 key             result of a deposit
//	e time queue-id 0 key        the same by time, to forget it
//	k hour account key           kind and answer of a request
//	s name                       counters of the store
const (
	tabAccountName = 'A'
	tabAccount     = 'a'
	tabMailbox     = 'm'
	tabName        = 'n'
	tabKept        = 'u'
	tabAnnotation  = 'o'
	tabAnnotated   = 'p'
	tabColumn      = 'c'
	tabVanished    = 'v'
	tabRendered    = 'r'
	tabPlaces      = 'q'
	tabThread      = 'h'
	tabBlob        = 'b'
	tabReference   = 'f'
	tabGarbage     = 'g'
	tabDeposit     = 'd'
	tabDepositTime = 'e'
	tabStore       = 's'
)

var be = binary.BigEndian

func keyAccountName(name string) []byte { return append([]byte{tabAccountName}, name...) }

func key8(tab byte, n uint64) []byte { return be.AppendUint64([]byte{tab}, n) }

func key88(tab byte, n, m uint64) []byte { return be.AppendUint64(key8(tab, n), m) }

func keyMailbox(account uint64, box uint32) []byte {
	return be.AppendUint32(key8(tabMailbox, account), box)
}

func keyName(account uint64, name string) []byte { return append(key8(tabName, account), name...) }

func keyKept(account uint64, name string) []byte { return append(key8(tabKept, account), name...) }

func keyAnnotation(account uint64, box uint32, name string) []byte {
	return append(be.AppendUint32(key8(tabAnnotation, account), box), name...)
}

func keyColumn(account uint64, box, uid uint32) []byte {
	return be.AppendUint32(be.AppendUint32(key8(tabColumn, account), box), uid)
}

func keyVanished(account uint64, box uint32, modseq uint64, uid uint32) []byte {
	k := be.AppendUint32(key8(tabVanished, account), box)
	return be.AppendUint32(be.AppendUint64(k, modseq), uid)
}

func keyReference(blob, account, message uint64) []byte {
	return be.AppendUint64(key88(tabReference, blob, account), message)
}

func keyDeposit(queueID string, key int32) []byte {
	k := append([]byte{tabDeposit}, queueID...)
	return be.AppendUint32(append(k, 0), uint32(key))
}

func keyDepositTime(ms int64, queueID string, key int32) []byte {
	k := append(key8(tabDepositTime, uint64(ms)), queueID...)
	return be.AppendUint32(append(k, 0), uint32(key))
}

func keyStore(name string) []byte { return append([]byte{tabStore}, name...) }

// after is the smallest key that is larger than all keys with this prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func column(key []byte) (uid uint32) { return be.Uint32(key[len(key)-4:]) }
