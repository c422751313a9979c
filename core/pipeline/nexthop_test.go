package pipeline

import (
	"fmt"
	"net"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/config"
)

// An MX that points to where we listen is ourselves, whatever it is called.
func TestOwnAddresses(t *testing.T) {
	var interfaces []net.Addr
	for _, a := range []string{"127.0.0.1/8", "192.0.2.1/24", "::1/128", "2001:db8::1/64"} {
		ip, n, err := net.ParseCIDR(a)
		if err != nil {
			t.Fatal(err)
		}
		interfaces = append(interfaces, &net.IPNet{IP: ip, Mask: n.Mask})
	}
	for listen, want := range map[string]string{
		`":25"`:                               "[192.0.2.1 2001:db8::1]",
		`"0.0.0.0:25"`:                        "[192.0.2.1 2001:db8::1]",
		`"192.0.2.9:25", "[2001:db8::9]:25"`:  "[192.0.2.9 2001:db8::9]",
		`"127.0.0.1:2525"`:                    "[]",
		`"192.0.2.9:25", "tls://192.0.2.9:1"`: "[192.0.2.9]",
	} {
		r := receiveBlock(t, `receive "smtp" "mx" { listen = [`+listen+`] }`)
		if got := fmt.Sprint(ownAddrs([]*config.Receive{r}, interfaces)); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
	// Who speaks LMTP here is no mail exchanger.
	r := receiveBlock(t, `receive "lmtp" "inside" { listen = ["192.0.2.9:24"] }`)
	if got := ownAddrs([]*config.Receive{r}, interfaces); len(got) != 0 {
		t.Errorf("lmtp: %v", got)
	}
}
