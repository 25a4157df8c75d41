package serving

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/semelhq/semel/adapter/otel"
	"github.com/semelhq/semel/lifecycle"
)

// Metrics are the numbers of one process, in Prometheus' text format.
type Metrics struct {
	// Numbers take what guards and sweepers tell.
	*otel.Numbers
	meter    metric.Meter
	registry *prometheus.Registry
}

// NewMetrics gives numbers of guards and sweepers, of this process and of Go.
func NewMetrics() (*Metrics, error) {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := exporter.New(exporter.WithRegisterer(m.registry), exporter.WithoutScopeInfo(), exporter.WithoutTargetInfo())
	if err != nil {
		return nil, err
	}
	m.meter = sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("github.com/semelhq/semel")
	m.Numbers, err = otel.New(m.meter)
	return m, err
}

// Growth adds the store's size. every is the pause between two measurements; 0: the
// default.
func (m *Metrics) Growth(growth func() (lifecycle.Growth, bool), every time.Duration) error {
	return otel.Growth(m.meter, growth, otel.GrowthOptions{Fresh: 3 * every})
}

// Handler serves the numbers.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}
