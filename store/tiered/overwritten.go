package tiered

import (
	"sync"

	"github.com/semelhq/semel"
)

// overwritten remembers, for the keys that were written over most recently by
// this process, up to which version a copy may be outdated.
//
// A finished record does not change while its answer may be replayed (INVARIANTS
// S4), so no copy should ever be. But a store takes any swap, and a cache may have
// lost the newer copy and kept the older: who wrote over a record here is not
// shown the old one here.
type overwritten struct {
	shards [16]struct {
		mu    sync.Mutex
		index map[semel.Digest]int
		ring  [256]struct {
			digest semel.Digest
			floor  semel.Version
		}
		next int
	}
}

// add notes that a swap over old is about to be made.
func (o *overwritten) add(d semel.Digest, old semel.Version) {
	s := &o.shards[d[0]%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.index[d]; ok {
		if s.ring[i].floor.Compare(old) < 0 {
			s.ring[i].floor = old
		}
		return
	}
	if s.index == nil {
		s.index = make(map[semel.Digest]int, len(s.ring))
	}
	slot := &s.ring[s.next]
	delete(s.index, slot.digest)
	slot.digest, slot.floor = d, old
	s.index[d] = s.next
	s.next = (s.next + 1) % len(s.ring)
}

// covers tells whether a copy of version v may be outdated.
func (o *overwritten) covers(d semel.Digest, v semel.Version) bool {
	s := &o.shards[d[0]%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[d]
	return ok && v.Compare(s.ring[i].floor) <= 0
}
