package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newGuard(t *testing.T) *semel.Guard {
	t.Helper()
	g, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func status(t *testing.T, url string) int {
	t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(httptest.NewRequest("GET", url, nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestDrain stops a gateway while a request runs: it is not ready any more, it
// takes no connection, and the request gets its answer.
func TestDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	d := open(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		w.WriteHeader(http.StatusCreated)
	})), nil)
	public, admin := listen(t), listen(t)
	d.url = "http://" + public.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, public, admin) }()

	if s := status(t, "http://"+admin.Addr().String()+"/readyz"); s != http.StatusOK {
		t.Errorf("/readyz says %d at the start, want 200", s)
	}
	answered := make(chan answer, 1)
	go func() { answered <- d.ask(t, "POST", "/pay", "k", "x") }()
	<-entered
	stop()
	for { // the listener closes a moment after readiness ends
		c, err := net.Dial("tcp", public.Addr().String())
		if err != nil {
			break
		}
		_ = c.Close()
	}
	if s := status(t, "http://"+admin.Addr().String()+"/readyz"); s != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d while draining, want 503", s)
	}
	if s := status(t, "http://"+admin.Addr().String()+"/healthz"); s != http.StatusOK {
		t.Errorf("/healthz says %d while draining, want 200", s)
	}
	select {
	case err := <-served:
		t.Fatalf("Serve returned %v while a request was running", err)
	default:
	}
	close(leave)
	if a := <-answered; a.status != http.StatusCreated {
		t.Errorf("the running request got %v, want 201", a)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v, want nil", err)
	}
}

// TestDrainEnds stops a gateway whose upstream does not answer.
func TestDrainEnds(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	defer close(leave)
	w := serveWire(t, func(net.Conn, int64, *http.Request) bool {
		close(entered)
		<-leave
		return false
	})
	d := open(t, w.url, func(c *Config) { c.Drain = 20 * time.Millisecond })
	public := listen(t)
	d.url = "http://" + public.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, public, nil) }()
	go func() {
		r := httptest.NewRequest("POST", d.url, strings.NewReader("x"))
		r.Header.Set("Idempotency-Key", "k")
		if resp, err := new(http.Transport).RoundTrip(r); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-entered
	stop()
	if err := <-served; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in doubt") {
		t.Errorf("Serve returned %v, want that a request was still running", err)
	}
}

// broken is a store that does not answer any more.
type broken struct {
	semel.Store
	err error
}

func (b *broken) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if b.err == nil {
		return b.Store.Get(ctx, d)
	}
	if errors.Is(b.err, context.DeadlineExceeded) {
		<-ctx.Done()
	}
	return semel.Reading{}, b.err
}

func TestReadyAsksTheStore(t *testing.T) {
	store := &broken{Store: memory.New(memory.Options{})}
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, "http://127.0.0.1:1", func(c *Config) { c.Guard = guard })
	admin := serve(t, d.Admin())
	if s := status(t, admin+"/readyz"); s != http.StatusOK {
		t.Errorf("got %d, want 200: the upstream is not asked", s)
	}
	for _, store.err = range []error{errors.New("no disk"), context.DeadlineExceeded} {
		if s := status(t, admin+"/readyz"); s != http.StatusServiceUnavailable {
			t.Errorf("%v: got %d, want 503", store.err, s)
		}
	}
	if s := status(t, admin+"/pay"); s != http.StatusNotFound {
		t.Errorf("the admin listener answers /pay with %d, want 404: it passes nothing on", s)
	}
}

// TestLogsTellNoSecrets looks at every line that all kinds of requests leave
// at the level debug.
func TestLogsTellNoSecrets(t *testing.T) {
	w := serveWire(t, func(c net.Conn, run int64, _ *http.Request) bool {
		if run%2 == 0 {
			return false
		}
		say(c, "HTTP/1.1 200 OK\nContent-Length: 13\nSet-Cookie: secret-cookie\n\nsecret-answer")
		return true
	})
	d := open(t, w.url, func(c *Config) { c.Routes[0].Options.Scope = semelhttp.HeaderScope("Authorization") })
	for range 2 {
		for _, key := range []string{"secret-key-1", "secret-key-2", `"secret`} {
			for _, body := range []string{"secret-body", "secret-other"} {
				d.ask(t, "POST", "/pay?token=secret-query", key, body, "Authorization", "secret-credential")
			}
		}
		d.ask(t, "GET", "/pay?token=secret-query", "", "", "Authorization", "secret-credential")
	}
	text := d.logs.String()
	if strings.Contains(text, "secret") {
		t.Errorf("the logs tell a secret:\n%s", text)
	}
	for _, want := range []string{"mismatch", "no answer from the upstream", "event=doubted", "event=replayed", "path=/pay"} {
		if !strings.Contains(text, want) {
			t.Errorf("the logs do not tell %q:\n%s", want, text)
		}
	}
}
