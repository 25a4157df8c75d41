package semelhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// upstream is a server on the loopback that notes what reaches it. Its script
// says what it does with the first, second, … request; the last entry repeats.
type upstream struct {
	*httptest.Server
	mu     sync.Mutex
	keys   []string
	bodies []string
	times  []time.Time
}

// step is what an upstream does with one request, which it has read whole.
type step func(w http.ResponseWriter, r *http.Request)

// up starts an upstream.
func up(t testing.TB, script ...step) *upstream {
	u := &upstream{}
	u.Server = httptest.NewServer(u.handler(script))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) handler(script []step) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		u.mu.Lock()
		u.keys = append(u.keys, strings.Join(r.Header.Values("Idempotency-Key"), "+"))
		u.bodies = append(u.bodies, string(body))
		u.times = append(u.times, time.Now())
		n := len(u.keys)
		u.mu.Unlock()
		script[min(n, len(script))-1](w, r)
	})
}

// seen gives the keys of all requests so far.
func (u *upstream) seen() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.keys)
}

func status(code int, headers ...string) step {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
	}
}

func problem(kind semelhttp.ProblemKind) step {
	return func(w http.ResponseWriter, r *http.Request) { _ = semelhttp.NewProblem(kind, "").Write(w, r) }
}

func text(s string) step {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
}

// lost breaks the connection off after the request was read: it may have run.
func lost(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// fast is a transport that does not wait long, with connections of its own.
func fast(t testing.TB) *semelhttp.Transport {
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	return &semelhttp.Transport{Base: base, BackoffBase: time.Microsecond}
}

func post(t testing.TB, url, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// read gives the body and closes it.
func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error("reading the answer:", err)
	}
	resp.Body.Close()
	return string(b)
}

func TestTransportRepeatsKeyAndBody(t *testing.T) {
	u := up(t, status(503), lost, text("charged"))
	r := post(t, u.URL, "amount=100")
	resp, err := fast(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, resp); got != "charged" || semelhttp.OutcomeOf(resp, err) != semelhttp.OutcomeDone {
		t.Errorf("got %q, outcome %s", got, semelhttp.OutcomeOf(resp, err))
	}
	keys := u.seen()
	if len(keys) != 3 || keys[0] != keys[1] || keys[0] != keys[2] || keys[0] != resp.Request.Header.Get("Idempotency-Key") {
		t.Errorf("the keys were %q, want the one of the response's request three times", keys)
	}
	id, err := semelhttp.ParseKey(keys[:1])
	at, ok := semel.KeyTime(id)
	if err != nil || !ok || time.Since(at).Abs() > time.Minute {
		t.Errorf("the key %q is not a UUIDv7 of now: %v, %v", id, at, err)
	}
	if want := []string{"amount=100", "amount=100", "amount=100"}; !slices.Equal(u.bodies, want) {
		t.Errorf("the bodies were %q", u.bodies)
	}
	if len(r.Header) != 0 || r.GetBody == nil {
		t.Errorf("the caller's request was changed: %v", r.Header)
	}
}

