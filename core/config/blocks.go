package config

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// deliverTypes are built in; every other type of a deliver block is a plugin.
var deliverTypes = []string{"smtp", "lmtp", "storage"}

// decode reads all blocks, what others depend on first.
func (l *loader) decode() {
	l.topLevel()
	for _, pass := range [][]string{{"log", "dns", "admin", "metrics", "tls", "plugin"}, {"directory", "storage", "filter", "access", "deliver"},
		{"queue", "receive", "route", "observe", "test"}} {
		for _, s := range l.order {
			for _, kind := range pass {
				if s.kind == kind {
					l.decodeBlock(s)
				}
			}
		}
	}
	l.defaults()
}

func (l *loader) decodeBlock(s *symbol) {
	r := l.reader(s.block)
	switch s.kind {
	case "log":
		l.cfg.Log.Range = r.head
		r.oneOf("level", &l.cfg.Log.Level, "trace", "debug", "info", "warn", "error")
		r.oneOf("format", &l.cfg.Log.Format, "json", "console")
	case "dns":
		l.cfg.DNS = l.dns(s.block, r)
	case "admin":
		l.cfg.Admin.Range = r.head
		r.path("socket", &l.cfg.Admin.Socket)
	case "metrics":
		l.cfg.Metrics = l.metrics(r)
	case "tls":
		l.tls(s.tls, r)
	case "plugin":
		l.binary(s.binary, r)
	case "directory", "storage", "filter", "access":
		l.instance(s.instance, r)
		return // the plugin's schema says what is unknown
	case "deliver":
		l.deliver(s.deliver, r)
		if s.instance != nil {
			return
		}
	case "queue":
		l.queue(r)
	case "receive":
		l.receive(s.receive, r)
	case "route":
		l.route(s.route, r)
	case "observe":
		l.cfg.Observe = l.observe(r)
	case "test":
		l.test(s.test, r)
	}
	r.done()
}

// topLevel reads hostname and data_dir, which may stand in any of the files.
func (l *loader) topLevel() {
	first := map[string]*hclsyntax.Attribute{}
	for _, b := range l.bodies {
		r := &reader{l: l, body: &hclsyntax.Body{Attributes: b.Attributes}, what: "The top of the file"}
		for _, name := range []string{"hostname", "data_dir", "welcome"} {
			a := b.Attributes[name]
			if a == nil {
				continue
			}
			if old := first[name]; old != nil {
				d := l.err(a.NameRange, name+" is set twice; the first is at "+expression.At(old.NameRange), "Keep one of the two.")
				d.Also = place(old.NameRange)
			}
			first[name] = a
		}
		if at, ok := r.str("hostname", &l.cfg.Hostname); ok {
			if err := parseDomain(l.cfg.Hostname); err != nil || strings.HasPrefix(l.cfg.Hostname, ".") {
				l.err(at, "hostname is no domain name", "Write the name that the MX record points to: \"mx.ryan.example\".")
			}
		}
		r.path("data_dir", &l.cfg.DataDir)
		r.str("welcome", &l.cfg.Welcome)
		for name := range blockLabels {
			r.blocks = append(r.blocks, name)
		}
		r.done()
	}
	if l.opts.Hostname != "" {
		l.cfg.Hostname = l.opts.Hostname
	}
	if l.opts.DataDir != "" {
		l.cfg.DataDir = l.opts.DataDir
	}
}

// defaults fills in what no block said.
func (l *loader) defaults() {
	c := l.cfg
	def(&c.Log.Level, "info")
	def(&c.Log.Format, "json")
	def(&c.DNS.Timeout, 5*time.Second)
	if c.DataDir != "" {
		def(&c.Admin.Socket, filepath.Join(c.DataDir, "run", "admin.sock"))
	}
	q := &c.Queue
	if q.Range.Filename == "" {
		*q = queueDefaults()
	}
	for _, r := range c.Receives {
		def(&r.Hostname, c.Hostname)
	}
	for _, d := range c.Delivers {
		if d.SMTP != nil {
			def(&d.SMTP.Helo, c.Hostname)
		}
	}
}

