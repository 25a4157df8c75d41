package etcd_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
)

// BenchmarkPairs compares a claim and its completion, journal included, with two
// plain puts of as many bytes, in turns; the median of five rounds counts.
//
//	go test -run '^$' -bench Pairs -benchtime 1x ./etcd
func BenchmarkPairs(b *testing.B) {
	e := servers.Etcd(b)
	c := plain(b, e, "", "")
	s := open(b, at(e, "bench"), etcd.Options{})
	var n atomic.Int64
	claim := func() error {
		id := fmt.Sprint("k", n.Add(1))
		r, err := s.CompareAndSwap(b.Context(), semel.Version{}, pending(id, 1))
		if err == nil {
			_, err = s.CompareAndSwap(b.Context(), r.Record.Version, done(r.Record, 1, "a receipt"))
		}
		return err
	}
	value := string(make([]byte, 200))
	puts := func() error {
		id := fmt.Sprint("/plain/", n.Add(1))
		_, err := c.Put(b.Context(), id, value)
		if err == nil {
			_, err = c.Put(b.Context(), id, value)
		}
		return err
	}
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			for range b.N {
				var ratios, ours, theirs []float64
				for range 5 {
					t, o := rate(b, callers, puts), rate(b, callers, claim)
					ours, theirs, ratios = append(ours, o), append(theirs, t), append(ratios, o/t)
				}
				b.Logf("%d callers: claim+complete %.0f /s, two puts %.0f /s, ratios %.2f", callers, ours, theirs, ratios)
				slices.Sort(ratios)
				b.ReportMetric(ratios[2], "ratio")
			}
		})
	}
}

// rate is how many operations a second so many callers reach.
func rate(b *testing.B, callers int, fn func() error) float64 {
	var count atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	end := begin.Add(700 * time.Millisecond)
	for range callers {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(count.Load()) / time.Since(begin).Seconds()
}
