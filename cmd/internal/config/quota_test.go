package config

import (
	"net/http/httptest"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

func TestQuotasOfRoutes(t *testing.T) {
	s, err := Load(Sources{File: "testdata/quotaright.yaml", Lookup: nothing})
	if err != nil {
		t.Fatal(err)
	}
	s.Routes = append(s.Routes, s.Default) // another that takes the top's
	c, err := s.Gateway()
	if err != nil {
		t.Fatal(err)
	}
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetQuotas(&c, guard); err != nil {
		t.Fatal(err)
	}
	quota := func(i int) semel.Quota { return c.Routes[i].Options.Policy.Quota }
	if quota(0) != nil || quota(1) == nil || quota(1) == quota(2) || quota(3) != quota(4) || quota(3) == quota(1) {
		t.Errorf("the quotas are %v %v %v %v %v", quota(0), quota(1), quota(2), quota(3), quota(4))
	}
	enter := func(i int, tenant string, n int) (in int) {
		for range n {
			if _, ok := quota(i).Enter(t.Context(), tenant); ok {
				in++
			}
		}
		return in
	}
	if in := enter(3, "a", 50); in != 20 {
		t.Errorf("%d at once by the top's, want 20", in)
	}
	if in := enter(1, "a", 200); in != 100 {
		t.Errorf("%d new keys of the shared one, want 100", in)
	}
	lister, _ := semel.As[semel.Lister](guard.Store())
	kept, err := lister.List(t.Context(), semel.Filter{Scope: semel.JoinScope("semel", "quota", "/shared", "a")})
	if err != nil || len(kept) != 1 || kept[0].Attempt != 100 {
		t.Errorf("the store has %+v, %v; want one record that counts 100", kept, err)
	}
	tenant := func(plan string) string {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("X-Plan", plan)
		name, err := c.Routes[2].Options.Tenant(r)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	for plan, want := range map[string]int{"acme": 50, "other": 2, "third": 5} {
		if in := enter(2, tenant(plan), 50); in != want {
			t.Errorf("the plan %s: %d let in, want %d", plan, in, want)
		}
	}
	for i, want := range []string{"", "each client: 100 new keys in 1h; shared through the store", "each X-Plan: 5 at once, 2 with limits of their own", "each client: 1000 new keys in 1m, 20 at once"} {
		if q := s.Routes[i].Quota; q != nil && q.String() != want {
			t.Errorf("in words: %q, want %q", q, want)
		}
	}
}

func TestBodyCountsInWords(t *testing.T) {
	for want, f := range map[string]Fingerprint{
		"bytes": {ContentDigest: true}, "form": {Form: true}, "json": {JSON: true},
		"json, only /a /b": {JSON: true, Include: []string{"/a", "/b"}}, "json, without /c": {JSON: true, Exclude: []string{"/c"}},
	} {
		if f.words() != want {
			t.Errorf("%+v: %q, want %q", f, f.words(), want)
		}
	}
	s := Defaults()
	s.Upstream = "http://127.0.0.1:3000"
	s.Default.Fingerprint.JSON = true
	c, err := s.Gateway()
	if err != nil || c.Routes[0].Options.BodyCounts != "json" || c.PolicyPath != "/.well-known/semel/policy" {
		t.Errorf("%+v, %v", c, err)
	}
	s.PolicyPath = s.StatusPath
	if _, err := s.Gateway(); err == nil {
		t.Error("two endpoints at one path")
	}
}
