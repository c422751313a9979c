package sdktest

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"io"
	"reflect"
	"testing"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access/accesstest"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver/delivertest"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/directory/directorytest"
	"github.com/stagecoach-mta/stagecoach/sdk/filter/filtertest"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/storagetest"
)

// Conform runs the conformance suite of p's kind: each check is a subtest. config
// is as for Start; facts are what the suite cannot find out, and its zero value is
// fine. What is asked of a process (handshake, crash, leaks) is not asked here:
// see package conform/program and `stagecoach plugin conform`.
func Conform(t *testing.T, p sdk.Plugin, config any, facts conform.Facts) {
	t.Helper()
	kind, err := p.Kind()
	if err != nil {
		t.Fatal(err)
	}
	switch kind {
	case v1.Kind_KIND_STORAGE:
		conformStorage(t, p, config)
		return
	case v1.Kind_KIND_ACCESS:
		conformAccess(t, p, config, facts)
		return
	}
	spool := t.TempDir()
	in := Start(t, p, config, With(func(req *v1.ConfigureRequest) { req.SpoolDirs = []string{spool} }))
	where := func(conform.T) string { return spool }
	switch kind {
	case v1.Kind_KIND_FILTER:
		filtertest.Run(conform.Test(t), func(conform.T) *filtertest.Subject {
			return &filtertest.Subject{Caller: in.Caller, Interest: in.Interest, Dirs: []string{spool, in.DataDir}}
		}, filtertest.Options{Facts: facts, Spool: where})
	case v1.Kind_KIND_DELIVER:
		delivertest.Run(conform.Test(t), func(conform.T) deliver.Deliverer { return deliver.NewClient(in.Caller) },
			delivertest.Options{Facts: facts, Spool: where})
	case v1.Kind_KIND_DIRECTORY:
		directorytest.Run(conform.Test(t), func(conform.T) directory.Directory { return directory.NewClient(in.Caller) },
			directorytest.Options{Facts: facts})
	}
}

// conformStorage makes each case a storage of its own by the constructor: a
// server each would live until the end of the test.
func conformStorage(t *testing.T, p sdk.Plugin, config any) {
	t.Helper()
	s, err := schema.FromStruct(p.Config)
	if err != nil {
		t.Fatal(err)
	}
	req := &v1.ConfigureRequest{}
	if err := configure(req, s, config); err != nil {
		t.Fatal(err)
	}
	construct := func(t conform.T, dir string) storage.Storage {
		t.Helper()
		in := &sdk.Instance{
			Name: "storage." + p.Name + ".test", DataDir: dir, Hostname: "mx.ryan.example", Log: zerolog.Nop(), Metrics: &sdk.Metrics{},
		}
		if p.Config != nil {
			v := reflect.Indirect(reflect.ValueOf(p.Config))
			c := reflect.New(v.Type())
			c.Elem().Set(v)
			if err := schema.Decode(req.GetConfigJson(), c.Interface()); err != nil {
				t.Fatalf("%v", err)
			}
			in.Config = c.Interface()
		}
		made, err := p.Storage(context.WithoutCancel(t.Context()), in)
		if err != nil {
			t.Fatalf("%v", err)
		}
		return made
	}
	// A case has one at a time.
	var current storage.Storage
	var dir string
	end := func(t conform.T) {
		if c, ok := current.(io.Closer); ok {
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	}
	opts := storagetest.Options{}
	if p.Needs.GetDataDir() {
		opts.Reopen = func(t conform.T, _ storage.Storage) storage.Storage {
			end(t)
			current = construct(t, dir)
			return current
		}
	}
	storagetest.Run(conform.Test(t), func(t conform.T) storage.Storage {
		dir = t.TempDir()
		current = construct(t, dir)
		t.Cleanup(func() { end(t) })
		return current
	}, opts)
}

func conformAccess(t *testing.T, p sdk.Plugin, config any, facts conform.Facts) {
	t.Helper()
	_, cert, key, err := conform.Certificate(elliptic.P256())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	who := &accesstest.Directory{}
	open := func() *accesstest.Subject {
		s := &accesstest.Subject{Roots: roots, Asked: who.Asked}
		in := Start(t, p, config, Listen(&s.Address), Listen(&s.TLSAddress), WithStorage(accesstest.Storage{}), WithDirectory(who),
			With(func(req *v1.ConfigureRequest) {
				req.InsecureAuth = false
				req.Listeners[1].ImplicitTls = true
				req.Tls = &v1.TLS{CertPem: cert, KeyPem: key}
			}))
		s.Drain = func(ctx context.Context) error {
			_, err := in.Client.Drain(ctx, &v1.DrainRequest{})
			return err
		}
		return s
	}
	shared := open()
	accesstest.Run(conform.Test(t), func(_ conform.T, fresh bool) *accesstest.Subject {
		if fresh {
			return open()
		}
		return shared
	}, accesstest.Options{Facts: facts})
}
