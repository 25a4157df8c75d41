package semelgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/semelgrpc"
	"github.com/semelhq/semel/semelhttp"
)

// quick is a client that does not wait long.
func quick() *semelgrpc.Client {
	return &semelgrpc.Client{Methods: []string{charge}, BackoffBase: time.Millisecond}
}

// script answers the calls of a server without a guard, one after the other, and
// notes their keys.
type script struct {
	mu      sync.Mutex
	answers []error
	keys    []string
}

func (s *script) bank() *bank {
	run := func(ctx context.Context, _ string) (string, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.keys = append(s.keys, strings.Join(metadata.ValueFromIncomingContext(ctx, "idempotency-key"), "&"))
		i := min(len(s.keys), len(s.answers)) - 1
		return "done", s.answers[i]
	}
	return &bank{charge: run, balance: run}
}

// scripted starts a server that answers with a script. Its guard guards nothing.
func scripted(t *testing.T, answers ...error) (*script, *running) {
	s := &script{answers: answers}
	return s, serve(t, s.bank(), semelgrpc.Options{Methods: map[string]semelgrpc.Method{totals: {}}}, nil)
}

func TestLostAnswersAreAskedForAgain(t *testing.T) {
	var runs, calls atomic.Int64
	var r *running
	lose := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		if calls.Add(1)%3 != 0 {
			r.cut() // it ran, and the answer is lost
		}
		return resp, err
	}
	r = serve(t, counted(&runs), semelgrpc.Options{}, nil, lose)
	cc := r.dial(t, grpc.WithChainUnaryInterceptor(quick().Unary))
	for i := range 5 {
		a := ask(t, cc, charge, "100")
		if want := fmt.Sprintf("charge %d of 100", i+1); a.text != want || !a.replayed() {
			t.Fatalf("got %+v, want %s", a, want)
		}
	}
	if runs.Load() != 5 || calls.Load() != 15 {
		t.Errorf("%d runs, %d calls", runs.Load(), calls.Load())
	}
}

// TestCutsAtAnyTime: every connection breaks again and again, before and after calls
// have run; each operation runs once, and its client learns what came of it.
func TestCutsAtAnyTime(t *testing.T) {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(1, 2))
	runs := map[string]int{}
	cuts := 0
	var r *running
	maybe := func() {
		mu.Lock()
		defer mu.Unlock()
		if chance.IntN(3) == 0 {
			cuts++
			r.cut()
		}
	}
	lossy := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		maybe()
		resp, err := handler(ctx, req)
		maybe()
		return resp, err
	}
	r = serve(t, &bank{charge: func(_ context.Context, order string) (string, error) {
		maybe()
		mu.Lock()
		defer mu.Unlock()
		runs[order]++
		return "charged " + order, nil
	}}, semelgrpc.Options{}, nil, lossy)
	client := quick()
	client.MaxAttempts, client.BackoffCap = 200, 5*time.Millisecond
	cc := r.dial(t, grpc.WithChainUnaryInterceptor(client.Unary))
	const workers, each = 4, 25
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				order := fmt.Sprint(w, ".", i)
				if a := ask(t, cc, charge, order); a.text != "charged "+order {
					t.Errorf("%s: got %+v", order, a)
				}
			}
		})
	}
	all.Wait()
	for order, n := range runs {
		if n != 1 {
			t.Errorf("%s ran %d times", order, n)
		}
	}
	if len(runs) != workers*each || cuts < workers*each/2 {
		t.Errorf("%d operations ran, %d cuts", len(runs), cuts)
	}
}

