package etcd_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
)

// Field bug 38: the application's clock decides. Processes that are an hour off
// to either side judge a lease as everybody does.
func TestFieldBug38_ApplicationClocksDecideNothing(t *testing.T) {
	e := servers.Etcd(t)
	right := open(t, at(e, "clocks"), etcd.Options{})
	claim := swap(t, right, semel.Version{}, pending("k", 1))
	short := pending("short", 1)
	short.TTL = 0
	swap(t, right, semel.Version{}, short)
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		s := open(t, at(e, "clocks"), etcd.WithLocalClock(etcd.Options{}, func() time.Time { return time.Now().Add(off) }))
		r, err := s.Get(t.Context(), claim.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if gone := r.Now.Sub(claim.WrittenAt); gone < 0 || gone > time.Minute || r.Record.InDoubt(r.Now) {
			t.Errorf("off by %v: the lease of an hour is %v old, in doubt: %t", off, gone, r.Record.InDoubt(r.Now))
		}
		mine := swap(t, s, semel.Version{}, pending("k"+off.String(), 1))
		if ahead := mine.WrittenAt.Sub(claim.WrittenAt); ahead < 0 || ahead > time.Minute {
			t.Errorf("off by %v: written %v after the other", off, ahead)
		}
	}
}

// The servers' time is known to some hundredths of a second, and two processes
// agree about it as well.
func TestClocksAgree(t *testing.T) {
	e := servers.Etcd(t)
	a, b := open(t, at(e, "agree"), etcd.Options{}), open(t, at(e, "agree"), etcd.Options{})
	for range 5 {
		x, err := a.Get(t.Context(), semel.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Get(t.Context(), semel.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		z, err := a.Get(t.Context(), semel.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		slack := 60 * time.Millisecond // both sides' bounds
		if y.Now.Before(x.Now.Add(-slack)) || y.Now.After(z.Now.Add(slack)) {
			t.Errorf("one store reads %v and %v, another %v between", x.Now, z.Now, y.Now)
		}
	}
	// This machine is the server here.
	if off := etcd.ClockError(a); off > 100*time.Millisecond {
		t.Errorf("the time is known to %v only", off)
	}
}

// Another's lease is judged by the earliest time that it may be, one's own to
// the nanosecond.
func TestAnothersLeaseIsNotJudgedEarly(t *testing.T) {
	e := servers.Etcd(t)
	a, b := open(t, at(e, "early"), etcd.Options{}), open(t, at(e, "early"), etcd.Options{})
	claim := swap(t, a, semel.Version{}, pending("k", 1))
	now := func(s *etcd.Store, d semel.Digest) time.Time {
		r, err := s.Get(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		return r.Now
	}
	for now(b, claim.Digest).Equal(claim.WrittenAt) { // until more has passed than both clocks are off
		time.Sleep(time.Millisecond)
	}
	other := now(b, claim.Digest)
	after := now(b, semel.Digest{})
	if earliest := after.Add(-etcd.ClockError(b)); other.After(earliest) {
		t.Errorf("judged at %v, %v after the earliest time that it may be", other, other.Sub(earliest))
	}
	before := now(a, semel.Digest{})
	if own := now(a, claim.Digest); own.Before(before) {
		t.Errorf("judged its own at %v, %v before the time that it read before", own, before.Sub(own))
	}
}

func TestBounds(t *testing.T) {
	base := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	ms := func(n int) time.Time { return base.Add(time.Duration(n) * time.Millisecond) }
	second := func(n int) time.Time { return base.Add(time.Duration(n) * time.Second) }
	// Each answer: asked at, answered at, its Date.
	type sample struct{ from, at, date time.Time }
	for _, c := range []struct {
		name      string
		samples   []sample
		low, high time.Time // at the last answer
		step      bool
	}{
		{"one answer tells a second and the way", []sample{{ms(0), ms(10), second(7)}}, second(7), second(8).Add(10 * time.Millisecond), false},
		{"a change of the second tells more", []sample{{ms(0), ms(2), second(7)}, {ms(10), ms(12), second(8)}}, second(8), second(8).Add(12*time.Millisecond + 5*time.Microsecond), false},
		{"no change tells little", []sample{{ms(0), ms(2), second(7)}, {ms(500), ms(502), second(7)}}, second(7).Add(499750 * time.Microsecond), second(8).Add(2 * time.Millisecond), false},
		{"a clock that was set forward", []sample{{ms(0), ms(2), second(7)}, {ms(10), ms(12), second(70)}}, second(70), second(71).Add(2 * time.Millisecond), true},
		{"a clock that was set back", []sample{{ms(0), ms(2), second(70)}, {ms(10), ms(12), second(7)}}, second(7), second(8).Add(2 * time.Millisecond), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b etcd.Bounds
			step := false
			for _, s := range c.samples {
				b, step = b.Seen(s.from, s.at, s.date)
			}
			if low, high := b.Ends(); !low.Equal(c.low) || !high.Equal(c.high) || step != c.step {
				t.Errorf("got %v to %v, %t; want %v to %v, %t", low, high, step, c.low, c.high, c.step)
			}
		})
	}
}

// One clock of three that is an hour off is left aside, and told of.
func TestOddClockOut(t *testing.T) {
	e := servers.Etcd(t)
	const ok = `{"etcdserver":"3.5.9","etcdcluster":"3.5.0"}`
	odd := pretend(t, ok, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 200)
	s := open(t, at(e, "odd-clock"), etcd.Options{Times: []string{e.URL(), "http://" + odd, e.URL()}})
	claim := swap(t, s, semel.Version{}, pending("k", 1))
	if off := time.Since(claim.WrittenAt).Abs(); off > time.Minute {
		t.Errorf("written %v off", off)
	}
	if d := s.Describe(); len(d.Cautions) < 2 || d.Survives != semel.SurvivesCrash {
		t.Errorf("got %+v, want a caution about the clocks", d)
	}
}
