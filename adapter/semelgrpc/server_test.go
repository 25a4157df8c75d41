package semelgrpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/semelgrpc"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

func TestReplaysTheFirstAnswer(t *testing.T) {
	var runs atomic.Int64
	cc := serve(t, counted(&runs), semelgrpc.Options{}, nil).dial(t)
	for i, key := range []string{`"k1"`, `k1`, ` "k1" `} {
		if a := ask(t, cc, charge, "100", "idempotency-key", key); a.text != "charge 1 of 100" || a.replayed() != (i > 0) {
			t.Errorf("%d: got %+v", i, a)
		}
	}
	if a := ask(t, cc, charge, "100", "idempotency-key", "k1", "x-tenant", "other"); a.text != "charge 2 of 100" || a.replayed() {
		t.Errorf("another tenant: got %+v", a)
	}
	if a := ask(t, cc, charge, "100", "idempotency-key", "k2"); a.text != "charge 3 of 100" {
		t.Errorf("another key: got %+v", a)
	}
	for i := range 2 {
		if a := ask(t, cc, charge, "100"); a.text != fmt.Sprintf("charge %d of 100", 4+i) {
			t.Errorf("no key: got %+v", a)
		}
	}
}

func TestOperationsAndDerivedKeys(t *testing.T) {
	var runs atomic.Int64
	b := counted(&runs)
	b.balance = b.charge
	store := memory.New(memory.Options{})
	cc := serve(t, b, semelgrpc.Options{Methods: map[string]semelgrpc.Method{"/bank.Payments/*": {DeriveKey: true}}}, store).dial(t)
	ask(t, cc, charge, "100")
	records, err := store.List(t.Context(), semel.Filter{State: semel.Done})
	if err != nil {
		t.Fatal(err)
	}
	var derived string
	for _, r := range records {
		if strings.Contains(r.Key.Scope, charge) {
			derived = r.Key.ID
		}
	}
	for _, c := range []struct {
		what, method string
		pairs        []string
		want         string
	}{
		{"the same again", charge, nil, "charge 1 of 100"},
		{"another method", balance, nil, "charge 2 of 100"},
		{"another tenant", charge, []string{"x-tenant", "other"}, "charge 3 of 100"},
		{"a key of its own", charge, []string{"idempotency-key", "k"}, "charge 4 of 100"},
		{"the key, another method", balance, []string{"idempotency-key", "k"}, "charge 5 of 100"},
		{"the derived key, sent", charge, []string{"idempotency-key", derived}, "charge 6 of 100"},
	} {
		if a := ask(t, cc, c.method, "100", c.pairs...); a.text != c.want {
			t.Errorf("%s: got %+v, want %q", c.what, a, c.want)
		}
	}
}

func TestTenantsDoNotMeet(t *testing.T) {
	cc := serve(t, &bank{charge: func(ctx context.Context, _ string) (string, error) {
		return "secret of " + metadata.ValueFromIncomingContext(ctx, "x-tenant")[0], nil
	}}, semelgrpc.Options{}, nil).dial(t)
	for round := range 2 {
		for i := range 500 {
			tenant := fmt.Sprint("tenant ", i)
			if a := ask(t, cc, charge, "100", "idempotency-key", "k", "x-tenant", tenant); a.text != "secret of "+tenant || a.replayed() != (round > 0) {
				t.Fatalf("%s got %+v", tenant, a)
			}
		}
	}
}

// raw is a codec that hands bytes on.
type raw struct{}

func (raw) Name() string { return "proto" }
func (raw) Marshal(v any) ([]byte, error) {
	return *v.(*[]byte), nil
}

func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}

func TestAnswersAreEqualByteForByte(t *testing.T) {
	entries := map[string]any{}
	for i := range 40 {
		entries[fmt.Sprint("account ", i)] = i
	}
	whole, err := structpb.NewStruct(entries)
	if err != nil {
		t.Fatal(err)
	}
	cc := serve(t, &bank{totals: func(context.Context) (*structpb.Struct, error) { return whole, nil }},
		semelgrpc.Options{Methods: map[string]semelgrpc.Method{totals: {}}}, nil).dial(t)
	var first []byte
	for i := range 20 {
		var in, out []byte
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-tenant", "acme", "idempotency-key", "k")
		if err := cc.Invoke(ctx, totals, &in, &out, grpc.ForceCodec(raw{})); err != nil {
			t.Fatal(err)
		}
		if got := new(structpb.Struct); proto.Unmarshal(out, got) != nil || !proto.Equal(got, whole) {
			t.Fatalf("answer %d is another message: %v", i, got)
		}
		if i == 0 {
			first = out
		} else if !bytes.Equal(first, out) {
			t.Fatalf("answer %d has other bytes", i)
		}
	}
}

