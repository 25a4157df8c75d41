package sqlite

import (
	"math/rand/v2"
	"testing"

	"github.com/semelhq/semel"
)

func digest(n uint64) semel.Digest {
	var d semel.Digest
	r := rand.New(rand.NewPCG(n, 1))
	for i := range d {
		d[i] = byte(r.Uint32())
	}
	return d
}

func TestKnownForgetsNothing(t *testing.T) {
	k := newKnown(0)
	const keys = leastKnown
	for n := range uint64(keys) {
		d := digest(n)
		k.add(&d)
	}
	wrong := 0
	for n := range uint64(keys / 8) {
		if d := digest(n * 8); !k.has(&d) {
			t.Fatalf("key %d is not known", n*8)
		}
		if d := digest(keys + n); k.has(&d) {
			wrong++
		}
	}
	if share := float64(wrong) / (keys / 8); share > 0.005 {
		t.Errorf("%.2f %% of unknown keys are taken for held, when it is full", 100*share)
	}
}

// A store that opens a file learns what is in it, and what is added meanwhile.
func TestLearn(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	for n := range 300 {
		mustSwap(t, s, semel.Version{}, pending(n))
	}
	c, err := s.file.connect(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	s.file.known.Store(nil)
	s.file.learn(t.Context(), c)
	mustSwap(t, s, semel.Version{}, pending(300))
	for n := range 301 {
		if d := pending(n).Digest; !s.file.known.Load().has(&d) {
			t.Errorf("key %d is not known", n)
		}
	}
	// Once it is full, it is made anew, with more room.
	full := s.file.known.Load()
	full.keys.Store(full.room)
	s.file.learn(t.Context(), c)
	if now := s.file.known.Load(); now == full || now.keys.Load() != 301 {
		t.Errorf("it was not made anew, or has %d keys, want 301", now.keys.Load())
	}
}
