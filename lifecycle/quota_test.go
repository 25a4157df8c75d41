package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

func newQuota(t testing.TB, o lifecycle.QuotaOptions) *lifecycle.Quota {
	t.Helper()
	q, err := lifecycle.NewQuota(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// begun enters and leaves n new keys, and tells how many were let in.
func begun(t testing.TB, q *lifecycle.Quota, tenant string, n int) (in int) {
	t.Helper()
	for range n {
		if _, ok := q.Enter(t.Context(), tenant); ok {
			q.Leave(tenant, true)
			in++
		}
	}
	return in
}

func TestQuotaBurstThenEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, lifecycle.QuotaOptions{NewKeys: 60, Per: time.Minute, Burst: 5})
		if in := begun(t, q, "a", 100); in != 5 {
			t.Fatalf("%d at once, want the burst of 5", in)
		}
		for range 30 {
			wait, ok := q.Enter(t.Context(), "a")
			if ok || wait != time.Second {
				t.Fatalf("let in %v, or wait %v, want 1s to the nanosecond", ok, wait)
			}
			time.Sleep(wait - 1)
			if in := begun(t, q, "a", 1); in != 0 {
				t.Fatal("let in a nanosecond too soon")
			}
			time.Sleep(time.Nanosecond)
			if in := begun(t, q, "a", 10); in != 1 {
				t.Fatalf("%d let in when one had come back", in)
			}
		}
		time.Sleep(time.Hour)
		if in := begun(t, q, "a", 100); in != 5 {
			t.Errorf("%d at once after an hour's pause, want the burst of 5", in)
		}
	})
}

// A number that does not divide its time is never exceeded, however long it runs.
func TestQuotaIsRoundedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100_000
		q := newQuota(t, lifecycle.QuotaOptions{NewKeys: 669, Per: time.Millisecond, Burst: most})
		if in := begun(t, q, "a", most+1); in != most {
			t.Fatalf("%d at once, want the burst of %d", in, most)
		}
		time.Sleep(100 * time.Millisecond)
		if in := begun(t, q, "a", most); in > 66_900 || in < 66_800 {
			t.Errorf("%d came back in 100 times 1ms, want 669 in each, and not more", in)
		}
	})
}

func TestQuotaThousandAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, lifecycle.QuotaOptions{NewKeys: 100, InFlight: 30})
		for round, want := range []int{30, 30, 30, 10, 0} {
			var in atomic.Int64
			var all sync.WaitGroup
			for range 1000 {
				all.Go(func() {
					if _, ok := q.Enter(t.Context(), "a"); ok {
						in.Add(1)
					}
				})
			}
			all.Wait()
			if int(in.Load()) != want {
				t.Errorf("round %d: %d of 1,000 let in, want %d", round, in.Load(), want)
			}
			for range in.Load() {
				q.Leave("a", true)
			}
		}
	})
}

func TestQuotaDuplicatesUseUpNothing(t *testing.T) {
	q := newQuota(t, lifecycle.QuotaOptions{NewKeys: 3, Per: time.Hour})
	for range 1000 {
		if _, ok := q.Enter(t.Context(), "a"); !ok {
			t.Fatal("a duplicate was refused")
		}
		q.Leave("a", false)
	}
	if in := begun(t, q, "a", 10); in != 3 {
		t.Errorf("%d new keys after the duplicates, want 3", in)
	}
	q.Leave("a", false) // nothing is in flight
	q.Leave("nobody", false)
	if in := begun(t, q, "a", 10); in != 0 {
		t.Errorf("%d new keys came from nowhere", in)
	}
}

func TestQuotaTenantsDoNotShare(t *testing.T) {
	q := newQuota(t, lifecycle.QuotaOptions{NewKeys: 10, Per: time.Hour, InFlight: 4, Overrides: map[string]lifecycle.Limits{
		"large": {NewKeys: 50, InFlight: 8}, "free": {NewKeys: -1, InFlight: -1}, "narrow": {InFlight: 1},
	}})
	var all sync.WaitGroup
	for _, c := range []struct {
		tenant       string
		keys, inside int
	}{{"greedy", 10, 4}, {"modest", 10, 4}, {"large", 50, 8}, {"free", 500, 100}, {"narrow", 10, 1}} {
		all.Go(func() {
			inside := 0
			for range 100 {
				if _, ok := q.Enter(t.Context(), c.tenant); ok {
					inside++
				}
			}
			for range inside {
				q.Leave(c.tenant, false)
			}
			if in := begun(t, q, c.tenant, 500); in != c.keys || inside != c.inside {
				t.Errorf("%s: %d new keys, %d at once; want %d and %d", c.tenant, in, inside, c.keys, c.inside)
			}
		})
	}
	all.Wait()
}

func TestQuotaWhatIsRefused(t *testing.T) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]lifecycle.QuotaOptions{
		"needs a bound":        {},
		"is negative":          {NewKeys: -1},
		"from 1ms to a year":   {NewKeys: 1, Per: time.Microsecond},
		"Burst means nothing":  {NewKeys: 1, Burst: 2, Shared: guard},
		"too short to be":      {NewKeys: 1, Per: time.Millisecond, Shared: guard},
		"for a shared quota":   {NewKeys: 1, Name: "charges"},
		"of its NewKeys":       {InFlight: 1, Burst: 2},
		"more than a quota":    {NewKeys: 2_000_000, Per: time.Second},
		"too long to come":     {NewKeys: 1, Per: 24 * time.Hour, Burst: 1 << 40},
		`of the tenant "acme"`: {NewKeys: 1, Overrides: map[string]lifecycle.Limits{"acme": {NewKeys: 1 << 40}}},
	} {
		if _, err := lifecycle.NewQuota(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// A guard with a quota: new keys are refused, duplicates are answered.
func TestQuotaOfAGuard(t *testing.T) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := semel.Policy{Quota: newQuota(t, lifecycle.QuotaOptions{NewKeys: 20, Per: time.Hour})}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	var ran, over, replayed atomic.Int64
	round := func() {
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				ask := semel.Ask{Key: semel.Key{Scope: "s", ID: fmt.Sprint(i)}, Tenant: "acme", Policy: &policy}
				switch answer, err := guard.Do(t.Context(), ask, func(context.Context) (semel.Result, error) {
					ran.Add(1)
					return semel.Result{Code: 201}, nil
				}); {
				case errors.Is(err, semel.ErrOverQuota):
					over.Add(1)
				case err != nil:
					t.Error(err)
				case answer.Replayed:
					replayed.Add(1)
				}
			})
		}
		all.Wait()
	}
	for range 11 { // the first begins them
		round()
	}
	if ran.Load() != 20 || over.Load() != 11*980 || replayed.Load() != 10*20 {
		t.Errorf("%d ran, %d were over, %d were replayed; want 20, 10780 and 200", ran.Load(), over.Load(), replayed.Load())
	}
}

func BenchmarkQuota(b *testing.B) {
	q := newQuota(b, lifecycle.QuotaOptions{NewKeys: 1_000_000, Per: time.Second, InFlight: 1000})
	for i := range 100_000 {
		begun(b, q, fmt.Sprint("tenant-", i), 1)
	}
	b.ReportAllocs()
	ctx := b.Context()
	for b.Loop() {
		if _, ok := q.Enter(ctx, "tenant-500"); ok {
			q.Leave("tenant-500", false)
		}
	}
}