func TestMetadataIsKeptByName(t *testing.T) {
	cc := serve(t, &bank{charge: func(ctx context.Context, _ string) (string, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-id", "7", "x-id", "8", "x-other", "1", semelgrpc.ReplayMetadata, "true"))
		if err := grpc.SendHeader(ctx, metadata.Pairs("x-sent", "1")); err != nil {
			t.Error(err)
		}
		if grpc.SetHeader(ctx, metadata.Pairs("x-late", "1")) == nil {
			t.Error("a header was set after it was sent")
		}
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-cost", "3", "x-more", "1", semelgrpc.OutcomeMetadata, "not-done"))
		return "", status.Error(codes.NotFound, "no such account")
	}}, semelgrpc.Options{KeepMetadata: []string{"X-Id", "x-cost"}}, nil).dial(t)
	for i := range 3 {
		a := ask(t, cc, charge, "", "idempotency-key", "k")
		if got, want := fmt.Sprint(a.header.Get("x-id"), a.trailer.Get("x-cost"), a.trailer.Get(semelgrpc.OutcomeMetadata), a.code(), a.replayed()),
			fmt.Sprint("[7 8] [3] [done] NotFound ", i > 0); got != want {
			t.Errorf("%d: got %s, want %s", i, got, want)
		}
		if got, want := fmt.Sprint(a.header.Get("x-other"), a.header.Get("x-sent"), a.header.Get("x-late"), a.trailer.Get("x-more")), "[1] [1] [] [1]"; (got == want) != (i == 0) {
			t.Errorf("%d: what is not kept: %s", i, got)
		}
	}
}

// TestCodes has every code that a handler may return.
func TestCodes(t *testing.T) {
	const stored, doubt, free = "stored", "in doubt", "free"
	plain := errors.New("plain")
	inProgress := status.New(codes.Aborted, "in progress there")
	inProgress, _ = inProgress.WithDetails(semelgrpc.InfoForTest(semelgrpc.InProgress))
	mismatch := status.New(codes.FailedPrecondition, "another payload there")
	mismatch, _ = mismatch.WithDetails(semelgrpc.InfoForTest(semelgrpc.PayloadMismatch))
	cases := map[string]struct {
		err  error
		want string
	}{
		"plain":                     {plain, stored},
		"not done":                  {semelgrpc.NotDone(status.Error(codes.Unavailable, "busy")), free},
		"not done, wrapped":         {fmt.Errorf("it: %w", semelgrpc.NotDone(status.Error(codes.Internal, "busy"))), free},
		"unknown":                   {semelgrpc.Unknown(status.Error(codes.NotFound, "?")), doubt},
		"listed as not done":        {status.Error(codes.ResourceExhausted, "quota"), free},
		"marked against the list":   {semelgrpc.Unknown(status.Error(codes.ResourceExhausted, "quota")), doubt},
		"in doubt itself":           {fmt.Errorf("charge: %w", semel.ErrInDoubt), doubt},
		"a callee's not done":       {&semelgrpc.SendError{Outcome: semelhttp.OutcomeNotDone, Err: status.Error(codes.NotFound, "x")}, stored},
		"a callee's unknown":        {&semelgrpc.SendError{Outcome: semelhttp.OutcomeUnknown, Err: status.Error(codes.Internal, "x")}, doubt},
		"a callee's in progress":    {inProgress.Err(), doubt},
		"a callee's mismatch":       {mismatch.Err(), stored},
		"the context's own end":     {context.Canceled, doubt},
		"a deadline of its own":     {fmt.Errorf("ask the provider: %w", status.Error(codes.DeadlineExceeded, "")), doubt},
		"a message that is no text": {status.Error(codes.NotFound, "\xff\xfe"), stored},
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		w := stored
		switch code {
		case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
			w = doubt
		case codes.ResourceExhausted:
			w = free
		}
		cases[code.String()] = struct {
			err  error
			want string
		}{status.Error(code, "detail"), w}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			runs := 0
			cc := serve(t, &bank{charge: func(context.Context, string) (string, error) { runs++; return "", c.err }},
				semelgrpc.Options{Methods: map[string]semelgrpc.Method{charge: {NotDone: []codes.Code{codes.ResourceExhausted}}}}, nil).dial(t)
			for i := range 3 {
				a := ask(t, cc, charge, "", "idempotency-key", "k")
				marks := strings.Join(a.trailer.Get(semelgrpc.OutcomeMetadata), ",")
				got := fmt.Sprintf("reason %q, replayed %v, marks %q, %d runs", a.reason(), a.replayed(), marks, runs)
				want := map[string]string{
					stored: fmt.Sprintf("reason \"\", replayed %v, marks \"done\", 1 runs", i > 0),
					doubt:  "reason \"OUTCOME_UNKNOWN\", replayed false, marks \"\", 1 runs",
					free:   fmt.Sprintf("reason \"\", replayed false, marks \"not-done\", %d runs", i+1),
				}[c.want]
				if got != want {
					t.Errorf("%d: got %s, want %s", i, got, want)
				}
				if c.want != doubt && a.code() != status.Code(c.err) {
					t.Errorf("%d: the code is %v, want that of %v", i, a.code(), c.err)
				}
			}
		})
	}
}