func def[T comparable](into *T, v T) {
	var zero T
	if *into == zero {
		*into = v
	}
}

func (l *loader) dns(b *hclsyntax.Block, r *reader) DNS {
	d := DNS{Range: header(b), Timeout: 5 * time.Second}
	parsedList(r, "servers", &d.Servers, parseServer, `Write an address, with a port if it is not 53: "192.0.2.53", "127.0.0.1:5353".`)
	r.timeout("timeout", &d.Timeout)
	return d
}

func parseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, errNoAddress
	}
	return ap, nil
}

func (l *loader) tls(t *TLS, r *reader) {
	r.boolean("self_signed", &t.SelfSigned)
	certAt, hasCert := r.path("cert", &t.Cert)
	keyAt, hasKey := r.path("key", &t.Key)
	if t.SelfSigned {
		if r.set("cert") || r.set("key") {
			l.err(r.head, "self_signed and a certificate exclude each other", "Remove self_signed, or cert and key.")
		}
		return
	}
	r.need("cert", `cert = "/etc/ssl/mx.ryan.example.pem" (or self_signed = true, for development)`)
	r.need("key", `key = "/etc/ssl/mx.ryan.example.key"`)
	certOK := hasCert && l.mustExist(t.Cert, "certificate", certAt)
	keyOK := hasKey && l.mustExist(t.Key, "key", keyAt)
	if certOK && keyOK {
		l.pair(t, certAt, keyAt)
	}
}

// pair looks into the two files of a certificate, as the server will.
func (l *loader) pair(t *TLS, certAt, keyAt hcl.Range) {
	cert, err := l.opts.FS.ReadFile(t.Cert)
	if err != nil {
		l.err(certAt, fmt.Sprintf("The certificate %s cannot be read: %s", t.Cert, reason(err)), asServer)
		return
	}
	key, err := l.opts.FS.ReadFile(t.Key)
	if err != nil {
		l.err(keyAt, fmt.Sprintf("The key %s cannot be read: %s", t.Key, reason(err)), asServer)
		return
	}
	both, err := tls.X509KeyPair(cert, key)
	switch block, _ := pem.Decode(cert); {
	case block == nil:
		l.err(certAt, fmt.Sprintf("%s holds no PEM certificate", t.Cert), "Such a file begins with -----BEGIN CERTIFICATE-----; the chain follows the server's own.")
		return
	case err != nil:
		if block, _ := pem.Decode(key); block == nil {
			l.err(keyAt, fmt.Sprintf("%s holds no PEM key", t.Key), "Such a file has a line -----BEGIN PRIVATE KEY-----.")
			return
		}
		l.err(keyAt, fmt.Sprintf("%s and %s do not belong together: %s", t.Cert, t.Key, strings.TrimPrefix(err.Error(), "tls: ")),
			"Name the key that this certificate was made for.")
		return
	}
	if leaf := both.Leaf; leaf != nil && time.Now().After(leaf.NotAfter) {
		l.warn(certAt, fmt.Sprintf("The certificate %s ended on %s", t.Cert, leaf.NotAfter.Format(time.DateOnly)), "Renew it: many clients refuse it.")
	}
}

const asServer = "Run this as the user that the server runs as."

func (l *loader) binary(b *Binary, r *reader) {
	at, ok := r.path("path", &b.Path)
	r.need("path", `path = "/opt/ryan/attachments"`)
	b.unfit = !ok || !l.mustExist(b.Path, "plugin", at)
	if info, err := l.opts.FS.Stat(b.Path); !b.unfit && err == nil && info.Mode()&0o111 == 0 {
		b.unfit = true
		l.err(at, fmt.Sprintf("The plugin %s may not be executed", b.Path), "Name the program, or make it one: chmod +x "+b.Path)
	}
	const remedy = "Write the 64 hexadecimal digits that sha256sum prints."
	sumAt, pinned := parsed(r, "sha256", &b.SHA256, parseSHA256, remedy)
	switch {
	case r.set("sha256") && !pinned:
		b.unfit = true // it was meant to be pinned
	case pinned && !b.unfit:
		b.sumAt = sumAt
		l.pinned(b)
	}
	b.Args = r.strings("args")
	b.Env = r.stringMap("env")
	b.sandbox = l.sandboxBlock(r)
}

