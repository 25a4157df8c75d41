package otel_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/otel"
	"github.com/semelhq/semel/store/memory"
)

func Example() {
	reader := metric.NewManualReader() // a program takes an exporter's
	meter := metric.NewMeterProvider(metric.WithReader(reader)).Meter("semel")
	numbers, err := otel.New(meter)
	if err != nil {
		panic(err)
	}
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{Observe: numbers.Guard})
	if err != nil {
		panic(err)
	}
	policy, err := semel.Policy{Name: "orders"}.Filled()
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for range 2 {
		_, err := guard.Do(ctx, semel.Ask{Key: semel.Key{Scope: "tenant-7", ID: "9c1f"}, Policy: &policy}, func(context.Context) (semel.Result, error) {
			return semel.Result{Code: 201}, nil
		})
		if err != nil {
			panic(err)
		}
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &all); err != nil {
		panic(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if events, ok := m.Data.(metricdata.Sum[int64]); ok {
			fmt.Println(m.Name, "has", len(events.DataPoints), "series")
		}
	}
	// Output: semel.events has 3 series
}
