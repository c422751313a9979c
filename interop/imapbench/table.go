package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one line of the table.
type row struct {
	Figure string `json:"figure"`
	Mails  int    `json:"mails,omitempty"`
	Unit   string `json:"unit"`
	// Ours, and the best of the others, of the medians over the rounds.
	Ours   float64 `json:"ours"`
	Theirs float64 `json:"theirs,omitempty"`
	Best   string  `json:"best,omitempty"`
	// Ratio: how many times better ours is than the best of the others in the same
	// round; the median over the rounds.
	Ratio float64 `json:"ratio,omitempty"`
	Goal  float64 `json:"goal"`
	Holds bool    `json:"holds"`
}

func label(f figure, mails int) string {
	if mails == 0 {
		return f.name
	}
	return fmt.Sprintf("%s, %dk", f.name, mails/1000)
}

// rows compares what ran in the same round.
func (b *bench) rows(chosen []figure) (rows []row) {
	for _, f := range chosen {
		sizes := []int{0}
		if f.sized {
			sizes = b.counts
		}
		for _, n := range sizes {
			rows = append(rows, b.row(f, n))
		}
	}
	return rows
}

func (b *bench) row(f figure, mails int) row {
	of := func(s server) (values []float64) {
		for _, r := range b.results {
			if r.figure == f.name && r.mails == mails && r.server == s.name() {
				values = append(values, r.value)
			}
		}
		return values
	}
	better := func(x, y float64) bool { return f.more == (x > y) && x != y }
	mine := of(b.servers[0])
	r := row{Figure: f.name, Mails: mails, Unit: f.unit, Ours: median(mine), Goal: f.goal}
	if len(b.servers) == 1 {
		r.Holds = true
		return r
	}
	best := make([]float64, len(mine))
	for i, s := range b.servers[1:] {
		values := of(s)
		for round, v := range values {
			if i == 0 || better(v, best[round]) {
				best[round] = v
			}
		}
		if m := median(values); i == 0 || better(m, r.Theirs) {
			r.Theirs, r.Best = m, s.name()
		}
	}
	var ratios []float64
	for round := range mine {
		if f.more {
			ratios = append(ratios, mine[round]/best[round])
		} else {
			ratios = append(ratios, best[round]/mine[round])
		}
	}
	r.Ratio = median(ratios)
	r.Holds = r.Ratio >= r.Goal
	return r
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
	fmt.Fprintln(w, "FIGURE\tMAILS\tOURS\tDOVECOT'S BEST\tRATIO\tGOAL\t\t")
	compared, twice := 0, 0
	for _, r := range rows {
		mails, theirs, ratio, mark := "", "", "", ""
		if r.Mails > 0 {
			mails = fmt.Sprint(r.Mails)
		}
		if r.Best != "" {
			theirs, ratio = fmt.Sprintf("%s %s", number(r.Theirs), r.Best), fmt.Sprintf("%.2fx", r.Ratio)
			compared++
			if r.Ratio >= 2 {
				twice++
			}
		}
		if !r.Holds {
			mark = "!"
		}
		fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\t%s\t%gx\t%s\t\n", r.Figure, mails, number(r.Ours), r.Unit, theirs, ratio, r.Goal, mark)
	}
	if err := w.Flush(); err != nil || compared == 0 {
		return err
	}
	_, err := fmt.Fprintf(to, "\n%d of %d at least twice as good; the goal is half of them.\n", twice, compared)
	return err
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
