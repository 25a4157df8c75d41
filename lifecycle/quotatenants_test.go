package lifecycle

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// Whoever invents tenants costs no more room than the most that are remembered.
func TestQuotaMillionTenants(t *testing.T) {
	const most = 10_000
	q, err := NewQuota(QuotaOptions{NewKeys: 1, Per: time.Hour, InFlight: 1, Tenants: most})
	if err != nil {
		t.Fatal(err)
	}
	enter := func(name string, want bool) {
		t.Helper()
		if _, ok := q.Enter(t.Context(), name); ok != want {
			t.Fatalf("%s: let in %v, want %v", name, ok, want)
		}
	}
	enter("running", true)
	enter("seen", true)
	q.Leave("seen", true)
	var before, after runtime.MemStats
	for i := range 1_000_000 {
		if i == 2*most {
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
		name := fmt.Sprint("invented-", i)
		enter(name, true)
		q.Leave(name, true)
		if i%(most/2) == 0 { // one that is seen is not forgotten
			enter("seen", false)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); len(q.tenants.byName) != most || grown > 1<<20 {
		t.Errorf("%d tenants are remembered, want %d; %d bytes more than after the first 20,000", len(q.tenants.byName), most, grown)
	}
	enter("running", false) // still in flight
	q.Leave("running", true)
	n := 0
	for at := q.tenants.oldest; at != nil; at = at.newer {
		n++
	}
	if n != most {
		t.Errorf("%d are in the list and %d in the map", n, most)
	}
	t.Logf("%d bytes for each tenant", before.HeapAlloc/most)
}

func TestQuotaForgetsWhoLosesNothing(t *testing.T) {
	q, err := NewQuota(QuotaOptions{NewKeys: 1, Per: time.Hour, Tenants: 3})
	if err != nil {
		t.Fatal(err)
	}
	for name, fresh := range map[string]bool{"debtor": true, "other": true, "idle": false} {
		if _, ok := q.Enter(t.Context(), name); !ok {
			t.Fatal(name)
		}
		q.Leave(name, fresh)
	}
	for i := range 10 {
		name := fmt.Sprint("new-", i)
		if _, ok := q.Enter(t.Context(), name); !ok {
			t.Fatal(name)
		}
		q.Leave(name, false)
		if _, ok := q.Enter(t.Context(), "debtor"); ok {
			t.Fatal("one with debts was forgotten for its sake, and another had none")
		}
	}
	full, err := NewQuota(QuotaOptions{InFlight: 1, Tenants: 2})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a": true, "b": true} {
		if _, ok := full.Enter(t.Context(), name); ok != want {
			t.Fatal(name)
		}
	}
	if wait, ok := full.Enter(t.Context(), "c"); ok || wait != time.Second {
		t.Errorf("there is no room, and one was let in: %v, %v", wait, ok)
	}
}
