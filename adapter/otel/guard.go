package otel

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/semelhq/semel"
)

// Numbers counts what guards and sweepers tell. Its methods are safe for concurrent
// use and return at once.
type Numbers struct {
	events  metric.Int64Counter
	request metric.Float64Histogram
	claim   metric.Float64Histogram
	sweeps  sweeps

	mu     sync.RWMutex
	series map[series]metric.MeasurementOption
	routes map[string]bool
}

// series is what tells one event from another in numbers.
type series struct {
	kind        semel.EventKind
	reason      semel.Reason
	route       string
	unconfirmed bool
}

// maxRoutes bounds the routes that are told apart.
const maxRoutes = 200

// other stands for all routes, or scopes, beyond the bound.
const other = "other"

// seconds are the bounds of the histograms: from a cached answer to a lease.
func seconds() metric.HistogramOption {
	return metric.WithExplicitBucketBoundaries(
		0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
	)
}

// New makes the instruments. The error is the meter's.
func New(meter metric.Meter) (*Numbers, error) {
	n := &Numbers{series: make(map[series]metric.MeasurementOption), routes: make(map[string]bool)}
	var wrong [4]error
	n.events, wrong[0] = meter.Int64Counter("semel.events", metric.WithUnit("{event}"),
		metric.WithDescription("What happened to requests: claimed, completed, replayed, refused and so on."))
	n.request, wrong[1] = meter.Float64Histogram("semel.request.duration", metric.WithUnit("s"), seconds(),
		metric.WithDescription("How long guarded requests took, with the operation where it ran."))
	n.claim, wrong[2] = meter.Float64Histogram("semel.claim.duration", metric.WithUnit("s"), seconds(),
		metric.WithDescription("How long it took until an operation could start."))
	n.sweeps, wrong[3] = newSweeps(meter)
	return n, errors.Join(wrong[:]...)
}

// Guard is for semel.Options.Observe.
func (n *Numbers) Guard(e semel.Event) {
	ctx := context.Background()
	of := n.of(series{e.Kind, e.Reason, e.Policy, e.Unconfirmed})
	n.events.Add(ctx, 1, of)
	switch e.Kind {
	case semel.Claimed:
		n.claim.Record(ctx, e.Took.Seconds(), of)
	case semel.Renewed, semel.Lost: // it goes on
	default:
		n.request.Record(ctx, e.Took.Seconds(), of)
	}
}

// of gives the attributes of a series.
func (n *Numbers) of(s series) metric.MeasurementOption {
	n.mu.RLock()
	of, ok := n.series[s]
	n.mu.RUnlock()
	if ok {
		return of
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.routes[s.route] {
		if len(n.routes) >= maxRoutes {
			s.route = other
		}
		n.routes[s.route] = true
	}
	attributes := []attribute.KeyValue{attribute.String("semel.event", s.kind.String()), attribute.String("semel.route", s.route)}
	if s.reason != 0 {
		attributes = append(attributes, attribute.String("semel.reason", s.reason.String()))
	}
	if s.unconfirmed {
		attributes = append(attributes, attribute.Bool("semel.unconfirmed", true))
	}
	of = metric.WithAttributeSet(attribute.NewSet(attributes...))
	n.series[s] = of
	return of
}
