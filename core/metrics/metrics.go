// Package metrics counts what the stages do and shows it, with what the plugins
// count, on the page that Prometheus reads.
//
// The stages know nothing of it: it wraps the interfaces between them (the
// engine's Backend, the queue, a filter's Caller, a Transport) and counts what
// passes. What a stage or the plugin host knows already is asked for when the
// page is.
package metrics

import (
	"github.com/stagecoach-mta/stagecoach/core/deliver"
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

// seconds are the bounds of delivery times: from a storage on this machine to a
// next hop that takes the ten minutes that RFC 5321 section 4.5.3.2.6 gives it.
var seconds = []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 600}

// Meters are the core's own counters. They outlive a reload. A nil *Meters
// counts nothing: its methods return what they were given.
type Meters struct {
	open, connections, turnedAway          *vec
	transactions, recipients, messages     *vec
	bytes, logins                          *vec
	queued, queuedBytes, results, attempts *vec
	verdicts                               *vec
	scrapeErrors                           *vec
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
	return m
}

// all families, in any order.
func (m *Meters) all() []*vec {
	return []*vec{
		m.open, m.connections, m.turnedAway, m.transactions, m.recipients, m.messages, m.bytes, m.logins,
		m.queued, m.queuedBytes, m.results, m.attempts, m.verdicts, m.scrapeErrors,
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
	return &backend{Backend: b, meters: m, listener: listener}
}

// Queue counts what comes in and what becomes of it.
func (m *Meters) Queue(q queue.Queue) queue.Queue {
	if m == nil {
		return q
	}
	return &counted{Queue: q, meters: m}
}

// Filter counts a filter's answers.
func (m *Meters) Filter(name string, c stream.Caller) stream.Caller {
	if m == nil {
		return c
	}
	return &filterCaller{Caller: c, meters: m, name: name}
}

// Transport times the attempts of a deliver block.
func (m *Meters) Transport(name string, t deliver.Transport) deliver.Transport {
	if m == nil {
		return t
	}
	return &transport{Transport: t, attempts: m.attempts, series: m.attempts.with(name)}
}
