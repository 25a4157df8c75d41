package sqlite

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/semelhq/semel"
)

// seen remembers some of the keys that are held: the last one of each of many
// slots. It decides nothing. A key that is in it is probably a duplicate, and
// is looked up before it queues for a commit; a key that is forgotten, or was
// swept, only takes the other way.
type seen struct {
	slots [1 << 16]atomic.Uint64
}

// place gives the slot of a digest and what the slot holds for it. Digests are
// hashes, so any of their bytes will do.
func (s *seen) place(d *semel.Digest) (*atomic.Uint64, uint64) {
	return &s.slots[binary.NativeEndian.Uint16(d[:])], binary.NativeEndian.Uint64(d[8:])
}

func (s *seen) has(d *semel.Digest) bool {
	slot, mark := s.place(d)
	return slot.Load() == mark
}

func (s *seen) add(d *semel.Digest) {
	slot, mark := s.place(d)
	slot.Store(mark)
}
