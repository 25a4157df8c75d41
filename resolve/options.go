package resolve

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/semelhq/semel"
)

// Options are a Completer's settings. Policies is required.
type Options struct {
	// Policies are those with a resolver. Each has a name of its own: it is by the
	// name that a record tells which resolver to ask, also after a restart.
	Policies []*semel.Policy
	// Every is how often the store is searched for keys in doubt. After a search there
	// is none for at least 20 times as long as it took. Default 10 s.
	Every time.Duration
	// After is how long a key has to be in doubt before its resolver is asked. A
	// handler that gave up leaves its key in doubt at once, while its request may
	// still be on the way: "not done" is true only once it cannot arrive any more.
	// Default 0: the target refuses or recognises what comes late.
	After time.Duration
	// Timeout bounds one call of a resolver. Default 10 s.
	Timeout time.Duration
	// Workers is how many calls of one policy's resolver run at once. Default 4.
	Workers int
	// Backoff is the pause after the first look at a key that stays unknown. Each
	// further one is twice as long, up to BackoffCap; a quarter more or less is left
	// to chance. Default 2 s.
	Backoff time.Duration
	// BackoffCap is the longest pause between two looks at a key. Default 10 min.
	BackoffCap time.Duration
	// Lease is how long a key of a process that died is left to it. Default 5 s.
	Lease time.Duration
	// Owner names this process in what it settles. Default: host name and process id.
	Owner string
	// Observe is told what happened. It must return quickly and be safe for
	// concurrent use. Default: nobody is told.
	Observe func(Event)
}

// Kind says what happened.
type Kind uint8

const (
	// Settled: a key has an outcome now; State says which.
	Settled Kind = iota + 1
	// Unknown: the resolver does not know yet. It is asked again after Next.
	Unknown
	// Failed: the resolver, or the store, failed; Err says how. It is asked again
	// after Next.
	Failed
	// Orphan: no policy here is named like the one that the key ran under. Only a
	// person can settle it. It is told once for a key and process.
	Orphan
	// Unlisted: the store could not be searched; Err says why.
	Unlisted
)

// String gives the kind in lower case.
func (k Kind) String() string {
	names := [...]string{"", "settled", "unknown", "failed", "orphan", "unlisted"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Event tells what came of one look at a key.
type Event struct {
	Kind   Kind
	Policy string
	Digest semel.Digest
	// Key is empty where the policy withholds it.
	Key semel.Key
	// State is what the key was settled as, semel.Done or semel.Released; else 0.
	State semel.State
	// Why is the resolver's word.
	Why string
	// Looks counts the looks at the key since it is in doubt, by all processes.
	Looks int
	// Next is the pause until the next look.
	Next time.Duration
	// Took is how long the resolver took.
	Took time.Duration
	Err  error
}

// filled gives o with its defaults, and its policies by name.
func (o Options) filled() (Options, map[string]*room, error) {
	fill := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	fill(&o.Every, 10*time.Second)
	fill(&o.Timeout, 10*time.Second)
	fill(&o.Backoff, 2*time.Second)
	fill(&o.BackoffCap, max(10*time.Minute, o.Backoff))
	fill(&o.Lease, 5*time.Second)
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Owner == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		o.Owner = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	var wrong []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf("resolve: "+format, args...))
		}
	}
	refuse(o.Every < 0 || o.After < 0 || o.Timeout < 0 || o.Backoff < 0 || o.Workers < 0, "a negative number of seconds or workers")
	refuse(o.BackoffCap < o.Backoff, "a backoff of %v is longer than its cap of %v", o.Backoff, o.BackoffCap)
	refuse(len(o.Policies) == 0, "Options.Policies is empty: name the policies that have a resolver")
	rooms := make(map[string]*room)
	for _, p := range o.Policies {
		if p == nil {
			refuse(true, "a policy is nil")
			continue
		}
		filled, err := p.Filled()
		wrong = append(wrong, err)
		refuse(p.Resolve == nil, "policy %q has no resolver; leave it away here, or set its Resolve", p.Name)
		refuse(p.Name == "", "a policy has no name; what is left in doubt names its policy, so give it one")
		refuse(rooms[p.Name] != nil, "two policies are named %q; what is in doubt could be asked of the wrong one", p.Name)
		refuse(p.Class != semel.AtMostOnce, "policy %q is %v: nothing of it stays in doubt, so its resolver would never be asked", p.Name, p.Class)
		rooms[p.Name] = &room{policy: &filled, hung: make(map[semel.Digest]struct{})}
	}
	return o, rooms, errors.Join(wrong...)
}
