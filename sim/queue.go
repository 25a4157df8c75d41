package sim

import (
	"math/bits"
	"math/rand/v2"
)

// event is something that happens at a virtual time.
type event struct {
	// home is the process it happens in, nil for the world outside: what happens in a
	// process that is paused waits, and is lost with the life of a process that
	// crashes.
	home *process
	life int
	do   func()
}

// due says when an event happens. It holds no pointer, so that moving it about
// costs the garbage collector nothing.
type due struct {
	at   int64
	seq  uint32
	slot int32
}

func (e due) before(f due) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

// queue is a binary heap of events, ordered by time and then by age, so that a
// run never depends on anything but its seed.
type queue struct {
	heap   []due
	events []event
	free   []int32
	seq    uint32
}

func (q *queue) reset() {
	clear(q.events)
	q.heap, q.events, q.free, q.seq = q.heap[:0], q.events[:0], q.free[:0], 0
}

func (q *queue) push(at int64, e event) {
	slot := int32(len(q.events))
	if n := len(q.free); n > 0 {
		slot, q.free = q.free[n-1], q.free[:n-1]
		q.events[slot] = e
	} else {
		q.events = append(q.events, e)
	}
	q.seq++
	d := due{at, q.seq, slot}
	q.heap = append(q.heap, d)
	i := len(q.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !d.before(q.heap[up]) {
			break
		}
		q.heap[i] = q.heap[up]
		i = up
	}
	q.heap[i] = d
}

// next gives the time of the next event.
func (q *queue) next() (at int64, ok bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].at, true
}

// pop takes the next event out. There must be one.
func (q *queue) pop() event {
	slot := q.heap[0].slot
	last := len(q.heap) - 1
	d := q.heap[last]
	q.heap = q.heap[:last]
	for i := 0; last > 0; {
		child := 2*i + 1
		if child+1 < last && q.heap[child+1].before(q.heap[child]) {
			child++
		}
		if child >= last || !q.heap[child].before(d) {
			q.heap[i] = d
			break
		}
		q.heap[i] = q.heap[child]
		i = child
	}
	e := q.events[slot]
	q.events[slot] = event{}
	q.free = append(q.free, slot)
	return e
}

// dice is the only source of chance in a world.
type dice struct{ pcg *rand.PCG }

func newDice(seed uint64) dice { return dice{rand.NewPCG(seed, 0x5e3e1)} }

// below gives 0 <= x < n. The bias of n/2^64 does not matter here.
func (d dice) below(n int64) int64 {
	if n <= 0 {
		return 0
	}
	hi, _ := bits.Mul64(d.pcg.Uint64(), uint64(n))
	return int64(hi)
}

// between gives lo <= x <= hi.
func (d dice) between(lo, hi int64) int64 { return lo + d.below(hi-lo+1) }

// spread gives lo <= x <= hi so that each doubling is about as likely as the next.
func (d dice) spread(lo, hi int64) int64 {
	doublings := int64(bits.Len64(uint64(hi / lo)))
	top := min(lo<<d.between(0, doublings), hi)
	return d.between(lo, top)
}

// oneIn is true once in n times.
func (d dice) oneIn(n int64) bool { return d.below(n) == 0 }

// arena hands out zeroed values and takes all of them back at once: a worker
// simulates thousands of worlds, one after the other.
type arena[T any] struct {
	all  []*T
	used int
}

func (a *arena[T]) get() *T {
	if a.used == len(a.all) {
		a.all = append(a.all, new(T))
	}
	x := a.all[a.used]
	a.used++
	var zero T
	*x = zero
	return x
}

// room is what a worker's worlds use one after the other.
type room struct {
	attempts arena[attempt]
	calls    arena[call]
	queue    queue
}