func TestPanicIsAnOutcome(t *testing.T) {
	var runs, panics atomic.Int64
	cc := serve(t, &bank{
		charge: func(context.Context, string) (string, error) { runs.Add(1); panic("secret") },
	}, semelgrpc.Options{
		Panicked: func(context.Context, string, any, []byte) { panics.Add(1) },
		Methods:  map[string]semelgrpc.Method{charge: {NotDone: []codes.Code{codes.Internal}}},
	}, nil).dial(t)
	for i := range 2 {
		a := ask(t, cc, charge, "", "idempotency-key", "k")
		if a.code() != codes.Internal || a.reason() != semelgrpc.HandlerFailed || a.replayed() != (i > 0) || strings.Contains(a.err.Error(), "secret") {
			t.Errorf("%d: got %+v", i, a)
		}
		if semelgrpc.OutcomeOf(a.err) != semelhttp.OutcomeDone {
			t.Error(semelgrpc.OutcomeOf(a.err))
		}
	}
	if runs.Load() != 1 || panics.Load() != 1 {
		t.Error(runs.Load(), panics.Load())
	}
}

// A handler that ends its goroutine gives no answer at all, and gRPC none either.
func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	runs := 0
	ctx, cancel := context.WithCancel(t.Context())
	cc := serve(t, &bank{charge: func(context.Context, string) (string, error) {
		runs++
		defer cancel() // the client would wait for ever
		runtime.Goexit()
		return "", nil
	}}, semelgrpc.Options{}, nil).dial(t)
	if a := askUnder(ctx, cc, charge, "", "idempotency-key", "k"); a.code() != codes.Canceled {
		t.Fatal(a.err)
	}
	if a := ask(t, cc, charge, "", "idempotency-key", "k"); a.reason() != semelgrpc.OutcomeUnknown || runs != 1 {
		t.Errorf("got %v after %d runs", a.err, runs)
	}
}

func TestClientThatLeaves(t *testing.T) {
	enter, leave, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	r := serve(t, &bank{charge: func(ctx context.Context, _ string) (string, error) {
		close(enter)
		<-leave
		ended <- ctx.Err()
		return "charged", nil
	}}, semelgrpc.Options{}, nil)
	cc := r.dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan told, 1)
	go func() { first <- askUnder(ctx, cc, charge, "100", "idempotency-key", "k") }()
	<-enter
	cancel()
	if a := <-first; a.code() != codes.Canceled {
		t.Error(a.err)
	}
	retry := make(chan told, 1)
	go func() { retry <- ask(t, cc, charge, "100", "idempotency-key", "k") }()
	close(leave)
	if err := <-ended; err != nil {
		t.Error("the handler's context ended with the client:", err)
	}
	if a := <-retry; a.text != "charged" || !a.replayed() {
		t.Errorf("got %+v", a)
	}
}

