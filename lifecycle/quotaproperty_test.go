package lifecycle_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel/lifecycle"
)

// begin is one new key that was let in.
type begin struct {
	at       time.Duration
	borrowed int // by duplicates in flight just before
}

// In any stretch of time a tenant begins at most Burst, what comes back in it, and
// what duplicates had borrowed when it began. Whoever comes back when it is told to
// gets in, and not a nanosecond sooner.
func TestQuotaBoundHoldsInAnyStretch(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 20
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			o := lifecycle.QuotaOptions{NewKeys: 1 + r.IntN(20), Per: time.Duration(1+r.IntN(1000)) * time.Millisecond, Burst: 1 + r.IntN(10)}
			interval := (o.Per + time.Duration(o.NewKeys) - 1) / time.Duration(o.NewKeys)
			q := newQuota(t, o)
			start := time.Now()
			var begun []begin
			fresh, borrowed := 0, 0 // in flight
			for range 400 {
				switch r.IntN(6) {
				case 0:
					time.Sleep(time.Duration(r.Int64N(int64(4 * interval))))
				case 1, 2:
					before := borrowed
					if _, ok := q.Enter(t.Context(), "a"); ok {
						fresh++
						begun = append(begun, begin{time.Since(start), before})
					}
				case 3:
					if _, ok := q.Enter(t.Context(), "a"); ok {
						borrowed++
					}
				case 4:
					if fresh > 0 {
						q.Leave("a", true)
						fresh--
					}
				case 5:
					if borrowed > 0 {
						q.Leave("a", false)
						borrowed--
					}
				}
			}
			for i, first := range begun {
				for n, last := range begun[i:] {
					if most := o.Burst + int((last.at-first.at)/interval) + first.borrowed; n+1 > most {
						t.Fatalf("seed %d: %d begun within %v, want at most %d of %+v", seed, n+1, last.at-first.at, most, o)
					}
				}
			}
			if wait, ok := q.Enter(t.Context(), "a"); !ok {
				time.Sleep(wait - 1)
				if again, ok := q.Enter(t.Context(), "a"); ok || again != 1 {
					t.Fatalf("seed %d: let in %v a nanosecond sooner than told, or wait %v", seed, ok, again)
				}
				time.Sleep(time.Nanosecond)
				if _, ok := q.Enter(t.Context(), "a"); !ok {
					t.Fatalf("seed %d: refused when it was told to come", seed)
				}
			}
		})
	}
}
