package semel_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// TestDecide is the specification's table: every state of what is held against
// every kind of asker.
func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	v7 := semel.Version{Epoch: 1, Counter: 7}
	held := func(state semel.State, class semel.Class, age, ttl, replay time.Duration) semel.Reading {
		return semel.Reading{Now: now, Record: semel.Record{
			Version: v7, State: state, Class: class, Attempt: 3, Code: 201, Result: []byte("r"),
			WrittenAt: now.Add(-age), TTL: ttl, Replay: replay,
		}}
	}
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		held   semel.Reading
		action semel.Action
		reason semel.Reason
		over   semel.Version
	}{
		"nothing held":                    {semel.Reading{Now: now}, semel.Execute, semel.Fresh, semel.Version{}},
		"released":                        {held(semel.Released, 0, 0, day, 0), semel.Execute, semel.Again, v7},
		"released long ago":               {held(semel.Released, 0, 9*day, day, 0), semel.Execute, semel.Again, v7},
		"done":                            {held(semel.Done, 0, 0, 3*day, day), semel.Replay, semel.Finished, semel.Version{}},
		"done, last moment of replay":     {held(semel.Done, 0, day-1, 3*day, day), semel.Replay, semel.Finished, semel.Version{}},
		"done, replay over":               {held(semel.Done, 0, day, 3*day, day), semel.Refuse, semel.Gone, semel.Version{}},
		"done, result never kept":         {held(semel.Done, 0, 0, 3*day, 0), semel.Refuse, semel.Gone, semel.Version{}},
		"done, retention over, not swept": {held(semel.Done, semel.AtLeastOnce, 9*day, 3*day, day), semel.Refuse, semel.Gone, semel.Version{}},
		"pending":                         {held(semel.Pending, 0, time.Second, time.Minute, 0), semel.Wait, semel.InProgress, semel.Version{}},
		"pending, last moment":            {held(semel.Pending, semel.AtLeastOnce, time.Minute-1, time.Minute, 0), semel.Wait, semel.InProgress, semel.Version{}},
		"lease over, at most once":        {held(semel.Pending, semel.AtMostOnce, time.Minute, time.Minute, 0), semel.Refuse, semel.InDoubt, semel.Version{}},
		"lease over, at least once":       {held(semel.Pending, semel.AtLeastOnce, time.Minute, time.Minute, 0), semel.Execute, semel.TakenOver, v7},
		"lease over, fenced":              {held(semel.Pending, semel.Fenced, time.Minute, time.Minute, 0), semel.Execute, semel.TakenOver, v7},
		"lease over, transactional":       {held(semel.Pending, semel.Transactional, time.Minute, time.Minute, 0), semel.Execute, semel.TakenOver, v7},
		"no lease at all":                 {held(semel.Pending, semel.AtMostOnce, 0, 0, 0), semel.Refuse, semel.InDoubt, semel.Version{}},
		"written in the future":           {held(semel.Pending, semel.AtLeastOnce, -time.Hour, time.Minute, 0), semel.Wait, semel.InProgress, semel.Version{}},
		"unknown state":                   {held(9, semel.AtLeastOnce, 0, day, day), semel.Refuse, semel.Damaged, semel.Version{}},
	} {
		t.Run(name, func(t *testing.T) {
			v := semel.Decide(c.held, semel.Ask{})
			if v.Action != c.action || v.Reason != c.reason || v.Over != c.over {
				t.Errorf("got %v %v over %v, want %v %v over %v", v.Action, v.Reason, v.Over, c.action, c.reason, c.over)
			}
			if c.action == semel.Execute && v.Attempt != c.held.Record.Attempt+1 {
				t.Errorf("attempt %d after %d", v.Attempt, c.held.Record.Attempt)
			}
			if (v.Err() == nil) != (c.action == semel.Execute || c.action == semel.Replay) {
				t.Errorf("%v has the error %v", v.Action, v.Err())
			}
			// Whatever is held, another payload learns nothing and runs nothing (S8).
			other := semel.Decide(c.held, semel.Ask{Fingerprint: semel.Fingerprint{1}})
			if c.held.Record.Held() && (other.Action != semel.Refuse || other.Reason != semel.Mismatch || other.Held.Held()) {
				t.Errorf("another payload: got %+v", other)
			}
		})
	}
}

func TestAdmit(t *testing.T) {
	p, err := semel.Policy{Remember: 72 * time.Hour}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	id := "019b76da-a800-7000-8000-000000000000"
	at, ok := semel.KeyTime(id)
	if !ok {
		t.Fatal("not a UUIDv7:", id)
	}
	for offset, want := range map[time.Duration]semel.Reason{
		0: 0, 72 * time.Hour: 0, 72*time.Hour + time.Millisecond: semel.Expired,
		-5 * time.Minute: 0, -5*time.Minute - time.Millisecond: semel.Early,
	} {
		v, ok := semel.Admit(id, at.Add(offset), &p)
		if ok != (want == 0) || v.Reason != want || v.Action != semel.Refuse {
			t.Errorf("%v after the key's time: got %v %v, want %v", offset, ok, v.Reason, want)
		}
	}
	for _, id := range []string{"", "order-42", "019b76da-a800-4000-8000-000000000000", "019b76da-a800-7000-c000-000000000000", "019b76da-a800-7000-8000-00000000000g", "019B76DAxA800-7000-8000-000000000000"} {
		if _, ok := semel.KeyTime(id); ok {
			t.Errorf("%q carries a time", id)
		}
		if _, ok := semel.Admit(id, at.Add(999*time.Hour), &p); !ok {
			t.Errorf("%q is refused for its time", id)
		}
	}
	if upper, ok := semel.KeyTime("019B76DA-A800-7000-8000-000000000000"); !ok || !upper.Equal(at) {
		t.Errorf("upper case: got %v, %v", upper, ok)
	}
}

func TestPolicyFilled(t *testing.T) {
	p, err := semel.Policy{}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.Filled(); err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("filling twice: got %+v, %v", again, err)
	}
	for name, bad := range map[string]semel.Policy{
		"lease":    {Lease: time.Millisecond},
		"remember": {Replay: time.Hour, Remember: time.Minute},
		"forgets":  {Lease: 2 * time.Hour, Replay: time.Minute, Remember: time.Hour},
		"class":    {Class: 77},
		"replay":   {Replay: -1},
		"result":   {MaxResult: -1},
	} {
		if _, err := bad.Filled(); err == nil {
			t.Errorf("%s: %+v was accepted", name, bad)
		}
	}
	if p, err := (semel.Policy{Replay: 30 * 24 * time.Hour}).Filled(); err != nil || p.Remember < p.Replay {
		t.Errorf("a long replay: got remember %v, %v", p.Remember, err)
	}
}
