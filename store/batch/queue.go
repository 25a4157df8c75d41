package batch

import "github.com/semelhq/semel"

// swap is one call of CompareAndSwap on its way.
type swap struct {
	semel.Swap
	out  semel.Swapped
	done chan struct{} // holds one; sent to once out is set

	queued     bool
	prev, next *swap
}

// queue is a list of swaps, first come first served, from which any can be
// taken out. The zero value is empty.
type queue struct {
	first, last *swap
}

func (q *queue) empty() bool { return q.first == nil }

func (q *queue) push(w *swap) {
	w.queued, w.prev = true, q.last
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
}

// remove takes w out and tells whether it was in.
func (q *queue) remove(w *swap) bool {
	if !w.queued {
		return false
	}
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.queued, w.prev, w.next = false, nil, nil
	return true
}
