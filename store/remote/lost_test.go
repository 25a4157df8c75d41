package remote_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
	"github.com/semelhq/semel/store/storetest"
)

// claim is a first claim on a key.
func claim(id string, nonce byte) semel.Record {
	key := semel.Key{Scope: "tenant", ID: id}
	return semel.Record{
		Digest: key.Digest(nil), State: semel.Pending, Nonce: semel.Nonce{nonce, 1}, Attempt: 1, TTL: time.Hour, Key: key,
	}
}

// unclear checks that err tells nothing of what happened.
func unclear(t testing.TB, err error) {
	t.Helper()
	for _, wrong := range []error{semel.ErrConflict, semel.ErrDamaged, semel.ErrRejected} {
		if err == nil || errors.Is(err, wrong) {
			t.Fatalf("got %v; want an error that leaves open what happened", err)
		}
	}
}

// TestCutAnswers cuts the answer to a swap after each of its bytes: nobody
// knows, and whoever asks again recognises the write. Nothing is sent twice.
func TestCutAnswers(t *testing.T) {
	inner := &counting{Store: memory.New(memory.Options{})}
	p := between(t, serveWith(t, inner, remote.HandlerOptions{Tokens: []string{token}}))
	far := dial(t, p.url(), remote.Options{})
	whole := 0
	for n := 0; n < 2000 && whole == 0; n++ {
		next := claim("k", byte(n))
		next.Digest[0], next.Digest[1], next.Nonce[2] = byte(n), byte(n>>8), byte(n>>8)
		p.pass(-1, n)
		before := inner.swaps.Load()
		r, err := far.CompareAndSwap(t.Context(), semel.Version{}, next)
		if sent := inner.swaps.Load() - before; sent != 1 {
			t.Fatalf("after %d bytes: %d swaps reached the store", n, sent)
		}
		p.pass(-1, -1)
		if err == nil {
			if r.Record.Nonce != next.Nonce || r.Record.Version.IsZero() {
				t.Fatalf("after %d bytes: a success of %+v", n, r)
			}
			whole = n
			continue
		}
		unclear(t, err)
		r, err = far.CompareAndSwap(t.Context(), semel.Version{}, next)
		if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce {
			t.Fatalf("after %d bytes, asked again: %+v, %v; want a conflict with our own write", n, r, err)
		}
	}
	if whole < 200 {
		t.Errorf("the answer was taken for whole after %d bytes", whole)
	}
	t.Logf("an answer of %d bytes, cut at each", whole)
}

// TestCutRequests cuts the request after some of its bytes: nothing is written.
func TestCutRequests(t *testing.T) {
	inner := &counting{Store: memory.New(memory.Options{})}
	p := between(t, serveWith(t, inner, remote.HandlerOptions{Tokens: []string{token}}))
	far := dial(t, p.url(), remote.Options{})
	for n := 0; n < 400; n += 7 {
		p.pass(n, -1)
		_, err := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
		unclear(t, err)
		p.pass(-1, -1)
	}
	if r, err := far.Get(t.Context(), claim("k", 1).Digest); err != nil || r.Record.Held() || inner.swaps.Load() != 0 {
		t.Errorf("after cut requests: %+v, %v, %d swaps", r, err, inner.swaps.Load())
	}
}

// TestGuardOverABadLine: the operation runs once, though the line breaks again
// and again.
func TestGuardOverABadLine(t *testing.T) {
	p := between(t, serveWith(t, memory.New(memory.Options{}), remote.HandlerOptions{Tokens: []string{token}}))
	guard, err := semel.NewGuard(dial(t, p.url(), remote.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := semel.Policy{Wait: 20 * time.Second}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int64
	for i := range 40 {
		ask := semel.Ask{Key: semel.Key{Scope: "line", ID: string(rune('a' + i))}, Policy: &policy}
		p.pass(-1, i*13) // the line ends somewhere in the claim, or in the completion
		mended := make(chan struct{})
		go func() {
			defer close(mended)
			for range 3 {
				time.Sleep(5 * time.Millisecond)
				p.pass(-1, 300)
			}
			p.pass(-1, -1)
		}()
		for range 2 {
			answer, err := guard.Do(t.Context(), ask, func(context.Context) (semel.Result, error) {
				runs.Add(1)
				return semel.Result{Code: 201, Data: []byte("receipt")}, nil
			})
			if err != nil || string(answer.Data) != "receipt" {
				t.Fatalf("key %d: %+v, %v", i, answer, err)
			}
		}
		<-mended
	}
	if n := runs.Load(); n != 40 {
		t.Errorf("40 operations ran %d times", n)
	}
}

// counting counts the swaps that reach a store.
type counting struct {
	*memory.Store
	swaps atomic.Int64
}

func (s *counting) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	s.swaps.Add(1)
	return s.Store.CompareAndSwap(ctx, old, next)
}

// TestFieldBug07_TransportSendsAgain: connections that were used before break
// while a swap is under way. net/http must not send it once more.
func TestFieldBug07_TransportSendsAgain(t *testing.T) {
	for name, pass := range map[string]int{"before any byte of the answer": 0, "within the answer": 40} {
		t.Run(name, func(t *testing.T) {
			inner := &counting{Store: memory.New(memory.Options{})}
			p := between(t, serveWith(t, inner, remote.HandlerOptions{Tokens: []string{token}}))
			far := dial(t, p.url(), remote.Options{})
			for i := range 50 {
				if _, err := far.Get(t.Context(), semel.Digest{1}); err != nil { // the connection has been used
					t.Fatal(err)
				}
				connections := p.counted()
				p.pass(-1, pass)
				next := claim("k", byte(i))
				next.Digest[0] = byte(i)
				_, err := far.CompareAndSwap(t.Context(), semel.Version{}, next)
				unclear(t, err)
				if n := inner.swaps.Load(); n != int64(i+1) || p.counted() != connections {
					t.Fatalf("swap %d: %d reached the store, over %d new connections", i+1, n, p.counted()-connections)
				}
				p.pass(-1, -1)
			}
		})
	}
}

// TestFieldBug01_ClientLeavesAndTheWriteIsCancelled: the store gets a context
// that does not end with the client.
func TestFieldBug01_ClientLeavesAndTheWriteIsCancelled(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	inner := &storetest.Faulty{Store: memory.New(memory.Options{})}
	ended := make(chan error, 1)
	inner.Before = func(ctx context.Context, c storetest.Call) error {
		if c.Writes() { // there is one
			close(begun)
			<-goOn
			ended <- ctx.Err()
		}
		return nil
	}
	h, err := remote.NewHandler(inner, remote.HandlerOptions{Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/swap") {
			context.AfterFunc(r.Context(), func() { close(left) })
		}
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	far := dial(t, server.URL, remote.Options{})
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, err := far.CompareAndSwap(ctx, semel.Version{}, claim("k", 1))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the client that left got %v", err)
		}
	}()
	<-begun
	leave()
	<-gone
	<-left // the server knows that the client has left
	close(goOn)
	if err := <-ended; err != nil {
		t.Errorf("the store's context ended with the client: %v", err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for { // nobody awaits the write, so it is looked for
		r, err := far.Get(soon, claim("k", 1).Digest)
		if err != nil {
			t.Fatal(err)
		}
		if r.Record.Held() {
			break
		}
	}
}
