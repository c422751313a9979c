package pluginv1_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

var update = flag.Bool("update", false, "extend the frozen contract by what was added")

// frozen holds every message, field, enum value and call that v1 has ever had.
// Plugins of any age and core of any age speak it to each other, so none of it
// changes: only lines are added.
const frozen = "contract.txt"

const frozenHead = `# Version 1 of the plugin contract as it was promised: numbers, names and types.
# Made by "make generate", which adds lines and refuses to change or remove one.
`

// files of the contract.
var files = []protoreflect.FileDescriptor{
	v1.File_common_proto, v1.File_filter_proto, v1.File_storage_proto, v1.File_directory_proto, v1.File_deliver_proto, v1.File_plugin_proto,
}

// element is one promise: field 3 of a message, a value of an enum, a call.
type element struct {
	in   string // "message Envelope"
	id   string // "3", or the name of a call; "" for in itself
	name string // "sender"
	rest string // type and place: "string", "repeated Recipient", "bytes in where"
}

func (e element) String() string {
	if e.id == "" {
		return e.in
	}
	return strings.TrimRight(fmt.Sprintf("  %s %s %s", e.id, e.name, e.rest), " ")
}

// surface lists what files promise, in their own order.
func surface(files []protoreflect.FileDescriptor) []element {
	var out []element
	for _, f := range files {
		out = append(out, element{in: "package " + string(f.Package())})
		out = append(out, messages(f.Messages())...)
		out = append(out, enums(f.Enums())...)
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			in := "service " + short(s)
			out = append(out, element{in: in})
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				out = append(out, element{in: in, id: "rpc", name: string(m.Name()), rest: fmt.Sprintf("%s -> %s",
					streamed(m.IsStreamingClient(), m.Input()), streamed(m.IsStreamingServer(), m.Output()))})
			}
		}
	}
	return slices.CompactFunc(out, func(a, b element) bool { return a == b })
}

func streamed(stream bool, m protoreflect.MessageDescriptor) string {
	if stream {
		return "stream " + short(m)
	}
	return short(m)
}

func messages(ms protoreflect.MessageDescriptors) []element {
	var out []element
	for i := range ms.Len() {
		m := ms.Get(i)
		if m.IsMapEntry() {
			continue
		}
		in := "message " + short(m)
		out = append(out, element{in: in})
		var fields []element
		for j := range m.Fields().Len() {
			f := m.Fields().Get(j)
			fields = append(fields, element{in: in, id: fmt.Sprint(f.Number()), name: string(f.Name()), rest: typeOf(f)})
		}
		out = append(out, fields...)
		out = append(out, messages(m.Messages())...)
		out = append(out, enums(m.Enums())...)
	}
	return out
}

func enums(es protoreflect.EnumDescriptors) []element {
	var out []element
	for i := range es.Len() {
		e := es.Get(i)
		in := "enum " + short(e)
		out = append(out, element{in: in})
		for j := range e.Values().Len() {
			v := e.Values().Get(j)
			out = append(out, element{in: in, id: fmt.Sprint(v.Number()), name: string(v.Name())})
		}
	}
	return out
}

// short is a name within the package.
func short(d protoreflect.Descriptor) string {
	return strings.TrimPrefix(string(d.FullName()), string(d.ParentFile().Package())+".")
}

func typeOf(f protoreflect.FieldDescriptor) string {
	one := func(f protoreflect.FieldDescriptor) string {
		switch {
		case f.Message() != nil:
			return short(f.Message())
		case f.Enum() != nil:
			return short(f.Enum())
		}
		return f.Kind().String()
	}
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s, %s>", one(f.MapKey()), one(f.MapValue()))
	case f.IsList():
		return "repeated " + one(f)
	case f.HasOptionalKeyword():
		return "optional " + one(f)
	case f.ContainingOneof() != nil:
		return one(f) + " in " + string(f.ContainingOneof().Name())
	}
	return one(f)
}

// breaks tells what of the promise no longer holds, and what is not yet promised.
func breaks(promised, present []element) (broken []string, added []element) {
	here := map[element]bool{}
	for _, e := range present {
		here[e] = true
	}
	for _, p := range promised {
		if !here[p] {
			broken = append(broken, explain(p, present))
		}
	}
	for _, e := range present {
		if !slices.Contains(promised, e) {
			added = append(added, e)
		}
	}
	return broken, added
}

