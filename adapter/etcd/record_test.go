package etcd_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
)

// Any flipped bit of a record is damage: neither absent, nor another record, nor
// free to claim (INVARIANTS S15).
func TestFlippedBitsAreDamage(t *testing.T) {
	e := servers.Etcd(t)
	c := plain(t, e, "", "")
	s := open(t, at(e, "damage"), etcd.Options{})
	r := swap(t, s, semel.Version{}, done(pending("k", 1), 1, "receipt"))
	key := "/damage/r/" + string(r.Digest[:])
	whole, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	value := string(whole.Kvs[0].Value)
	values := []string{"", "x", value[:len(value)-1], value + "x", value[:40]}
	for i := range value {
		b := []byte(value)
		b[i] ^= 1 << (i % 8)
		values = append(values, string(b))
	}
	for i, v := range values {
		if _, err := c.Put(t.Context(), key, v); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Get(t.Context(), r.Digest); !errors.Is(err, semel.ErrDamaged) {
			t.Errorf("value %d: Get gave %+v, %v", i, r.Record, err)
		}
		if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending("k", 2)); !errors.Is(err, semel.ErrDamaged) {
			t.Errorf("value %d: a claim over damage: %v", i, err)
		}
	}
	if got, err := s.List(t.Context(), semel.Filter{}); !errors.Is(err, semel.ErrDamaged) || len(got) != 0 {
		t.Errorf("the list: %d records, %v", len(got), err)
	}
	if _, err := c.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
	if got, err := s.List(t.Context(), semel.Filter{}); err != nil || len(got) != 1 {
		t.Errorf("the list: %d records, %v", len(got), err)
	}
}

// A waiter is told of a change within a moment, and the stream ends with the
// last waiter.
func TestWatch(t *testing.T) {
	e := servers.Etcd(t)
	s, other := open(t, at(e, "watch"), etcd.Options{}), open(t, at(e, "watch"), etcd.Options{})
	claim := swap(t, s, semel.Version{}, pending("k", 1))
	changed, stop := s.Watch(claim.Digest)
	second, stopSecond := s.Watch(claim.Digest)
	swap(t, other, claim.Version, done(claim, 1, "receipt"))
	for i, c := range []<-chan struct{}{changed, second} {
		select {
		case <-c:
		case <-time.After(10 * time.Second):
			t.Errorf("waiter %d was not told", i)
		}
	}
	stop()
	stop()
	if n := etcd.Watching(s); n != 1 {
		t.Errorf("%d keys are watched, want 1", n)
	}
	stopSecond()
	if n := etcd.Watching(s); n != 0 {
		t.Errorf("%d keys are watched after the last waiter has left", n)
	}
	_, stop = s.Watch(claim.Digest)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := s.Get(t.Context(), claim.Digest); err == nil {
		t.Error("a closed store reads")
	}
	_, stop = s.Watch(claim.Digest)
	stop()
}

// The journal has its days, and one that is dropped takes no other along.
func TestDays(t *testing.T) {
	e := servers.Etcd(t)
	c := plain(t, e, "", "")
	s := open(t, at(e, "journal"), etcd.Options{})
	r := swap(t, s, semel.Version{}, pending("k", 1))
	today := uint32(r.WrittenAt.Unix() / 86400)
	entry := r.Entry()
	line := string(entry.AppendTo(nil))
	version := etcd.VersionBytes(r.Version)
	for _, ago := range []uint32{4, 1} {
		d := today - ago
		key := "/journal/j/" + string([]byte{byte(d >> 24), byte(d >> 16), byte(d >> 8), byte(d)}) + string(r.Digest[:]) + version
		if _, err := c.Put(t.Context(), key, line); err != nil {
			t.Fatal(err)
		}
	}
	day := func(d uint32) time.Time { return time.Unix(int64(d)*86400, 0) }
	for i, want := range [][]uint32{{today - 4, today - 1, today}, {today - 1, today}, {today}} {
		days, err := s.Days(t.Context())
		if err != nil || len(days) != len(want) {
			t.Fatalf("%d dropped: days %v, %v; want %d", i, days, err, len(want))
		}
		for k, d := range days {
			lines := 0
			for e, err := range s.Lines(t.Context(), d) {
				if lines++; err != nil || e.Record.Version != r.Version {
					t.Errorf("a line of %v: %+v, %v", d, e, err)
				}
			}
			if !d.Equal(day(want[k])) || lines != 1 {
				t.Errorf("%d dropped: the day %v has %d lines, want one on %v", i, d, lines, day(want[k]))
			}
		}
		h, err := s.History(t.Context(), r.Digest)
		if err != nil || len(h) != len(want) {
			t.Errorf("%d dropped: %d lines, want %d; %v", i, len(h), len(want), err)
		}
		if err := s.DropDay(t.Context(), days[0]); (err == nil) != (i < 2) {
			t.Fatalf("drop of %v: %v", days[0], err)
		}
	}
}

func TestDescribe(t *testing.T) {
	e := servers.Etcd(t)
	d := open(t, at(e, "describe"), etcd.Options{}).Describe()
	if d.Survives != semel.SurvivesCrash || d.Durability == "" || d.Clock == "" {
		t.Errorf("got %+v", d)
	}
	if !strings.Contains(strings.Join(d.Cautions, "\n"), "3.4") {
		t.Errorf("no caution about this old release: %q", d.Cautions)
	}
}
