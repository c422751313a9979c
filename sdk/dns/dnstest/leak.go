package dnstest

import "go.uber.org/goleak"

// Outlives is for a test's check of what goes on behind it: a question that nobody
// waits for any more is asked to its end, for as long as a name server may take.
func Outlives() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/stagecoach-mta/stagecoach/sdk/dns.(*Client).resolve")
}
