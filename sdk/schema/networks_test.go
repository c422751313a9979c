package schema

import (
	"fmt"
	"testing"
)

func TestNetworks(t *testing.T) {
	got, err := Networks([]string{"192.0.2.7/24", "192.0.2.7", "2001:db8::1/32", "::1", "::ffff:192.0.2.1"})
	if s := fmt.Sprint(got); err != nil || s != "[192.0.2.0/24 192.0.2.7/32 2001:db8::/32 ::1/128 192.0.2.1/32]" {
		t.Errorf("%s %v", s, err)
	}
	for _, bad := range []string{"", "192.0.2.0/33", "hanks.example"} {
		if _, err := Networks([]string{"::1", bad}); err == nil {
			t.Errorf("%q is a network", bad)
		}
	}
}
