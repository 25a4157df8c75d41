package semel_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// script drives one attempt by hand, move by move, against a record that the
// test sets as it likes. Both clocks show the same time here.
type script struct {
	*testing.T
	semel.Attempt
	now     time.Time
	move    semel.Move
	held    semel.Record
	counter uint64
	nonces  byte
}

func newScript(t *testing.T, p semel.Policy, id string, now time.Time) *script {
	t.Helper()
	filled, err := p.Filled()
	if err != nil {
		t.Fatal(err)
	}
	s := &script{T: t, now: now}
	ask := semel.Ask{Key: semel.Key{Scope: "s", ID: id}, Policy: &filled}
	s.Attempt = semel.NewAttempt(ask, ask.Key.Digest(nil), "test", s.nonce)
	return s
}

func (s *script) nonce() semel.Nonce {
	s.nonces++
	return semel.Nonce{s.nonces}
}

// begin starts the attempt.
func (s *script) begin() { s.move = s.Begin(s.now, s.now) }

// wants fails unless the machine's move is this verb.
func (s *script) wants(v semel.Verb, what string) {
	s.Helper()
	if s.move.Do != v {
		s.Fatalf("%s: got move %d (verdict %+v, err %v), want %d", what, s.move.Do, s.Verdict(), s.Err(), v)
	}
}

// land carries out a swap on the held record, without an answer.
func (s *script) land(w semel.Swap) (semel.Reading, error) {
	if s.held.Version != w.Old {
		return semel.Reading{Record: s.held, Now: s.now}, semel.ErrConflict
	}
	s.counter++
	s.held = w.Next
	s.held.Version, s.held.WrittenAt = semel.Version{Epoch: 1, Counter: s.counter}, s.now
	return semel.Reading{Record: s.held, Now: s.now}, nil
}

// store carries out the move and answers it.
func (s *script) store() {
	s.Helper()
	if s.move.Do == semel.ReadRecord {
		s.move = s.Reply(s.now, semel.Reading{Record: s.held, Now: s.now}, nil)
		return
	}
	s.wants(semel.SwapRecord, "the store is asked")
	r, err := s.land(s.move.Swap)
	s.move = s.Reply(s.now, r, err)
}

// fails answers the move with an error that says nothing.
func (s *script) fails() { s.move = s.Reply(s.now, semel.Reading{}, errors.New("no answer")) }

// sleeps lets the time pass that the machine sleeps for.
func (s *script) sleeps() {
	s.Helper()
	s.wants(semel.Sleep, "a pause")
	s.now = s.move.Until
	s.move = s.Wake(s.now)
}

func noon() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// A key is accepted until its own time plus Remember, so its record has to be
// there for as long, also if the client's clock ran ahead of the store's.
func TestTimedKeyIsRememberedWhileAccepted(t *testing.T) {
	const ahead = 4 * time.Minute
	id := "019de36d-4d80-7000-8000-000000000000" // filled in below
	born := noon().Add(ahead)
	ms := born.UnixMilli()
	const digits = "0123456789abcdef"
	b := []byte(id)
	for i, at := range []int{0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12} {
		b[at] = digits[ms>>(44-4*i)&15]
	}
	id = string(b)
	if at, ok := semel.KeyTime(id); !ok || !at.Equal(born) {
		t.Fatalf("the test's key says %v, want %v", at, born)
	}
	for _, state := range []semel.State{semel.Done, semel.Released} {
		s := newScript(t, semel.Policy{Remember: time.Hour, Replay: time.Hour}, id, noon())
		s.begin()
		s.store()
		s.wants(semel.Run, "a fresh key")
		s.move = s.Finish(s.now, semel.Ending{State: state})
		s.store()
		accepted := born.Add(time.Hour)
		if !s.held.Expires().After(accepted) {
			t.Errorf("%v: forgotten at %v, while the key is accepted until %v", state, s.held.Expires(), accepted)
		}
	}
}

// FIELD-BUGS 8: the store did it and its answer was lost.
func TestLostAnswerIsRecognised(t *testing.T) {
	s := newScript(t, semel.Policy{}, "k", noon())
	s.begin()
	if _, err := s.land(s.move.Swap); err != nil {
		t.Fatal(err)
	}
	s.fails()
	s.sleeps()
	s.store() // a conflict with our own record
	s.wants(semel.Run, "our own claim after a lost answer")
	s.move = s.Finish(s.now, semel.Ending{State: semel.Done, Result: []byte("x")})
	if _, err := s.land(s.move.Swap); err != nil {
		t.Fatal(err)
	}
	s.fails()
	s.sleeps()
	s.store()
	s.wants(semel.Stop, "our own completion after a lost answer")
	if v := s.Verdict(); v.Action != semel.Replay || string(v.Held.Result) != "x" {
		t.Errorf("got %+v, want our own record", v)
	}
}

// The lease counts from the first time that the claim was sent: an answer that
// comes when it is all but over must not start anything.
func TestLateGrantIsTakenAgain(t *testing.T) {
	s := newScript(t, semel.Policy{Lease: time.Second}, "k", noon())
	s.begin()
	r, err := s.land(s.move.Swap)
	if err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(900 * time.Millisecond)
	s.move = s.Reply(s.now, r, nil)
	s.wants(semel.SwapRecord, "a grant that came too late")
	if s.move.Swap.Old != r.Record.Version {
		t.Errorf("goes over %v, want our own %v", s.move.Swap.Old, r.Record.Version)
	}
	s.store()
	s.wants(semel.Run, "the key was taken again")
}

