package otel_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/otel"
	"github.com/semelhq/semel/lifecycle"
)

// read gives every number as "name{attributes}", and histograms by their counts.
func read(t *testing.T, r *metric.ManualReader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			put := func(set attribute.Set, v float64) { out[m.Name+"{"+set.Encoded(attribute.DefaultEncoder())+"}"] = v }
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					put(p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					put(p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					put(p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					put(p.Attributes, float64(p.Count))
					if len(p.Bounds) < 10 || p.Bounds[0] > 0.001 || p.Bounds[len(p.Bounds)-1] < 30 {
						t.Errorf("%s has the bounds %v, which are not of seconds", m.Name, p.Bounds)
					}
				}
			default:
				t.Fatalf("%s is a %T", m.Name, data)
			}
		}
	}
	return out
}

func TestGuard(t *testing.T) {
	reader := metric.NewManualReader()
	n, err := otel.New(metric.NewMeterProvider(metric.WithReader(reader)).Meter("semel"))
	if err != nil {
		t.Fatal(err)
	}
	tell := func(kind semel.EventKind, reason semel.Reason, unconfirmed bool) {
		n.Guard(semel.Event{Kind: kind, Reason: reason, Policy: "POST /v1/*", Key: semel.Key{Scope: "anna", ID: "secret-key"}, Took: time.Second, Unconfirmed: unconfirmed})
	}
	for range 3 {
		tell(semel.Claimed, 0, false)
	}
	tell(semel.Completed, 0, false)
	tell(semel.Completed, 0, false)
	tell(semel.Renewed, 0, false)
	tell(semel.Refused, semel.Mismatch, false)
	tell(semel.Refused, semel.OverQuota, false)
	tell(semel.Claimed, 0, true)
	got := read(t, reader)
	const route = "semel.route=POST /v1/*"
	want := map[string]float64{
		"semel.events{semel.event=claimed," + route + "}":                        3,
		"semel.events{semel.event=claimed," + route + ",semel.unconfirmed=true}": 1,
		"semel.events{semel.event=completed," + route + "}":                      2,
		"semel.events{semel.event=renewed," + route + "}":                        1,
		"semel.request.duration{semel.event=completed," + route + "}":            2,
		"semel.claim.duration{semel.event=claimed," + route + "}":                3,
	}
	for _, reason := range [...]semel.Reason{semel.Mismatch, semel.OverQuota} {
		want["semel.events{semel.event=refused,semel.reason="+reason.String()+","+route+"}"] = 1
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %v, want %v; there are %v", name, got[name], v, got)
		}
	}
	for name := range got {
		if strings.Contains(name, "secret") || strings.Contains(name, "anna") {
			t.Errorf("%s tells a key", name)
		}
		if strings.Contains(name, "renewed") && strings.Contains(name, "duration") {
			t.Errorf("%s: it goes on", name)
		}
	}
}

// However many policies there are, the numbers stay few; and none is lost.
func TestRoutesAreBounded(t *testing.T) {
	reader := metric.NewManualReader()
	n, err := otel.New(metric.NewMeterProvider(metric.WithReader(reader)).Meter("semel"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 1000 {
				n.Guard(semel.Event{Kind: semel.Replayed, Policy: fmt.Sprintf("policy %d", (i+j)%1000)})
			}
		})
	}
	all.Wait()
	names, sum := 0, 0.0
	for name, v := range read(t, reader) {
		if strings.HasPrefix(name, "semel.events{") {
			names++
			sum += v
		}
	}
	if names > 201 || sum != 4000 {
		t.Errorf("%d series with %v events, want at most 201 with 4000", names, sum)
	}
}