// pinned complains about a program that is not the one that was meant; it is
// not even asked for its attributes then.
func (l *loader) pinned(b *Binary) {
	program, err := l.opts.FS.ReadFile(b.Path)
	if err != nil {
		b.unfit = true
		l.err(b.sumAt, fmt.Sprintf("The plugin %s cannot be read: %s", b.Path, reason(err)), asServer)
		return
	}
	if sum := sha256.Sum256(program); !bytes.Equal(sum[:], b.SHA256) {
		b.unfit = true
		l.otherProgram(b)
	}
}

func queueDefaults() Queue {
	q := Queue{Expire: 5 * 24 * time.Hour, DelayNotice: 4 * time.Hour, Workers: 64, PerDomain: 20, Journal: 7 * 24 * time.Hour, JournalSize: 1 << 30}
	for _, m := range []int{5, 15, 30, 60, 120, 180} {
		q.Retry = append(q.Retry, time.Duration(m)*time.Minute)
	}
	return q
}

func (l *loader) queue(r *reader) {
	q := queueDefaults()
	q.Range = r.head
	parsedList(r, "retry", &q.Retry, parseDuration, durationRemedy)
	if len(q.Retry) == 0 {
		if x, ok := r.expr("retry").(*hclsyntax.TupleConsExpr); ok && len(x.Exprs) == 0 {
			l.err(x.Range(), "retry is empty: nothing would ever be tried again", `Write retry = ["5m", "15m", "1h", "3h"].`)
		}
		q.Retry = queueDefaults().Retry
	}
	r.duration("expire", &q.Expire)
	if x := r.expr("retry"); x != nil {
		for _, d := range q.Retry {
			if d < time.Second {
				l.err(x.Range(), "A retry below one second", "Wait minutes: the other side needs the time.")
			}
		}
		if q.Expire > 0 && q.Retry[0] >= q.Expire {
			l.warn(x.Range(), "The first retry comes after the mail has expired: nothing is ever tried twice", "Wait less, or raise expire.")
		}
	}
	r.duration("delay_notice", &q.DelayNotice)
	r.duration("journal", &q.Journal)
	r.size("journal_size", &q.JournalSize)
	if x := r.expr("journal"); x != nil && q.Journal > 0 && q.Journal < time.Hour {
		l.err(x.Range(), "A journal of less than an hour", `It is written in files of an hour each. Write journal = "7d", or "0" to keep none.`)
	}
	if x := r.expr("journal_size"); x != nil && q.JournalSize > 0 && q.JournalSize < 1<<20 {
		l.err(x.Range(), "A journal of less than 1 MiB", `A mail takes about 400 octets of it. Write journal_size = "1GiB", or 0 for no bound.`)
	}
	r.integer("workers", &q.Workers, 1, 100000)
	r.integer("per_domain", &q.PerDomain, 1, 100000)
	q.Sources = l.sources(r)
	if x := r.expr("expire"); x != nil && q.Expire <= 0 {
		l.err(x.Range(), "expire = 0 would return every mail at once", `Write expire = "5d".`)
	}
	l.cfg.Queue = q
}

