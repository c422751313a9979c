package program

import (
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// identifier is a name in HCL.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// startup asks what needs no configuration.
func (s *suite) startup(t conform.T) {
	s.check(t, "the plugin does not start", conform.Check{
		Name: "handshake: one line with the right versions, flushed", Contract: "plugin.proto, head; go-plugin's handshake: 1|1|unix|PATH|grpc|CERTIFICATE",
		Remedy: "print that line first, flush it, and print nothing before it", Do: s.handshake,
	})
	s.check(t, "", conform.Check{
		Name: "handshake: the socket is where it was told to be", Contract: "go-plugin's PLUGIN_UNIX_SOCKET_DIR",
		Remedy: "make the socket in the directory that PLUGIN_UNIX_SOCKET_DIR names: the core sweeps it, and a sandbox allows no other", Do: s.socket,
	})
	s.check(t, "", conform.Check{
		Name: "TLS: nobody but the core gets in", Contract: "go-plugin's AutoMTLS: PLUGIN_CLIENT_CERT",
		Remedy: "serve TLS with the certificate that the handshake names, and require the client certificate of PLUGIN_CLIENT_CERT", Do: s.strangers,
	})
	s.check(t, "", conform.Check{
		Name: "cookie: started by hand it says what it is and ends", Contract: "go-plugin's magic cookie: STAGECOACH_PLUGIN",
		Remedy: "end with a status other than 0, and a word on stderr, when STAGECOACH_PLUGIN has not the cookie's value", Do: s.byHand,
	})
	s.check(t, "", conform.Check{
		Name: "health: the service \"plugin\" serves", Contract: "grpc.health.v1.Health/Check; go-plugin asks for \"plugin\"",
		Remedy: "register grpc's health service with the status SERVING for \"plugin\"", Do: s.healthService,
	})
	s.check(t, "it cannot be asked what it is", conform.Check{
		Name: "describe: says what the plugin is", Contract: "plugin.proto, DescribeResponse",
		Remedy: "answer with name, kind, version, a summary, the schema (empty, if there are no attributes), and a filter with its interest", Do: s.describes,
	})
	s.check(t, "", conform.Check{
		Name: "describe: the same each time, and at once", Contract: "plugin.proto, Plugin.Describe",
		Remedy: "make the answer of constants: it may depend on no file, no time and no configuration", Do: s.describesAgain,
	})
	s.check(t, "", conform.Check{
		Name: "describe: without effect", Contract: "plugin.proto, Plugin.Describe: `stagecoach validate` calls it",
		Remedy: "open and create nothing before Ready", Do: s.describeEffect,
	})
	s.check(t, "its schema cannot be read", conform.Check{
		Name: "schema: names, types and semantics are known", Contract: "plugin.proto, Schema.Attribute, Schema.NestedBlock",
		Remedy: "name attributes as HCL does, each once; write types as cty JSON (\"string\", [\"list\",\"string\"]); use the semantics that are listed", Do: s.schemaTypes,
	})
	s.check(t, "", conform.Check{
		Name: "schema: defaults fit, and the page can be written", Contract: "plugin.proto, Schema.Attribute.default_json, required, one_of",
		Remedy: "write default_json as JSON of the attribute's type, one of one_of, valid by its semantic; a required attribute has none", Do: s.schemaDefaults,
	})
}

func (s *suite) handshake(t conform.T) {
	begin := time.Now()
	p := s.mustStart(t)
	t.Logf("the handshake took %s", time.Since(begin).Round(time.Millisecond))
	if p.line.cert.VerifyHostname("localhost") != nil {
		t.Errorf("the certificate in the handshake is for %q, not for \"localhost\", by which go-plugin checks it", p.line.cert.DNSNames)
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
	defer cancel()
	if _, err := p.api.Describe(ctx, &v1.DescribeRequest{CoreVersion: "conform"}); err != nil {
		t.Errorf("the socket that the handshake names does not serve stagecoach.plugin.v1.Plugin: %v", err)
	}
}

func (s *suite) socket(t conform.T) {
	if p := s.mustStart(t); !p.socketInside() {
		t.Errorf("PLUGIN_UNIX_SOCKET_DIR is %s, and the handshake names %s", p.dir, p.line.address)
	}
}

func (s *suite) strangers(t conform.T) {
	p := s.mustStart(t)
	other, _, _, err := conform.Certificate(elliptic.P256())
	if err != nil {
		t.Fatalf("%v", err)
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"no TLS":                       insecure.NewCredentials(),
		"TLS without a certificate":    credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
		"TLS with another certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{other}}),
	} {
		conn, err := grpc.NewClient("passthrough:///plugin", grpc.WithContextDialer(p.dialer), grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
		if err != nil {
			t.Fatalf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
		if _, err := v1.NewPluginClient(conn).Describe(ctx, &v1.DescribeRequest{}); err == nil {
			t.Errorf("a client with %s was served", name)
		}
		cancel()
		conn.Close()
	}
	if _, err := p.api.Describe(t.Context(), &v1.DescribeRequest{}); err != nil {
		t.Errorf("after strangers knocked, the core is not served: %v; %s", err, p.state())
	}
}

func (s *suite) byHand(t conform.T) {
	p, stdout, err := s.exec(t.Context(), launch{}, false)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s.all = append(s.all, p)
	p.tasks.Go(func() { p.keep(stdout, &p.stderr) })
	t.Cleanup(p.kill)
	if !p.ended(s.opts.Start) {
		t.Fatalf("without the cookie it was still running after %s", s.opts.Start)
	}
	if p.cmd.ProcessState.Success() {
		t.Errorf("without the cookie it ended with status 0")
	}
	p.kill() // reads the pipes to their end
	if p.words() == "" {
		t.Errorf("without the cookie it said nothing: a person who starts it wants to know what it is")
	}
}

func (s *suite) healthService(t conform.T) {
	p := s.mustStart(t)
	ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
	defer cancel()
	r, err := healthpb.NewHealthClient(p.conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "plugin"})
	if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Health/Check of \"plugin\": %s %v", r.GetStatus(), err)
	}
}

func (s *suite) describes(t conform.T) {
	p := s.mustStart(t)
	d, err := p.api.Describe(t.Context(), &v1.DescribeRequest{CoreVersion: "conform"})
	if err != nil {
		t.Fatalf("Describe: %v; %s", err, p.state())
	}
	if !identifier.MatchString(d.GetName()) {
		t.Errorf("name %q: an operator writes it as the first label of a block", d.GetName())
	}
	if d.GetKind() == v1.Kind_KIND_UNSPECIFIED || v1.Kind_name[int32(d.GetKind())] == "" {
		t.Errorf("kind %d", d.GetKind())
	}
	if d.GetVersion() == "" || d.GetSummary() == "" || strings.Contains(d.GetSummary(), "\n") {
		t.Errorf("version %q and summary %q: `stagecoach plugin list` shows both in one line", d.GetVersion(), d.GetSummary())
	}
	if (d.GetFilter() != nil) != (d.GetKind() == v1.Kind_KIND_FILTER) {
		t.Errorf("kind %s, and filter interest %v: filters have one, others do not", d.GetKind(), d.GetFilter())
	}
	if d.GetMaxConcurrent() < 0 {
		t.Errorf("max_concurrent %d", d.GetMaxConcurrent())
	}
	s.describe = d
	t.Logf("%s %q %s", d.GetKind(), d.GetName(), d.GetVersion())
}

func (s *suite) describesAgain(t conform.T) {
	for range 2 {
		p := s.mustStart(t)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), s.opts.Grace)
			d, err := p.api.Describe(ctx, &v1.DescribeRequest{CoreVersion: "conform"})
			cancel()
			if err != nil {
				t.Fatalf("Describe: %v; %s", err, p.state())
			}
			if !proto.Equal(d, s.describe) {
				t.Errorf("Describe answered with %q version %q (%d octets), and before with %q version %q (%d octets)",
					d.GetName(), d.GetVersion(), proto.Size(d), s.describe.GetName(), s.describe.GetVersion(), proto.Size(s.describe))
			}
		}
	}
}