func TestTransportStatuses(t *testing.T) {
	type want struct {
		attempts int
		outcome  semelhttp.Outcome
	}
	final := func(o semelhttp.Outcome) want { return want{1, o} }
	again := func(o semelhttp.Outcome) want { return want{5, o} }
	for _, c := range []struct {
		name string
		step step
		want want
	}{
		{"200", status(200), final(semelhttp.OutcomeDone)},
		{"204", status(204), final(semelhttp.OutcomeDone)},
		{"302", status(302), final(semelhttp.OutcomeDone)},
		{"400", status(400), final(semelhttp.OutcomeDone)},
		{"401", status(401), final(semelhttp.OutcomeDone)},
		{"404", status(404), final(semelhttp.OutcomeDone)},
		{"408", status(408), final(semelhttp.OutcomeUnknown)},
		{"409", status(409), final(semelhttp.OutcomeDone)},
		{"410", status(410), final(semelhttp.OutcomeDone)},
		{"422", status(422), final(semelhttp.OutcomeDone)},
		{"425", status(425), final(semelhttp.OutcomeNotDone)},
		{"429", status(429), again(semelhttp.OutcomeNotDone)},
		{"500", status(500), final(semelhttp.OutcomeUnknown)},
		{"501", status(501), final(semelhttp.OutcomeUnknown)},
		{"502", status(502), again(semelhttp.OutcomeUnknown)},
		{"503", status(503), again(semelhttp.OutcomeUnknown)},
		{"504", status(504), again(semelhttp.OutcomeUnknown)},
		{"500 replayed", status(500, "Idempotent-Replayed", "true"), final(semelhttp.OutcomeDone)},
		{"503 replayed", status(503, "Idempotent-Replayed", "true"), final(semelhttp.OutcomeDone)},
		{"key-invalid", problem(semelhttp.KeyInvalid), final(semelhttp.OutcomeNotDone)},
		{"body-too-large", problem(semelhttp.BodyTooLarge), final(semelhttp.OutcomeNotDone)},
		{"payload-mismatch", problem(semelhttp.PayloadMismatch), final(semelhttp.OutcomeNotDone)},
		{"in-progress", problem(semelhttp.InProgress), again(semelhttp.OutcomePending)},
		{"outcome-unknown", problem(semelhttp.OutcomeUnknownKind), final(semelhttp.OutcomeUnknown)},
		{"result-gone", problem(semelhttp.ResultGone), final(semelhttp.OutcomeDone)},
		{"key-expired", problem(semelhttp.KeyExpired), final(semelhttp.OutcomeUnknown)},
		{"too-many-requests-in-flight", problem(semelhttp.TooManyInFlight), again(semelhttp.OutcomeNotDone)},
		{"quota-exceeded", problem(semelhttp.QuotaExceeded), again(semelhttp.OutcomeNotDone)},
		{"store-unavailable", problem(semelhttp.StoreUnavailable), again(semelhttp.OutcomeNotDone)},
		{"upstream-unreachable", problem(semelhttp.UpstreamUnreachable), again(semelhttp.OutcomeNotDone)},
		{"handler-failed", problem(semelhttp.HandlerFailed), final(semelhttp.OutcomeDone)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{}
				resp, err := bubble(t, u.handler([]step{c.step})).RoundTrip(post(t, "http://upstream/", "x"))
				if err != nil {
					t.Fatal(err)
				}
				if got := (want{len(u.keys), semelhttp.OutcomeOf(resp, err)}); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				read(t, resp)
			})
		})
	}
}

// bubble gives a zero transport whose connections are pipes to a server in the
// same bubble of time.
func bubble(t *testing.T, h http.Handler) *semelhttp.Transport {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	base := &http.Transport{DialContext: l.dial}
	t.Cleanup(func() { base.CloseIdleConnections(); s.Close(); <-served })
	return &semelhttp.Transport{Base: base}
}

// pipes is a listener whose connections never leave memory.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func TestTransportRetryAfter(t *testing.T) {
	for _, c := range []struct {
		name     string
		value    func() string
		min, max time.Duration // of the wait before the second attempt
		attempts int
	}{
		{"seconds", func() string { return "7" }, 7 * time.Second, 7200 * time.Millisecond, 2},
		{"date", func() string { return time.Now().Add(9 * time.Second).UTC().Format(http.TimeFormat) }, 8 * time.Second, 9200 * time.Millisecond, 2},
		{"date that has passed", func() string { return "Sun, 06 Nov 1994 08:49:37 GMT" }, 0, 200 * time.Millisecond, 2},
		{"none", func() string { return "" }, 0, 200 * time.Millisecond, 2},
		{"garbage", func() string { return "soon" }, 0, 200 * time.Millisecond, 2},
		{"negative", func() string { return "-5" }, 0, 200 * time.Millisecond, 2},
		{"beyond the budget", func() string { return "120" }, 0, 0, 1},
		{"huge", func() string { return strings.Repeat("9", 40) }, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{}
				resp, err := bubble(t, u.handler([]step{status(503, "Retry-After", c.value()), status(201)})).RoundTrip(post(t, "http://upstream/", "x"))
				if err != nil {
					t.Fatal(err)
				}
				read(t, resp)
				if len(u.times) != c.attempts {
					t.Fatalf("%d attempts, want %d", len(u.times), c.attempts)
				}
				if got := u.times[len(u.times)-1].Sub(u.times[0]); got < c.min || got > c.max {
					t.Errorf("waited %v, want %v to %v", got, c.min, c.max)
				}
			})
		})
	}
}

