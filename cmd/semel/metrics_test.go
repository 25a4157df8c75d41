package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape reads /metrics as Prometheus does.
func scrape(t *testing.T, admin string) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(httptest.NewRequest("GET", admin+"/metrics", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Fatal(resp.Status, resp.Header, err)
	}
	return all
}

// value adds up what a metric has with all of these labels.
func value(f *dto.MetricFamily, labels map[string]string) (sum float64) {
	for _, m := range f.GetMetric() {
		have := 0
		for _, l := range m.GetLabel() {
			if labels[l.GetName()] == l.GetValue() {
				have++
			}
		}
		if have == len(labels) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// A gateway tells Prometheus what it did and how much there is, and no keys, scopes
// or credentials.
func TestMetrics(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	defer service.Close()
	g := startGateway(t, t.TempDir(), "--upstream", service.URL)
	for _, body := range []string{"coffee", "coffee", "coffee", "tea"} {
		_, _ = post(t, g.url+"/orders", "secret-key-17", body)
	}
	all := scrape(t, g.admin)
	for deadline := time.Now().Add(20 * time.Second); all["semel_records"] == nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		all = scrape(t, g.admin) // the first measurement comes with the first pass
	}
	type labels = map[string]string
	for _, want := range []struct {
		name   string
		labels labels
		kind   dto.MetricType
		least  float64
		most   float64
	}{
		{"semel_events_total", labels{"semel_event": "claimed", "semel_route": "*"}, dto.MetricType_COUNTER, 1, 1},
		{"semel_events_total", labels{"semel_event": "replayed", "semel_route": "*"}, dto.MetricType_COUNTER, 2, 2},
		{"semel_events_total", labels{"semel_event": "refused", "semel_reason": "mismatch"}, dto.MetricType_COUNTER, 1, 1},
		{"semel_request_duration_seconds", labels{"semel_route": "*"}, dto.MetricType_HISTOGRAM, 4, 4},
		{"semel_claim_duration_seconds", labels{"semel_route": "*"}, dto.MetricType_HISTOGRAM, 1, 1},
		{"semel_sweep_passes_total", nil, dto.MetricType_COUNTER, 1, 1e6},
		{"semel_records", nil, dto.MetricType_GAUGE, 1, 100},
		{"semel_store_size_bytes", nil, dto.MetricType_GAUGE, 100, 1e9},
		{"semel_journal_size_bytes", nil, dto.MetricType_GAUGE, 1, 1e9},
		{"semel_pending_age_seconds", nil, dto.MetricType_GAUGE, 0, 60},
		{"semel_sweep_lag_seconds", nil, dto.MetricType_GAUGE, 0, 60},
		{"semel_records_inflow_per_day", nil, dto.MetricType_GAUGE, 0, 1e9},
		{"semel_records_forecast", nil, dto.MetricType_GAUGE, 0, 1e9},
		{"semel_store_forecast_bytes", nil, dto.MetricType_GAUGE, 0, 1e12},
		{"semel_scope_records", nil, dto.MetricType_GAUGE, 1, 100},
		{"go_goroutines", nil, dto.MetricType_GAUGE, 1, 1e6},
	} {
		f := all[want.name]
		if got := value(f, want.labels); f == nil || f.GetType() != want.kind || f.GetHelp() == "" || got < want.least || got > want.most {
			t.Errorf("%s%v is %v, a %v (%q); want %v to %v, a %v", want.name, want.labels, got, f.GetType(), f.GetHelp(), want.least, want.most, want.kind)
		}
	}
	for name, f := range all {
		text := f.String()
		if strings.Contains(text, "secret") || strings.Contains(text, "orders") {
			t.Errorf("%s tells what clients sent: %s", name, text)
		}
		for _, m := range f.GetMetric() {
			if b := m.GetHistogram().GetBucket(); strings.HasPrefix(name, "semel_") && len(b) > 0 && (b[0].GetUpperBound() > 0.001 || len(b) < 10) {
				t.Errorf("%s has bounds that are not of seconds: %v", name, b)
			}
		}
	}
}
