package tiered

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// fillers is how many records are put into one cache at once.
const fillers = 8

// fill is a record on its way into a cache.
type fill struct {
	record semel.Record
	ttl    time.Duration
}

// filler puts records into a cache behind the requests that brought them. What
// does not fit into its queues is dropped: a cache may lose anything. Records of
// one key go one after the other.
type filler struct {
	queues   [fillers]chan fill
	maxBytes int64
	bytes    atomic.Int64 // of the results in the queues
	stop     chan struct{}
	workers  sync.WaitGroup
}

func (f *filler) start(t *tier, o *Options) {
	f.maxBytes, f.stop = int64(o.FillBytes), make(chan struct{})
	for i := range f.queues {
		q := make(chan fill, max(1, o.FillQueue/fillers))
		f.queues[i] = q
		f.workers.Go(func() { f.run(t, q) })
	}
}

// add queues a record and tells whether there was room.
func (f *filler) add(r *semel.Record, ttl time.Duration) bool {
	n := int64(len(r.Result))
	if f.bytes.Add(n) > f.maxBytes {
		f.bytes.Add(-n)
		return false
	}
	select {
	case f.queues[r.Digest[0]%fillers] <- fill{*r, ttl}:
		return true
	default:
		f.bytes.Add(-n)
		return false
	}
}

func (f *filler) run(t *tier, q chan fill) {
	for {
		select {
		case w := <-q:
			f.put(t, &w)
			continue
		default:
		}
		select {
		case w := <-q:
			f.put(t, &w)
		case <-f.stop:
			if len(q) == 0 {
				return
			}
		}
	}
}

func (f *filler) put(t *tier, w *fill) {
	t.put(&w.record, w.ttl)
	f.bytes.Add(-int64(len(w.record.Result)))
}

// close waits until what is queued was put.
func (f *filler) close() {
	if f.stop != nil {
		close(f.stop)
		f.workers.Wait()
	}
}

// fill puts r into the tiers, at once where that takes no time.
func (s *Store) fill(ctx context.Context, tiers []*tier, r *semel.Record, ttl time.Duration) {
	for _, t := range tiers {
		switch {
		case t.prompt:
			t.putPromptly(ctx, r, ttl)
		case s.closed.Load() || !t.fills.add(r, ttl):
			t.dropped.Add(1)
		}
	}
}