func (l *loader) receive(c *Receive, r *reader) {
	if c.Protocol != "smtp" && c.Protocol != "lmtp" {
		b := l.symbols[c.Ref].block
		remedy := orKnown(c.Protocol, []string{"smtp", "lmtp"}, "It is one of: ")
		if slices.Contains(l.opts.Bundled[v1.Kind_KIND_ACCESS], c.Protocol) {
			remedy = fmt.Sprintf("Mail is read by an access block: access %q %q { … }", c.Protocol, c.Name)
		}
		l.err(b.LabelRanges[0], "There is no protocol "+quote(c.Protocol)+" to receive mail by", remedy)
	}
	*c = Receive{
		Ref: c.Ref, Name: c.Name, Protocol: c.Protocol, Range: c.Range,
		SenderCheck: true, ReverseDNS: true, MaxSize: 50 << 20, MaxRecipients: 1000, MaxConnections: 1000, MaxConnectionsPerIP: 50,
		MaxHops: 100, MaxErrors: 10, MaxRefused: 100, MaxMessages: 1000, MaxLine: 4096, MaxBodyLine: 1 << 20,
		CommandTimeout: 5 * time.Minute, DataTimeout: 5 * time.Minute, MessageTimeout: 2 * time.Hour,
	}
	r.str("hostname", &c.Hostname)
	r.listen(&c.Listen)
	r.need("listen", `listen = [":25"]`)
	c.TLS = l.useTLS(r)
	r.boolean("require_tls", &c.RequireTLS)
	if s := r.ref("auth", "directory"); s != nil {
		c.Auth, c.RequireAuth = s.instance, true
	}
	if r.boolean("require_auth", &c.RequireAuth); c.RequireAuth && !r.set("auth") {
		l.err(r.body.Attributes["require_auth"].SrcRange, "require_auth without auth: nobody could log in", "Add: auth = directory.file.people")
	}
	r.boolean("insecure_auth", &c.InsecureAuth)
	c.Filters = r.refs("filters", "filter")
	c.Recipients = r.refs("recipients", "directory")
	if r.expr("recipients") == nil {
		c.Recipients = l.directories()
	}
	parsedList(r, "relay_domains", &c.RelayDomains, func(s string) (string, error) { return strings.ToLower(s), parseDomain(s) },
		`Write "ryan.example", or ".ryan.example" for all names below it.`)
	r.prefixes("relay_from", &c.RelayFrom)
	r.boolean("sender_check", &c.SenderCheck)
	r.size("max_size", &c.MaxSize)
	r.integer("max_recipients", &c.MaxRecipients, 1, 1e6)
	r.integer("max_connections", &c.MaxConnections, 1, 1e7)
	r.integer("max_connections_per_ip", &c.MaxConnectionsPerIP, 1, 1e7)
	r.boolean("reverse_dns", &c.ReverseDNS)
	r.integer("max_hops", &c.MaxHops, 1, 1000)
	r.integer("max_errors", &c.MaxErrors, 1, 1e6)
	r.integer("max_refused_recipients", &c.MaxRefused, 0, 1e6)
	r.integer("max_messages_per_connection", &c.MaxMessages, 0, 1e9)
	r.integer("max_line", &c.MaxLine, 512, 32<<10) // RFC 5321 section 4.5.3.1.4; the engine's block
	r.integer("max_body_line", &c.MaxBodyLine, 0, 1<<30)
	r.timeout("command_timeout", &c.CommandTimeout)
	r.timeout("data_timeout", &c.DataTimeout)
	r.timeout("message_timeout", &c.MessageTimeout)
	l.extensions(c, r)
	r.prefixes("tolerate_bare_lf", &c.TolerateBareLF)
	r.prefixes("proxy_protocol", &c.ProxyProtocol)
	r.prefixes("xclient", &c.XClient)
}

// useTLS is the block's tls; without one it is tls "default", if that exists.
// tls = null turns it off.
func (l *loader) useTLS(r *reader) *TLS {
	s := r.ref("tls", "tls")
	if !r.set("tls") {
		if s = l.symbols["tls.default"]; s != nil {
			s.used = true
		}
	}
	if s == nil {
		return nil
	}
	return s.tls
}

func (l *loader) directories() []*Instance {
	var out []*Instance
	for _, s := range l.order {
		if s.kind == "directory" {
			s.used = true
			out = append(out, s.instance)
		}
	}
	return out
}

func (l *loader) deliver(d *Deliver, r *reader) {
	d.Filters = r.refs("filters", "filter")
	switch d.Type {
	case "storage":
		if s := r.ref("storage", "storage"); s != nil {
			d.Storage = s.instance
		}
		r.need("storage", "storage = storage.local.mail")
		r.str("mailbox", &d.Mailbox)
		r.boolean("detail_to_folder", &d.DetailToFolder)
	case "smtp", "lmtp":
		d.SMTP = l.nextHop(d.Type, r)
	default:
		r.timeout("timeout", &d.Timeout)
		l.instance(d.Instance, r)
	}
}

