package remote_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/remote"
)

// await waits for a hint. The time only bounds a test that fails.
func await(t *testing.T, changed <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatalf("no hint %s", what)
	}
}

// eventually waits for what other goroutines do. The time only bounds a test
// that fails.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("in vain: " + what)
		}
	}
}

func TestWatch(t *testing.T) {
	inner := newJournalled(time.Now)
	far := dial(t, serve(t, inner), remote.Options{})
	watcher, ok := semel.As[semel.Watcher](far)
	if !ok {
		t.Fatal("the far store is a Watcher, this one is none")
	}
	changed, stop := watcher.Watch(claim("k", 1).Digest)
	await(t, changed, "when the far side began to watch")
	r, err := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
	if err != nil {
		t.Fatal(err)
	}
	await(t, changed, "of the insert")
	if _, err := far.CompareAndSwap(t.Context(), r.Record.Version, claim("k", 2)); err != nil {
		t.Fatal(err)
	}
	await(t, changed, "of the renewal")
	stop()
	eventually(t, "the far side stops watching when its client does", func() bool { return inner.watched() == 0 })
}

// TestWatchBetweenCallAndBeginning: what changes before the far side watches
// is not missed, since the beginning is a hint itself.
func TestWatchBetweenCallAndBeginning(t *testing.T) {
	far := dial(t, serve(t, newJournalled(time.Now)), remote.Options{})
	watcher, _ := semel.As[semel.Watcher](far)
	for i := range 20 {
		next := claim("k", 1)
		next.Digest[0] = byte(i)
		changed, stop := watcher.Watch(next.Digest)
		if _, err := far.CompareAndSwap(t.Context(), semel.Version{}, next); err != nil {
			t.Fatal(err)
		}
		await(t, changed, "at all")
		stop()
	}
}

// TestWatchIsBounded: too many watches stay silent and harm nobody.
func TestWatchIsBounded(t *testing.T) {
	inner := newJournalled(time.Now)
	server := serveWith(t, inner, remote.HandlerOptions{Tokens: []string{token}, Watches: 3})
	far := dial(t, server.URL, remote.Options{})
	watcher, _ := semel.As[semel.Watcher](far)
	var stops []func()
	for i := range 100 {
		_, stop := watcher.Watch(semel.Digest{byte(i)})
		stops = append(stops, stop)
	}
	eventually(t, "three are watched", func() bool { return inner.watched() == 3 })
	if _, err := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1)); err != nil {
		t.Error(err)
	}
	for _, stop := range stops {
		stop()
	}
	eventually(t, "none is watched", func() bool { return inner.watched() == 0 })
	if err := far.Close(); err != nil {
		t.Error(err)
	}
}

// TestWatchSurvivesTheLine: a watch whose connection breaks begins again.
func TestWatchSurvivesTheLine(t *testing.T) {
	inner := newJournalled(time.Now)
	p := between(t, serveWith(t, inner, remote.HandlerOptions{Tokens: []string{token}}))
	far := dial(t, p.url(), remote.Options{})
	watcher, _ := semel.As[semel.Watcher](far)
	changed, stop := watcher.Watch(claim("k", 1).Digest)
	defer stop()
	await(t, changed, "at the beginning")
	p.drop()
	await(t, changed, "when it begins again")
	if _, err := inner.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1)); err != nil {
		t.Fatal(err)
	}
	await(t, changed, "of the insert")
}

// TestShutdown: a server that is to stop does not wait for watches.
func TestShutdown(t *testing.T) {
	h, err := remote.NewHandler(newJournalled(time.Now), remote.HandlerOptions{Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	server.RegisterOnShutdown(h.Close)
	address := listen(t, server)
	far := dial(t, address, remote.Options{})
	watcher, _ := semel.As[semel.Watcher](far)
	changed, stop := watcher.Watch(semel.Digest{1})
	defer stop()
	await(t, changed, "at the beginning")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// TestGuardIsWoken: a duplicate that waits at another process is answered.
func TestGuardIsWoken(t *testing.T) {
	address := serve(t, newJournalled(time.Now))
	var guards [2]*semel.Guard
	for i := range guards {
		g, err := semel.NewGuard(dial(t, address, remote.Options{}), semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		guards[i] = g
	}
	policy, err := semel.Policy{Wait: 20 * time.Second}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	ask := semel.Ask{Key: semel.Key{Scope: "a", ID: "k"}, Policy: &policy}
	held, _, err := guards[0].Begin(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan semel.Answer)
	go func() {
		answer, err := guards[1].Do(t.Context(), ask, func(context.Context) (semel.Result, error) { panic("ran twice") })
		if err != nil {
			t.Error(err)
		}
		answered <- answer
	}()
	if _, err := held.Complete(semel.Result{Code: 201, Data: []byte("receipt")}); err != nil {
		t.Fatal(err)
	}
	if answer := <-answered; !answer.Replayed || string(answer.Data) != "receipt" {
		t.Errorf("the waiter got %+v", answer)
	}
}
