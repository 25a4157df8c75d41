package tiered

import (
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
)

// clock estimates the durable store's clock between two of its readings, and
// never estimates it too early while both clocks run alike.
type clock struct {
	now    func() time.Time
	start  time.Time
	margin time.Duration

	// The store's clock minus ours at the last reading, in nanoseconds: ours is the
	// time since start, which stands still while the machine sleeps, and the time of
	// day, which somebody may set. A reading that is half noted does no harm: each
	// value is right by itself.
	aheadOfStart, aheadOfDay atomic.Int64
	read                     atomic.Int64 // when, since start; 0 before the first reading
}

// told notes a reading of the store's clock by a call that began at asked.
// The store looked at its clock no earlier than that.
func (c *clock) told(asked, stored time.Time) {
	at := stored.UnixNano()
	since := int64(asked.Sub(c.start))
	c.aheadOfStart.Store(at - since)
	c.aheadOfDay.Store(at - asked.UnixNano())
	c.read.Store(max(since, 1))
}

// known tells whether there was a reading.
func (c *clock) known() bool { return c.read.Load() != 0 }

// estimate gives the latest that the store's clock may show now, and how far
// that is to be mistrusted: the margin, and a thousandth of the time since the
// last reading, which is more than clocks drift.
func (c *clock) estimate() (at time.Time, slack time.Duration) {
	now := c.now()
	since := int64(now.Sub(c.start))
	at = time.Unix(0, max(since+c.aheadOfStart.Load(), now.UnixNano()+c.aheadOfDay.Load()))
	return at, c.margin + time.Duration(max(0, since-c.read.Load())/1000)
}

// left tells how long a copy of r may be used yet: as long as its answer is
// replayed, or where none is kept as long as the key is remembered. It is 0 or
// less if it may not be used, and for a record from the future.
func left(r *semel.Record, at time.Time, slack time.Duration) time.Duration {
	life := r.TTL
	if r.Replay != 0 {
		life = min(life, r.Replay)
	}
	remains := r.WrittenAt.Add(life).Sub(at)
	if remains <= 0 || r.WrittenAt.After(at.Add(slack)) {
		return 0
	}
	return remains - slack
}