func (s *suite) describeEffect(t conform.T) {
	tmp := t.TempDir()
	p, err := s.launched(t, launch{tmp: tmp})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := p.api.Describe(t.Context(), &v1.DescribeRequest{CoreVersion: "conform"}); err != nil {
		t.Fatalf("Describe: %v; %s", err, p.state())
	}
	entries, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, e := range entries {
		t.Errorf("started and described, it had made %s in its TMPDIR", e.Name())
	}
}

var semantics = []string{"", "duration", "size", "path", "address", "cidr", "hostport", "regexp", "condition"}

func (s *suite) schemaTypes(t conform.T) { typesOf(t, s.describe.GetSchema().GetBlock(), "") }

func typesOf(t conform.T, b *v1.Schema_Block, where string) {
	seen := map[string]bool{}
	name := func(n string) {
		if !identifier.MatchString(n) {
			t.Errorf("%s%q is no name in HCL", where, n)
		}
		if seen[n] {
			t.Errorf("%s%q stands there twice", where, n)
		}
		seen[n] = true
	}
	for _, a := range b.GetAttributes() {
		name(a.GetName())
		typ, err := ctyjson.UnmarshalType(a.GetType())
		if err != nil {
			t.Errorf("%s%s: type %q: %v", where, a.GetName(), a.GetType(), err)
			continue
		}
		if !slices.Contains(semantics, a.GetSemantic()) {
			t.Errorf("%s%s: semantic %q", where, a.GetName(), a.GetSemantic())
		} else if a.GetSemantic() != "" && element(typ) != cty.String {
			t.Errorf("%s%s: semantic %q of a %s", where, a.GetName(), a.GetSemantic(), typ.FriendlyName())
		}
		if len(a.GetOneOf()) > 0 && element(typ) != cty.String {
			t.Errorf("%s%s: one_of of a %s", where, a.GetName(), typ.FriendlyName())
		}
	}
	for _, nb := range b.GetBlocks() {
		name(nb.GetName())
		if nb.GetMin() < 0 || nb.GetMax() < 0 || nb.GetMax() > 0 && nb.GetMin() > nb.GetMax() {
			t.Errorf("%sblock %s: at least %d and at most %d", where, nb.GetName(), nb.GetMin(), nb.GetMax())
		}
		typesOf(t, nb.GetBlock(), where+nb.GetName()+".")
	}
}