func TestHerd(t *testing.T) {
	const herd = 200
	var runs, waiting atomic.Int64
	all := make(chan struct{})
	outer := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if waiting.Add(1) == herd {
			close(all)
		}
		return handler(ctx, req)
	}
	cc := serve(t, &bank{charge: func(context.Context, string) (string, error) {
		<-all
		return fmt.Sprint("run ", runs.Add(1)), nil
	}}, semelgrpc.Options{}, nil, outer).dial(t)
	var all200 sync.WaitGroup
	var replayed atomic.Int64
	for range herd {
		all200.Go(func() {
			a := ask(t, cc, charge, "100", "idempotency-key", "k")
			if a.text != "run 1" {
				t.Errorf("got %+v", a)
			}
			if a.replayed() {
				replayed.Add(1)
			}
		})
	}
	all200.Wait()
	if runs.Load() != 1 || replayed.Load() != herd-1 {
		t.Errorf("%d runs, %d replays", runs.Load(), replayed.Load())
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		o    semelgrpc.Options
		want []string
	}{
		"right":             {semelgrpc.Options{Methods: map[string]semelgrpc.Method{charge: {}}, Streams: []string{watch}}, nil},
		"services":          {semelgrpc.Options{Methods: map[string]semelgrpc.Method{"/bank.Payments/*": {}}, Streams: []string{"/bank.Payments/*"}}, nil},
		"misspelt":          {semelgrpc.Options{Methods: map[string]semelgrpc.Method{"/bank.Payments/Chrage": {}}, Streams: []string{watch}}, []string{"Chrage"}},
		"another service":   {semelgrpc.Options{Methods: map[string]semelgrpc.Method{"/bank.Payment/*": {}}, Streams: []string{watch}}, []string{"/bank.Payment/*"}},
		"a stream, guarded": {semelgrpc.Options{Methods: map[string]semelgrpc.Method{watch: {}}}, []string{"no such unary", "would be refused"}},
		"unary, streaming":  {semelgrpc.Options{Methods: map[string]semelgrpc.Method{charge: {}}, Streams: []string{watch, balance}}, []string{"no such streaming"}},
	} {
		r := serve(t, new(bank), c.o, nil)
		err := r.once.Check(r.server.GetServiceInfo())
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v", name, err)
		}
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in %v", name, w, err)
			}
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	guard := newGuard(t, memory.New(memory.Options{}))
	scope := semelgrpc.SharedScope()
	one := func(m semelgrpc.Method) semelgrpc.Options {
		return semelgrpc.Options{Scope: scope, Methods: map[string]semelgrpc.Method{charge: m}}
	}
	methods := map[string]semelgrpc.Method{charge: {}}
	for name, o := range map[string]semelgrpc.Options{
		"Scope is required":                        {Methods: methods},
		"names no method to guard":                 {Scope: scope},
		"\"charge\" names no method":               {Scope: scope, Methods: map[string]semelgrpc.Method{"charge": {}}},
		"\"/a/b/c\" names no method":               {Scope: scope, Methods: map[string]semelgrpc.Method{"/a/b/c": {}}},
		"\"/*\" names no method":                   {Scope: scope, Methods: methods, Streams: []string{"/*"}},
		"\"/*/x\" names no method":                 {Scope: scope, Methods: methods, Streams: []string{"/*/x"}},
		"\"\" names no method":                     {Scope: scope, Methods: methods, Streams: []string{""}},
		"in Methods and in Streams":                {Scope: scope, Methods: methods, Streams: []string{charge}},
		"MaxMessage -1":                            {Scope: scope, Methods: methods, MaxMessage: -1},
		"MaxInFlight -1":                           {Scope: scope, Methods: methods, MaxInFlight: -1},
		"\"Authorization\" belongs":                {Scope: scope, Methods: methods, KeepMetadata: []string{"Authorization"}},
		"\"grpc-status\" belongs":                  {Scope: scope, Methods: methods, KeepMetadata: []string{"grpc-status"}},
		"begins no transactions":                   one(semelgrpc.Method{Policy: semel.Policy{Class: semel.Transactional}}),
		"set one of them":                          one(semelgrpc.Method{RequireKey: true, DeriveKey: true}),
		"OK says":                                  one(semelgrpc.Method{NotDone: []codes.Code{codes.OK}}),
		"Unavailable is in NotDone and in Unknown": one(semelgrpc.Method{NotDone: []codes.Code{codes.Unavailable}}),
		"too short":                                one(semelgrpc.Method{Policy: semel.Policy{Lease: 1}}),
	} {
		if _, err := semelgrpc.NewServer(guard, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := semelgrpc.NewServer(nil, one(semelgrpc.Method{})); err == nil {
		t.Error("no guard: accepted")
	}
	if _, err := semelgrpc.NewServer(guard, one(semelgrpc.Method{NotDone: []codes.Code{codes.Unavailable}, Unknown: []codes.Code{}})); err != nil {
		t.Error(err)
	}
}

func TestCanonical(t *testing.T) {
	var runs atomic.Int64
	cc := serve(t, counted(&runs), semelgrpc.Options{Methods: map[string]semelgrpc.Method{charge: {
		Canonical: func(_ context.Context, req proto.Message) ([]byte, error) {
			amount, _, _ := strings.Cut(req.(*wrapperspb.StringValue).GetValue(), " ")
			return []byte(amount), nil
		},
	}}}, nil).dial(t)
	for _, text := range []string{"100 at 12:00", "100 at 12:01"} {
		if a := ask(t, cc, charge, text, "idempotency-key", "k"); a.text != "charge 1 of 100 at 12:00" {
			t.Errorf("got %+v", a)
		}
	}
	if a := ask(t, cc, charge, "900 at 12:00", "idempotency-key", "k"); a.reason() != semelgrpc.PayloadMismatch {
		t.Errorf("got %+v", a)
	}
}