// A renewal whose answer never came has moved the version: the completion goes
// over it, and over nobody else's.
func TestCompletionFollowsItsOwnRenewal(t *testing.T) {
	for _, landed := range []bool{false, true} {
		s := newScript(t, semel.Policy{Lease: time.Second}, "k", noon())
		s.begin()
		s.store()
		s.now = s.move.Until
		s.move = s.Renew(s.now)
		if landed {
			if _, err := s.land(s.move.Swap); err != nil {
				t.Fatal(err)
			}
		}
		for s.move.Do != semel.Stop {
			s.fails()
			for s.move.Do == semel.Sleep {
				s.sleeps()
			}
		}
		if !s.Lost() {
			t.Fatal("a renewal that was never answered is not lost")
		}
		s.move = s.Finish(s.now, semel.Ending{State: semel.Done, Code: 201})
		for s.move.Do == semel.SwapRecord {
			s.store()
		}
		if s.held.State != semel.Done || s.Verdict().Reason != semel.Finished {
			t.Errorf("landed %t: got %v, %+v; want done", landed, s.held.State, s.Verdict())
		}
	}
}

// FIELD-BUGS 4, 6, 32: whoever lost the key cannot touch its heir's record.
func TestCompletionIsFenced(t *testing.T) {
	s := newScript(t, semel.Policy{Class: semel.AtLeastOnce}, "k", noon())
	s.begin()
	s.store()
	heir := s.held
	heir.Nonce, heir.Attempt = semel.Nonce{0xff}, 2
	if _, err := s.land(semel.Swap{Old: s.held.Version, Next: heir}); err != nil {
		t.Fatal(err)
	}
	s.move = s.Finish(s.now, semel.Ending{State: semel.Done})
	s.store()
	s.wants(semel.Stop, "the heir runs")
	if s.held.State != semel.Pending || s.Verdict().Reason != semel.InDoubt {
		t.Errorf("got %v, %+v; want the heir's record untouched, and in doubt", s.held.State, s.Verdict())
	}
}

// A claim that landed after its request was given up is released again.
func TestClaimGivenUpIsTakenBack(t *testing.T) {
	s := newScript(t, semel.Policy{ClaimWithin: time.Second}, "k", noon())
	s.begin()
	claim := s.move.Swap
	for s.move.Do != semel.Stop {
		s.fails()
		for s.move.Do == semel.Sleep {
			s.sleeps()
		}
	}
	if !errors.Is(s.Err(), semel.ErrUnavailable) {
		t.Fatalf("got %v, want unavailable", s.Err())
	}
	s.move = s.Disown(s.now)
	s.store()
	s.sleeps()
	if _, err := s.land(claim); err != nil { // it was under way all the time
		t.Fatal(err)
	}
	s.store()
	s.store()
	s.wants(semel.Stop, "the claim is taken back")
	if s.held.State != semel.Released {
		t.Errorf("got %v, want released", s.held.State)
	}
}

// A grant that came too late is taken again over itself. If that is never
// answered, the first one is still there and nobody runs it: it must not stay
// until its key is in doubt. The second may land at any time.
func TestLateGrantGivenUpIsTakenBack(t *testing.T) {
	for _, lands := range []string{"never", "before the release", "after the release"} {
		s := newScript(t, semel.Policy{Lease: time.Second, ClaimWithin: 2 * time.Second}, "k", noon())
		s.begin()
		r, err := s.land(s.move.Swap)
		if err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(time.Second)
		s.move = s.Reply(s.now, r, nil)
		second := s.move.Swap
		for s.move.Do != semel.Stop {
			s.fails()
			for s.move.Do == semel.Sleep {
				s.sleeps()
			}
		}
		s.move = s.Disown(s.now)
		s.store() // shows the first claim
		s.wants(semel.SwapRecord, "the first claim is released")
		if lands == "before the release" {
			if _, err := s.land(second); err != nil {
				t.Fatal(err)
			}
		}
		for s.move.Do == semel.SwapRecord {
			s.store()
		}
		if _, err := s.land(second); lands == "after the release" && !errors.Is(err, semel.ErrConflict) {
			t.Error("the second claim landed on a released key")
		}
		if s.move.Do != semel.Stop || s.held.State != semel.Released {
			t.Errorf("second claim lands %s: got %v, want released", lands, s.held.State)
		}
	}
}

// A store that refuses for now ends the attempt at once; what an earlier try
// may have left behind is taken back.
func TestRefusedForNow(t *testing.T) {
	s := newScript(t, semel.Policy{}, "k", noon())
	s.begin()
	s.land(s.move.Swap) // and its answer is lost
	s.fails()
	s.sleeps()
	s.move = s.Reply(s.now, semel.Reading{}, fmt.Errorf("in quarantine: %w", semel.ErrUnavailable))
	s.wants(semel.Stop, "refused for now")
	if !errors.Is(s.Err(), semel.ErrUnavailable) {
		t.Errorf("got %v, want what the store said", s.Err())
	}
	s.move = s.Disown(s.now)
	s.wants(semel.ReadRecord, "a claim that may have landed is looked for")
	s.store()
	s.store()
	s.wants(semel.Stop, "taken back")
	if s.held.State != semel.Released {
		t.Errorf("the claim that landed is left %v", s.held.State)
	}
}
