package tiered

import (
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// Options are a store's settings. Caches is needed, the rest has defaults.
type Options struct {
	// Caches, nearest first: the process' own memory, then what processes share.
	Caches []Cache
	// CacheTimeout bounds each call of a cache that is not Prompt. Default 20 ms.
	CacheTimeout time.Duration
	// CacheRest is how long a cache is left alone after three failures in a row;
	// then one call shows whether it is well again. Default 1 s.
	CacheRest time.Duration
	// Margin is how long before the end of its time a copy is no longer used: it
	// covers a durable store whose clock jumps, as it may when another machine takes
	// over. Default 1 s.
	Margin time.Duration
	// FillQueue bounds the records that wait to be put into one cache. What is more is
	// dropped. Default 1024.
	FillQueue int
	// FillBytes bounds the size of their results, in bytes. Default 16 MiB.
	FillBytes int
	// Now is a clock that runs as the durable store's does; only its differences
	// count. Default: the process' clock.
	Now func() time.Time
}

// New gives a store in front of durable. It asks neither durable nor a cache
// yet; what is wrong with the options is the error. Close ends it.
func New(durable semel.Store, o Options) (*Store, error) {
	switch {
	case durable == nil:
		return nil, errors.New("tiered: a durable store is needed: a cache alone forgets, and what is forgotten runs again")
	case len(o.Caches) == 0:
		return nil, errors.New("tiered: Options.Caches is empty; without a cache use the durable store itself")
	}
	for i, c := range o.Caches {
		if c == nil {
			return nil, fmt.Errorf("tiered: Options.Caches[%d] is nil", i)
		}
	}
	for _, d := range [...]struct {
		name  string
		value *time.Duration
		fill  time.Duration
	}{
		{"CacheTimeout", &o.CacheTimeout, 20 * time.Millisecond},
		{"CacheRest", &o.CacheRest, time.Second},
		{"Margin", &o.Margin, time.Second},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("tiered: Options.%s is %v; it must be positive, or 0 for %v", d.name, *d.value, d.fill)
		}
		if *d.value == 0 {
			*d.value = d.fill
		}
	}
	if o.FillQueue < 0 || o.FillBytes < 0 {
		return nil, fmt.Errorf("tiered: Options.FillQueue is %d and FillBytes %d; they must be positive, or 0 for the default", o.FillQueue, o.FillBytes)
	}
	if o.FillQueue == 0 {
		o.FillQueue = 1024
	}
	if o.FillBytes == 0 {
		o.FillBytes = 16 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{durable: durable, clock: clock{now: o.Now, start: o.Now(), margin: o.Margin}}
	for _, c := range o.Caches {
		t := newTier(c, &o)
		if !t.prompt {
			t.fills.start(t, &o)
		}
		s.tiers = append(s.tiers, t)
	}
	return s, nil
}
