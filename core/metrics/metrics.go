// Package metrics counts what the stages do and shows it, with what the plugins
// count, on the page that Prometheus reads.
//
// The stages know nothing of it: it wraps the interfaces between them (the
// engine's Backend, the queue, a filter's Caller, a Transport) and counts what
// passes. What a stage or the plugin host knows already is asked for when the
// page is.
package metrics

import (
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/dsn"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// results of a command, by the class of its reply.
const (
	accepted = "accepted"
	deferred = "deferred"
	refused  = "refused"
)

// The bounds of histograms.
var (
	// seconds of deliveries: from a storage on this machine to a next hop that takes
	// the ten minutes that RFC 5321 section 4.5.3.2.6 gives it. A client may take as
	// long with its mail.
	seconds = []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 600}
	// quick is for what this machine does itself: a look-up, a sync, a filter.
	quick = []float64{0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10}
	// lives are of mails: from one that goes at once to one that is given up.
	lives = []float64{0.01, 0.1, 1, 10, 60, 300, 1800, 2 * 3600, 8 * 3600, 24 * 3600, 5 * 24 * 3600}
)

// Meters are the core's own counters. They outlive a reload. A nil *Meters
// counts nothing: its methods return what they were given.
type Meters struct {
	open, connections, turnedAway          *vec
	transactions, recipients, messages     *vec
	bytes, logins                          *vec
	queued, queuedBytes, results, attempts *vec
	verdicts                               *vec
	scrapeErrors                           *vec

	receiveTime, acceptTime            *vec
	commitTime, routeTime, filterTime  *vec
	ended, mailTime, notices, operated *vec
}

// New makes meters that stand at zero.
func New() *Meters {
	m := &Meters{
		open:         newVec(gauge, "stagecoach_receive_connections", "Connections that are open.", "listener"),
		connections:  newVec(counter, "stagecoach_receive_connections_total", "Connections that got a banner.", "listener"),
		turnedAway:   newVec(counter, "stagecoach_receive_connections_refused_total", "Connections that a filter refused in place of the banner.", "listener"),
		transactions: newVec(counter, "stagecoach_receive_transactions_total", "Reverse-paths (MAIL FROM), by the answer.", "listener", "result"),
		recipients:   newVec(counter, "stagecoach_receive_recipients_total", "Recipients (RCPT TO), by the answer.", "listener", "result"),
		messages:     newVec(counter, "stagecoach_receive_messages_total", "Messages, by the answer to their end; aborted: it never came, or the message was too large.", "listener", "result"),
		bytes:        newVec(counter, "stagecoach_receive_bytes_total", "Octets of messages read.", "listener"),
		logins:       newVec(counter, "stagecoach_receive_logins_total", "Logins (AUTH), by the answer.", "listener", "result"),
		queued:       newVec(counter, "stagecoach_queue_added_total", "Messages made durable, by the block or stage that made them.", "origin"),
		queuedBytes:  newVec(counter, "stagecoach_queue_added_bytes_total", "Octets of messages made durable.", "origin"),
		results:      newVec(counter, "stagecoach_deliver_results_total", "What became of recipients, as journalled; without a deliver block it was decided before.", "deliver", "state"),
		attempts:     newVec(histogram, "stagecoach_deliver_seconds", "Time of delivery attempts.", "deliver"),
		verdicts:     newVec(counter, "stagecoach_filter_verdicts_total", "Answers of filters; failed: there was none.", "filter", "event", "verdict"),
		scrapeErrors: newVec(counter, "stagecoach_plugin_scrape_errors_total", "How often a plugin's own figures could not be had, or not all of them shown.", "plugin"),
	}
	m.attempts.bounds = seconds
	m.receiveTime = newHistogram(seconds, "stagecoach_receive_seconds", "Time from a reverse-path (MAIL FROM) to the answer to its message.", "listener")
	m.acceptTime = newHistogram(quick, "stagecoach_receive_accept_seconds", "Time from a message's end to the answer: filters and the durable commit.", "listener")
	m.commitTime = newHistogram(quick, "stagecoach_queue_commit_seconds", "Time until a change of the queue is durable: put, a message; result, of a delivery; park, which does not wait for the disk.", "operation")
	m.routeTime = newHistogram(quick, "stagecoach_route_seconds", "Time to ask directories and routes about a claimed message.")
	m.filterTime = newHistogram(quick, "stagecoach_filter_seconds", "Time of a filter's answers, failed ones too.", "filter", "event")
	m.ended = newVec(counter, "stagecoach_mail_ended_total", "Messages that left the queue; partly: some recipients got it, others failed.", "outcome")
	m.mailTime = newHistogram(lives, "stagecoach_mail_seconds", "Time that messages were in the queue, as they left it.", "outcome")
	m.notices = newVec(counter, "stagecoach_dsn_total", "Delivery status notifications made durable, by their action (RFC 3464).", "action")
	m.operated = newVec(counter, "stagecoach_operator_recipients_total", "Recipients that an operator's action changed, by what it was.", "action")
	for _, word := range operations {
		m.operated.with(word)
	}
	for _, a := range []dsn.Action{dsn.Failed, dsn.Delayed, dsn.Delivered, dsn.Relayed, dsn.Expanded} {
		m.notices.with(string(a))
	}
	return m
}

