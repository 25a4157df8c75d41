package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"sync/atomic"

	"github.com/semelhq/semel"
)

// known is a Bloom filter of the keys that are held, so that a fresh key need
// not be looked up before it queues for a commit. It decides nothing. What it
// takes for held is looked up; what it does not know, because another process
// wrote it, finds out when it is inserted. Sixteen bits and four marks for each
// key: about one fresh key in four hundred is looked up for nothing.
type known struct {
	words []atomic.Uint64 // as many as a power of two
	room  int64           // keys
	keys  atomic.Int64
}

const (
	bitsPerKey  = 16
	marksPerKey = 4
	leastKnown  = 1 << 20 // keys; 2 MiB
)

// newKnown gives a filter with room for twice as many keys as there are.
func newKnown(keys int64) *known {
	room := int64(leastKnown)
	for room < 2*keys {
		room *= 2
	}
	return &known{words: make([]atomic.Uint64, room*bitsPerKey/64), room: room}
}

// mark gives the i-th mark of a digest. Digests are hashes: their bytes are as
// good as any function of them.
func (k *known) mark(d *semel.Digest, i int) (word *atomic.Uint64, bit uint64) {
	h := binary.NativeEndian.Uint64(d[8*i:])
	return &k.words[h>>6&uint64(len(k.words)-1)], 1 << (h & 63)
}

func (k *known) has(d *semel.Digest) bool {
	for i := range marksPerKey {
		if word, bit := k.mark(d, i); word.Load()&bit == 0 {
			return false
		}
	}
	return true
}

func (k *known) add(d *semel.Digest) {
	for i := range marksPerKey {
		word, bit := k.mark(d, i)
		word.Or(bit)
	}
	k.keys.Add(1)
}

// mayHold tells whether a key is worth looking up. As long as the filter is not
// there, every key is.
func (f *file) mayHold(d *semel.Digest) bool {
	k := f.known.Load()
	return k == nil || k.has(d)
}

// note adds a key that is being inserted.
func (f *file) note(d *semel.Digest) {
	for _, k := range [...]*known{f.known.Load(), f.learning.Load()} {
		if k != nil {
			k.add(d)
		}
	}
}

// learn makes a filter, or one with more room once the first is full, from the
// index of keys. What is inserted meanwhile goes into both. If it fails, or ctx
// ends, things stay as they are.
func (f *file) learn(ctx context.Context, c *conn) {
	old := f.known.Load()
	if old != nil && old.keys.Load() < old.room {
		return
	}
	keys, err := c.number("SELECT count(*) FROM record")
	if err != nil {
		return
	}
	next := newKnown(keys)
	f.learning.Store(next)
	defer f.learning.Store(nil)
	// Whoever missed it above has committed before the lock is ours, so the scan
	// sees that.
	f.waitForWriter()
	all, err := compile(c.raw, "SELECT digest FROM record INDEXED BY record_digest")
	if err != nil {
		return
	}
	defer func() { _ = all.raw.Close() }()
	err = all.query(ctx, func(row []driver.Value) bool {
		if d, _ := row[0].([]byte); len(d) == len(semel.Digest{}) {
			next.add((*semel.Digest)(d))
		}
		return true
	})
	if err == nil {
		f.known.Store(next)
	}
}

func (f *file) waitForWriter() {
	f.mu.Lock()
	defer f.mu.Unlock()
}
