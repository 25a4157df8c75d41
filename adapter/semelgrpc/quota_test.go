package semelgrpc_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/semelgrpc"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/semelhttp"
)

func TestQuotaExceeded(t *testing.T) {
	for name, tenant := range map[string]semelgrpc.Scope{
		"by scope": nil,
		"by plan": func(ctx context.Context, _ string) (string, error) {
			return metadata.ValueFromIncomingContext(ctx, "x-plan")[0], nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			quota, err := lifecycle.NewQuota(lifecycle.QuotaOptions{NewKeys: 2, Per: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			var runs atomic.Int64
			o := semelgrpc.Options{Tenant: tenant, Methods: map[string]semelgrpc.Method{charge: {Policy: semel.Policy{Quota: quota}}}}
			cc := serve(t, counted(&runs), o, nil).dial(t)
			for _, key := range []string{"a", "b", "a", "b"} {
				if a := ask(t, cc, charge, "100", "idempotency-key", key, "x-plan", "gold"); a.err != nil {
					t.Fatal(a.err)
				}
			}
			row := want{codes.ResourceExhausted, semelgrpc.QuotaExceeded, true, semelhttp.OutcomeNotDone}
			over := ask(t, cc, charge, "100", "idempotency-key", "c", "x-plan", "gold")
			row.check(t, over)
			for _, d := range status.Convert(over.err).Details() {
				if d, ok := d.(*errdetails.RetryInfo); ok && (d.GetRetryDelay().AsDuration() < 29*time.Minute || d.GetRetryDelay().AsDuration() > 30*time.Minute) {
					t.Errorf("RetryInfo is %v, want the half hour until the next key", d.GetRetryDelay().AsDuration())
				}
			}
			if a := ask(t, cc, charge, "100", "idempotency-key", "a", "x-plan", "gold"); !a.replayed() {
				t.Errorf("a duplicate over quota: %v", a.err)
			}
			if a := ask(t, cc, charge, "100", "idempotency-key", "c", "x-plan", "gold", "x-tenant", "another"); (a.err == nil) != (tenant == nil) {
				t.Errorf("another client of the same plan: %v", a.err)
			}
			other := ask(t, cc, charge, "100", "idempotency-key", "c", "x-plan", "iron")
			if (other.err == nil) != (tenant != nil) || runs.Load() != 3 {
				t.Errorf("another plan of the same client: %v; ran %d times", other.err, runs.Load())
			}
		})
	}
}

func TestQuotaOfNobody(t *testing.T) {
	quota, err := lifecycle.NewQuota(lifecycle.QuotaOptions{NewKeys: 2})
	if err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int64
	cc := serve(t, counted(&runs), semelgrpc.Options{
		Tenant:  func(context.Context, string) (string, error) { return "", nil },
		Methods: map[string]semelgrpc.Method{charge: {Policy: semel.Policy{Quota: quota}}},
	}, nil).dial(t)
	row := want{codes.InvalidArgument, semelgrpc.ScopeRequired, false, semelhttp.OutcomeNotDone}
	row.check(t, ask(t, cc, charge, "100", "idempotency-key", "c"))
	if runs.Load() != 0 {
		t.Error("it ran")
	}
}