func TestKeyIsKeptOverRetries(t *testing.T) {
	gone := status.Error(codes.Unavailable, "gone")
	s, r := scripted(t, gone, gone, nil)
	cc := r.dial(t, grpc.WithChainUnaryInterceptor(quick().Unary))
	if a := ask(t, cc, charge, ""); a.text != "done" {
		t.Fatal(a)
	}
	if a := ask(t, cc, charge, ""); a.text != "done" {
		t.Fatal(a)
	}
	if len(s.keys) != 4 || s.keys[0] != s.keys[1] || s.keys[1] != s.keys[2] || s.keys[3] == s.keys[0] {
		t.Fatal(s.keys)
	}
	id, err := semelhttp.ParseKey(s.keys[:1])
	if at, timed := semel.KeyTime(id); err != nil || !timed || time.Since(at) > time.Minute {
		t.Errorf("%q is no fresh UUIDv7", id)
	}
	if a := ask(t, cc, balance, ""); a.text != "done" || s.keys[4] != "" {
		t.Errorf("a method that is not named: got %v, key %q", a, s.keys[4])
	}
	if a := ask(t, cc, balance, "", "idempotency-key", "mine"); a.text != "done" || s.keys[5] != `"mine"` {
		t.Errorf("the caller's key: got %v, key %q", a, s.keys[5])
	}
}

// TestWhatIsRetried has an answer, given for ever, with what the client makes of it.
func TestWhatIsRetried(t *testing.T) {
	const most = 3
	for name, c := range map[string]struct {
		err      error
		attempts int
		outcome  semelhttp.Outcome
		is       error
	}{
		"unavailable":       {status.Error(codes.Unavailable, ""), most, semelhttp.OutcomeUnknown, semel.ErrInDoubt},
		"internal":          {status.Error(codes.Internal, ""), 1, semelhttp.OutcomeUnknown, semel.ErrInDoubt},
		"unknown":           {errors.New("plain"), 1, semelhttp.OutcomeUnknown, semel.ErrInDoubt},
		"cancelled":         {status.Error(codes.Canceled, ""), 1, semelhttp.OutcomeUnknown, semel.ErrInDoubt},
		"deadline":          {status.Error(codes.DeadlineExceeded, ""), 1, semelhttp.OutcomeUnknown, semel.ErrInDoubt},
		"exhausted":         {status.Error(codes.ResourceExhausted, ""), 1, semelhttp.OutcomeUnknown, semel.ErrInDoubt},
		"not found":         {status.Error(codes.NotFound, ""), 1, semelhttp.OutcomeDone, nil},
		"unauthenticated":   {status.Error(codes.Unauthenticated, ""), 1, semelhttp.OutcomeDone, nil},
		"in progress":       {refusal(codes.Aborted, semelgrpc.InProgress), most, semelhttp.OutcomePending, semel.ErrInProgress},
		"store unavailable": {refusal(codes.Unavailable, semelgrpc.StoreUnavailable), most, semelhttp.OutcomeNotDone, semel.ErrUnavailable},
		"not committed":     {refusal(codes.Unavailable, semelgrpc.NotCommitted), most, semelhttp.OutcomeNotDone, semel.ErrNotDone},
		"quota exceeded":    {refusal(codes.ResourceExhausted, semelgrpc.QuotaExceeded), most, semelhttp.OutcomeNotDone, semel.ErrOverQuota},
		"too many":          {refusal(codes.Unavailable, semelgrpc.TooManyInFlight), most, semelhttp.OutcomeNotDone, semel.ErrNotDone},
		"outcome unknown":   {refusal(codes.Unknown, semelgrpc.OutcomeUnknown), 1, semelhttp.OutcomeUnknown, semel.ErrInDoubt},
		"mismatch":          {refusal(codes.FailedPrecondition, semelgrpc.PayloadMismatch), 1, semelhttp.OutcomeNotDone, semel.ErrMismatch},
		"gone":              {refusal(codes.AlreadyExists, semelgrpc.ResultGone), 1, semelhttp.OutcomeDone, semel.ErrGone},
		"expired":           {refusal(codes.OutOfRange, semelgrpc.KeyExpired), 1, semelhttp.OutcomeUnknown, semel.ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := scripted(t, c.err)
			client := quick()
			client.MaxAttempts = most
			a := ask(t, r.dial(t, grpc.WithChainUnaryInterceptor(client.Unary)), charge, "")
			sent, ok := errors.AsType[*semelgrpc.SendError](a.err)
			if !ok || sent.Outcome != c.outcome || sent.Attempts != c.attempts || len(s.keys) != c.attempts || a.code() != status.Code(c.err) {
				t.Fatalf("got %+v (%v), %d calls; want %s after %d", sent, a.err, len(s.keys), c.outcome, c.attempts)
			}
			if line, _ := semelhttp.FormatKey(sent.Key); line != s.keys[0] || strings.Contains(a.err.Error(), sent.Key) {
				t.Errorf("SendError.Key is %q, sent was %s", sent.Key, s.keys[0])
			}
			if c.is != nil && !errors.Is(a.err, c.is) || errors.Is(a.err, semel.ErrNotDone) != (c.outcome == semelhttp.OutcomeNotDone) ||
				errors.Is(a.err, semel.ErrInDoubt) != (c.outcome == semelhttp.OutcomeUnknown) {
				t.Errorf("%v is not %v", a.err, c.is)
			}
		})
	}
}