// all families, in any order.
func (m *Meters) all() []*vec {
	return []*vec{
		m.open, m.connections, m.turnedAway, m.transactions, m.recipients, m.messages, m.bytes, m.logins,
		m.queued, m.queuedBytes, m.results, m.attempts, m.verdicts, m.scrapeErrors,
		m.receiveTime, m.acceptTime, m.commitTime, m.routeTime, m.filterTime, m.ended, m.mailTime, m.notices, m.operated,
	}
}

// Backend counts what a listener's sessions do.
func (m *Meters) Backend(listener string, b server.Backend) server.Backend {
	if m == nil {
		return b
	}
	// A series that is there from the start at zero shows its first increase.
	for _, v := range []*vec{m.open, m.connections, m.turnedAway, m.bytes} {
		v.with(listener)
	}
	for _, v := range []*vec{m.transactions, m.recipients, m.messages} {
		for _, r := range []string{accepted, deferred, refused} {
			v.with(listener, r)
		}
	}
	return &backend{
		Backend: b, meters: m, listener: listener,
		bytes: m.bytes.with(listener), receiveTime: m.receiveTime.with(listener), acceptTime: m.acceptTime.with(listener),
	}
}

// Queue counts what comes in and what becomes of it.
func (m *Meters) Queue(q queue.Queue) queue.Queue {
	if m == nil {
		return q
	}
	c := &counted{
		Queue: q, meters: m,
		put: m.commitTime.with("put"), result: m.commitTime.with("result"), park: m.commitTime.with("park"),
	}
	for o := range c.outcomes {
		name := queue.Outcome(o).String()
		c.outcomes[o] = outcome{m.ended.with(name), m.mailTime.with(name)}
	}
	if e, ok := q.(interface {
		OnEnd(func(queue.Outcome, time.Duration))
	}); ok {
		e.OnEnd(c.hasEnded)
	}
	if e, ok := q.(interface{ OnOperate(func(queue.Operated)) }); ok {
		e.OnOperate(c.hasOperated)
	}
	return c
}

// Filter counts a filter's answers.
func (m *Meters) Filter(name string, c stream.Caller) stream.Caller {
	if m == nil {
		return c
	}
	return &filterCaller{Caller: c, meters: m, name: name}
}

// Routed times what a dispatcher needs to route a message; nil for no meters.
func (m *Meters) Routed() func(time.Duration) {
	if m == nil {
		return nil
	}
	s := m.routeTime.with()
	return func(d time.Duration) { m.routeTime.observe(s, d) }
}

// Transport times the attempts of a deliver block.
func (m *Meters) Transport(name string, t deliver.Transport) deliver.Transport {
	if m == nil {
		return t
	}
	return &transport{Transport: t, attempts: m.attempts, series: m.attempts.with(name)}
}
