package upkeep

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

func plain(text string) string { return text }

// full gives a store with n keys in scopes of different sizes: each has twice what the
// next one has.
func full(t *testing.T, n int) *memory.Store {
	t.Helper()
	store := memory.New(memory.Options{})
	for i := range n {
		key := semel.Key{Scope: fmt.Sprintf("a scope with a name that is longer than a terminal is wide, number %d, and more", int(math.Log2(float64(n)/float64(n-i)))), ID: fmt.Sprint(i)}
		next := semel.Record{Digest: key.Digest(nil), State: semel.Done, Attempt: 1, TTL: time.Hour, Replay: time.Minute, Key: key}
		if i%4 == 0 {
			next.Replay = time.Nanosecond
		}
		if _, err := store.CompareAndSwap(t.Context(), semel.Version{}, next); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// A report of a sample fits into 80 columns, and says how far it may be off.
func TestTextOfASample(t *testing.T) {
	g, err := lifecycle.Measure(t.Context(), full(t, 20_000), lifecycle.MeasureOptions{Sample: 2000, Scopes: 4})
	if err != nil {
		t.Fatal(err)
	}
	r := NewReport("memory:", &g, 0)
	text := r.Text(Style{Bold: plain, Scope: plain, Span: time.Duration.String, Width: 37})
	for line := range strings.SplitSeq(text, "\n") {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"a scope with a name that is longer t… ", "all others", "From a sample of 2,000 records: a scope's share is right within 2.2 points", "less than 0.15 % of all may be missing", "± "} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%swant %q", text, want)
		}
	}
	if share := r.Scopes[0].Share; math.Abs(share-0.5) > 2*r.Scopes[0].ShareError || r.Complete {
		t.Errorf("the largest scope has %v ± %v, want half", share, r.Scopes[0].ShareError)
	}
}

// A store that cannot tell how much it holds is not said to hold nothing.
func TestWhatIsNotKnown(t *testing.T) {
	g := lifecycle.Growth{Measure: semel.Measure{Bytes: -1, JournalBytes: -1, Estimated: true}, BytesPerRecord: -1, Forecast: lifecycle.Forecast{Bytes: -1}}
	r := NewReport("redis:", &g, 0)
	text := r.Text(Style{Bold: plain, Scope: plain, Span: time.Duration.String})
	if n := strings.Count(text, "not known"); n != 4 {
		t.Errorf("4 are not known, and %d are told as such:\n%s", n, text)
	}
	out, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(out), `"bytes":null,"bytes_per_record":null,"journal_bytes":null`) || !strings.Contains(string(out), `"scopes":[]`) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestLookAtASample(t *testing.T) {
	store := full(t, 20_000)
	due, err := Look(t.Context(), store, 0)
	if err != nil || !due.Estimated || math.Abs(float64(due.Emptied)-5000) > 700 || due.Forgotten != 0 {
		t.Errorf("%+v, %v; want about 5000 to be emptied", due, err)
	}
	if due, err = Look(t.Context(), full(t, 400), 0); err != nil || due.Estimated || due.Emptied != 100 {
		t.Errorf("%+v, %v; want 100 to be emptied", due, err)
	}
	if _, err := Look(t.Context(), store, time.Hour); err == nil || !strings.Contains(err.Error(), "leave --journal away") {
		t.Errorf("a journal by days that is not there: %v", err)
	}
}

func TestCount(t *testing.T) {
	var told []int64
	store := full(t, 400)
	guard, err := semel.NewGuard(Count(store, func(n int64) { told = append(told, n) }), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := lifecycle.New(guard, lifecycle.Options{Batch: 40, Share: 1, Growth: -1})
	if err != nil {
		t.Fatal(err)
	}
	pass, err := Sweep(t.Context(), s, 0, func() { t.Error("nobody is there to wait for") })
	if err != nil || len(told) < 3 || told[0] != 40 || told[len(told)-1] != int64(pass.Swept) {
		t.Errorf("%+v, %v, told %v", pass, err, told)
	}
	bare := struct{ semel.Store }{store}
	if Count(bare, nil) != semel.Store(bare) {
		t.Error("a store that does not sweep seems to")
	}
	if _, ok := semel.As[semel.Lister](guard.Store()); !ok {
		t.Error("a counted store cannot list any more")
	}
}

func TestSweepGivesUp(t *testing.T) {
	store := full(t, 100)
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := lifecycle.New(guard, lifecycle.Options{Growth: -1})
	if err != nil {
		t.Fatal(err)
	}
	waited := 0
	var inner error
	s, err := lifecycle.New(guard, lifecycle.Options{Growth: -1, Observe: func(lifecycle.Event) {
		_, inner = Sweep(t.Context(), other, 250*time.Millisecond, func() { waited++ })
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(inner, semel.ErrInProgress) || waited != 1 {
		t.Errorf("%v, told %d times; want that another one sweeps, once", inner, waited)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 10 << 20: "10 MiB", 1 << 40: "1.0 TiB", math.MaxInt64: "8.0 EiB", 1000 << 20: "1.0 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", 1234567: "1,234,567", -123: "-123"} {
		if got := Grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
