package linear

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"github.com/semelhq/semel"
)

// input is what a client asked of one key.
type input struct {
	Key   int
	Swap  bool          // compare-and-swap, else read
	Old   semel.Version // of a swap
	Nonce uint64        // of a swap: no two writes of a history have the same
}

// output is what a client knows afterwards.
type output struct {
	// Wrote tells that the swap was written; Held is then what it wrote.
	Wrote bool
	// Unknown tells that the swap was written or not: its answer was lost, and when
	// it was repeated, another's record was held.
	Unknown bool
	// Held is what the store said is held.
	Held held
}

// held is a record, as far as the model cares; the zero value is nothing.
type held struct {
	Nonce   uint64
	Version semel.Version
}

// state is one key of the model.
type state struct {
	held
	// top is the greatest version that is known to have been held.
	top semel.Version
}

// settled is the state after h was seen to be held: its version is then known,
// and must be greater than those before it.
func (s state) settled(h held) (state, bool) {
	switch {
	case h.Nonce != s.Nonce:
		return s, false
	case s.Nonce == 0 || !s.Version.IsZero():
		return s, h.Version == s.Version
	}
	// A write whose answer was lost.
	if h.Version.Compare(s.top) <= 0 {
		return s, false
	}
	return state{h, h.Version}, true
}

// is tells whether old is what is held. Nobody can name the version of a write
// whose answer was lost before somebody was told it, and then it is known here.
func (s state) is(old semel.Version) bool {
	return s.Version == old && (s.Nonce == 0) == old.IsZero()
}

// model is a store's key as porcupine wants it: a register with versions.
func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: byKey,
		Init:      func() []any { return []any{state{}} },
		Step: func(s, in, out any) []any {
			var next []any
			for _, n := range step(s.(state), in.(input), out.(output)) {
				next = append(next, n)
			}
			return next
		},
		DescribeOperation: func(in, out any) string { return describe(in.(input), out.(output)) },
	}
	return m.ToModel()
}

func step(s state, in input, out output) []state {
	switch {
	case !in.Swap:
		return seen(s, out.Held)
	case out.Unknown && s.is(in.Old):
		// Not written; or written, under a version not told.
		return []state{s, {held{Nonce: in.Nonce}, s.top}}
	case out.Unknown:
		return []state{s}
	case out.Wrote:
		// What is held must be what the swap was made over, and the version new.
		if !s.is(in.Old) || out.Held.Version.Compare(s.top) <= 0 || out.Held.Nonce != in.Nonce {
			return nil
		}
		return []state{{out.Held, out.Held.Version}}
	}
	// Refused: something other than Old must be held, and be what the client was told.
	if out.Held.Version == in.Old {
		return nil
	}
	return seen(s, out.Held)
}

func seen(s state, h held) []state {
	if next, ok := s.settled(h); ok {
		return []state{next}
	}
	return nil
}

// byKey takes a history apart: keys are independent of each other.
func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	var parts [][]porcupine.Operation
	index := map[int]int{}
	for _, op := range history {
		key := op.Input.(input).Key
		i, met := index[key]
		if !met {
			i = len(parts)
			index[key] = i
			parts = append(parts, nil)
		}
		parts[i] = append(parts[i], op)
	}
	return parts
}

// describe is an operation as the drawing of a history shows it.
func describe(in input, out output) string {
	switch {
	case !in.Swap:
		return fmt.Sprintf("get: %d at %v", out.Held.Nonce, out.Held.Version)
	case out.Unknown:
		return fmt.Sprintf("swap %v for %d: nobody knows", in.Old, in.Nonce)
	case out.Wrote:
		return fmt.Sprintf("swap %v for %d: written at %v", in.Old, in.Nonce, out.Held.Version)
	}
	return fmt.Sprintf("swap %v for %d: refused, %d at %v is held", in.Old, in.Nonce, out.Held.Nonce, out.Held.Version)
}
