// Package rounds compares sides that are measured in turn, and says how a
// comparison came out beside its goal.
//
// Machines are noisy, and their moods last longer than a slice of a second. So
// a round is cut into slices, the sides take turns at them, and only ratios
// within one round mean anything. It is for benches; a test that is timed fails
// for no reason. Only this module's packages can import it.
package rounds

import (
	"context"
	"errors"
	"time"
)

// Side is one of the things that are compared.
type Side struct {
	Name string
	// Measure keeps the side busy for about d.
	Measure func(ctx context.Context, d time.Duration) (Sample, error)
}

// Options say how long to measure.
type Options struct {
	// Rounds is how often the comparison is made. Default 5.
	Rounds int
	// For is how long each side is measured in each round. Default 1 s.
	For time.Duration
}

// Filled gives o with its defaults.
func (o Options) Filled() Options {
	if o.Rounds <= 0 {
		o.Rounds = 5
	}
	if o.For <= 0 {
		o.For = time.Second
	}
	return o
}

// turns is how many slices a round has.
const turns = 6

// Alternate measures all sides in each round, in slices, and hands every round
// to tell: one sample for each side, in their order. In every other slice the
// sides come in the opposite order.
func Alternate(ctx context.Context, o Options, sides []Side, tell func(round int, of []Sample)) error {
	o = o.Filled()
	for round := range o.Rounds {
		samples := make([]Sample, len(sides))
		for turn := range turns {
			for i := range sides {
				if turn%2 == 1 {
					i = len(sides) - 1 - i
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				s, err := sides[i].Measure(ctx, o.For/turns)
				if err != nil {
					return errors.Join(errors.New(sides[i].Name), err)
				}
				samples[i].Add(&s)
			}
		}
		tell(round+1, samples)
	}
	return nil
}