// refusal gives a status of the package, without the RetryInfo that would make
// tests wait.
func refusal(code codes.Code, reason semelgrpc.Reason) error {
	st, err := status.New(code, "refused").WithDetails(semelgrpc.InfoForTest(reason))
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func TestAnEarlierAttemptMayHaveRun(t *testing.T) {
	gone := status.Error(codes.Unavailable, "gone")
	for name, c := range map[string]struct {
		last error
		want semelhttp.Outcome
	}{
		"not authenticated any more":  {status.Error(codes.Unauthenticated, ""), semelhttp.OutcomeUnknown},
		"scope required":              {refusal(codes.InvalidArgument, semelgrpc.ScopeRequired), semelhttp.OutcomeUnknown},
		"mismatch, which is a proof":  {refusal(codes.FailedPrecondition, semelgrpc.PayloadMismatch), semelhttp.OutcomeNotDone},
		"it ran, which is a proof":    {refusal(codes.AlreadyExists, semelgrpc.ResultGone), semelhttp.OutcomeDone},
		"the handler failed, a proof": {refusal(codes.Internal, semelgrpc.HandlerFailed), semelhttp.OutcomeDone},
	} {
		_, r := scripted(t, gone, c.last)
		a := ask(t, r.dial(t, grpc.WithChainUnaryInterceptor(quick().Unary)), charge, "")
		if got := semelgrpc.OutcomeOf(a.err); got != c.want {
			t.Errorf("%s: got %q (%v), want %q", name, got, a.err, c.want)
		}
	}
}

func TestStoredErrorIsTheAnswer(t *testing.T) {
	runs := 0
	r := serve(t, &bank{charge: func(context.Context, string) (string, error) {
		runs++
		return "", status.Error(codes.Internal, "the ledger is inconsistent")
	}}, semelgrpc.Options{}, nil)
	cc := r.dial(t, grpc.WithChainUnaryInterceptor(quick().Unary))
	for range 2 {
		a := ask(t, cc, charge, "", "idempotency-key", "k")
		if semelgrpc.OutcomeOf(a.err) != semelhttp.OutcomeDone || a.code() != codes.Internal || runs != 1 {
			t.Errorf("got %v after %d runs", a.err, runs)
		}
	}
}

func TestNotDoneIsTriedAgain(t *testing.T) {
	runs := 0
	r := serve(t, &bank{charge: func(context.Context, string) (string, error) {
		if runs++; runs < 3 {
			return "", semelgrpc.NotDone(status.Error(codes.Unavailable, "busy"))
		}
		return "charged", nil
	}}, semelgrpc.Options{}, nil)
	if a := ask(t, r.dial(t, grpc.WithChainUnaryInterceptor(quick().Unary)), charge, ""); a.text != "charged" || runs != 3 {
		t.Errorf("got %v after %d runs", a, runs)
	}
}

func TestRetryInfoIsHonoured(t *testing.T) {
	var runs atomic.Int64
	enter := make(chan struct{})
	leave := make(chan struct{})
	r := serve(t, &bank{charge: func(context.Context, string) (string, error) {
		runs.Add(1)
		close(enter)
		<-leave
		return "charged", nil
	}}, semelgrpc.Options{Methods: map[string]semelgrpc.Method{charge: {Policy: semel.Policy{Wait: -1}}}}, nil)
	first := make(chan told, 1)
	go func() { first <- ask(t, r.dial(t), charge, "100", "idempotency-key", "k") }()
	<-enter
	start := time.Now()
	attempt := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, o...)
		if semelgrpc.ReasonOf(err) == semelgrpc.InProgress {
			close(leave)
			<-first
		}
		return err
	}
	a := ask(t, r.dial(t, grpc.WithChainUnaryInterceptor(quick().Unary, attempt)), charge, "100", "idempotency-key", "k")
	if a.text != "charged" || !a.replayed() || runs.Load() != 1 {
		t.Errorf("got %+v after %d runs", a, runs.Load())
	}
	if waited := time.Since(start); waited < time.Second {
		t.Errorf("it asked again after %v, and RetryInfo said 1 s", waited)
	}
}

