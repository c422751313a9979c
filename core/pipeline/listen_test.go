package pipeline

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/receive"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
)

// receiveBlock is the receive block that text makes. What else text lacks, a
// directory among it, does not matter here.
func receiveBlock(t *testing.T, text string) *config.Receive {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.hcl")
	if err := os.WriteFile(file, []byte("hostname = \"mx.ryan.example\"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _ := config.Load(context.Background(), []string{file}, config.Options{})
	if len(cfg.Receives) != 1 {
		t.Fatalf("%d receive blocks", len(cfg.Receives))
	}
	return cfg.Receives[0]
}

// Every bound has a default that is not "none".
func TestBoundsHaveDefaults(t *testing.T) {
	c := wire(receiveBlock(t, `receive "smtp" "mx" { listen = ["127.0.0.1:2525"] }`), nil, false)
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		// MaxHold 0 is FUTURERELEASE not offered, and MinDeliverBy bounds nothing of ours.
		if name == "MaxHold" || name == "MinDeliverBy" {
			continue
		}
		if f := v.Field(i); f.CanInt() && f.Int() <= 0 {
			t.Errorf("%s is %d", name, f.Int())
		}
	}
	if c.Auth != nil || c.AllowInsecureAuth || c.TolerateBareLF != nil || c.ProxyProtocolFrom != nil || c.XClientFrom != nil || c.LMTP {
		t.Errorf("open by default: %+v", c)
	}
	if c.Hostname != "mx.ryan.example" {
		t.Errorf("host name %q", c.Hostname)
	}
}

func TestAttributesReachTheEngine(t *testing.T) {
	c := wire(receiveBlock(t, `
receive "lmtp" "inside" {
  listen                      = ["127.0.0.1:2424"]
  hostname                    = "lmtp.ryan.example"
  require_tls                 = true
  insecure_auth               = true
  max_size                    = "1MiB"
  max_recipients              = 2
  max_connections             = 3
  max_connections_per_ip      = 4
  max_errors                  = 5
  max_refused_recipients      = 6
  max_messages_per_connection = 7
  max_line                    = 1000
  max_body_line               = 998
  command_timeout             = "1m"
  data_timeout                = "2m"
  message_timeout             = "3m"
  mt_priority                 = "off"
  deliver_by_min              = "30s"
  tolerate_bare_lf            = ["192.0.2.0/24"]
  proxy_protocol              = ["198.51.100.0/24"]
  xclient                     = ["203.0.113.0/24"]
}`), nil, true)
	one := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	want := server.DefaultConfig()
	want.Hostname, want.LMTP, want.ImplicitTLS, want.RequireTLS, want.AllowInsecureAuth = "lmtp.ryan.example", true, true, true, true
	want.MaxSize, want.MaxRecipients, want.MaxConnections, want.MaxConnectionsPerIP = 1<<20, 2, 3, 4
	want.MaxErrors, want.MaxRefused, want.MaxTransactionsPerConn, want.MaxLine, want.MaxBodyLine = 5, 6, 7, 1000, 998
	want.CommandTimeout, want.DataTimeout, want.MessageTimeout = time.Minute, 2*time.Minute, 3*time.Minute
	want.EnablePriority, want.MinDeliverBy = false, 30*time.Second
	want.TolerateBareLF, want.ProxyProtocolFrom, want.XClientFrom = one("192.0.2.0/24"), one("198.51.100.0/24"), one("203.0.113.0/24")
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// AUTH is offered where a directory checks passwords, and then mail needs it.
func TestAuthIsForListenersWithADirectory(t *testing.T) {
	b := receiveBlock(t, `receive "smtp" "submission" { listen = ["127.0.0.1:2587"] }`)
	b.Auth, b.RequireAuth, b.FutureRelease = &config.Instance{}, true, 24*time.Hour
	c := wire(b, nil, false)
	if c.MaxHold != 24*time.Hour {
		t.Errorf("mail may be held for %s", c.MaxHold)
	}
	if !slices.Equal(c.Auth, receive.Mechanisms) || !c.RequireAuth || c.AllowInsecureAuth {
		t.Errorf("AUTH %q, required %v, in plain text %v", c.Auth, c.RequireAuth, c.AllowInsecureAuth)
	}
}
