package metrics

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

// topDestinations are told apart on a page; all others are one series. Who sends mail
// chooses the names, and how many there are.
const topDestinations = 20

// nameLimit of a label that a stranger chose, in octets.
const nameLimit = 120

func destinationLabels(block, name string) []label {
	if len(name) > nameLimit {
		name = strings.ToValidUTF8(name[:nameLimit], "")
	}
	return []label{{"deliver", block}, {"destination", strings.ToValidUTF8(name, "?")}}
}

// collectDestinations tells what waits in the queue for whom.
func collectDestinations(p *page, destinations func(top int) ([]queue.Destination, queue.Destination, bool)) {
	ds, others, ok := destinations(topDestinations)
	if !ok {
		return
	}
	if others.Recipients > 0 {
		others.Domain = other
		ds = append(ds, others)
	}
	seen := map[[2]label]bool{}
	for i := range ds {
		d := &ds[i]
		labels := destinationLabels(d.Deliver, d.Domain)
		if seen[[2]label(labels)] { // two names that are the same when they are cut
			continue
		}
		seen[[2]label(labels)] = true
		p.put("stagecoach_destination_recipients", gauge, "Open recipients in the queue, of the destinations with the most; other: all others.", float64(d.Recipients), labels...)
		p.put("stagecoach_destination_deferred", gauge, "Those that wait after an attempt.", float64(d.Tried), labels...)
	}
}

// collectLanes tells what the scheduler has of the destinations.
func collectLanes(p *page, each func(func(schedule.Lane)), now time.Time) {
	var busy, shut []schedule.Lane
	open := 0
	var rest schedule.Lane
	less := func(a, b schedule.Lane) int {
		return cmp.Or(cmp.Compare(b.Running+b.Waiting, a.Running+a.Waiting), strings.Compare(a.Name, b.Name))
	}
	longer := func(a, b schedule.Lane) int {
		return cmp.Or(b.Blocked.Compare(a.Blocked), strings.Compare(a.Name, b.Name))
	}
	blocked := 0
	each(func(l schedule.Lane) {
		if l.Blocked.IsZero() {
			open++
		} else {
			blocked++
			shut, _ = keepTop(shut, l, longer)
		}
		if l.Running+l.Waiting > 0 {
			var out schedule.Lane
			busy, out = keepTop(busy, l, less)
			rest.Running += out.Running
			rest.Waiting += out.Waiting
		}
	})
	p.put("stagecoach_lanes", gauge, "Destinations that the scheduler remembers; blocked: nothing starts there for now.", float64(open), label{"state", "open"})
	p.put("stagecoach_lanes", gauge, "", float64(blocked), label{"state", "blocked"})
	busy, shut = apart(busy), apart(shut)
	labelsOf := func(l *schedule.Lane) []label { return destinationLabels(splitLane(l.Name)) }
	for i := range busy {
		l := &busy[i]
		labels := labelsOf(l)
		p.put("stagecoach_lane_running", gauge, "Attempts under way, of the busiest destinations; other: all others.", float64(l.Running), labels...)
		p.put("stagecoach_lane_waiting", gauge, "Mails in memory that wait for their turn there.", float64(l.Waiting), labels...)
		p.put("stagecoach_lane_allowed", gauge, "How many attempts may be under way there now.", float64(l.Allowed), labels...)
	}
	if rest.Running+rest.Waiting > 0 {
		labels := destinationLabels("", other)
		p.put("stagecoach_lane_running", gauge, "", float64(rest.Running), labels...)
		p.put("stagecoach_lane_waiting", gauge, "", float64(rest.Waiting), labels...)
	}
	for i := range shut {
		l := &shut[i]
		p.put("stagecoach_lane_blocked_seconds", gauge, "How long nothing starts there yet, of those that are shut the longest.", max(0, l.Blocked.Sub(now).Seconds()), labelsOf(l)...)
	}
}

func splitLane(lane string) (block, name string) {
	block, name, _ = strings.Cut(lane, " ")
	return block, name
}

// apart leaves out lanes whose labels are the same when they are cut.
func apart(ls []schedule.Lane) []schedule.Lane {
	seen := map[[2]label]bool{}
	return slices.DeleteFunc(ls, func(l schedule.Lane) bool {
		key := [2]label(destinationLabels(splitLane(l.Name)))
		was := seen[key]
		seen[key] = true
		return was
	})
}

// keepTop adds l to the first topDestinations by less; out is what fell out.
func keepTop(ls []schedule.Lane, l schedule.Lane, less func(a, b schedule.Lane) int) (kept []schedule.Lane, out schedule.Lane) {
	n, _ := slices.BinarySearchFunc(ls, l, less)
	if n == topDestinations {
		return ls, l
	}
	if ls = slices.Insert(ls, n, l); len(ls) > topDestinations {
		return ls[:topDestinations], ls[topDestinations]
	}
	return ls, out
}
