package rounds

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var s, other Sample
	for i := 1; i <= 1000; i++ {
		s.Saw(time.Duration(i) * time.Microsecond)
	}
	other.Saw(time.Minute)
	s.Add(&other)
	for _, c := range []struct {
		share float64
		want  time.Duration
	}{
		{0, time.Microsecond},
		{0.5, 500 * time.Microsecond},
		{0.99, 990 * time.Microsecond},
		{0.9999, time.Minute},
	} {
		got := s.Quantile(c.share)
		if got > c.want+time.Microsecond || got < c.want-c.want/32 {
			t.Errorf("quantile %g: got %v, want %v within 3 %%", c.share, got, c.want)
		}
	}
	if s.Count != 1001 {
		t.Errorf("count: got %d, want 1001", s.Count)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.of); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.of, got, c.want)
		}
	}
}

// TestAlternate looks at the order of the slices, and that a round has the sum
// of its slices.
func TestAlternate(t *testing.T) {
	var order []string
	side := func(name string) Side {
		return Side{name, func(_ context.Context, d time.Duration) (Sample, error) {
			order = append(order, name)
			return Sample{Count: 1, Took: d}, nil
		}}
	}
	var rounds int
	err := Alternate(context.Background(), Options{Rounds: 2, For: 6 * time.Second}, []Side{side("a"), side("b")}, func(_ int, of []Sample) {
		rounds++
		if len(of) != 2 || of[1].Count != turns || of[1].Took != 6*time.Second {
			t.Errorf("a round of %+v", of)
		}
	})
	if want := strings.Split(strings.Repeat("abba", turns), ""); err != nil || rounds != 2 || !slices.Equal(order, want) {
		t.Errorf("%d rounds in the order %q, error %v; want 2 in the order %q", rounds, order, err, want)
	}
	broken := errors.New("broken")
	fails := Side{"x", func(context.Context, time.Duration) (Sample, error) { return Sample{}, broken }}
	if err := Alternate(context.Background(), Options{}, []Side{fails}, nil); !errors.Is(err, broken) {
		t.Errorf("the error of a side: got %v, want %v", err, broken)
	}
}

func TestMet(t *testing.T) {
	for _, c := range []struct {
		r    Result
		want bool
	}{
		{Result{Reached: 0.5}, true},
		{Result{Goal: 1, Reached: 0.99}, false},
		{Result{Goal: 1, Reached: 1}, true},
		{Result{Goal: 60, AtMost: true, Reached: 61}, false},
		{Result{Goal: 60, AtMost: true, Reached: 60}, true},
	} {
		if got := c.r.Met(); got != c.want {
			t.Errorf("%+v: met is %v, want %v", c.r, got, c.want)
		}
	}
}
