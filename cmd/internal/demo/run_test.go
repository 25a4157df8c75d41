package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Without the gateway the very same storm charges many payments more than once,
// and the account says so. If it did not, a zero with the gateway would mean
// nothing.
func TestBypassChargesTwice(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out, text bytes.Buffer
	r, err := Run(context.Background(), Options{
		Seed: 1, Payments: 60, Storm: time.Second, Bypass: true, Exit: true, Out: &out, JSON: &text,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if r.OK || r.Double < r.Keys/2 || r.Flips < r.Keys/2 || r.Executions <= r.Keys || len(r.Problems) == 0 {
		t.Errorf("the storm did no harm: %+v", r)
	}
	if r.Requests < 2*r.Keys || r.Keys != 60 {
		t.Errorf("%d requests for %d payments", r.Requests, r.Keys)
	}
	var object map[string]any
	decoder := json.NewDecoder(&text)
	if err := decoder.Decode(&object); err != nil || decoder.More() {
		t.Fatalf("not exactly one object: %v", err)
	}
	for _, field := range []string{"requests", "keys", "executions", "replays", "conflicts", "mismatches", "in_doubt", "double", "lost", "leaked"} {
		if _, ok := object[field].(float64); !ok {
			t.Errorf("%s: got %v, want a number", field, object[field])
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("the progress has escapes, and this is no terminal: %q", out.String())
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "semel-demo-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBypassReport(t *testing.T) {
	var out bytes.Buffer
	if _, err := Run(context.Background(), Options{Seed: 2, Payments: 30, Storm: 500 * time.Millisecond, Bypass: true, Out: &out}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"without Semel", "more than once", "Must be zero", "✘"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, out.String())
		}
	}
}

func TestCancelledRunLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Run(ctx, Options{Seed: 3, Payments: 100, Storm: 10 * time.Second, Bypass: true, Out: &bytes.Buffer{}})
	if err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %v, want the context's error at once", err, time.Since(began))
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "semel-demo-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestGatewayThatDoesNotStart(t *testing.T) {
	_, err := Run(context.Background(), Options{Binary: "no-such-binary", Out: &bytes.Buffer{}, Exit: true})
	if err == nil || !strings.Contains(err.Error(), "gateway") {
		t.Errorf("got %v, want an error that names the gateway", err)
	}
}

func TestOutages(t *testing.T) {
	one, again, other := planOutages(1, 10*time.Second), planOutages(1, 10*time.Second), planOutages(2, 10*time.Second)
	if !slices.Equal(one, again) || slices.Equal(one, other) {
		t.Errorf("the same seed must give the same outages, and another others: %v, %v, %v", one, again, other)
	}
	for i, o := range one {
		if o.at <= 0 || o.at+o.down > 10*time.Second {
			t.Errorf("outage %d: %+v does not lie within the storm", i, o)
		}
	}
}

// closedPipe is an output whose reader has left after some lines.
type closedPipe struct{ lines int }

func (c *closedPipe) Write(b []byte) (int, error) {
	if c.lines--; c.lines < 0 {
		return 0, errors.New("broken pipe")
	}
	return len(b), nil
}

func TestOutputWithoutReaderEndsTheRun(t *testing.T) {
	began := time.Now()
	_, err := Run(context.Background(), Options{Seed: 4, Storm: 15 * time.Second, Bypass: true, Out: &closedPipe{lines: 8}})
	if err == nil || !strings.Contains(err.Error(), "broken pipe") || time.Since(began) > 8*time.Second {
		t.Errorf("got %v after %v, want an end that names the pipe", err, time.Since(began))
	}
}