// retrying is a service configuration that has gRPC itself retry.
const retrying = `{"methodConfig":[{"name":[{"service":"bank.Payments"}],"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.001s","maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE","ABORTED","UNKNOWN"]}}]}`

func TestGRPCsOwnRetriesAreOff(t *testing.T) {
	gone := status.Error(codes.Unavailable, "gone")
	s, r := scripted(t, gone)
	client := quick()
	client.MaxAttempts = 1
	if a := ask(t, r.dial(t, grpc.WithDefaultServiceConfig(retrying), grpc.WithChainUnaryInterceptor(client.Unary)), charge, ""); a.code() != codes.Unavailable || len(s.keys) != 1 {
		t.Errorf("%d calls, want 1", len(s.keys))
	}
	s, r = scripted(t, gone)
	if ask(t, r.dial(t, grpc.WithDefaultServiceConfig(retrying)), charge, ""); len(s.keys) != 4 {
		t.Errorf("%d calls without the client, want 4: the service configuration does nothing", len(s.keys))
	}
	// A client of somebody else's is told what not to send again.
	var runs atomic.Int64
	calls := 0
	outer := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		calls++
		return handler(ctx, req)
	}
	r = serve(t, &bank{charge: func(_ context.Context, text string) (string, error) {
		runs.Add(1)
		if text == "stored" {
			return "", status.Error(codes.Aborted, "the account was changed meanwhile")
		}
		return "", status.Error(codes.Unavailable, "?")
	}}, semelgrpc.Options{}, nil, outer)
	cc := r.dial(t, grpc.WithDefaultServiceConfig(retrying))
	if a := ask(t, cc, charge, "", "idempotency-key", "k"); a.reason() != semelgrpc.OutcomeUnknown || calls != 1 {
		t.Errorf("got %v after %d calls", a.err, calls)
	}
	if a := ask(t, cc, charge, "stored", "idempotency-key", "other"); a.code() != codes.Aborted || calls != 2 {
		t.Errorf("got %v after %d calls", a.err, calls)
	}
}

func TestNobodyThere(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{listener: &listener{Listener: tcp}}
	tcp.Close()
	client := quick()
	client.MaxAttempts = 2
	a := ask(t, r.dial(t, grpc.WithChainUnaryInterceptor(client.Unary)), charge, "")
	sent, ok := errors.AsType[*semelgrpc.SendError](a.err)
	if !ok || sent.Outcome != semelhttp.OutcomeNotDone || sent.Attempts != 2 || !errors.Is(a.err, semel.ErrNotDone) || a.code() != codes.Unavailable {
		t.Errorf("got %+v", sent)
	}
}

