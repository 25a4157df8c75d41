package lifecycle

import (
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// Options are a Sweeper's settings. The zero value is usable: it sweeps, and
// leaves the journal alone.
type Options struct {
	// Every is the pause between two passes, of all processes together. Default 1 min.
	Every time.Duration
	// Batch is how many records one call of the store deals with. Default 25:
	// a store with one writer makes requests wait for as long as a call takes.
	Batch int
	// Share is how much of the time may be spent in calls of the store, above 0 and
	// at most 1. After each call follows a rest, which is longer while the store
	// answers more slowly than it did, unless more expires than is swept. Default 0.1.
	Share float64
	// Lease is how long a process that died keeps the others waiting. Default 30 s, at
	// least 50 ms.
	Lease time.Duration
	// Policies are those under which the store's keys are kept: the journal has to
	// outlive the longest Remember of them. Default: the default policy, 72 h.
	Policies []*semel.Policy
	// Journal is how long lines stay in the store's journal at least; they go by whole
	// days (UTC). Default 0: for ever.
	Journal time.Duration
	// Archive is where a day of the journal goes before it is dropped. Default: nowhere.
	Archive Archive
	// Growth is how often growth is measured. Negative: never. Default 5 min.
	Growth time.Duration
	// Observe is told what happened. It must return quickly and be safe for concurrent
	// use. Default: nobody is told.
	Observe func(Event)
}

// Kind says what happened.
type Kind uint8

const (
	// Swept: a pass has ended; Pass says what it came to, and Err what of it failed.
	Swept Kind = iota + 1
	// Archived: a day of the journal is in the archive, under Name.
	Archived
	// Dropped: a day of the journal is gone from the store.
	Dropped
	// Measured: Growth has been measured.
	Measured
	// Lost: the lead was lost, or may be, in the middle of a pass, which was cut off.
	// Another process goes on.
	Lost
	// Failed: a call failed, and will be tried again; Err says how. If Day is set,
	// that day stays in the store until it succeeds.
	Failed
)

// String gives the kind in lower case.
func (k Kind) String() string {
	names := [...]string{"", "swept", "archived", "dropped", "measured", "lost", "failed"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Event tells what a Sweeper did.
type Event struct {
	Kind Kind
	// Pass is set for Swept.
	Pass Pass
	// Day is set where it is about a day of the journal.
	Day time.Time
	// Name and Lines are what was archived.
	Name  string
	Lines int64
	// Growth is set for Measured.
	Growth Growth
	Err    error
}

// Pass is what one pass came to.
type Pass struct {
	// Swept counts the records that were forgotten or made tombstones, in as many
	// Batches.
	Swept, Batches int
	// Drained tells that nothing was left to sweep. Else another pass follows soon.
	Drained bool
	// Archived and Dropped count days of the journal, Lines the lines that were
	// archived.
	Archived, Dropped int
	Lines             int64
	// Took is the whole time, Busy how much of it was spent in calls of the store.
	Took, Busy time.Duration
}

// filled gives o with its defaults, or an error that says what is wrong.
func (o Options) filled() (Options, error) {
	fill := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	fill(&o.Every, time.Minute)
	fill(&o.Lease, 30*time.Second)
	fill(&o.Growth, 5*time.Minute)
	if o.Batch == 0 {
		o.Batch = 25
	}
	if o.Share == 0 {
		o.Share = 0.1
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	var wrong []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf("lifecycle: "+format, args...))
		}
	}
	refuse(o.Every < 0, "every %v is negative", o.Every)
	refuse(o.Batch < 0, "a batch of %d records is negative", o.Batch)
	refuse(!(o.Share > 0 && o.Share <= 1), "a share of %v is none: take more than 0, and at most 1", o.Share) // NaN as well
	refuse(o.Lease < 50*time.Millisecond, "a lease of %v is too short to be renewed in time; take at least 50ms", o.Lease)
	refuse(o.Journal < 0, "journal %v is negative; 0 keeps it for ever", o.Journal)
	refuse(o.Archive != nil && o.Journal == 0, "there is an archive, and the journal stays in the store for ever: set Journal to how long it is to stay")
	wrong = append(wrong, o.checkJournal())
	return o, errors.Join(wrong...)
}

// checkJournal refuses a trail that ends before the keys that it is about.
func (o *Options) checkJournal() error {
	policies := o.Policies
	if len(policies) == 0 {
		policies = []*semel.Policy{{}}
	}
	var wrong []error
	for _, p := range policies {
		if p == nil {
			wrong = append(wrong, errors.New("lifecycle: a policy is nil"))
			continue
		}
		filled, err := p.Filled()
		wrong = append(wrong, err)
		if o.Journal > 0 && o.Journal < filled.Remember {
			wrong = append(wrong, fmt.Errorf("lifecycle: the journal is kept for %v, and policy %q remembers keys for %v: "+
				"the trail would end before the key; make the journal at least %v", o.Journal, p.Name, filled.Remember, filled.Remember))
		}
	}
	return errors.Join(wrong...)
}
