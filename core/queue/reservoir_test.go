package queue

import (
	"testing"
)

// TestReservoirIsFair: after most have come and gone, each of those that are there
// is in the sample as often as another.
func TestReservoirIsFair(t *testing.T) {
	const messages, rounds = 4 * reservoirSize, 60
	var old, fresh int
	for range rounds {
		r := newReservoir()
		for i := range id(messages) {
			r.add(i)
		}
		for i := range id(messages) {
			if i%2 == 0 {
				r.remove(i)
			}
		}
		for i := range id(messages / 2) {
			r.add(messages + i)
		}
		if r.n != messages || len(r.ids) > reservoirSize || len(r.at) != len(r.ids) {
			t.Fatalf("%d in a sample of %d, %d places", len(r.ids), r.n, len(r.at))
		}
		for n, i := range r.ids {
			if r.at[i] != n || i < messages && i%2 == 0 {
				t.Fatalf("%d is in the sample at %d", i, n)
			}
			if i < messages {
				old++
			} else {
				fresh++
			}
		}
	}
	// Half of the messages are old: 60,000 of 120,000 draws, give or take 10 times the
	// deviation of 173.
	if d := old - fresh; d < -3500 || d > 3500 {
		t.Errorf("%d old, %d new ones", old, fresh)
	}
}
