package main

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"text/tabwriter"
	"time"
)

func findTools() (tools, error) {
	source, err := exec.LookPath("smtp-source")
	if err != nil {
		return tools{}, fmt.Errorf("%w: it is in the package postfix, which make bench-peers installs", err)
	}
	into, err := exec.LookPath("smtp-sink")
	return tools{source, into}, err
}

// line tells of one run as it ends.
func (r *result) line(rounds int) string {
	s := fmt.Sprintf("round %d/%d  %-10s %-11s %6d mails  %7.0f/s  %6.3f ms CPU a mail  %4d MB", r.Round, rounds, r.Workload, r.Peer, r.Mails, r.Rate, r.CPU, r.Memory>>20)
	if r.P99 > 0 {
		s += fmt.Sprintf("  250 after %s, 99 in 100 within %s", r.Median.Round(10*time.Microsecond), r.P99.Round(10*time.Microsecond))
	}
	if r.Other > 0.1 {
		s += fmt.Sprintf("  (others used %.0f %% of the machine)", 100*r.Other)
	}
	return s
}

// row is one line of the table: a figure of ours, and how it compares.
type row struct {
	Workload string  `json:"workload"`
	Peer     string  `json:"peer,omitempty"`
	What     string  `json:"what"`
	Ours     float64 `json:"ours"`
	Theirs   float64 `json:"theirs,omitempty"`
	// Ratio is the better of ours: above 1 we are ahead. The median over the rounds.
	Ratio float64 `json:"ratio"`
	Goal  float64 `json:"goal,omitempty"`
	Unit  string  `json:"unit"`
	Holds bool    `json:"holds"` // there is no goal, or it is reached
}

// compare makes ratios of what ran in the same round, and takes their medians.
func compare(results []*result, peers []peer, cores int) (rows []row) {
	of := func(peer, workload string) map[int]*result {
		m := map[int]*result{}
		for _, r := range results {
			if r.Peer == peer && r.Workload == workload {
				m[r.Round] = r
			}
		}
		return m
	}
	for _, w := range workloads {
		ours := of(peers[0].name(), w.name)
		if len(ours) == 0 {
			continue
		}
		for _, p := range peers[1:] {
			theirs := of(p.name(), orDefault(w.beside, w.name))
			add := func(what, unit string, goal float64, mine, other func(*result) float64, more bool) {
				var a, b, ratios []float64
				for round, r := range ours {
					t := theirs[round]
					if t == nil {
						continue
					}
					x, y := mine(r), other(t)
					a, b = append(a, x), append(b, y)
					if more {
						ratios = append(ratios, x/y)
					} else {
						ratios = append(ratios, y/x)
					}
				}
				if len(ratios) == 0 {
					return
				}
				r := row{Workload: w.name, Peer: p.name(), What: what, Unit: unit, Ours: median(a), Theirs: median(b), Ratio: median(ratios), Goal: goal}
				r.Holds = goal == 0 || r.Ratio >= goal
				rows = append(rows, r)
			}
			rate := func(r *result) float64 { return r.Rate }
			cpu := func(r *result) float64 { return r.CPU }
			if w.half {
				add("our p99 of the 250, their median", "ms", 1, func(r *result) float64 { return ms(r.P99) }, func(r *result) float64 { return ms(r.Median) }, false)
				continue
			}
			add("stored or relayed", "/s", w.rate, rate, rate, true)
			add("CPU a mail", "ms", w.cpu, cpu, cpu, false)
			// What the load costs by itself is a ceiling for every ratio of rates.
			add("a server of no cost, at most", "/s", 0, func(r *result) float64 { return float64(w.processors(cores)) * 1000 / r.Load }, rate, true)
		}
	}
	return rows
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// table prints the rows for people: ! marks a goal that is not reached.
func table(to io.Writer, rows []row) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "WORKLOAD\tFIGURE\tOURS\tTHEIRS\tRATIO\tGOAL\t\t")
	for _, r := range rows {
		theirs, ratio, goal, mark := "", "", "", ""
		if r.Peer != "" {
			theirs, ratio = fmt.Sprintf("%s %s", figure(r.Theirs), r.Peer), fmt.Sprintf("%.2fx", r.Ratio)
		}
		switch {
		case r.Goal == 0:
		case r.Peer != "":
			goal = fmt.Sprintf("%gx", r.Goal)
		default:
			goal = fmt.Sprintf("%s %s", figure(r.Goal), r.Unit)
		}
		if !r.Holds {
			mark = "!"
		}
		fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\t%s\t%s\t%s\t\n", r.Workload, r.What, figure(r.Ours), r.Unit, theirs, ratio, goal, mark)
	}
	return w.Flush()
}

func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