func TestTransportBackoffHasFullJitter(t *testing.T) {
	var below, above int // half of the first bound
	for range 60 {
		synctest.Test(t, func(t *testing.T) {
			u := &upstream{}
			tr := bubble(t, u.handler([]step{status(503)}))
			tr.MaxAttempts, tr.BackoffBase, tr.BackoffCap = 6, time.Second, 5*time.Second
			resp, err := tr.RoundTrip(post(t, "http://upstream/", "x"))
			if err != nil {
				t.Fatal(err)
			}
			read(t, resp)
			for i, bound := range []time.Duration{1, 2, 4, 5, 5} {
				if wait := u.times[i+1].Sub(u.times[i]); wait > bound*time.Second {
					t.Errorf("wait %d was %v, want at most %ds", i+1, wait, bound)
				}
			}
			if u.times[1].Sub(u.times[0]) < 500*time.Millisecond {
				below++
			} else {
				above++
			}
		})
	}
	if below < 10 || above < 10 { // an even coin does this once in ten million runs
		t.Errorf("%d first waits below half their bound and %d above: not random between 0 and the bound", below, above)
	}
}

func TestTransportStopsInTime(t *testing.T) {
	old := func(t *testing.T, age time.Duration) []string {
		// In a bubble, time begins at one fixed moment, which the key is made for.
		ms := time.Now().Add(-age).UnixMilli()
		return []string{"Idempotency-Key", fmt.Sprintf("%08x-%04x-7000-8000-000000000000", ms>>16, ms&0xffff)}
	}
	for _, c := range []struct {
		name     string
		budget   time.Duration
		remember time.Duration
		age      time.Duration // of a key that the caller sends, if not 0
		deadline time.Duration // of the caller's context, if not 0
		within   time.Duration // no attempt begins later
		attempts int           // at least
	}{
		{name: "budget", budget: 30 * time.Second, within: 30 * time.Second, attempts: 4},
		{name: "retention", remember: 20 * time.Second, within: 20 * time.Second, attempts: 3},
		{name: "retention of an old key", remember: time.Hour, age: time.Hour - 10*time.Second, within: 10 * time.Second, attempts: 2},
		{name: "the caller's deadline", deadline: 15 * time.Second, within: 15 * time.Second, attempts: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{}
				tr := bubble(t, u.handler([]step{status(503, "Retry-After", "3")}))
				tr.MaxAttempts, tr.Budget, tr.Retention = 1000, c.budget, c.remember
				r := post(t, "http://upstream/", "x")
				if c.age > 0 {
					r = post(t, "http://upstream/", "x", old(t, c.age)...)
				}
				if c.deadline > 0 {
					ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
					defer cancel()
					r = r.WithContext(ctx)
				}
				begin := time.Now()
				resp, err := tr.RoundTrip(r)
				if err != nil || resp.StatusCode != 503 {
					t.Fatal("want the last response, got", err)
				}
				read(t, resp)
				if last := u.times[len(u.times)-1].Sub(begin); last > c.within || len(u.times) < c.attempts {
					t.Errorf("%d attempts, the last after %v; want at least %d, none after %v", len(u.times), last, c.attempts, c.within)
				}
				if waited := time.Since(begin); waited > c.within {
					t.Errorf("returned after %v, though no attempt could follow", waited)
				}
			})
		})
	}
}

func TestTransportSendsNoForgottenKey(t *testing.T) {
	u := up(t, status(201))
	const key = "01890a5d-ac96-774b-bcce-b302099a8057" // of July 2023
	_, err := fast(t).RoundTrip(post(t, u.URL, "x", "Idempotency-Key", key))
	if !errors.Is(err, semel.ErrExpired) || !errors.Is(err, semel.ErrNotDone) || len(u.seen()) != 0 || strings.Contains(err.Error(), key) {
		t.Errorf("got %v after %d requests, want an expired key, told without it, and none", err, len(u.seen()))
	}
}

func TestTransportCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{}
		tr := bubble(t, u.handler([]step{status(503, "Retry-After", "60")}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		begin := time.Now()
		_, err := tr.RoundTrip(post(t, "http://upstream/", "x").WithContext(ctx))
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("returned after %v, want 5s", took)
		}
		sent, ok := errors.AsType[*semelhttp.SendError](err)
		if !ok || !errors.Is(err, context.Canceled) || !errors.Is(err, semel.ErrInDoubt) || sent.Attempts != 1 || sent.Status != 503 || sent.Key == "" {
			t.Errorf("got %#v", err)
		}
	})
}

func TestTransportAttemptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{}
		hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		half := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			_, _ = io.WriteString(w, "ha")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		tr := bubble(t, u.handler([]step{hang, half, text("late")}))
		begin := time.Now()
		resp, err := tr.RoundTrip(post(t, "http://upstream/", "x"))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, resp); got != "late" || len(u.times) != 3 || time.Since(begin) < time.Minute {
			t.Errorf("got %q after %d attempts and %v, want the third after two timeouts of 30s", got, len(u.times), time.Since(begin))
		}
		tr.MaxAttempts, u.keys = 1, nil
		_, err = tr.RoundTrip(post(t, "http://upstream/", "x"))
		timeout, ok := err.(interface{ Timeout() bool })
		if !errors.Is(err, semel.ErrInDoubt) || !ok || !timeout.Timeout() {
			t.Errorf("got %v, want a timeout with an unknown outcome", err)
		}
	})
}

func TestTransportStreams(t *testing.T) {
	t.Run("an answer without a length is not held back", func(t *testing.T) {
		seen := make(chan struct{})
		u := up(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "one ")
			_ = http.NewResponseController(w).Flush()
			<-seen
			_, _ = io.WriteString(w, "two")
		})
		resp, err := fast(t).RoundTrip(post(t, u.URL, "x"))
		if err != nil {
			t.Fatal(err)
		}
		close(seen)
		if got := read(t, resp); got != "one two" {
			t.Errorf("got %q", got)
		}
	})
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("a long body is sent once, length known %v", known), func(t *testing.T) {
			u := up(t, status(503))
			tr := fast(t)
			tr.MaxBody = 10
			long := strings.Repeat("x", 1000)
			r := post(t, u.URL, long)
			if !known {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(long)), -1
			}
			resp, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			read(t, resp)
			if len(u.bodies) != 1 || u.bodies[0] != long || u.seen()[0] == "" {
				t.Errorf("%d requests, keys %q; want the whole body once, with a key", len(u.bodies), u.seen())
			}
		})
	}
}

// watched tells when a body is closed, and can fail.
type watched struct {
	io.Reader
	closed int
}

func (w *watched) Close() error { w.closed++; return nil }

func TestTransportClosesTheBody(t *testing.T) {
	u := up(t, status(503), status(201))
	broken := io.MultiReader(strings.NewReader("x"), failing{})
	for _, c := range []struct {
		name    string
		body    io.Reader
		length  int64
		headers []string
		sent    bool
	}{
		{"sent", strings.NewReader("x"), 1, nil, true},
		{"bad key", strings.NewReader("x"), 1, []string{"Idempotency-Key", "a, b"}, false},
		{"broken body", broken, -1, nil, false},
		{"body shorter than its length", strings.NewReader("x"), 5, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(u.seen())
			body := &watched{Reader: c.body}
			r := post(t, u.URL, "", c.headers...)
			r.Body, r.ContentLength = body, c.length
			resp, err := fast(t).RoundTrip(r)
			if err == nil {
				read(t, resp)
			}
			if body.closed == 0 || (err == nil) != c.sent || c.sent != (len(u.seen()) > before) {
				t.Errorf("closed %d times, error %v, %d requests; want it closed, and sent: %v", body.closed, err, len(u.seen())-before, c.sent)
			}
			if !c.sent && (!errors.Is(err, semel.ErrNotDone) || semelhttp.OutcomeOf(nil, err) != semelhttp.OutcomeNotDone) {
				t.Errorf("the error %v does not say that nothing was done", err)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestTransportBrokenAnswerIsAskedForAgain(t *testing.T) {
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "8")
		_, _ = io.WriteString(w, "char")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	u := up(t, half, text("charged!"))
	resp, err := fast(t).RoundTrip(post(t, u.URL, "x"))
	if err != nil || read(t, resp) != "charged!" {
		t.Errorf("got %v, want the whole answer of the second attempt", err)
	}
	u = up(t, half)
	tr := fast(t)
	tr.MaxAttempts = 2
	if resp, err = tr.RoundTrip(post(t, u.URL, "x")); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if !bytes.Equal(b, []byte("char")) || !errors.Is(err, io.ErrUnexpectedEOF) || len(u.seen()) != 2 {
		t.Errorf("got %q, %v after %d attempts; want what came, and that it broke off", b, err, len(u.seen()))
	}
}
