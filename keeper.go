package semel

import (
	"sync"
	"time"
)

// keeper renews the leases of all claims of a guard with a single timer: most
// claims end long before their first renewal, and a timer for each of them would
// cost more than all the rest of their bookkeeping.
type keeper struct {
	mu    sync.Mutex
	first *Claim // the claims that are held, linked through next and prev
	timer *time.Timer
	armed time.Time // when the timer fires; zero while it is not armed
}

// keeperGrain is how far apart the keeper's looks are at least: what is due
// within it is renewed together.
const keeperGrain = 2 * time.Millisecond

// keep has c renewed at due.
func (k *keeper) keep(c *Claim, due time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.due = due
	c.kept = true
	c.next, c.prev = k.first, nil
	if c.next != nil {
		c.next.prev = c
	}
	k.first = c
	k.arm(due)
}

// drop forgets c. The timer may then fire for nothing.
func (k *keeper) drop(c *Claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unlink(c)
}

func (k *keeper) unlink(c *Claim) {
	if !c.kept {
		return
	}
	c.kept = false
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		k.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev = nil, nil
}

// arm makes the timer fire no later than at due.
func (k *keeper) arm(due time.Time) {
	if !k.armed.IsZero() && !due.Before(k.armed) {
		return
	}
	k.armed = due
	if k.timer == nil {
		k.timer = time.AfterFunc(time.Until(due), k.look)
		return
	}
	k.timer.Reset(time.Until(due))
}

// look starts the renewals that are due. It runs on the timer's goroutine; each
// renewal gets its own, since a store may take its time.
func (k *keeper) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	soon := time.Now().Add(keeperGrain)
	k.armed = time.Time{}
	for c := k.first; c != nil; {
		next := c.next
		if c.due.After(soon) {
			k.arm(c.due)
		} else {
			k.unlink(c)
			go c.renew()
		}
		c = next
	}
}
