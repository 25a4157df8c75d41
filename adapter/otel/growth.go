package otel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/semelhq/semel/lifecycle"
)

// GrowthOptions are the settings of Growth. The zero value is usable.
type GrowthOptions struct {
	// Scopes is how many scopes are told one by one, the largest. Default 10;
	// negative: none.
	Scopes int
	// Fresh is how long a measurement is told: another process may have taken over
	// measuring, and then this one's is old. Default 15 min, three times the default
	// pause between two measurements.
	Fresh time.Duration
}

// ScopeID is what numbers have in place of a scope, which may name a person: 12
// hexadecimal digits of its SHA-256.
func ScopeID(scope string) string {
	sum := sha256.Sum256([]byte(scope))
	return hex.EncodeToString(sum[:6])
}

// gauges are the instruments of growth.
type gauges struct {
	records, size, journal, inflow, forecast, forecastSize, scope metric.Int64ObservableGauge
	pending, lag                                                  metric.Float64ObservableGauge
}

// Growth has the meter tell what growth gives, such as lifecycle.Sweeper.Growth, each
// time that it is read. While growth gives false, or nothing new for as long as
// o.Fresh, there are no such numbers: among several processes the one that measures
// tells them.
func Growth(meter metric.Meter, growth func() (lifecycle.Growth, bool), o GrowthOptions) error {
	if o.Scopes == 0 {
		o.Scopes = 10
	}
	if o.Fresh == 0 {
		o.Fresh = 15 * time.Minute
	}
	var g gauges
	all, err := g.open(meter)
	if err != nil {
		return err
	}
	seen := &freshness{limit: o.Fresh}
	_, err = meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		if now, ok := growth(); ok && seen.fresh(now.At, time.Now()) {
			g.observe(to, &now, max(o.Scopes, 0))
		}
		return nil
	}, all...)
	return err
}

func (g *gauges) open(meter metric.Meter) (all []metric.Observable, err error) {
	var wrong []error
	whole := func(into *metric.Int64ObservableGauge, name, unit, about string) {
		i, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
		*into = i
		all, wrong = append(all, i), append(wrong, err)
	}
	part := func(into *metric.Float64ObservableGauge, name, about string) {
		i, err := meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(about))
		*into = i
		all, wrong = append(all, i), append(wrong, err)
	}
	whole(&g.records, "semel.records", "{record}", "Records in the store.")
	whole(&g.size, "semel.store.size", "By", "What the records take, with their indexes.")
	whole(&g.journal, "semel.journal.size", "By", "What the journal takes.")
	part(&g.pending, "semel.pending.age", "Age of the oldest pending record; 0: there is none.")
	part(&g.lag, "semel.sweep.lag", "How long the record has been due that waits longest for the sweeper; 0: none is due.")
	whole(&g.inflow, "semel.records.inflow", "{record}/d", "New keys in a day, from a sample.")
	whole(&g.forecast, "semel.records.forecast", "{record}", "Records that there will be if as much goes on coming in.")
	whole(&g.forecastSize, "semel.store.forecast", "By", "What they will take.")
	whole(&g.scope, "semel.scope.records", "{record}", "Records of the largest scopes, by a digest of the scope, and of all others.")
	return all, errors.Join(wrong...)
}

func (g *gauges) observe(to metric.Observer, now *lifecycle.Growth, scopes int) {
	// What the store cannot tell is left out, and not 0.
	known := func(of metric.Int64ObservableGauge, n int64) {
		if n >= 0 {
			to.ObserveInt64(of, n)
		}
	}
	measured := now.Bytes >= 0 // else nobody knows of what is pending or due, if there is no time of it
	to.ObserveInt64(g.records, now.Records)
	known(g.size, now.Bytes)
	known(g.journal, now.JournalBytes)
	if measured || !now.OldestPending.IsZero() {
		to.ObserveFloat64(g.pending, now.PendingAge.Seconds())
	}
	if measured || !now.Overdue.IsZero() {
		to.ObserveFloat64(g.lag, now.Lag.Seconds())
	}
	to.ObserveInt64(g.inflow, int64(now.Inflow.PerDay))
	to.ObserveInt64(g.forecast, now.Forecast.Records)
	known(g.forecastSize, now.Forecast.Bytes)
	if scopes == 0 {
		return
	}
	rest := now.Others.Records
	for i := range now.Scopes {
		of := &now.Scopes[i]
		if i >= scopes {
			rest += of.Records
			continue
		}
		to.ObserveInt64(g.scope, of.Records, metric.WithAttributes(attribute.String("semel.scope", ScopeID(of.Scope))))
	}
	if rest > 0 {
		to.ObserveInt64(g.scope, rest, metric.WithAttributes(attribute.String("semel.scope", other)))
	}
}

// freshness tells for how long a measurement has been the last one.
type freshness struct {
	limit time.Duration

	mu    sync.Mutex
	at    time.Time // by the store's clock
	since time.Time // by ours, when it was first seen
}

// fresh tells whether what was measured at a time of the store may be told now.
func (f *freshness) fresh(at, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !at.Equal(f.at) {
		f.at, f.since = at, now
	}
	return now.Sub(f.since) < f.limit
}
