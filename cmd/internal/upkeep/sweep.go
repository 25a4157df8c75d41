package upkeep

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

// counted is a store that counts what was swept.
type counted struct {
	semel.Store
	sweeper semel.Sweeper
	swept   *atomic.Int64
	told    func(swept int64)
}

// Unwrap gives the store.
func (c counted) Unwrap() semel.Store { return c.Store }

// Sweep is part of semel.Sweeper.
func (c counted) Sweep(ctx context.Context, limit int) (int, error) {
	n, err := c.sweeper.Sweep(ctx, limit)
	c.told(c.swept.Add(int64(n)))
	return n, err
}

// Count gives a store that tells how many records have been swept, after each batch;
// the same store if it does not sweep. told must return quickly.
func Count(store semel.Store, told func(swept int64)) semel.Store {
	sweeper, ok := semel.As[semel.Sweeper](store)
	if !ok {
		return store
	}
	return counted{store, sweeper, new(atomic.Int64), told}
}

// Sweep makes one pass, until nothing is left. While another process is at work it
// tries again for so long; then the error is [semel.ErrInProgress], and nothing was
// done. waiting is called once, if it has to wait.
func Sweep(ctx context.Context, s *lifecycle.Sweeper, patience time.Duration, waiting func()) (lifecycle.Pass, error) {
	deadline := time.Now().Add(patience)
	for told := false; ; {
		pass, err := s.Once(ctx)
		if !errors.Is(err, semel.ErrInProgress) || time.Now().After(deadline) {
			return pass, err
		}
		if !told {
			told = true
			waiting()
		}
		select {
		case <-ctx.Done():
			return pass, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Due is what a pass would deal with.
type Due struct {
	// Forgotten are the keys that would be deleted, Emptied those whose results would.
	// Estimated tells that they are from a sample.
	Forgotten int64 `json:"would_forget"`
	Emptied   int64 `json:"would_empty"`
	Estimated bool  `json:"estimated"`
	// Overdue is how long what is due has waited; 0 if nothing is due, or the store
	// cannot tell.
	Overdue float64 `json:"overdue_seconds"`
	// Days are those of the journal that would go.
	Days []string `json:"journal_days"`
}

// Look finds out what is due: among all records if there are few, else in a sample.
// journal is how long lines stay; 0: for ever. It changes nothing.
func Look(ctx context.Context, store semel.Store, journal time.Duration) (Due, error) {
	const sample = 5000
	due := Due{Days: []string{}}
	g, err := lifecycle.Measure(ctx, store, lifecycle.MeasureOptions{Sample: sample})
	if err != nil {
		return due, err
	}
	due.Overdue = g.Lag.Seconds()
	if lister, ok := semel.As[semel.Lister](store); ok {
		seen, err := due.count(ctx, lister, g.At, sample)
		if err != nil {
			return due, err
		}
		if due.Estimated = seen == sample && g.Records > sample; due.Estimated {
			each := float64(g.Records) / float64(seen)
			due.Forgotten, due.Emptied = whole(float64(due.Forgotten)*each), whole(float64(due.Emptied)*each)
		}
	}
	days, ok := semel.As[semel.Days](store)
	switch {
	case journal == 0:
		return due, nil
	case !ok:
		return due, errors.New("this store keeps no journal by days, so none of it can be dropped: leave --journal away")
	}
	all, err := days.Days(ctx)
	if err != nil {
		return due, fmt.Errorf("listing the days of the journal: %w", err)
	}
	for _, day := range all {
		if g.At.After(day.Add(24*time.Hour + journal + time.Hour)) {
			due.Days = append(due.Days, day.Format(time.DateOnly))
		}
	}
	return due, nil
}

// count looks at the first n records; digests are uniform, so they are a sample.
func (d *Due) count(ctx context.Context, store semel.Lister, now time.Time, n int) (seen int, err error) {
	filter := semel.Filter{Limit: 250}
	for seen < n {
		page, err := store.List(ctx, filter)
		if err != nil && !errors.Is(err, semel.ErrDamaged) {
			return seen, err
		}
		for i := range page {
			r := &page[i]
			switch {
			case r.State == semel.Pending:
			case !now.Before(r.Expires()):
				d.Forgotten++
			case r.Spent(now):
				d.Emptied++
			}
		}
		seen += len(page)
		if len(page) < filter.Limit {
			break
		}
		filter.After = page[len(page)-1].Digest
	}
	return seen, nil
}