// explain names the kind of break.
func explain(p element, present []element) string {
	if p.id == "" {
		return fmt.Sprintf("%s is gone", p.in)
	}
	var sameID, sameName *element
	for i := range present {
		e := &present[i]
		if e.in != p.in || e.id == "" {
			continue
		}
		if e.id == p.id && p.id != "rpc" {
			sameID = e
		}
		if e.name == p.name {
			sameName = e
		}
	}
	was := strings.TrimSpace(p.String())
	switch {
	case sameID != nil && sameID.name == p.name:
		return fmt.Sprintf("%s: %q has another type now: %q", p.in, was, sameID.rest)
	case sameName != nil && p.id == "rpc":
		return fmt.Sprintf("%s: %q has another shape now: %q", p.in, was, sameName.rest)
	case sameName != nil:
		return fmt.Sprintf("%s: %q has another number now: %s", p.in, was, sameName.id)
	case sameID != nil:
		return fmt.Sprintf("%s: %q has another name now: %q", p.in, was, sameID.name)
	}
	return fmt.Sprintf("%s: %q is gone", p.in, was)
}

// read parses what surface wrote.
func read(text string) ([]element, error) {
	var out []element
	in := ""
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		l := lines.Text()
		switch {
		case l == "" || strings.HasPrefix(l, "#"):
			continue
		case !strings.HasPrefix(l, " "):
			in = l
			out = append(out, element{in: in})
			continue
		}
		f := strings.SplitN(strings.TrimSpace(l), " ", 3)
		if len(f) < 2 || in == "" {
			return nil, fmt.Errorf("%q is no line of a contract", l)
		}
		e := element{in: in, id: f[0], name: f[1]}
		if len(f) == 3 {
			e.rest = f[2]
		}
		out = append(out, e)
	}
	return out, lines.Err()
}

func write(elements []element) string {
	var b strings.Builder
	b.WriteString(frozenHead)
	for _, e := range elements {
		if e.id == "" {
			b.WriteByte('\n')
		}
		b.WriteString(e.String() + "\n")
	}
	return b.String()
}

