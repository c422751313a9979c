package host

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is told of each version of Landlock, with namespaces and without, is what
// neither of them holds.
func TestLimitsByLandlockVersion(t *testing.T) {
	const (
		paths     = "paths (this kernel has no Landlock)"
		truncate  = "truncating files outside (Landlock before Linux 6.2)"
		network   = "network (this process may make no network namespace, and Landlock before Linux 6.7 does not limit TCP)"
		otherThan = "network other than TCP (this process may make no network namespace)"
		signals   = "signals to others (this process may make no process namespace; Landlock before Linux 6.12)"
		abstract  = "abstract sockets of others (no network namespace; Landlock before Linux 6.12)"
	)
	var (
		boxed    = policy{NetNamespace: true, PIDNamespace: true}
		bare     = policy{}
		talking  = policy{Network: true, PIDNamespace: true} // may use the network
		bareTalk = policy{Network: true}
	)
	tell := func(missing ...string) string { return strings.Join(missing, "\n") }
	tests := []struct {
		abi                            int
		boxed, bare, talking, bareTalk string
	}{
		{0, tell(paths), tell(paths, network, signals, abstract), tell(paths, abstract), tell(paths, signals, abstract)},
		{1, tell(truncate), tell(truncate, network, signals, abstract), tell(truncate, abstract), tell(truncate, signals, abstract)},
		{2, tell(truncate), tell(truncate, network, signals, abstract), tell(truncate, abstract), tell(truncate, signals, abstract)},
		{3, "", tell(network, signals, abstract), tell(abstract), tell(signals, abstract)},
		{4, "", tell(otherThan, signals, abstract), tell(abstract), tell(signals, abstract)},
		{5, "", tell(otherThan, signals, abstract), tell(abstract), tell(signals, abstract)},
		{6, "", tell(otherThan), "", ""},
		{7, "", tell(otherThan), "", ""},
		{100, "", tell(otherThan), "", ""},
	}
	for _, test := range tests {
		for _, one := range []struct {
			name string
			p    policy
			want string
		}{{"namespaces", boxed, test.boxed}, {"none", bare, test.bare}, {"network", talking, test.talking}, {"network, none", bareTalk, test.bareTalk}} {
			attr, missing := one.p.restrictions(test.abi)
			if got := tell(missing...); got != one.want {
				t.Errorf("ABI %d, %s: told\n%s\nwant\n%s", test.abi, one.name, got, one.want)
			}
			// The kernel refuses what its version does not know.
			unknown := uint64(0)
			for since, right := range map[int]uint64{
				2: unix.LANDLOCK_ACCESS_FS_REFER, 3: unix.LANDLOCK_ACCESS_FS_TRUNCATE, 5: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV,
			} {
				if test.abi < since {
					unknown |= right
				}
			}
			if want := fsHandled &^ unknown; test.abi > 0 && attr.Handled_access_fs != want {
				t.Errorf("ABI %d, %s: rights %#x, want %#x", test.abi, one.name, attr.Handled_access_fs, want)
			}
			if tcp := attr.Handled_access_net != 0; tcp != (test.abi >= 4 && !one.p.Network) {
				t.Errorf("ABI %d, %s: TCP is denied: %v", test.abi, one.name, tcp)
			}
			if scoped := attr.Scoped != 0; scoped != (test.abi >= 6) {
				t.Errorf("ABI %d, %s: signals are limited: %v", test.abi, one.name, scoped)
			}
		}
	}
}