func (l *loader) nextHop(typ string, r *reader) *NextHop {
	n := &NextHop{Port: 25, TLS: "opportunistic", MaxConnections: 20, MailsPerConnection: 100, Encode8Bit: true,
		ConnectTimeout: 30 * time.Second, CommandTimeout: 5 * time.Minute, DataTimeout: 10 * time.Minute}
	if typ == "lmtp" {
		n.Port = 24
	}
	parsedList(r, "hosts", &n.Hosts, parseHop, `Write "relay.ryan.example", "relay.ryan.example:587", "[192.0.2.1]:2525" or "unix:///run/lmtp.sock".`)
	if typ == "lmtp" {
		r.need("hosts", `hosts = ["unix:///run/lmtp.sock"]`)
	}
	r.oneOf("tls", &n.TLS, "none", "opportunistic", "required", "verify", "implicit")
	if n.TLS == "implicit" {
		n.Port = 465
	}
	r.integer("port", &n.Port, 1, 65535)
	if at, ok := r.path("ca_file", &n.CAFile); ok {
		l.mustExist(n.CAFile, "certificate file", at)
	}
	r.str("username", &n.Username)
	if x := r.expr("password"); x != nil {
		l.cover(x)
	}
	passwordAt, hasPassword := r.str("password", &n.Password)
	if hasPassword && n.Username == "" && !r.set("username") {
		l.err(passwordAt, "A password without a username", "Add: username = \"…\"")
	}
	if x := r.expr("username"); x != nil && !r.set("password") {
		l.err(x.Range(), "A username without a password", "Add: password = file(\"/etc/stagecoach/relay.password\")")
	}
	if hasPassword && (n.TLS == "none" || n.TLS == "opportunistic") && !loopbackHosts(n.Hosts) {
		l.err(passwordAt, "This password could cross the network in plain text: tls is "+quote(n.TLS),
			`Add: tls = "verify"`)
	}
	r.str("helo", &n.Helo)
	parsedList(r, "source", &n.Source, parseAddr, `Write addresses of this machine: ["192.0.2.1", "2001:db8::1"].`)
	r.integer("max_connections", &n.MaxConnections, 1, 100000)
	r.integer("mails_per_connection", &n.MailsPerConnection, 1, 1e6)
	r.rate("rate", &n.Rate)
	n.Destinations = l.destinations(r, len(n.Hosts) > 0)
	r.timeout("connect_timeout", &n.ConnectTimeout)
	r.timeout("command_timeout", &n.CommandTimeout)
	r.timeout("data_timeout", &n.DataTimeout)
	r.boolean("encode_8bit", &n.Encode8Bit)
	r.boolean("allow_loopback", &n.AllowLoopback)
	if b := r.block("dns"); b != nil {
		inner := l.reader(b)
		d := l.dns(b, inner)
		inner.done()
		n.DNS = &d
	}
	return n
}

func loopbackHosts(hosts []string) bool {
	for _, h := range hosts {
		if strings.HasPrefix(h, "unix://") {
			continue
		}
		if host, _, err := net.SplitHostPort(h); err == nil {
			h = host
		}
		a, err := netip.ParseAddr(strings.Trim(h, "[]"))
		if h != "localhost" && (err != nil || !a.IsLoopback()) {
			return false
		}
	}
	return len(hosts) > 0
}

// parseHop reads a smarthost: a name or an address, perhaps a port.
func parseHop(s string) (string, error) {
	if scheme, _, has := strings.Cut(s, "://"); has && scheme != "unix" {
		return "", fmt.Errorf("begins with an unknown %q", scheme+"://")
	}
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return "", errNoAddress
		}
		return s, nil
	}
	host := s
	if h, _, err := splitHostPort(s); err == nil {
		host = h
	} else if strings.Contains(s, ":") && !strings.HasSuffix(s, "]") {
		if _, e := netip.ParseAddr(s); e != nil {
			return "", err
		}
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil {
		return s, nil
	}
	return s, parseDomain(host)
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, errNoAddress
	}
	return a, nil
}

func (r *reader) attrRange(name string) hcl.Range {
	if a := r.body.Attributes[name]; a != nil {
		return a.SrcRange
	}
	return r.head
}