// element is the type of a value, or of a list's or map's values.
func element(t cty.Type) cty.Type {
	if t.IsListType() || t.IsSetType() || t.IsMapType() {
		return t.ElementType()
	}
	return t
}

func (s *suite) schemaDefaults(t conform.T) {
	defaultsOf(t, s.describe.GetSchema().GetBlock(), "")
	page := schema.Markdown(s.describe.GetSchema())
	for _, a := range s.describe.GetSchema().GetBlock().GetAttributes() {
		if !strings.Contains(page, a.GetName()) {
			t.Errorf("the page made of the schema lacks %s", a.GetName())
		}
	}
}

func defaultsOf(t conform.T, b *v1.Schema_Block, where string) {
	for _, a := range b.GetAttributes() {
		if len(a.GetDefaultJson()) == 0 {
			continue
		}
		if a.GetRequired() {
			t.Errorf("%s%s is required and has a default: it can never be used", where, a.GetName())
		}
		typ := schema.AttributeType(a)
		v, err := ctyjson.Unmarshal(a.GetDefaultJson(), typ)
		if err != nil {
			t.Errorf("%s%s: the default %s is no %s: %v", where, a.GetName(), a.GetDefaultJson(), typ.FriendlyName(), err)
			continue
		}
		again, err := ctyjson.Marshal(v, typ)
		if back, e := ctyjson.Unmarshal(again, typ); err != nil || e != nil || !back.RawEquals(v) {
			t.Errorf("%s%s: the default %s comes back as %s", where, a.GetName(), a.GetDefaultJson(), again)
		}
		for _, text := range textsOf(v) {
			if len(a.GetOneOf()) > 0 && !slices.Contains(a.GetOneOf(), text) {
				t.Errorf("%s%s: the default %q is none of %q", where, a.GetName(), text, a.GetOneOf())
			}
			var err error
			switch a.GetSemantic() {
			case "duration":
				_, err = schema.ParseDuration(text)
			case "size":
				_, err = schema.ParseSize(text)
			case "regexp":
				_, err = regexp.Compile(text)
			}
			if err != nil {
				t.Errorf("%s%s: the default: %v", where, a.GetName(), err)
			}
		}
	}
	for _, nb := range b.GetBlocks() {
		defaultsOf(t, nb.GetBlock(), where+nb.GetName()+".")
	}
}

// textsOf lists the strings in a value.
func textsOf(v cty.Value) []string {
	switch {
	case v.IsNull():
	case v.Type() == cty.String:
		return []string{v.AsString()}
	case v.Type().IsListType() || v.Type().IsMapType():
		var out []string
		for _, x := range v.AsValueSlice() {
			out = append(out, textsOf(x)...)
		}
		return out
	}
	return nil
}
