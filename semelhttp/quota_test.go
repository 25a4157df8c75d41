package semelhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// allowance is a quota of so many new keys for each tenant, which come back all at
// once when it is told so.
type allowance struct {
	mu    sync.Mutex
	each  int
	begun map[string]int
	after time.Duration
}

// Enter is part of semel.Quota.
func (a *allowance) Enter(_ context.Context, tenant string) (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.begun[tenant] >= a.each {
		return a.after, false
	}
	a.begun[tenant]++
	return 0, true
}

// Leave is part of semel.Quota.
func (a *allowance) Leave(tenant string, fresh bool) {
	if !fresh {
		a.back(tenant, 1)
	}
}

func (a *allowance) back(tenant string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun[tenant] -= n
}

func newAllowance(each int, after time.Duration) *allowance {
	return &allowance{each: each, begun: make(map[string]int), after: after}
}

func TestQuotaExceeded(t *testing.T) {
	var runs atomic.Int64
	quota := newAllowance(2, 6500*time.Millisecond)
	s := serve(t, counted(&runs), semelhttp.Options{Policy: semel.Policy{Quota: quota}})
	for i := range 2 {
		path := fmt.Sprint(s.URL, "/", i) // a tenant is not a route
		for range 3 {
			if a := send(t, "POST", path, "", "Idempotency-Key", "k"); a.body != fmt.Sprint("run ", i+1) {
				t.Fatalf("got %d %s", a.StatusCode, a.body)
			}
		}
	}
	a := send(t, "POST", s.URL, "", "Idempotency-Key", "new")
	if a.StatusCode != 429 || a.kind() != semelhttp.QuotaExceeded || a.Header.Get("Retry-After") != "7" {
		t.Errorf("over quota: got %d %s, Retry-After %q", a.StatusCode, a.body, a.Header.Get("Retry-After"))
	}
	if a := send(t, "POST", s.URL+"/1", "", "Idempotency-Key", "k"); a.body != "run 2" || a.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a duplicate over quota: got %d %s", a.StatusCode, a.body)
	}
	if a := send(t, "POST", s.URL, "", "Idempotency-Key", "new", "X-Tenant", "other"); a.body != "run 3" {
		t.Errorf("another tenant: got %d %s", a.StatusCode, a.body)
	}
	for tenant := range quota.begun {
		quota.back(tenant, 1)
	}
	if a := send(t, "POST", s.URL, "", "Idempotency-Key", "new"); a.body != "run 4" || a.Header.Get("Idempotent-Replayed") != "" {
		t.Errorf("the same request later: got %d %s", a.StatusCode, a.body)
	}
}

func TestQuotaOfATenantOfOnesOwn(t *testing.T) {
	var runs atomic.Int64
	quota := newAllowance(1, time.Second)
	s := serve(t, counted(&runs), semelhttp.Options{Policy: semel.Policy{Quota: quota}, Tenant: func(r *http.Request) (string, error) {
		if r.Header.Get("X-Plan") == "none" {
			return "", errors.New("the header X-Plan has to be sent")
		}
		return r.Header.Get("X-Plan"), nil
	}})
	for _, c := range []struct {
		plan, client, key string
		kind              semelhttp.ProblemKind
	}{
		{"gold", "a", "1", ""},
		{"gold", "b", "1", semelhttp.QuotaExceeded},
		{"gold", "a", "1", ""},
		{"iron", "b", "1", ""},
		{"none", "b", "2", semelhttp.ScopeRequired},
		{"", "b", "2", semelhttp.ScopeRequired},
	} {
		a := send(t, "POST", s.URL, "", "Idempotency-Key", c.key, "X-Tenant", c.client, "X-Plan", c.plan)
		if a.kind() != c.kind {
			t.Errorf("%+v: got %d %s", c, a.StatusCode, a.body)
		}
	}
	if quota.begun["gold"] != 1 || quota.begun["iron"] != 1 || len(quota.begun) != 2 || runs.Load() != 2 {
		t.Errorf("counted %v, ran %d times", quota.begun, runs.Load())
	}
}

// The client's side waits as long as it is told, and asks again with the same key.
func TestTransportOverQuota(t *testing.T) {
	u := up(t, problem(semelhttp.QuotaExceeded), text("done"))
	client := &http.Client{Transport: &semelhttp.Transport{BackoffBase: time.Millisecond}}
	resp, err := client.Post(u.URL, "text/plain", nil)
	if err != nil || resp.StatusCode != 200 || semelhttp.OutcomeOf(resp, err) != semelhttp.OutcomeDone {
		t.Fatalf("got %v, %v", resp, err)
	}
	resp.Body.Close()
	if keys := u.seen(); len(keys) != 2 || keys[0] != keys[1] || u.times[1].Sub(u.times[0]) < time.Second {
		t.Errorf("asked with %q, %v apart", keys, u.times[1].Sub(u.times[0]))
	}
	u = up(t, problem(semelhttp.QuotaExceeded))
	client.Transport = &semelhttp.Transport{MaxAttempts: 1}
	resp, err = client.Post(u.URL, "text/plain", nil)
	if err != nil || semelhttp.OutcomeOf(resp, err) != semelhttp.OutcomeNotDone {
		t.Errorf("the last attempt: %v, %v", resp, err)
	}
	resp.Body.Close()
	u = up(t, status(502), problem(semelhttp.QuotaExceeded)) // the first may have run
	client.Transport = &semelhttp.Transport{MaxAttempts: 2, BackoffBase: time.Millisecond}
	if resp, err = client.Post(u.URL, "text/plain", nil); semelhttp.OutcomeOf(resp, err) != semelhttp.OutcomeUnknown {
		t.Errorf("after an attempt that may have run: %v, %v", resp, err)
	}
}
