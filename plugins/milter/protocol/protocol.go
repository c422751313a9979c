// Package protocol speaks the milter protocol, version 6, as a mail server does:
// Sendmail's libmilter is the other end's usual library. It has no opinion on
// mail: what a reply means for a message is package milter's to say.
//
// The protocol has no specification but its headers (mfdef.h and mfapi.h of
// Sendmail's libmilter); the names in the comments are theirs.
package protocol

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version of the protocol that is offered; a milter may answer with an older one.
const Version = 6

// oldest version that is understood: since Sendmail 8.12.
const oldest = 2

// Command is what the mail server says (SMFIC_…).
type Command byte

// The commands.
const (
	CommandAbort     Command = 'A' // forget this message
	CommandBody      Command = 'B'
	CommandConnect   Command = 'C'
	CommandMacros    Command = 'D'
	CommandEOM       Command = 'E' // SMFIC_BODYEOB
	CommandHelo      Command = 'H'
	CommandQuitNC    Command = 'K' // the next client comes on this connection
	CommandHeader    Command = 'L'
	CommandMail      Command = 'M'
	CommandEOH       Command = 'N'
	CommandNegotiate Command = 'O'
	CommandQuit      Command = 'Q'
	CommandRcpt      Command = 'R'
	CommandData      Command = 'T'
	CommandUnknown   Command = 'U'
)

// Code is what the milter says (SMFIR_…).
type Code byte

// The answers. Those up to Progress end a question, those after it change the
// message and come before the answer to CommandEOM.
const (
	Accept     Code = 'a' // and asks to be told no more of the message, or of the connection
	Continue   Code = 'c'
	Discard    Code = 'd'
	ConnFail   Code = 'f' // the milter cannot serve: an error, never an Answer
	Reject     Code = 'r'
	Skip       Code = 's' // no more of the body, please
	TempFail   Code = 't'
	ReplyCode  Code = 'y' // with the words to say
	Shutdown   Code = '4' // 421
	Progress   Code = 'p' // still at work
	AddRcpt    Code = '+'
	DelRcpt    Code = '-'
	AddRcptPar Code = '2'
	ReplBody   Code = 'b'
	ChgFrom    Code = 'e'
	AddHeader  Code = 'h'
	InsHeader  Code = 'i'
	ChgHeader  Code = 'm'
	Quarantine Code = 'q'
)

// Actions are what a milter may do to a message (SMFIF_…).
type Actions uint32

// The actions.
const (
	ActAddHeaders Actions = 1 << iota
	ActChangeBody
	ActAddRcpt
	ActDelRcpt
	ActChangeHeaders
	ActQuarantine
	ActChangeFrom
	ActAddRcptPar
	ActSetSymList
	// AllActions are those that there are.
	AllActions = ActSetSymList<<1 - 1
)

// Steps are what a milter does not want to hear, does not answer, or can
// (SMFIP_…).
type Steps uint32

// The steps.
const (
	NoConnect Steps = 1 << iota
	NoHelo
	NoMail
	NoRcpt
	NoBody
	NoHeaders
	NoEOH
	NoReplyHeader // SMFIP_NR_HDR
	NoUnknown
	NoData
	CanSkip               // SMFIP_SKIP
	WantsRejectedTo       // SMFIP_RCPT_REJ
	NoReplyConnect        // SMFIP_NR_CONN
	NoReplyHelo           // SMFIP_NR_HELO
	NoReplyMail           // SMFIP_NR_MAIL
	NoReplyRcpt           // SMFIP_NR_RCPT
	NoReplyData           // SMFIP_NR_DATA
	NoReplyUnknown        // SMFIP_NR_UNKN
	NoReplyEOH            // SMFIP_NR_EOH
	NoReplyBody           // SMFIP_NR_BODY
	LeadingSpace          // SMFIP_HDR_LEADSPC
	allButSize            = LeadingSpace<<1 - 1
	MaxData256K     Steps = 1 << 28 // SMFIP_MDS_256K
	MaxData1M       Steps = 1 << 29 // SMFIP_MDS_1M
)

// Stage is a moment for which a milter may name the macros that it wants
// (SMFIM_…).
type Stage uint32

// The stages.
const (
	StageConnect Stage = iota
	StageHelo
	StageMail
	StageRcpt
	StageData
	StageEOM
	StageEOH
	stages
)

// Bounds of what a milter may say.
const (
	// maxPacket is what a milter sends at most at once: a part of a body, which
	// libmilter cuts at 64 KiB or at what was agreed, 1 MiB at most.
	maxPacket = 1<<20 + 4096
	// maxChanges of a message in one answer.
	maxChanges = 10_000
)

// ErrProtocol is what the other end must not say: the connection is of no more use.
var ErrProtocol = errors.New("the milter breaks the protocol")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// readPacket reads a packet: a length of four octets, which counts the code too.
func readPacket(r *bufio.Reader) (code byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || n > maxPacket {
		return 0, nil, broken("a packet of %d octets", n)
	}
	data, err = readAll(r, int(n-1))
	return head[4], data, err
}

// readAll takes memory as octets come, whatever length was announced.
func readAll(r *bufio.Reader, n int) ([]byte, error) {
	data := make([]byte, 0, min(n, 16<<10))
	for len(data) < n {
		step := min(n-len(data), max(len(data), 16<<10))
		at := len(data)
		data = append(data, make([]byte, step)...)
		if _, err := io.ReadFull(r, data[at:]); err != nil {
			return nil, unexpected(err)
		}
	}
	return data, nil
}

// unexpected: within a packet no end is an orderly one.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writePacket(w *bufio.Writer, code byte, data ...[]byte) error {
	n := 1
	for _, d := range data {
		n += len(d)
	}
	var head [5]byte
	binary.BigEndian.PutUint32(head[:4], uint32(n))
	head[4] = code
	_, err := w.Write(head[:])
	for _, d := range data {
		if err == nil {
			_, err = w.Write(d)
		}
	}
	return err
}

// text makes strings with a NUL behind each; one within would be read as an end.
func text(values ...string) []byte {
	var b []byte
	for _, v := range values {
		for i := range len(v) {
			if v[i] != 0 {
				b = append(b, v[i])
			}
		}
		b = append(b, 0)
	}
	return b
}
