package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/semelhq/semel"
)

// QuotaOptions are the settings of a [Quota]. NewKeys or InFlight is required.
type QuotaOptions struct {
	// NewKeys is how many new keys each tenant may begin in each Per. Default: no bound.
	NewKeys int
	// Per is the time that NewKeys counts for. Default one minute.
	Per time.Duration
	// Burst is how many of them may come at once after a pause; they come back evenly,
	// NewKeys in each Per. In any stretch of time a tenant begins at most Burst and
	// what comes back in it; if duplicates were being answered when it began, as many
	// more as those had borrowed. Default NewKeys. It has no meaning with Shared.
	Burst int
	// InFlight is how many operations of each tenant may run at once in this process,
	// duplicates that are being answered among them. Default: no bound.
	InFlight int
	// Tenants is how many tenants are remembered at most, in about 300 bytes each. The
	// one that was forgotten for another's sake, the longest unseen that nothing runs
	// of, begins anew. Default 100,000.
	Tenants int
	// Overrides are the limits of tenants that have their own, by name.
	Overrides map[string]Limits
	// Shared has all processes whose guards have the same store keep NewKeys together:
	// in each window of the length Per, by the store's clock, they begin NewKeys of
	// each tenant at most. What is in flight is counted by each process for itself.
	// Default: each process counts for itself.
	Shared *semel.Guard
	// Name tells apart the shared quotas of one store. Those with one Name have to have
	// the same numbers.
	Name string
	// Block is how many new keys a process takes out of the store at once, with one
	// write, or two if others were there meanwhile. What it does not use in the window
	// is lost to them. Default a twentieth of NewKeys.
	Block int
	// Alone is how many new keys of each tenant a process lets begin in each Per by
	// itself while the shared store does not answer; they are entered there when it
	// does. Default a tenth of NewKeys: up to ten processes then stay within it.
	// Negative: none.
	Alone int
	// Within is how long the shared store may take to answer before a process goes on
	// alone; it is asked again after a second. Default 500 ms.
	Within time.Duration
}

// Limits are what one tenant may begin. 0 takes the number of QuotaOptions, and a
// negative one is no bound.
type Limits struct{ NewKeys, Burst, InFlight int }

// Quota bounds what each tenant may begin: new keys in a time, and operations at
// once. It keeps its numbers in memory, or shares them through a store. It is
// safe for concurrent use.
type Quota struct {
	per       time.Duration
	general   limits
	overrides map[string]*limits
	shared    *shared // nil if each process counts for itself
	start     time.Time

	mu      sync.Mutex
	tenants tenants
}

var _ semel.Quota = (*Quota)(nil)

// limits are Limits as they are counted.
type limits struct {
	newKeys  int   // 0: no bound
	interval int64 // nanoseconds until one new key has come back
	depth    int64 // nanoseconds until all of Burst has
	inFlight int   // 0: no bound
}

// busyRetry is when asking again makes sense where nobody knows when there is room.
const busyRetry = time.Second

// maxNewKeys keeps counts within what every store can hold.
const maxNewKeys = 1_000_000_000

