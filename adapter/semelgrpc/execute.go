package semelgrpc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// marked is a handler's error with what the handler says of its effect.
type marked struct {
	err     error
	notDone bool
}

// NotDone is for handlers: it gives err with the promise that nothing happened,
// whatever its code. It is passed on and not stored, and the key is free.
func NotDone(err error) error { return &marked{err, true} }

// Unknown is for handlers: it gives err with the word that nobody knows what
// happened. The client is told so, and the key is in doubt, or free for another
// run if the class says so.
func Unknown(err error) error { return &marked{err, false} }

// Error is that of the error that was marked.
func (m *marked) Error() string { return m.err.Error() }

// Unwrap gives the error that was marked.
func (m *marked) Unwrap() error { return m.err }

// GRPCStatus gives the status of the error that was marked.
func (m *marked) GRPCStatus() *status.Status { return toStatus(m.err) }

// toStatus gives the status of a handler's error, as gRPC itself would.
func toStatus(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return status.FromContextError(err)
}

// ending is what a run came to: what the interceptor returns, or that it is to run
// again in another transaction, which has begun.
type ending struct {
	resp  any
	err   error
	again bool
}

// run runs the handler once, and ends the claim unless it is to run again.
func (c *call) run(claim *semel.Claim) (e ending) {
	ended := false
	defer func() {
		if !ended { // the handler ended its goroutine
			_ = claim.Doubt()
			if c.s.o.Suspect != nil {
				c.s.o.Suspect(claim.Digest())
			}
		}
	}()
	rec := &recorder{method: c.name}
	resp, value, stack, err := invoke(grpc.NewContextWithServerTransportStream(claim.Context(), rec), c.handler, c.req)
	s := &stored{}
	s.header, s.trailer = rec.close()
	failed := stack != nil
	if !failed && err == nil {
		if s.body, value = encodeResponse(resp); value != nil {
			failed = true
		}
	}
	switch {
	case failed:
		c.s.o.Panicked(c.ctx, c.name, value, stack)
		st := refusal{reason: HandlerFailed}.status()
		*s = stored{code: st.Code(), body: encodeStatus(st)}
		if claim.Transactional() {
			e = c.undo(claim, s, nil)
		} else { // whatever the method says of INTERNAL: the effect may have happened
			e = c.complete(claim, s)
		}
	case err != nil:
		e = c.failed(claim, s, err)
	default:
		e = c.complete(claim, s)
	}
	ended = true
	return e
}

// invoke runs the handler. stack is nil if it returned.
func invoke(ctx context.Context, handler grpc.UnaryHandler, req any) (resp, value any, stack []byte, err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if value = recover(); value != nil {
			stack = debug.Stack()
		}
	}()
	resp, err = handler(ctx, req)
	returned = true
	return resp, nil, nil, err
}

// encodeResponse gives the bytes of a response. The second value is nil, or what is
// wrong with it.
func encodeResponse(resp any) ([]byte, any) {
	m, ok := resp.(proto.Message)
	if !ok {
		return nil, fmt.Sprintf("the handler returned %T, which is no protocol buffer, and no error", resp)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err.Error()
	}
	return b, nil
}

func encodeStatus(st *status.Status) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(st.Proto())
	if err != nil { // a message that is no UTF-8
		b, _ = proto.Marshal(status.New(st.Code(), fmt.Sprintf("%q", st.Message())).Proto())
	}
	return b
}

// failed does what the error of a handler that returned means.
func (c *call) failed(claim *semel.Claim, s *stored, err error) ending {
	st := toStatus(err)
	mark, isMarked := errors.AsType[*marked](err)
	unknown := errors.Is(err, semel.ErrInDoubt) || slices.Contains(c.m.Unknown, st.Code())
	if j, ours := judgeReason(reasonOf(st)); ours && (j.outcome == semelhttp.OutcomeUnknown || j.outcome == semelhttp.OutcomePending) {
		unknown = true // of a call that the handler made: so is what became of its own
	}
	st = foreign(st)
	s.code, s.body = st.Code(), encodeStatus(st)
	switch {
	case claim.Transactional():
		return c.undo(claim, s, err)
	case isMarked && mark.notDone, !isMarked && slices.Contains(c.m.NotDone, s.code):
		return c.release(claim, s)
	case isMarked, unknown:
		_ = claim.Doubt() // whatever came of it, the answer is the same
		return c.unknown(claim)
	}
	return c.complete(claim, s)
}

// undo ends a run in a transaction that failed, with err or by a panic. The database
// may have undone it for another's sake; then it runs again.
func (c *call) undo(claim *semel.Claim, s *stored, err error) ending {
	if record, err := claim.Retry(err); err != nil {
		return c.concluded(claim, s, record, err)
	}
	return c.release(claim, s)
}

// release frees the key: nothing happened, or the claim's transaction undoes it.
// The answer goes to those who wait, and is not stored.
func (c *call) release(claim *semel.Claim, s *stored) ending {
	if err := claim.Release(semel.Result{Code: int(s.code), Data: c.encoded(s)}); err != nil {
		return c.unknown(claim)
	}
	resp, err := s.answer()
	c.send(s, outcomeNotDone)
	return ending{resp: resp, err: err}
}

// complete stores the answer as the operation's outcome, then lets it go.
func (c *call) complete(claim *semel.Claim, s *stored) ending {
	record, err := claim.Complete(semel.Result{Code: int(s.code), Data: c.encoded(s)})
	return c.concluded(claim, s, record, err)
}

// concluded answers what the end of the claim came to.
func (c *call) concluded(claim *semel.Claim, s *stored, record semel.Record, err error) ending {
	switch {
	case err == nil:
		resp, err := s.answer()
		c.send(s, outcomeDone)
		return ending{resp: resp, err: err}
	case errors.Is(err, semel.ErrSettled):
		resp, err := c.answer(claim.Digest(), semel.Decide(semel.Reading{Record: record, Now: record.WrittenAt}, semel.Ask{Fingerprint: record.Fingerprint}))
		return ending{resp: resp, err: err}
	case errors.Is(err, semel.ErrNotDone):
		resp, err := c.refuse(refusal{reason: NotCommitted})
		return ending{resp: resp, err: err}
	case errors.Is(err, semel.ErrUndone):
		return ending{again: true}
	}
	return c.unknown(claim)
}

// unknown tells the client that nobody knows.
func (c *call) unknown(claim *semel.Claim) ending {
	resp, err := c.doubtful(claim.Digest())
	return ending{resp: resp, err: err}
}

// doubtful refuses with an unknown outcome, and tells who wants to find out.
func (c *call) doubtful(digest semel.Digest) (any, error) {
	if c.s.o.Suspect != nil {
		c.s.o.Suspect(digest)
	}
	return c.refuse(refusal{reason: OutcomeUnknown})
}

// encoded gives the answer to store.
func (c *call) encoded(s *stored) []byte {
	keep := *s
	keep.header, keep.trailer = kept(s.header, c.s.o.KeepMetadata), kept(s.trailer, c.s.o.KeepMetadata)
	return keep.encode()
}

var _ grpc.ServerTransportStream = (*recorder)(nil)
