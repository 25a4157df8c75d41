// Payments is a shop: it takes orders, and has a provider charge for them. It is
// an example of how Semel is used where money moves, and docs/guides walks
// through it. What it is proved with is in cmd/e2e/payments.
//
//	go run ./cmd/examples/payments/provider --lose 0.2
//	go run ./cmd/examples/payments --database postgres://…
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/resolve"
	"github.com/semelhq/semel/semelhttp"
)

// shop is what the handlers need.
type shop struct {
	pool     *pgxpool.Pool
	scope    *postgres.Scope
	provider *provider
	underWay time.Duration // how long a request to the provider may be
}

type settings struct {
	listen, database, provider string
	lease, every               time.Duration
}

//go:embed schema.sql
var schema string

func main() {
	var s settings
	flag.StringVar(&s.listen, "listen", "127.0.0.1:8080", "`address` to listen at")
	flag.StringVar(&s.database, "database", "", "`URL` of the PostgreSQL database")
	flag.StringVar(&s.provider, "provider", "http://127.0.0.1:8081", "`URL` of the payment provider")
	flag.DurationVar(&s.lease, "lease", 30*time.Second, "how long after a crash a payment is looked into; longer than a request can be under way")
	flag.DurationVar(&s.every, "every", 5*time.Second, "how often payments in doubt are looked for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, s settings) error {
	pool, err := pgxpool.New(ctx, s.database)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, schema); err != nil {
		return err
	}
	store, err := postgres.Open(ctx, s.database, postgres.Options{})
	if err != nil {
		return err
	}
	defer store.Close()

	// Orders, and what is written into the ledger: in transactions of the shop's database.
	scope, err := postgres.NewScope(store, pool, postgres.ScopeOptions{Policy: semel.Policy{Name: "database"}})
	if err != nil {
		return err
	}
	shop := &shop{pool: pool, scope: scope, provider: newProvider(s.provider), underWay: s.lease}

	// Payments: they leave the database, so a crash can leave one in doubt; then the completer asks the provider.
	var completer *resolve.Completer
	guard, err := semel.NewGuard(store, semel.Options{Observe: func(e semel.Event) {
		if e.Kind == semel.Doubted {
			completer.Suspect(e.Digest)
		}
	}})
	if err != nil {
		return err
	}
	payments, err := semel.Policy{Name: "payments", Class: semel.AtMostOnce, Lease: s.lease, Resolve: shop.resolve}.Filled()
	if err != nil {
		return err
	}
	completer, err = resolve.New(guard, resolve.Options{
		Policies: []*semel.Policy{&payments}, Every: s.every, Backoff: s.every,
		Observe: func(e resolve.Event) { log.Printf("in doubt: %s %v %s", e.Key.ID, e.Kind, e.Why) },
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for path, route := range map[string]struct {
		guard   *semel.Guard
		handler http.HandlerFunc
		policy  semel.Policy
	}{
		"/orders":   {scope.Guard(), shop.order, scope.Policy()},
		"/payments": {guard, shop.pay, payments},
	} {
		h, err := semelhttp.NewHandler(route.guard, route.handler, semelhttp.Options{
			Scope: semelhttp.HeaderScope("Authorization"), RequireKey: true, Policy: route.policy,
		})
		if err != nil {
			return err
		}
		mux.Handle("POST "+path, h)
	}
	return serve(ctx, s.listen, mux, completer)
}

// serve answers requests and completes what is in doubt, until ctx ends.
func serve(ctx context.Context, address string, handler http.Handler, completer *resolve.Completer) error {
	ctx, stop := context.WithCancelCause(ctx)
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { stop(server.ListenAndServe()) }()
	err := completer.Run(ctx)
	if cause := context.Cause(ctx); cause != context.Canceled { // not asked to end
		err = errors.Join(err, cause)
	}
	last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(last))
}
