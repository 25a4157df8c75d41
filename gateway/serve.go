package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeader         = 64 << 10 // bytes of a request's head
	trimEvery         = time.Minute
	readyWithin       = time.Second
)

// Serve serves the listener public, and admin if it is not nil, until ctx ends.
// Then it drains: /readyz answers 503, no more connections are taken, and
// running requests and their results are waited for. It closes the listeners,
// the guard and the connections to the upstream before it returns.
//
// The error is nil if everything that was accepted was brought to its end.
func (g *Gateway) Serve(ctx context.Context, public, admin net.Listener) error {
	errorLog := slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)
	server := &http.Server{
		Handler: g, ErrorLog: errorLog, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	aside := &http.Server{
		Handler: g.Admin(), ErrorLog: errorLog, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readHeaderTimeout, MaxHeaderBytes: maxHeader,
	}
	failed := make(chan error, 2)
	var running sync.WaitGroup
	running.Go(func() { failed <- server.Serve(public) })
	if admin != nil {
		running.Go(func() { failed <- aside.Serve(admin) })
	}
	trimming, stop := context.WithCancel(context.WithoutCancel(ctx))
	running.Go(func() { g.trim(trimming) })
	quiet := g.background(ctx)

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("gateway: cannot accept connections: %w", err)
	}
	err = errors.Join(err, g.drain(ctx, server, quiet))
	stop()
	// Whoever watches /readyz can do so until the end.
	_ = aside.Close()
	running.Wait()
	g.sender.pool.close()
	g.client.CloseIdleConnections()
	for _, t := range g.safe {
		t.CloseIdleConnections()
	}
	return err
}

// background has unknown outcomes looked into, and the store kept small. quiet ends
// both, and waits for it. Sweeping ends with ctx already: requests that are still
// running need the store, and another gateway goes on sweeping.
func (g *Gateway) background(ctx context.Context) (quiet func()) {
	completing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	sweeping, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	if g.sweeper != nil {
		running.Go(func() { _ = g.sweeper.Run(sweeping) }) // what fails is told to observeSweeper
	}
	for _, c := range g.completing {
		running.Go(func() {
			if err := c.Run(completing); err != nil {
				g.log.Error("unknown outcomes are not looked into", "error", err)
			}
		})
	}
	return func() {
		cancel()
		stop()
		running.Wait()
	}
}

// newSweeper gives what keeps the store small; nil where there is nothing to do:
// records end by themselves, and the rest is not wanted.
func (g *Gateway) newSweeper() (*lifecycle.Sweeper, error) {
	store, o := g.config.Guard.Store(), g.config.Lifecycle
	_, sweeps := semel.As[semel.Sweeper](store)
	if _, measures := semel.As[semel.Measurer](store); o.Growth == 0 && !(measures && sweeps) {
		o.Growth = -1 // a list would go through the whole store
	}
	if !sweeps && o.Journal == 0 && o.Archive == nil && o.Growth < 0 {
		return nil, nil
	}
	o.Policies = nil
	for i := range g.routes {
		p := g.routes[i].policy
		o.Policies = append(o.Policies, &p)
	}
	told := o.Observe
	o.Observe = func(e lifecycle.Event) {
		observeSweeper(g.log, e)
		if told != nil {
			told(e)
		}
	}
	return lifecycle.New(g.config.Guard, o)
}

// Growth gives how much the store of Config.Guard holds and what that will come to,
// as it was measured last; false if this gateway has not measured, because another
// one does, or because it is not wanted.
func (g *Gateway) Growth() (lifecycle.Growth, bool) {
	if g.sweeper == nil {
		return lifecycle.Growth{}, false
	}
	return g.sweeper.Growth()
}

// drain waits for what runs, and then breaks it off. quiet ends what would go on
// for ever.
func (g *Gateway) drain(ctx context.Context, server *http.Server, quiet func()) error {
	g.draining.Store(true)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.config.Drain)
	defer cancel()
	err := server.Shutdown(limit)
	quiet()
	if err == nil {
		// Only what clients no longer wait for can still run.
		err = g.closeGuards(limit)
	} else {
		_ = server.Close()
		past, cancel := context.WithCancel(limit)
		cancel()
		_ = g.closeGuards(past) // they take nothing new
	}
	if err != nil {
		return fmt.Errorf("gateway: requests were still running %v after the stop; once their leases end, their keys are in doubt: %w", g.config.Drain, err)
	}
	return nil
}

func (g *Gateway) closeGuards(ctx context.Context) error {
	wrong := []error{g.config.Guard.Close(ctx)}
	for _, guard := range g.guards() {
		if guard != g.config.Guard {
			wrong = append(wrong, guard.Close(ctx))
		}
	}
	return errors.Join(wrong...)
}

// guards gives the guards of all routes, each once.
func (g *Gateway) guards() []*semel.Guard {
	var out []*semel.Guard
	for _, r := range g.config.Routes {
		if !slices.Contains(out, r.Guard) {
			out = append(out, r.Guard)
		}
	}
	return out
}

// trim closes connections to the upstream that nobody has used for long.
func (g *Gateway) trim(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.sender.pool.trim()
		}
	}
}

// Admin gives GET /healthz, which answers as long as the process runs, and GET
// /readyz, which answers 200 if the gateway takes requests: its store answers
// within a second, and it is not draining. It does not ask the upstream: whether
// that is there is for the clients to see. At /metrics it has Config.Metrics. Keep
// it from strangers.
func (g *Gateway) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		tell(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if g.draining.Load() {
			tell(w, http.StatusServiceUnavailable, "draining")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
		defer cancel()
		if err := g.ask(ctx); err != nil {
			g.log.Warn("not ready: the store does not answer", "error", err)
			tell(w, http.StatusServiceUnavailable, "the store does not answer")
			return
		}
		tell(w, http.StatusOK, "ready")
	})
	if g.config.Metrics != nil {
		mux.Handle("GET /metrics", g.config.Metrics)
	}
	return mux
}

// ask reads from the routes' stores, and does not wait longer than ctx even if a
// store does. A route that goes on without its store has one that answers.
func (g *Gateway) ask(ctx context.Context) error {
	answered := make(chan error, 1)
	go func() {
		var wrong []error
		for _, guard := range g.guards() {
			_, err := guard.Store().Get(ctx, semel.Digest{})
			wrong = append(wrong, err)
		}
		answered <- errors.Join(wrong...)
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func tell(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": text})
}
