package etcd_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
)

// spent writes finished records whose results cannot be replayed any more.
func spent(t *testing.T, s *etcd.Store, n int) []semel.Record {
	t.Helper()
	swaps := make([]semel.Swap, n)
	for i := range swaps {
		swaps[i].Next = done(pending(fmt.Sprint("k", i), byte(i)), byte(i), "receipt")
		swaps[i].Next.Replay, swaps[i].Next.TTL = 1, time.Hour
	}
	out := make([]semel.Record, n)
	for i, r := range s.SwapMany(t.Context(), swaps) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		out[i] = r.Reading.Record
	}
	return out
}

func pause(t *testing.T, s *etcd.Store, since time.Time) {
	t.Helper()
	for {
		if r, err := s.Get(t.Context(), semel.Digest{9}); err != nil || r.Now.After(since.Add(time.Millisecond)) {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// X7: two sweepers at once deal with each record once, also on servers that take
// few operations in a transaction.
func TestTwoSweepers(t *testing.T) {
	e := own(t, map[string]string{"max-txn-ops": "20"})
	a := open(t, at(e, "two"), etcd.Options{})
	b := open(t, at(e, "two"), etcd.Options{ClockOf: a})
	all := spent(t, a, 300)
	pause(t, a, all[299].WrittenAt)
	var swept [2]int
	var wg sync.WaitGroup
	for i, s := range []*etcd.Store{a, b} {
		wg.Go(func() {
			for {
				n, err := s.Sweep(t.Context(), 50)
				if err != nil {
					t.Error(err)
				}
				if swept[i] += n; n < 50 {
					return
				}
			}
		})
	}
	wg.Wait()
	last, err := a.Sweep(t.Context(), 1000)
	if total := swept[0] + swept[1] + last; err != nil || total != 300 {
		t.Errorf("%d and %d and %d records of 300 were dealt with; %v", swept[0], swept[1], last, err)
	}
	for _, r := range all {
		got, err := b.Get(t.Context(), r.Digest)
		if g := got.Record; err != nil || g.Version != r.Version || g.Result != nil || g.Replay != 0 || g.TTL != r.TTL || g.Code != r.Code {
			t.Fatalf("held: %+v, %v; want the tombstone of %+v", got.Record, err, r)
		}
	}
	index, err := plain(t, e, "", "").Get(t.Context(), "/two/x/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || index.Count != 300 {
		t.Errorf("the index has %d entries, want one for each tombstone; %v", index.Count, err)
	}
}

// What was written over meanwhile keeps its result, and what does not decode stays
// as it is.
func TestSweepOfWhatWasNotMeant(t *testing.T) {
	e := servers.Etcd(t)
	s := open(t, at(e, "meant"), etcd.Options{})
	all := spent(t, s, 3)
	pause(t, s, all[2].WrittenAt)
	next := done(all[0], 77, "another")
	next.Replay, next.TTL = time.Hour, 2*time.Hour
	over := swap(t, s, all[0].Version, next)
	c := plain(t, e, "", "")
	key := "/meant/r/" + string(all[1].Digest[:])
	held, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	damaged := string(held.Kvs[0].Value[:len(held.Kvs[0].Value)-1]) + "X"
	if _, err := c.Put(t.Context(), key, damaged); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(t.Context(), 100); err != nil || n != 1 {
		t.Errorf("dealt with %d records, want the one that is as it was; %v", n, err)
	}
	if got, err := s.Get(t.Context(), over.Digest); err != nil || string(got.Record.Result) != "another" {
		t.Errorf("what was written meanwhile: %+v, %v", got.Record, err)
	}
	if held, err = c.Get(t.Context(), key); err != nil || len(held.Kvs) != 1 || string(held.Kvs[0].Value) != damaged {
		t.Errorf("what does not decode was changed; %v", err)
	}
}

// What is written while the sweeper works is never lost to a tombstone of the
// version before.
func TestSweepIsFenced(t *testing.T) {
	s := open(t, at(servers.Etcd(t), "fenced"), etcd.Options{})
	for range 3 {
		all := spent(t, s, 240)
		pause(t, s, all[239].WrittenAt)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Sweep(t.Context(), 1000); err != nil {
				t.Error(err)
			}
		})
		for part := range 4 {
			wg.Go(func() {
				for i := part; i < len(all); i += 4 {
					next := done(all[i], 99, "another")
					next.Replay, next.TTL = time.Hour, 2*time.Hour
					all[i] = swap(t, s, all[i].Version, next)
				}
			})
		}
		wg.Wait()
		for i := range all {
			got, err := s.Get(t.Context(), all[i].Digest)
			if err != nil || got.Record.Version != all[i].Version || string(got.Record.Result) != "another" {
				t.Fatalf("held: %+v, %v; want %+v", got.Record, err, all[i])
			}
			next := all[i]
			next.State, next.TTL, next.Replay = semel.Released, 0, 0
			all[i] = swap(t, s, all[i].Version, next)
		}
		pause(t, s, all[239].WrittenAt)
		if _, err := s.Sweep(t.Context(), 1000); err != nil {
			t.Fatal(err)
		}
	}
}

// A large day goes in pieces, and no other with it.
func TestLargeDayIsDropped(t *testing.T) {
	e := servers.Etcd(t)
	s := open(t, at(e, "large"), etcd.Options{})
	c := plain(t, e, "", "")
	today := swap(t, s, semel.Version{}, pending("k", 1))
	entry := today.Entry()
	line := string(entry.AppendTo(nil))
	day := today.WrittenAt.UTC().Truncate(24 * time.Hour)
	put := func(ago int, digest semel.Digest) clientv3.Op {
		d := uint32(day.AddDate(0, 0, -ago).Unix() / 86400)
		return clientv3.OpPut("/large/j/"+string([]byte{byte(d >> 24), byte(d >> 16), byte(d >> 8), byte(d)})+string(digest[:])+etcd.VersionBytes(today.Version), line)
	}
	var ops []clientv3.Op
	for i := range 1300 {
		ops = append(ops, put(3, semel.Digest{byte(i * 7), byte(i), byte(i >> 8)}))
	}
	ops = append(ops, put(4, semel.Digest{0xFF, 0xFF}), put(2, semel.Digest{}))
	for len(ops) > 0 {
		n := min(100, len(ops))
		if _, err := c.Txn(t.Context()).Then(ops[:n]...).Commit(); err != nil {
			t.Fatal(err)
		}
		ops = ops[n:]
	}
	count := func(ago int) int64 {
		d := uint32(day.AddDate(0, 0, -ago).Unix() / 86400)
		out, err := c.Get(t.Context(), "/large/j/"+string([]byte{byte(d >> 24), byte(d >> 16), byte(d >> 8), byte(d)}), clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return out.Count
	}
	if n := count(3); n != 1300 {
		t.Fatalf("the day has %d lines", n)
	}
	if err := s.DropDay(t.Context(), day.AddDate(0, 0, -3)); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(count(4), count(3), count(2), count(0)); got != "1 0 1 1" {
		t.Errorf("the days have %s lines, want 1 0 1 1", got)
	}
	_, err := s.Days(t.Context())
	for _, err = range s.Lines(t.Context(), day.AddDate(0, 0, -2)) {
	}
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a line under another's digest: %v", err)
	}
}

// Of many records each measure looks at some; the oldest pending one is told once
// a round has met it, and no more once it is over.
func TestMeasureInRounds(t *testing.T) {
	s := open(t, at(servers.Etcd(t), "rounds"), etcd.Options{})
	etcd.MeasureMost(s, 10)
	oldest := swap(t, s, semel.Version{}, pending("oldest", 1))
	pause(t, s, oldest.WrittenAt)
	younger := swap(t, s, semel.Version{}, pending("younger", 1))
	spent(t, s, 95)
	tell := func() time.Time {
		var m semel.Measure
		for range 12 {
			var err error
			if m, err = s.Measure(t.Context()); err != nil || m.Records != 97 {
				t.Fatalf("%+v, %v", m, err)
			}
		}
		return m.OldestPending
	}
	if got := tell(); !got.Equal(oldest.WrittenAt) {
		t.Errorf("the oldest pending record is of %v, want %v", got, oldest.WrittenAt)
	}
	swap(t, s, oldest.Version, done(oldest, 2, "receipt"))
	m, err := s.Measure(t.Context())
	if err != nil || m.OldestPending.Equal(oldest.WrittenAt) {
		t.Errorf("it is over, and still told: %+v, %v", m, err)
	}
	if got := tell(); !got.Equal(younger.WrittenAt) {
		t.Errorf("the oldest pending record is of %v, want %v", got, younger.WrittenAt)
	}
}