// TestContractHolds: nothing that v1 promised changes. What is added is promised
// from then on: `make generate` writes it down.
func TestContractHolds(t *testing.T) {
	text, err := os.ReadFile(frozen)
	if err != nil {
		t.Fatal(err)
	}
	promised, err := read(string(text))
	if err != nil {
		t.Fatal(err)
	}
	present := surface(files)
	broken, added := breaks(promised, present)
	for _, b := range broken {
		t.Errorf("v1 is broken: %s\nAdd a field, a value or a call beside it instead; a new meaning is a new major version.", b)
	}
	if *update && len(broken) == 0 {
		if err := os.WriteFile(frozen, []byte(write(present)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, a := range added {
		t.Errorf("not yet promised: %s %s\nRun `make generate`, and look at what it adds to %s.", a.in, strings.TrimSpace(a.String()), frozen)
	}
	if len(promised) < 400 {
		t.Errorf("only %d promises in %s", len(promised), frozen)
	}
}

// TestContractReadsBack: what is written is what is read.
func TestContractReadsBack(t *testing.T) {
	want := surface(files)
	got, err := read(write(want))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n%v", err, got)
	}
}

// TestBreaksAreCaught: the checker sees each way to break a contract, and lets
// each way to extend one pass.
func TestBreaksAreCaught(t *testing.T) {
	find := func(fs []*descriptorpb.FileDescriptorProto, name string) *descriptorpb.DescriptorProto {
		for _, f := range fs {
			for _, m := range f.GetMessageType() {
				if m.GetName() == name {
					return m
				}
			}
		}
		t.Fatal("no message", name)
		return nil
	}
	field := func(m *descriptorpb.DescriptorProto, name string) *descriptorpb.FieldDescriptorProto {
		for _, f := range m.GetField() {
			if f.GetName() == name {
				return f
			}
		}
		t.Fatal("no field", name)
		return nil
	}
	type change = func(fs []*descriptorpb.FileDescriptorProto)
	pluginFile := func(fs []*descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorProto { return fs[len(fs)-1] }
	for what, c := range map[string]struct {
		change change
		says   string // "": allowed
	}{
		"field removed": {func(fs []*descriptorpb.FileDescriptorProto) {
			m := find(fs, "Envelope")
			m.Field = slices.DeleteFunc(m.Field, func(f *descriptorpb.FieldDescriptorProto) bool { return f.GetName() == "size" })
		}, `message Envelope: "9 size int64" is gone`},
		"field renumbered": {func(fs []*descriptorpb.FileDescriptorProto) {
			field(find(fs, "Envelope"), "size").Number = proto.Int32(99)
		}, "another number now: 99"},
		"field renamed": {func(fs []*descriptorpb.FileDescriptorProto) {
			field(find(fs, "Envelope"), "size").Name = proto.String("points")
		}, `another name now: "points"`},
		"field retyped": {func(fs []*descriptorpb.FileDescriptorProto) {
			field(find(fs, "Envelope"), "size").Type = descriptorpb.FieldDescriptorProto_TYPE_FLOAT.Enum()
		}, `another type now: "float"`},
		"two fields swapped": {func(fs []*descriptorpb.FileDescriptorProto) {
			m := find(fs, "Recipient")
			a, b := field(m, "account"), field(m, "detail")
			a.Number, b.Number = b.Number, a.Number
		}, "another number now"},
		"one made repeated": {func(fs []*descriptorpb.FileDescriptorProto) {
			field(find(fs, "Envelope"), "sender").Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}, `another type now: "repeated string"`},
		"field moved out of its oneof": {func(fs []*descriptorpb.FileDescriptorProto) {
			field(find(fs, "MessageRef"), "inline").OneofIndex = nil
		}, `another type now: "bytes"`},
		"enum value removed": {func(fs []*descriptorpb.FileDescriptorProto) {
			e := find(fs, "Verdict").GetEnumType()[0]
			e.Value = e.Value[:len(e.Value)-1]
		}, "is gone"},
		"enum value renamed": {func(fs []*descriptorpb.FileDescriptorProto) {
			find(fs, "Verdict").GetEnumType()[0].GetValue()[1].Name = proto.String("REFUSE")
		}, `another name now: "REFUSE"`},
		"enum value renumbered": {func(fs []*descriptorpb.FileDescriptorProto) {
			find(fs, "Verdict").GetEnumType()[0].GetValue()[1].Number = proto.Int32(42)
		}, "another number now: 42"},
		"call removed": {func(fs []*descriptorpb.FileDescriptorProto) {
			s := pluginFile(fs).GetService()[0]
			s.Method = s.Method[1:]
		}, `service Plugin: "rpc Describe DescribeRequest -> DescribeResponse" is gone`},
		"call made a stream": {func(fs []*descriptorpb.FileDescriptorProto) {
			pluginFile(fs).GetService()[0].GetMethod()[0].ServerStreaming = proto.Bool(true)
		}, "another shape now"},
		"call with another request": {func(fs []*descriptorpb.FileDescriptorProto) {
			pluginFile(fs).GetService()[0].GetMethod()[0].InputType = proto.String(".stagecoach.plugin.v1.HealthRequest")
		}, "another shape now"},
		"message removed": {func(fs []*descriptorpb.FileDescriptorProto) {
			f := pluginFile(fs)
			f.Service = f.Service[:1] // Peer
			for _, name := range []string{"MetricsResponse", "MetricsRequest"} {
				f.MessageType = slices.DeleteFunc(f.MessageType, func(m *descriptorpb.DescriptorProto) bool { return m.GetName() == name })
			}
			s := f.GetService()[0]
			s.Method = slices.DeleteFunc(s.Method, func(m *descriptorpb.MethodDescriptorProto) bool { return m.GetName() == "Metrics" })
		}, "message MetricsResponse is gone"},
		"service removed": {func(fs []*descriptorpb.FileDescriptorProto) {
			f := pluginFile(fs)
			f.Service = f.Service[:1]
		}, "service Peer is gone"},
		"field added": {func(fs []*descriptorpb.FileDescriptorProto) {
			m := find(fs, "Envelope")
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String("later"), Number: proto.Int32(1000), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			})
		}, ""},
		"enum value added": {func(fs []*descriptorpb.FileDescriptorProto) {
			e := find(fs, "Verdict").GetEnumType()[0]
			e.Value = append(e.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("LATER"), Number: proto.Int32(1000)})
		}, ""},
		"message and call added": {func(fs []*descriptorpb.FileDescriptorProto) {
			f := pluginFile(fs)
			f.MessageType = append(f.MessageType, &descriptorpb.DescriptorProto{Name: proto.String("Later")})
			s := f.GetService()[0]
			s.Method = append(s.Method, &descriptorpb.MethodDescriptorProto{
				Name: proto.String("Later"), InputType: proto.String(".stagecoach.plugin.v1.Later"), OutputType: proto.String(".stagecoach.plugin.v1.Later"),
			})
		}, ""},
	} {
		var protos []*descriptorpb.FileDescriptorProto
		for _, f := range files {
			protos = append(protos, protodesc.ToFileDescriptorProto(f))
		}
		c.change(protos)
		changed, err := compile(protos)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		broken, added := breaks(surface(files), surface(changed))
		switch {
		case c.says == "" && (len(broken) > 0 || len(added) == 0):
			t.Errorf("%s: broken %q, added %v", what, broken, added)
		case c.says != "" && !slices.ContainsFunc(broken, func(b string) bool { return strings.Contains(b, c.says) }):
			t.Errorf("%s: %q is not said: %q", what, c.says, broken)
		}
	}
}

func compile(protos []*descriptorpb.FileDescriptorProto) ([]protoreflect.FileDescriptor, error) {
	var registry protoregistry.Files
	var out []protoreflect.FileDescriptor
	for _, p := range protos {
		f, err := protodesc.NewFile(p, &registry)
		if err != nil {
			return nil, err
		}
		if err := registry.RegisterFile(f); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}
