package protocol

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Answer ends a question.
type Answer struct {
	Code Code
	// Text of ReplyCode: "550 5.7.1 words", several lines with CRLF between.
	Text string
}

// Change is one modification of a message.
type Change struct {
	Code Code
	// Name and Value of a header field; the value's lines end in LF or CRLF.
	Name, Value string
	// Index of InsHeader (0: the top) and ChgHeader (1: the first of that name).
	Index uint32
	// Address of a recipient or sender as the milter wrote it, Args its ESMTP
	// parameters.
	Address, Args string
	// Body is a part of the new one.
	Body []byte
	// Reason of a quarantine.
	Reason string
}

// needs tells which action must have been agreed for a change.
var needs = map[Code]Actions{
	AddRcpt: ActAddRcpt, DelRcpt: ActDelRcpt, AddRcptPar: ActAddRcptPar, ReplBody: ActChangeBody, ChgFrom: ActChangeFrom,
	AddHeader: ActAddHeaders, InsHeader: ActAddHeaders, ChgHeader: ActChangeHeaders, Quarantine: ActQuarantine,
}

// parse reads one packet of the milter: an answer or a change.
func parse(code byte, data []byte) (*Answer, *Change, error) {
	c := Code(code)
	switch c {
	case Accept, Continue, Discard, ConnFail, Reject, Skip, TempFail, Shutdown, Progress:
		return &Answer{Code: c}, nil, nil
	case ReplyCode:
		fields, err := cut(c, data, 1, 1)
		if err != nil {
			return nil, nil, err
		}
		// As in a format: %% is one % (smfi_setreply).
		return &Answer{Code: c, Text: strings.ReplaceAll(fields[0], "%%", "%")}, nil, nil
	case ReplBody:
		return nil, &Change{Code: c, Body: data}, nil
	case AddRcpt, DelRcpt:
		fields, err := cut(c, data, 1, 1)
		if err != nil {
			return nil, nil, err
		}
		return nil, &Change{Code: c, Address: fields[0]}, nil
	case AddRcptPar, ChgFrom:
		fields, err := cut(c, data, 1, 2)
		if err != nil {
			return nil, nil, err
		}
		change := &Change{Code: c, Address: fields[0]}
		if len(fields) > 1 {
			change.Args = fields[1]
		}
		return nil, change, nil
	case Quarantine:
		fields, err := cut(c, data, 1, 1)
		if err != nil {
			return nil, nil, err
		}
		return nil, &Change{Code: c, Reason: fields[0]}, nil
	case AddHeader, InsHeader, ChgHeader:
		change := &Change{Code: c}
		if c != AddHeader {
			if len(data) < 4 {
				return nil, nil, broken("%q without an index", string(c))
			}
			change.Index, data = binary.BigEndian.Uint32(data), data[4:]
		}
		fields, err := cut(c, data, 2, 2)
		if err != nil {
			return nil, nil, err
		}
		change.Name, change.Value = fields[0], fields[1]
		return nil, change, nil
	}
	return nil, nil, broken("the answer %q is unknown", string(rune(code)))
}

// cut parts strings that end in NUL.
func cut(c Code, data []byte, least, most int) ([]string, error) {
	if len(data) == 0 || data[len(data)-1] != 0 {
		return nil, broken("%q without a NUL at its end", string(c))
	}
	parts := bytes.Split(data[:len(data)-1], []byte{0})
	if len(parts) < least || len(parts) > most {
		return nil, broken("%q with %d strings", string(c), len(parts))
	}
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = string(p)
	}
	return out, nil
}

// Options are what both ends agreed on.
type Options struct {
	Version uint32
	Actions Actions
	Steps   Steps
	// Macros that the milter wants, by stage; a stage that is missing gets the
	// usual ones (SMFIR_SETSYMLIST).
	Macros map[Stage][]string
}

func (o Options) packet() []byte {
	b := binary.BigEndian.AppendUint32(nil, o.Version)
	b = binary.BigEndian.AppendUint32(b, uint32(o.Actions))
	return binary.BigEndian.AppendUint32(b, uint32(o.Steps))
}

// parseOptions reads the milter's answer to offer.
func parseOptions(data []byte, offer Options) (Options, error) {
	if len(data) < 12 {
		return Options{}, broken("an answer to the negotiation of %d octets", len(data))
	}
	o := Options{
		Version: binary.BigEndian.Uint32(data), Actions: Actions(binary.BigEndian.Uint32(data[4:])), Steps: Steps(binary.BigEndian.Uint32(data[8:])),
	}
	switch {
	case o.Version < oldest || o.Version > offer.Version:
		return Options{}, broken("it speaks version %d, and understood are %d to %d", o.Version, oldest, offer.Version)
	case o.Actions&^offer.Actions != 0:
		return Options{}, broken("it wants to do what it is not allowed to (SMFIF %#x of %#x)", uint32(o.Actions), uint32(offer.Actions))
	case o.Steps&^offer.Steps != 0:
		return Options{}, broken("it wants protocol steps that were not offered (SMFIP %#x of %#x)", uint32(o.Steps), uint32(offer.Steps))
	}
	for data = data[12:]; len(data) > 0; {
		end := bytes.IndexByte(data[min(4, len(data)):], 0)
		if end < 0 {
			return Options{}, broken("a list of macros without an end")
		}
		stage := Stage(binary.BigEndian.Uint32(data))
		if stage >= stages {
			return Options{}, broken("a list of macros for stage %d", stage)
		}
		if o.Macros == nil {
			o.Macros = map[Stage][]string{}
		}
		// Sendmail takes commas too.
		o.Macros[stage] = strings.FieldsFunc(string(data[4:4+end]), func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
		data = data[4+end+1:]
	}
	return o, nil
}
