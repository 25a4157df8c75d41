package semelgrpc_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/semelgrpc"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// want is a row of the table of docs/spec/grpc.md.
type want struct {
	code      codes.Code
	reason    semelgrpc.Reason
	retryable bool
	outcome   semelhttp.Outcome
}

// check compares a refusal with its row.
func (w want) check(t *testing.T, got told) {
	t.Helper()
	if got.code() != w.code || got.reason() != w.reason {
		t.Fatalf("got %v, reason %q; want %v, %q", got.err, got.reason(), w.code, w.reason)
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range status.Convert(got.err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if info.GetDomain() != semelgrpc.Domain || (info.GetMetadata()["retryable"] == "true") != w.retryable {
		t.Errorf("ErrorInfo is %v, want retryable %v", info, w.retryable)
	}
	if (retry.GetRetryDelay().AsDuration() >= time.Second) != w.retryable {
		t.Errorf("RetryInfo is %v, want one: %v", retry, w.retryable)
	}
	if push := got.trailer.Get("grpc-retry-pushback-ms"); len(push) != 1 || (push[0] == "-1") == w.retryable {
		t.Errorf("grpc-retry-pushback-ms is %v, want retryable %v", push, w.retryable)
	}
	if o := semelgrpc.OutcomeOf(got.err); o != w.outcome {
		t.Errorf("OutcomeOf gives %q, want %q", o, w.outcome)
	}
	if got.replayed() {
		t.Error("a refusal is marked as replayed")
	}
}

func none[T any](context.Context, T) ([]byte, error) { return nil, errors.New("no amount in it") }

// TestRefusedBeforeItRuns is the part of the table in which nothing ever ran.
func TestRefusedBeforeItRuns(t *testing.T) {
	old, ahead := "018b0000-0000-7000-8000-000000000000", "7fff0000-0000-7000-8000-000000000000"
	invalid := want{codes.InvalidArgument, semelgrpc.KeyInvalid, false, semelhttp.OutcomeNotDone}
	for name, c := range map[string]struct {
		method  semelgrpc.Method
		options semelgrpc.Options
		text    string
		pairs   []string
		want    want
	}{
		"no key":        {method: semelgrpc.Method{RequireKey: true}, want: want{codes.InvalidArgument, semelgrpc.KeyRequired, false, semelhttp.OutcomeNotDone}},
		"two keys":      {pairs: []string{"idempotency-key", "a", "idempotency-key", "b"}, want: invalid},
		"a list":        {pairs: []string{"idempotency-key", "a, b"}, want: invalid},
		"an empty key":  {pairs: []string{"idempotency-key", ""}, want: invalid},
		"an open quote": {pairs: []string{"idempotency-key", `"a`}, want: invalid},
		"an early key":  {pairs: []string{"idempotency-key", ahead}, want: want{codes.InvalidArgument, semelgrpc.KeyEarly, false, semelhttp.OutcomeNotDone}},
		"an old key":    {pairs: []string{"idempotency-key", old}, want: want{codes.OutOfRange, semelgrpc.KeyExpired, false, semelhttp.OutcomeUnknown}},
		"no scope":      {pairs: []string{"idempotency-key", "k", "x-tenant", "a", "x-tenant", "b"}, want: want{codes.InvalidArgument, semelgrpc.ScopeRequired, false, semelhttp.OutcomeNotDone}},
		"empty scope": {
			options: semelgrpc.Options{Scope: func(context.Context, string) (string, error) { return "", nil }},
			pairs:   []string{"idempotency-key", "k"}, want: want{codes.InvalidArgument, semelgrpc.ScopeRequired, false, semelhttp.OutcomeNotDone},
		},
		"unreadable": {method: semelgrpc.Method{Canonical: none[proto.Message]}, pairs: []string{"idempotency-key", "k"}, want: want{codes.InvalidArgument, semelgrpc.MessageUnreadable, false, semelhttp.OutcomeNotDone}},
		"no memo":    {method: semelgrpc.Method{Memo: none[proto.Message]}, pairs: []string{"idempotency-key", "k"}, want: want{codes.InvalidArgument, semelgrpc.MessageUnreadable, false, semelhttp.OutcomeNotDone}},
		"a long memo": {
			method: semelgrpc.Method{Memo: func(context.Context, proto.Message) ([]byte, error) { return make([]byte, 5<<10), nil }},
			pairs:  []string{"idempotency-key", "k"}, want: want{codes.ResourceExhausted, semelgrpc.MessageTooLarge, false, semelhttp.OutcomeNotDone},
		},
		"too large": {options: semelgrpc.Options{MaxMessage: 10}, text: "longer than this", pairs: []string{"idempotency-key", "k"}, want: want{codes.ResourceExhausted, semelgrpc.MessageTooLarge, false, semelhttp.OutcomeNotDone}},
	} {
		t.Run(name, func(t *testing.T) {
			var runs atomic.Int64
			c.options.Methods = map[string]semelgrpc.Method{charge: c.method}
			cc := serve(t, counted(&runs), c.options, nil).dial(t)
			for range 2 {
				c.want.check(t, ask(t, cc, charge, c.text, c.pairs...))
			}
			if runs.Load() != 0 {
				t.Error("it ran")
			}
		})
	}
}

func TestMismatch(t *testing.T) {
	var runs atomic.Int64
	enter, leave := make(chan struct{}), make(chan struct{})
	cc := serve(t, &bank{charge: func(_ context.Context, text string) (string, error) {
		runs.Add(1)
		close(enter)
		<-leave
		return "secret " + text, nil
	}}, semelgrpc.Options{Methods: map[string]semelgrpc.Method{charge: {FingerprintMetadata: []string{"x-currency"}}}}, nil).dial(t)
	first := make(chan told, 1)
	go func() { first <- ask(t, cc, charge, "100", "idempotency-key", "k", "x-currency", "EUR") }()
	<-enter
	row := want{codes.FailedPrecondition, semelgrpc.PayloadMismatch, false, semelhttp.OutcomeNotDone}
	row.check(t, ask(t, cc, charge, "900", "idempotency-key", "k", "x-currency", "EUR")) // in flight
	close(leave)
	if a := <-first; a.text != "secret 100" {
		t.Fatal(a)
	}
	row.check(t, ask(t, cc, charge, "900", "idempotency-key", "k", "x-currency", "EUR"))
	row.check(t, ask(t, cc, charge, "100", "idempotency-key", "k", "x-currency", "USD"))
	if a := ask(t, cc, charge, "100", "idempotency-key", "k", "x-currency", "EUR", "x-trace", "7"); a.text != "secret 100" || !a.replayed() || runs.Load() != 1 {
		t.Error(a, runs.Load())
	}
}

func TestInProgressAndTooMany(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	cc := serve(t, &bank{charge: func(context.Context, string) (string, error) {
		close(enter)
		<-leave
		return "charged", nil
	}}, semelgrpc.Options{MaxInFlight: 2, Methods: map[string]semelgrpc.Method{charge: {Policy: semel.Policy{Wait: -1}}, balance: {}}}, nil).dial(t)
	first := make(chan told, 1)
	go func() { first <- ask(t, cc, charge, "100", "idempotency-key", "k") }()
	<-enter
	want{codes.Aborted, semelgrpc.InProgress, true, semelhttp.OutcomePending}.check(t, ask(t, cc, charge, "100", "idempotency-key", "k"))
	close(leave)
	if a := <-first; a.err != nil {
		t.Fatal(a.err)
	}

	inside := make(chan told, 1)
	var self *grpc.ClientConn
	self = serve(t, &bank{charge: func(context.Context, string) (string, error) {
		inside <- ask(t, self, charge, "100", "idempotency-key", "other")
		return "charged", nil
	}}, semelgrpc.Options{MaxInFlight: 1}, nil).dial(t)
	if a := ask(t, self, charge, "100", "idempotency-key", "k"); a.err != nil {
		t.Fatal(a.err)
	}
	want{codes.Unavailable, semelgrpc.TooManyInFlight, true, semelhttp.OutcomeNotDone}.check(t, <-inside)
	if a := ask(t, self, charge, "100", "idempotency-key", "k"); a.text != "charged" {
		t.Error("the calls before are still counted:", a.err)
	}
}

func TestUnknownGoneAndDamaged(t *testing.T) {
	var runs atomic.Int64
	store := memory.New(memory.Options{})
	var suspects atomic.Int64
	cc := serve(t, &bank{
		charge: func(context.Context, string) (string, error) {
			runs.Add(1)
			return "", status.Error(codes.Unavailable, "the provider did not answer")
		},
		balance: func(context.Context, string) (string, error) { return "longer than four bytes", nil },
	}, semelgrpc.Options{
		Suspect: func(semel.Digest) { suspects.Add(1) },
		Methods: map[string]semelgrpc.Method{charge: {}, balance: {Policy: semel.Policy{MaxResult: 4}}},
	}, store).dial(t)
	row := want{codes.Unknown, semelgrpc.OutcomeUnknown, false, semelhttp.OutcomeUnknown}
	for range 2 {
		row.check(t, ask(t, cc, charge, "100", "idempotency-key", "k"))
	}
	if runs.Load() != 1 || suspects.Load() != 2 {
		t.Error(runs.Load(), suspects.Load())
	}
	if a := ask(t, cc, balance, "", "idempotency-key", "k"); a.text != "longer than four bytes" {
		t.Fatal(a)
	}
	gone := ask(t, cc, balance, "", "idempotency-key", "k")
	want{codes.AlreadyExists, semelgrpc.ResultGone, false, semelhttp.OutcomeDone}.check(t, gone)
	if info := status.Convert(gone.err).Details()[0].(*errdetails.ErrorInfo); info.GetMetadata()["original_code"] != "OK" {
		t.Error(info)
	}
}

func TestDamagedResultIsInDoubt(t *testing.T) {
	var runs atomic.Int64
	store := memory.New(memory.Options{})
	cc := serve(t, counted(&runs), semelgrpc.Options{Scope: semelgrpc.SharedScope()}, store).dial(t)
	ask(t, cc, charge, "100", "idempotency-key", "k")
	records, err := store.List(t.Context(), semel.Filter{Scope: "shared|" + charge + "|key"})
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	for _, damaged := range [][]byte{{}, {1}, {2, 200}, {2, 0, 200, 1}, {2, 5, 0, 0, 255}, {2, 5, 0, 0}} {
		bad := records[0]
		bad.Result = damaged
		read, err := store.CompareAndSwap(t.Context(), records[0].Version, bad)
		if err != nil {
			t.Fatal(err)
		}
		records[0].Version = read.Record.Version
		want{codes.Unknown, semelgrpc.OutcomeUnknown, false, semelhttp.OutcomeUnknown}.check(t, ask(t, cc, charge, "100", "idempotency-key", "k"))
	}
	if runs.Load() != 1 {
		t.Error(runs.Load(), "runs")
	}
}

// broken fails the writes that it is told to.
type broken struct {
	semel.Store
	claims, ends atomic.Bool
}

func (b *broken) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if next.State == semel.Pending && b.claims.Load() || next.State != semel.Pending && b.ends.Load() {
		return semel.Reading{}, errors.New("disk full")
	}
	return b.Store.CompareAndSwap(ctx, old, next)
}

func TestStoreFails(t *testing.T) {
	var runs atomic.Int64
	store := &broken{Store: memory.New(memory.Options{})}
	policy := semel.Policy{Lease: 50 * time.Millisecond, ClaimWithin: 10 * time.Millisecond, FinishWithin: 10 * time.Millisecond}
	cc := serve(t, counted(&runs), semelgrpc.Options{Methods: map[string]semelgrpc.Method{charge: {Policy: policy}}}, store).dial(t)
	store.claims.Store(true)
	want{codes.Unavailable, semelgrpc.StoreUnavailable, true, semelhttp.OutcomeNotDone}.check(t, ask(t, cc, charge, "100", "idempotency-key", "k"))
	if runs.Load() != 0 {
		t.Fatal("it ran without a claim")
	}
	store.claims.Store(false)
	store.ends.Store(true)
	row := want{codes.Unknown, semelgrpc.OutcomeUnknown, false, semelhttp.OutcomeUnknown}
	a := ask(t, cc, charge, "100", "idempotency-key", "other")
	row.check(t, a)
	if a.text != "" || runs.Load() != 1 {
		t.Errorf("an answer left that was not stored: %q after %d runs", a.text, runs.Load())
	}
}

func TestMessagesThatAreNoProtocolBuffers(t *testing.T) {
	once, err := semelgrpc.NewServer(newGuard(t, memory.New(memory.Options{})), semelgrpc.Options{Scope: semelgrpc.SharedScope(), Methods: map[string]semelgrpc.Method{charge: {}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("idempotency-key", "k"))
	_, err = once.Unary(ctx, "text", &grpc.UnaryServerInfo{FullMethod: charge}, func(context.Context, any) (any, error) {
		t.Error("it ran")
		return nil, nil
	})
	if status.Code(err) != codes.Unimplemented || semelgrpc.ReasonOf(err) != semelgrpc.MessageUnsupported {
		t.Error(err)
	}
	for _, resp := range []any{nil, "text", wrapperspb.String("\xff")} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("idempotency-key", "k2"))
		for range 2 {
			_, err = once.Unary(ctx, wrapperspb.String("x"), &grpc.UnaryServerInfo{FullMethod: charge}, func(context.Context, any) (any, error) { return resp, nil })
			if status.Code(err) != codes.Internal || semelgrpc.ReasonOf(err) != semelgrpc.HandlerFailed {
				t.Errorf("%v: %v", resp, err)
			}
		}
	}
}

func TestStreams(t *testing.T) {
	call := func(cc *grpc.ClientConn, pairs ...string) (r told) {
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs(pairs...))
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watch)
		if err != nil {
			return told{err: err}
		}
		_ = s.SendMsg(wrapperspb.String("x"))
		_ = s.CloseSend()
		out := new(wrapperspb.StringValue)
		r.err = s.RecvMsg(out)
		r.text, r.trailer = out.GetValue(), s.Trailer()
		return r
	}
	row := want{codes.Unimplemented, semelgrpc.StreamRefused, false, semelhttp.OutcomeNotDone}
	undeclared := serve(t, new(bank), semelgrpc.Options{}, nil).dial(t)
	row.check(t, call(undeclared))
	row.check(t, call(undeclared, "idempotency-key", "k"))
	for _, name := range []string{watch, "/bank.Payments/*"} {
		declared := serve(t, new(bank), semelgrpc.Options{Streams: []string{name}}, nil).dial(t)
		if a := call(declared); a.text != "event" {
			t.Errorf("%s: got %v", name, a)
		}
		row.check(t, call(declared, "idempotency-key", "k"))
	}
}