// hanging starts a server without a guard whose charges do not end before the test.
func hanging(t *testing.T) (*running, <-chan struct{}) {
	hang, calls := make(chan struct{}), make(chan struct{}, 10)
	r := serve(t, &bank{charge: func(context.Context, string) (string, error) {
		calls <- struct{}{}
		<-hang
		return "charged", nil
	}}, semelgrpc.Options{Methods: map[string]semelgrpc.Method{totals: {}}}, nil)
	t.Cleanup(func() { close(hang) })
	return r, calls
}

func TestAttemptTimeout(t *testing.T) {
	r, calls := hanging(t)
	client := quick()
	client.MaxAttempts, client.AttemptTimeout = 2, 200*time.Millisecond
	a := ask(t, r.dial(t, grpc.WithChainUnaryInterceptor(client.Unary)), charge, "")
	sent, ok := errors.AsType[*semelgrpc.SendError](a.err)
	if !ok || sent.Attempts != 2 || a.code() != codes.DeadlineExceeded || sent.Outcome != semelhttp.OutcomeUnknown && len(calls) > 0 {
		t.Errorf("got %v after %d calls", a.err, len(calls))
	}
}

func TestCallerThatLeaves(t *testing.T) {
	r, calls := hanging(t)
	cc := r.dial(t, grpc.WithChainUnaryInterceptor(quick().Unary))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-calls; cancel() }()
	a := askUnder(ctx, cc, charge, "")
	if sent, ok := errors.AsType[*semelgrpc.SendError](a.err); !ok || sent.Outcome != semelhttp.OutcomeUnknown || sent.Attempts != 1 || a.code() != codes.Canceled {
		t.Errorf("a caller that leaves: got %v", a.err)
	}
	a = askUnder(ctx, cc, charge, "")
	if sent, ok := errors.AsType[*semelgrpc.SendError](a.err); !ok || sent.Outcome != semelhttp.OutcomeNotDone || sent.Attempts != 0 || a.code() != codes.Canceled {
		t.Errorf("a caller that has left: got %v", a.err)
	}
}

func TestKeysThatAreNotSent(t *testing.T) {
	s, r := scripted(t, nil)
	client := quick()
	client.Key = func(context.Context, string, any) (string, error) { return "", errors.New("no order") }
	cc := r.dial(t, grpc.WithChainUnaryInterceptor(client.Unary))
	for name, pairs := range map[string][]string{
		"no order":     nil,
		"Retention is": {"idempotency-key", "018b0000-0000-7000-8000-000000000000"},
		"comes 2":      {"idempotency-key", "a", "idempotency-key", "b"},
	} {
		a := ask(t, cc, charge, "", pairs...)
		if sent, ok := errors.AsType[*semelgrpc.SendError](a.err); !ok || sent.Outcome != semelhttp.OutcomeNotDone || a.code() != codes.InvalidArgument || !strings.Contains(a.err.Error(), name) {
			t.Errorf("%s: got %v", name, a.err)
		}
	}
	if len(s.keys) != 0 {
		t.Error("sent", s.keys)
	}
}

func TestStepSendsItsDerivedKey(t *testing.T) {
	s, r := scripted(t, nil)
	cc := r.dial(t, grpc.WithChainUnaryInterceptor(new(semelgrpc.Client).Unary))
	front := serve(t, &bank{charge: func(ctx context.Context, _ string) (string, error) {
		claim, ok := semel.ClaimFrom(ctx)
		if !ok {
			t.Error("no claim in the handler's context")
		}
		_, err := claim.Step(ctx, "charge", func(ctx context.Context) (semel.Result, error) {
			key, _ := semel.DerivedKey(ctx)
			a := askUnder(ctx, cc, charge, "100")
			if line, _ := semelhttp.FormatKey(key); len(s.keys) != 1 || s.keys[0] != line {
				t.Errorf("sent %v, the step's key is %s", s.keys, key)
			}
			return semel.Result{Data: []byte(a.text)}, a.err
		})
		return "charged", err
	}}, semelgrpc.Options{}, nil)
	if a := ask(t, front.dial(t), charge, "100", "idempotency-key", "k"); a.text != "charged" {
		t.Error(a)
	}
}
