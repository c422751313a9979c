package config

import (
	"slices"
	"strings"
)

// didYouMean returns `Did you mean "x"?` for the nearest of the names, or "".
func didYouMean(given string, names []string) string {
	if n := nearest(given, names); n != "" {
		return `Did you mean "` + n + `"?`
	}
	return ""
}

// orKnown suggests the nearest name, or lists all of them.
func orKnown(given string, names []string, label string) string {
	if s := didYouMean(given, names); s != "" {
		return s
	}
	if len(names) == 0 {
		return ""
	}
	names = slices.Clone(names)
	slices.Sort(names)
	return label + strings.Join(slices.Compact(names), ", ") + "."
}

// nearest allows one slip in three letters: more would be guessing.
func nearest(given string, names []string) string {
	best, bestDistance := "", min(max(len(given)/3, 1), 3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(given), strings.ToLower(n)); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance is Damerau's: insertions, deletions, substitutions and swaps of
// neighbours, the four slips of a typing hand.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	x, y := []rune(a), []rune(b)
	d := make([][]int, len(x)+1)
	for i := range d {
		d[i] = make([]int, len(y)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(x)][len(y)]
}
