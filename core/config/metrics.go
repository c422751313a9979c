package config

import (
	"errors"
	"fmt"
	"net"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Metrics is the page that Prometheus reads.
type Metrics struct {
	// Listen is where /metrics and /healthz are served; nil: nowhere.
	Listen *Listen
	Range  hcl.Range
}

// metricsExample is 9325 on loopback: a port that no other exporter has claimed.
const metricsExample = `listen = "127.0.0.1:9325"`

func (l *loader) metrics(r *reader) Metrics {
	m := Metrics{Range: r.head}
	r.need("listen", metricsExample)
	if x, list := r.expr("listen").(*hclsyntax.TupleConsExpr); list {
		l.err(x.Range(), "The metrics have one address", "Write it without brackets: "+metricsExample+".")
		return m
	}
	var a Listen
	at, ok := parsed(r, "listen", &a, parseMetricsListen, `Write an address and a port: `+metricsExample+`.`)
	if !ok {
		return m
	}
	a.Range = at
	m.Listen = &a
	return m
}

// parseMetricsListen is parseListen for plain HTTP.
func parseMetricsListen(s string) (Listen, error) {
	a, err := parseListen(s)
	if err == nil && a.ImplicitTLS {
		err = errors.New("asks for TLS, and this page is plain HTTP")
	}
	return a, err
}

// checkMetrics: whoever can read the page knows how much mail passes, and from
// which listeners.
func (l *loader) checkMetrics() {
	a := l.cfg.Metrics.Listen
	if a == nil || a.Network == "unix" {
		return
	}
	host, _, _ := net.SplitHostPort(a.Address)
	if ip := listenAddr(host); ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() {
		return
	}
	l.warn(a.Range, fmt.Sprintf("The metrics at %s may be read by everybody who reaches this machine", a.Address),
		`Listen on loopback or an internal address, or keep the port behind a firewall.`)
}
