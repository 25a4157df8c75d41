package otel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/semelhq/semel/lifecycle"
)

// sweeps are the instruments of a sweeper.
type sweeps struct {
	passes, records, lines, archived, dropped, failures metric.Int64Counter
	busy                                                metric.Float64Histogram
}

func newSweeps(meter metric.Meter) (sweeps, error) {
	var s sweeps
	var wrong []error
	counter := func(into *metric.Int64Counter, name, unit, about string) {
		var err error
		*into, err = meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(about))
		wrong = append(wrong, err)
	}
	counter(&s.passes, "semel.sweep.passes", "{pass}", "Passes of the sweeper in this process.")
	counter(&s.records, "semel.sweep.records", "{record}", "Records that were forgotten or emptied.")
	counter(&s.failures, "semel.sweep.failures", "{failure}", "Calls of the sweeper that failed, and will be tried again.")
	counter(&s.lines, "semel.journal.archived", "{line}", "Lines of the journal that were archived.")
	counter(&s.archived, "semel.journal.archived.days", "{day}", "Days of the journal that were archived.")
	counter(&s.dropped, "semel.journal.dropped.days", "{day}", "Days of the journal that were dropped from the store.")
	var err error
	s.busy, err = meter.Float64Histogram("semel.sweep.busy", metric.WithUnit("s"), seconds(),
		metric.WithDescription("How long the store was kept busy by a pass."))
	return s, errors.Join(append(wrong, err)...)
}

// Sweeper is for lifecycle.Options.Observe.
func (n *Numbers) Sweeper(e lifecycle.Event) {
	ctx, s := context.Background(), &n.sweeps
	switch e.Kind {
	case lifecycle.Swept:
		s.passes.Add(ctx, 1, metric.WithAttributes(attribute.Bool("semel.drained", e.Pass.Drained)))
		s.records.Add(ctx, int64(e.Pass.Swept))
		s.busy.Record(ctx, e.Pass.Busy.Seconds())
	case lifecycle.Archived:
		s.archived.Add(ctx, 1)
		s.lines.Add(ctx, e.Lines)
	case lifecycle.Dropped:
		s.dropped.Add(ctx, 1)
	case lifecycle.Failed, lifecycle.Lost:
		s.failures.Add(ctx, 1)
	}
}
