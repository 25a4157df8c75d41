package mysql_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// TestRoundTrips counts commands on the wire: the README's figures.
func TestRoundTrips(t *testing.T) {
	direct := database(t, name())
	p, url := between(t, direct)
	s := connect(t, url, mysql.Options{})
	defer s.Close()
	var held, done semel.Record
	trips := func(what string, want int, do func()) {
		t.Helper()
		p.reset()
		do()
		got, _ := p.counts()
		t.Logf("%-46s %d round trips", what, got)
		if got != want {
			t.Errorf("%s: %d round trips, want %d", what, got, want)
		}
	}
	refused := func(old semel.Version, next semel.Record) func() {
		return func() {
			if _, err := s.CompareAndSwap(t.Context(), old, next); !errors.Is(err, semel.ErrConflict) {
				t.Fatalf("got error %v, want a conflict", err)
			}
		}
	}
	many := func(n int) []semel.Swap {
		swaps := make([]semel.Swap, n)
		for i := range swaps {
			swaps[i].Next = claim(fmt.Sprint("batch ", i))
		}
		return swaps
	}
	trips("a claim", 1, func() { held = swap(t, s, claim("k")) })
	trips("a duplicate of it", 1, refused(semel.Version{}, claim("k")))
	trips("a completion", 1, func() { done = swap(t, s, completion(held, "receipt")) })
	trips("a duplicate of that, replayed", 1, refused(semel.Version{}, claim("k")))
	trips("a reading", 1, func() { _, _ = s.Get(t.Context(), done.Digest) })
	trips("a completion that comes too late", 2, refused(held.Version, completion(held, "late")))
	elsewhere(t, direct, "theirs", "theirs, read")
	swap(t, s, claim("the epoch is known"))
	trips("a duplicate that another process has completed", 2, refused(semel.Version{}, claim("theirs")))
	trips("another of it", 1, refused(semel.Version{}, claim("theirs")))
	trips("a reading of such", 2, func() { _, _ = s.Get(t.Context(), claim("theirs, read").Digest) })
	trips("another of it", 1, func() { _, _ = s.Get(t.Context(), claim("theirs, read").Digest) })
	var out []semel.Swapped
	trips("100 claims in one batch", 1, func() { out = s.SwapMany(t.Context(), many(100)) })
	for i, o := range out {
		if o.Err != nil {
			t.Fatalf("swap %d: %v", i, o.Err)
		}
	}
	trips("100 duplicates in one batch", 1, func() { s.SwapMany(t.Context(), many(100)) })
	trips("101 claims, of which 100 are duplicates", 2, func() { s.SwapMany(t.Context(), many(101)) })
}

// TestDuplicateTakesNoLock: a duplicate is answered while another transaction
// has the row locked, and writes nothing.
func TestDuplicateTakesNoLock(t *testing.T) {
	s, url := opened(t, mysql.Options{})
	db := sqlDB(t, url)
	held := swap(t, s, claim("k"))
	lock, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	execute(t, lock, "UPDATE semel_record SET due=1 WHERE digest=?", held.Digest[:])
	before := number(t, db, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='INNODB_ROW_LOCK_WAITS'")
	for range 10 {
		r, err := s.CompareAndSwap(t.Context(), semel.Version{}, claim("k"))
		if !errors.Is(err, semel.ErrConflict) || r.Record.Version != held.Version {
			t.Fatalf("got %v, %v; want a conflict with %v", r.Record.Version, err, held.Version)
		}
	}
	if after := number(t, db, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='INNODB_ROW_LOCK_WAITS'"); after != before {
		t.Errorf("duplicates waited for %d locks", after-before)
	}
	if n := number(t, db, "SELECT COUNT(*) FROM semel_journal"); n != 1 {
		t.Errorf("the journal has %d lines after one write", n)
	}
	if n := number(t, db, "SELECT COUNT(*) FROM information_schema.innodb_trx x JOIN information_schema.processlist p"+
		" ON p.id=x.trx_mysql_thread_id WHERE p.db=DATABASE()"); n != 1 {
		t.Errorf("%d transactions are open, want the one that has the lock", n)
	}
}
