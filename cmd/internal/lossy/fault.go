package lossy

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A Fault is what the network does to one exchange.
type Fault int

const (
	// Pass: nothing happens to it.
	Pass Fault = iota
	// RequestLost: nothing of the request arrives, and the client's connection is
	// reset.
	RequestLost
	// RequestCut: half of the request's first segment arrives, then both
	// connections are reset.
	RequestCut
	// AnswerLost: the request arrives, the other side begins to answer, and both
	// connections are reset before a byte of the answer reaches the client. It was
	// applied, and the client does not know.
	AnswerLost
	// AnswerCut: as AnswerLost, but half of the answer's first segment arrives.
	AnswerCut
	// HangUp: the request arrives and the client's side is gone soon after, while
	// the other side most likely still works on it.
	HangUp
	faultKinds
)

// String names the fault as reports do.
func (f Fault) String() string {
	names := [faultKinds]string{"passed", "request lost", "request cut", "answer lost", "answer cut", "hung up"}
	if f < 0 || f >= faultKinds {
		return fmt.Sprintf("fault %d", int(f))
	}
	return names[f]
}

// Faults are the probabilities, from 0 to 1, that a fault hits an exchange. At
// most one does; together they are at most 1. The zero value is a sound network.
type Faults struct {
	RequestLost, RequestCut, AnswerLost, AnswerCut, HangUp float64
	// Delayed is the probability that an exchange is held up, whatever else happens
	// to it, by up to MaxDelay, half of the time before the request arrives and
	// half of the time before its answer does.
	Delayed  float64
	MaxDelay time.Duration
	// HangUpWithin is the longest time between the request's arrival and the end
	// of the client's side. Default 20 ms.
	HangUpWithin time.Duration
}

func (f Faults) check() error {
	sum := 0.0
	for _, p := range [...]float64{f.RequestLost, f.RequestCut, f.AnswerLost, f.AnswerCut, f.HangUp} {
		if p < 0 || p > 1 {
			return fmt.Errorf("lossy: %v is no probability", p)
		}
		sum += p
	}
	if sum > 1 {
		return fmt.Errorf("lossy: the probabilities add up to %v, more than 1", sum)
	}
	if f.Delayed < 0 || f.Delayed > 1 || f.MaxDelay < 0 || f.HangUpWithin < 0 {
		return fmt.Errorf("lossy: delays of %v with probability %v, hanging up within %v", f.MaxDelay, f.Delayed, f.HangUpWithin)
	}
	return nil
}

// A fate is what was drawn for one exchange.
type fate struct {
	fault  Fault
	before time.Duration // of the request
	after  time.Duration // before the answer
	hangUp time.Duration
}

// draw takes the same number of values from the source whatever comes out, so
// that the next exchange's fate does not depend on this one's.
func (f Faults) draw(source *rand.Rand) fate {
	at, held, side, part, hang := source.Float64(), source.Float64(), source.Float64(), source.Float64(), source.Float64()
	within := f.HangUpWithin
	if within == 0 {
		within = 20 * time.Millisecond
	}
	d := fate{hangUp: time.Duration(hang * float64(within))}
	probabilities := [...]float64{f.RequestLost, f.RequestCut, f.AnswerLost, f.AnswerCut, f.HangUp}
	for i, p := range probabilities {
		if at < p {
			d.fault = RequestLost + Fault(i)
			break
		}
		at -= p
	}
	if held < f.Delayed {
		delay := time.Duration(part * float64(f.MaxDelay))
		if side < 0.5 {
			d.before = delay
		} else {
			d.after = delay
		}
	}
	return d
}
