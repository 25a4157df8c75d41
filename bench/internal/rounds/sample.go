package rounds

import (
	"math/bits"
	"slices"
	"time"
)

// Sample is what was measured of one side. The zero value is empty.
type Sample struct {
	// Count is how many operations were done, and Took how long it took to do them.
	Count int
	Took  time.Duration
	// CPU is the processor time that the side's own process used; 0 where the system
	// does not tell.
	CPU time.Duration

	times [buckets]uint32
}

// Times are counted in buckets that are at most a thirty-second wide, so that
// counting costs next to nothing and any number of them needs the same room.
const (
	steps   = 32
	buckets = 40 * steps
)

// Saw adds one operation that took d.
func (s *Sample) Saw(d time.Duration) {
	s.Count++
	s.times[min(bucket(uint64(max(d, 0))), buckets-1)]++
}

func bucket(d uint64) int {
	scale := max(bits.Len64(d)-6, 0)
	return scale*steps + int(d>>scale)
}

func lowest(bucket int) time.Duration {
	scale := max(bucket/steps-1, 0)
	return time.Duration(bucket-scale*steps) << scale
}

// Add adds what was seen by another caller, or at another time. Took is added
// as well.
func (s *Sample) Add(other *Sample) {
	s.Count += other.Count
	s.Took += other.Took
	s.CPU += other.CPU
	for i, n := range other.times {
		s.times[i] += n
	}
}

// Rate is operations a second.
func (s *Sample) Rate() float64 {
	if s.Took == 0 {
		return 0
	}
	return float64(s.Count) / s.Took.Seconds()
}

// Each is the processor time per operation.
func (s *Sample) Each() time.Duration {
	if s.Count == 0 {
		return 0
	}
	return s.CPU / time.Duration(s.Count)
}

// Quantile gives the time that a share of the operations, such as 0.99, stayed
// below; it is exact to 3 %.
func (s *Sample) Quantile(share float64) time.Duration {
	left := int(share * float64(s.Count))
	for i, n := range s.times {
		if left < int(n) {
			return lowest(i)
		}
		left -= int(n)
	}
	return 0
}

// Median gives the middle one of the values, or the mean of the middle two.
func Median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	switch n := len(sorted); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (sorted[n/2-1] + sorted[n/2]) / 2
	default:
		return sorted[n/2]
	}
}