func TestSweeper(t *testing.T) {
	reader := metric.NewManualReader()
	n, err := otel.New(metric.NewMeterProvider(metric.WithReader(reader)).Meter("semel"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []lifecycle.Event{
		{Kind: lifecycle.Swept, Pass: lifecycle.Pass{Swept: 500, Drained: true, Busy: time.Second}},
		{Kind: lifecycle.Swept, Pass: lifecycle.Pass{Swept: 7}},
		{Kind: lifecycle.Archived, Lines: 90},
		{Kind: lifecycle.Archived, Lines: 10},
		{Kind: lifecycle.Dropped},
		{Kind: lifecycle.Failed},
		{Kind: lifecycle.Lost},
		{Kind: lifecycle.Measured},
	} {
		n.Sweeper(e)
	}
	got := read(t, reader)
	for name, v := range map[string]float64{
		"semel.sweep.passes{semel.drained=true}": 1, "semel.sweep.passes{semel.drained=false}": 1, "semel.sweep.records{}": 507, "semel.sweep.failures{}": 2,
		"semel.journal.archived{}": 100, "semel.journal.archived.days{}": 2, "semel.journal.dropped.days{}": 1, "semel.sweep.busy{}": 2,
	} {
		if got[name] != v {
			t.Errorf("%s is %v, want %v; there are %v", name, got[name], v, got)
		}
	}
}

func TestGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		var now lifecycle.Growth
		ok := false
		err := otel.Growth(metric.NewMeterProvider(metric.WithReader(reader)).Meter("semel"), func() (lifecycle.Growth, bool) { return now, ok }, otel.GrowthOptions{Scopes: 2})
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, reader); len(got) != 0 {
			t.Errorf("nothing was measured, and there is %v", got)
		}
		ok = true
		now = lifecycle.Growth{
			Measure:    semel.Measure{At: time.Unix(1e9, 0), Records: 1000, Bytes: 5000, JournalBytes: 7000, OldestPending: time.Unix(1e9-3, 0)},
			PendingAge: 3 * time.Second, Inflow: lifecycle.Inflow{PerDay: 800}, Forecast: lifecycle.Forecast{Records: 2400, Bytes: 9000},
			Scopes: []lifecycle.ScopeGrowth{{Scope: "anna", Records: 500}, {Scope: "ben", Records: 300}, {Scope: "cleo", Records: 150}}, Others: lifecycle.ScopeGrowth{Records: 50},
		}
		want := map[string]float64{
			"semel.records{}": 1000, "semel.store.size{}": 5000, "semel.journal.size{}": 7000, "semel.pending.age{}": 3, "semel.sweep.lag{}": 0,
			"semel.records.inflow{}": 800, "semel.records.forecast{}": 2400, "semel.store.forecast{}": 9000,
			"semel.scope.records{semel.scope=" + otel.ScopeID("anna") + "}": 500, "semel.scope.records{semel.scope=" + otel.ScopeID("ben") + "}": 300,
			"semel.scope.records{semel.scope=other}": 200,
		}
		same := func(what string, want map[string]float64) {
			t.Helper()
			got := read(t, reader)
			for name, v := range want {
				if have, ok := got[name]; !ok || have != v {
					t.Errorf("%s: %s is %v (%v), want %v", what, name, have, ok, v)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: got %v, want %v", what, got, want)
			}
		}
		same("measured", want)
		time.Sleep(14 * time.Minute)
		same("a little later", want)
		time.Sleep(2 * time.Minute)
		same("another process measures", nil)
		now.At = time.Unix(1e9+1000, 0)
		same("it is this one's turn again", want)
		now = lifecycle.Growth{Measure: semel.Measure{At: time.Unix(2e9, 0), Records: 3, Bytes: -1, JournalBytes: -1, Estimated: true}, Forecast: lifecycle.Forecast{Bytes: -1}}
		same("a store that cannot measure", map[string]float64{"semel.records{}": 3, "semel.records.inflow{}": 0, "semel.records.forecast{}": 0})
	})
}

func BenchmarkGuard(b *testing.B) {
	n, err := otel.New(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader())).Meter("semel"))
	if err != nil {
		b.Fatal(err)
	}
	e := semel.Event{Kind: semel.Completed, Policy: "POST /v1/charges", Took: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		n.Guard(e)
	}
}