// NewQuota gives a quota for [semel.Policy]. Policies that have the same one share
// its numbers. Its errors say what to set.
func NewQuota(o QuotaOptions) (*Quota, error) {
	if o.Per == 0 {
		o.Per = time.Minute
	}
	if o.Tenants == 0 {
		o.Tenants = 100_000
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	q := &Quota{per: o.Per, overrides: make(map[string]*limits), start: time.Now()}
	q.tenants = tenants{byName: make(map[string]*tenant), most: o.Tenants}
	general := Limits{NewKeys: o.NewKeys, Burst: o.Burst, InFlight: o.InFlight}
	var err error
	if q.general, err = general.counted(o.Per); err != nil {
		return nil, err
	}
	for name, l := range o.Overrides {
		counted, err := l.over(general).counted(o.Per)
		if err != nil {
			return nil, fmt.Errorf("%w (of the tenant %q)", err, name)
		}
		q.overrides[name] = &counted
	}
	if o.Shared != nil {
		q.shared = newShared(&o)
	}
	return q, nil
}

func (o *QuotaOptions) check() error {
	switch {
	case o.NewKeys == 0 && o.InFlight == 0 && len(o.Overrides) == 0:
		return errors.New("lifecycle: a quota needs a bound: set NewKeys, InFlight, or both")
	case o.NewKeys < 0 || o.Burst < 0 || o.InFlight < 0 || o.Tenants < 0 || o.Block < 0 || o.Within < 0:
		return errors.New("lifecycle: a number of the quota is negative; leave out what is not to be bounded")
	case o.Per < time.Millisecond || o.Per > 366*24*time.Hour:
		return fmt.Errorf("lifecycle: a quota's new keys cannot count for %v; take Per from 1ms to a year", o.Per)
	case o.Shared != nil && o.Burst != 0:
		return errors.New("lifecycle: a shared quota counts by windows of the length Per, so Burst means nothing; leave it out")
	case o.Shared != nil && o.Per < time.Second:
		return fmt.Errorf("lifecycle: a window of %v is too short to be shared through a store; take Per of a second at least", o.Per)
	case o.Shared == nil && (o.Name != "" || o.Block != 0 || o.Alone != 0 || o.Within != 0):
		return errors.New("lifecycle: Name, Block, Alone and Within are for a shared quota; set Shared, or leave them out")
	}
	return nil
}

// over gives l with the numbers of general where it has none.
func (l Limits) over(general Limits) Limits {
	if l.Burst == 0 && l.NewKeys == 0 {
		l.Burst = general.Burst
	}
	if l.NewKeys == 0 {
		l.NewKeys = general.NewKeys
	}
	if l.InFlight == 0 {
		l.InFlight = general.InFlight
	}
	return Limits{max(0, l.NewKeys), max(0, l.Burst), max(0, l.InFlight)}
}

func (l Limits) counted(per time.Duration) (limits, error) {
	out := limits{newKeys: l.NewKeys, inFlight: l.InFlight}
	if l.NewKeys == 0 {
		if l.Burst != 0 {
			return out, errors.New("lifecycle: a quota's Burst is of its NewKeys; set them as well")
		}
		return out, nil
	}
	if l.Burst == 0 {
		l.Burst = l.NewKeys
	}
	if l.NewKeys > maxNewKeys || int64(per)/int64(l.NewKeys) < int64(time.Microsecond) {
		return out, fmt.Errorf("lifecycle: %d new keys in %v are more than a quota counts; take at most one in a microsecond, and %d", l.NewKeys, per, maxNewKeys)
	}
	out.interval = (int64(per) + int64(l.NewKeys) - 1) / int64(l.NewKeys) // rounded up: never more than NewKeys
	if int64(l.Burst) > math.MaxInt64/4/out.interval {
		return out, fmt.Errorf("lifecycle: a burst of %d takes too long to come back, at %d in %v", l.Burst, l.NewKeys, per)
	}
	out.depth = int64(l.Burst) * out.interval
	return out, nil
}

// Enter is part of [semel.Quota]. It waits for a store if the quota is shared, for
// one request in Block, and at most twice Within.
func (q *Quota) Enter(ctx context.Context, name string) (retryAfter time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	t := q.tenant(name, now)
	if t == nil || t.limits.inFlight > 0 && t.inFlight >= t.limits.inFlight {
		return busyRetry, false
	}
	t.inFlight++
	switch {
	case t.limits.newKeys == 0:
		ok = true
	case q.shared == nil:
		retryAfter, ok = t.take(now)
	default:
		retryAfter, ok = q.takeShared(ctx, t)
	}
	if !ok {
		t.inFlight--
	}
	return retryAfter, ok
}

// Leave is part of [semel.Quota]. It waits for nothing.
func (q *Quota) Leave(name string, fresh bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tenants.byName[name]
	if t == nil || t.inFlight == 0 {
		return
	}
	t.inFlight--
	switch {
	case fresh || t.limits.newKeys == 0:
	case q.shared == nil:
		t.free -= t.limits.interval
	default:
		t.share.giveBack()
	}
}

// now is our own clock, which never goes back: nanoseconds since the quota was
// made.
func (q *Quota) now() int64 { return int64(time.Since(q.start)) }

// take takes a new key out of the tenant's bucket.
func (t *tenant) take(now int64) (retryAfter time.Duration, ok bool) {
	free := max(t.free, now) + t.limits.interval
	if over := free - now - t.limits.depth; over > 0 {
		return time.Duration(over), false
	}
	t.free = free
	return 0, true
}
