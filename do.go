package semel

import (
	"context"
	"errors"
)

// Answer is what Guard.Do gives back.
type Answer struct {
	Result
	// Replayed tells that this call did not execute: the result is an earlier one.
	Replayed bool
	// Attempt is the number of the attempt that gave the result.
	Attempt int
}

// Do runs fn once for the ask and stores what it returns, or gives back the
// result stored before. It is Begin, fn and the end of the claim in one.
//
// If fn returns an error that is [ErrNotDone], the key is released and the next
// call runs fn again. After any other error, and after a panic, nobody knows
// what happened: the key is in doubt, or free for another run if the class says
// so, and the error (or the panic) goes on to the caller. A refusal is one of
// the sentinel errors of this package.
func (g *Guard) Do(ctx context.Context, ask Ask, fn func(ctx context.Context) (Result, error)) (Answer, error) {
	claim, v, err := g.Begin(ctx, ask)
	if err != nil {
		return Answer{}, err
	}
	if claim == nil {
		answer := Answer{Result: Result{Code: v.Held.Code, Data: v.Held.Result}, Replayed: true, Attempt: v.Held.Attempt}
		return answer, v.Err()
	}
	returned := false
	defer func() {
		if !returned {
			_ = claim.Doubt() // fn panicked, and the panic goes on
		}
	}()
	result, err := fn(claim.Context())
	returned = true
	switch {
	case errors.Is(err, ErrNotDone):
		return Answer{}, errors.Join(err, claim.Release(Result{}))
	case err != nil:
		return Answer{}, errors.Join(err, claim.Doubt())
	}
	if result.Data == nil {
		result.Data = []byte{}
	}
	record, err := claim.Complete(result)
	switch {
	case errors.Is(err, ErrSettled):
		return Answer{Result: Result{Code: record.Code, Data: record.Result}, Replayed: true, Attempt: record.Attempt}, nil
	case err != nil:
		return Answer{}, err
	}
	return Answer{Result: result, Attempt: record.Attempt}, nil
}
