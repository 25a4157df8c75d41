package mysql_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// TestOrderWithinAKey: although another key stops the first packet, the swaps of
// a key are answered as if each came after the one before it.
func TestOrderWithinAKey(t *testing.T) {
	s, _ := opened(t, mysql.Options{})
	k, other := swap(t, s, claim("k")), swap(t, s, claim("other"))
	current := swap(t, s, completion(other, "receipt"))
	out := s.SwapMany(t.Context(), []semel.Swap{
		{Old: other.Version, Next: completion(other, "stale")},
		{Old: k.Version, Next: completion(k, "receipt")},
		{Next: claim("k")},
		{Old: k.Version, Next: completion(k, "stale")},
	})
	if !errors.Is(out[0].Err, semel.ErrConflict) || out[0].Reading.Record.Version != current.Version {
		t.Errorf("the stale one: got %v, %v; want a conflict with %v", out[0].Reading.Record.Version, out[0].Err, current.Version)
	}
	if out[1].Err != nil {
		t.Fatalf("the one over what is held: %v", out[1].Err)
	}
	done := out[1].Reading.Record
	for i := 2; i < 4; i++ {
		if !errors.Is(out[i].Err, semel.ErrConflict) || out[i].Reading.Record.Version != done.Version {
			t.Errorf("swap %d: got %v, %v; want a conflict with %v", i, out[i].Reading.Record.Version, out[i].Err, done.Version)
		}
	}
}

// TestStaleAmongCompletions: one stale completion among others is refused, and
// only it, wherever its digest lies.
func TestStaleAmongCompletions(t *testing.T) {
	s, _ := opened(t, mysql.Options{})
	const n = 5
	for stale := range n {
		var swaps []semel.Swap
		for i := range n {
			held := swap(t, s, claim(fmt.Sprint(stale, "-", i)))
			swaps = append(swaps, semel.Swap{Old: held.Version, Next: completion(held, "receipt")})
			if i == stale {
				swap(t, s, completion(held, "settled by another"))
			}
		}
		for i, o := range s.SwapMany(t.Context(), swaps) {
			if refused := errors.Is(o.Err, semel.ErrConflict); refused != (i == stale) || !refused && o.Err != nil {
				t.Errorf("completion %d, with %d stale: %v", i, stale, o.Err)
			}
			r, err := s.Get(t.Context(), swaps[i].Next.Digest)
			if err != nil || (string(r.Record.Result) == "receipt") == (i == stale) {
				t.Errorf("completion %d, with %d stale: %q is held, %v", i, stale, r.Record.Result, err)
			}
		}
	}
}

// TestDamage: a row that contradicts itself is in doubt: not absent, not
// replayed, not swept; whoever holds its version may write over it.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]string{
		"meta":    "UPDATE semel_record SET meta=CONCAT(LEFT(meta,40),x'FF',SUBSTRING(meta,42))",
		"no meta": "UPDATE semel_record SET meta=''",
		"result":  "UPDATE semel_record SET result='another'",
		"state":   "UPDATE semel_record SET state=3",
	} {
		t.Run(name, func(t *testing.T) {
			s, url := opened(t, mysql.Options{})
			done := completion(claim("k"), "receipt")
			done.TTL = 0
			done = swap(t, s, done)
			execute(t, sqlDB(t, url), damage)
			if r, err := s.Get(t.Context(), done.Digest); !errors.Is(err, semel.ErrDamaged) || r.Record.Held() {
				t.Errorf("Get: %v, %v", r.Record.Version, err)
			}
			if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, claim("k")); !errors.Is(err, semel.ErrDamaged) {
				t.Errorf("a claim: %v", err)
			}
			if records, err := s.List(t.Context(), semel.Filter{}); !errors.Is(err, semel.ErrDamaged) || len(records) != 0 {
				t.Errorf("a list: %d records, %v", len(records), err)
			}
			if n, err := s.Sweep(t.Context(), 10); name != "result" && n != 0 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
			if name != "result" {
				swap(t, s, completion(done, "again"))
			}
		})
	}
}
