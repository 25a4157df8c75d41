package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
	"github.com/semelhq/semel/store/storetest"
)

// TestDescription: what the far store says of itself is heard here.
func TestDescription(t *testing.T) {
	address := serve(t, newJournalled(time.Now))
	d := dial(t, address, remote.Options{}).Describe()
	want := semel.Description{
		Survives: semel.SurvivesCrash, Durability: "flushed before it is answered (at " + address + ")",
		Clock: "the test's (at " + address + ")", Cautions: []string{"it is a test"},
		Traits: []semel.Trait{semel.TraitEvicts},
	}
	if fmt.Sprint(d) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}
	d = dial(t, serve(t, bare{memory.New(memory.Options{})}), remote.Options{Insecure: true}).Describe()
	if d.Survives != semel.SurvivesNothing || !strings.Contains(d.Durability, "unknown") || !slices.ContainsFunc(d.Cautions, func(s string) bool { return strings.Contains(s, "https://") }) {
		t.Errorf("of a store that does not describe itself, over a line that is not safe: %+v", d)
	}
}

// TestErrorsTravel: each of the store's errors arrives as what it is.
func TestErrorsTravel(t *testing.T) {
	sentinels := []error{semel.ErrConflict, semel.ErrDamaged, semel.ErrRejected, semel.ErrUnavailable}
	for name, c := range map[string]struct {
		err  error
		want error // nil: none of the sentinels
	}{
		"damaged":          {fmt.Errorf("row 7: %w", semel.ErrDamaged), semel.ErrDamaged},
		"rejected":         {errors.Join(semel.ErrRejected, errors.New("read only")), semel.ErrRejected},
		"not now":          {fmt.Errorf("in quarantine: %w", semel.ErrUnavailable), semel.ErrUnavailable},
		"another":          {errors.New("disk full"), nil},
		"its own deadline": {context.DeadlineExceeded, nil},
		"a text of 1 MiB":  {errors.New(strings.Repeat("x", 1<<20)), nil},
		"a text of others": {errors.New("a\x00b\nc\xffd\x1b[31m"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			far := dial(t, serve(t, &storetest.Faulty{
				Store:  memory.New(memory.Options{}),
				Before: func(context.Context, storetest.Call) error { return c.err },
			}), remote.Options{})
			check := func(err error) {
				t.Helper()
				for _, s := range sentinels {
					if err == nil || errors.Is(err, s) != (s == c.want) {
						t.Errorf("got %v, want one that is %v", err, c.want)
					}
				}
				if text := errText(err); len(text) > 2000 || strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
					t.Errorf("the error's text: %.100q…", text)
				}
				if name == "damaged" {
					says(t, err, "row 7")
				}
			}
			_, err := far.Get(t.Context(), semel.Digest{1})
			check(err)
			_, err = far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
			check(err)
			for _, out := range far.SwapMany(t.Context(), []semel.Swap{{Next: claim("a", 1)}, {Next: claim("b", 1)}}) {
				check(out.Err)
			}
		})
	}
}

// TestMeasureTravels: a measure arrives as it is, and so does what went wrong.
func TestMeasureTravels(t *testing.T) {
	if _, ok := semel.As[semel.Measurer](dial(t, serve(t, bare{memory.New(memory.Options{})}), remote.Options{})); ok {
		t.Error("a store that measures nothing is a Measurer here")
	}
	for _, want := range []measured{
		{m: semel.Measure{At: time.Unix(5, 6), Bytes: -1, JournalBytes: -1}},
		{m: semel.Measure{At: time.Unix(5, 6), Records: 1 << 40, Estimated: true, Bytes: 3, JournalBytes: 4, OldestPending: time.Unix(1, 2), Overdue: time.Unix(3, 4)}},
		{err: semel.ErrUnavailable},
	} {
		want.Store = memory.New(memory.Options{})
		far, ok := semel.As[semel.Measurer](dial(t, serve(t, want), remote.Options{}))
		if !ok {
			t.Fatal("the far store is no Measurer here")
		}
		m, err := far.Measure(t.Context())
		if m != want.m || !errors.Is(err, want.err) {
			t.Errorf("got %+v, %v; want %+v, %v", m, err, want.m, want.err)
		}
	}
}

type measured struct {
	semel.Store
	m   semel.Measure
	err error
}

func (s measured) Measure(context.Context) (semel.Measure, error) { return s.m, s.err }

// TestUnconfirmedTravels: so does the mark of a reading that is not sure.
func TestUnconfirmedTravels(t *testing.T) {
	far := dial(t, serve(t, unconfirmed{memory.New(memory.Options{})}), remote.Options{})
	for range 2 { // written, then a conflict
		if r, _ := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1)); !r.Unconfirmed {
			t.Error("a swap's reading is confirmed")
		}
	}
	if r, err := far.Get(t.Context(), claim("k", 1).Digest); err != nil || !r.Unconfirmed {
		t.Errorf("Get: %+v, %v", r, err)
	}
}

type unconfirmed struct{ semel.Store }

func (s unconfirmed) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	r, err := s.Store.Get(ctx, d)
	r.Unconfirmed = true
	return r, err
}

func (s unconfirmed) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := s.Store.CompareAndSwap(ctx, old, next)
	r.Unconfirmed = true
	return r, err
}

// TestDeadlineTravels: the far store gets what is left of the caller's time, at
// most what the handler allows.
func TestDeadlineTravels(t *testing.T) {
	var left atomic.Int64
	server := serveWith(t, &storetest.Faulty{
		Store: memory.New(memory.Options{}),
		Before: func(ctx context.Context, _ storetest.Call) error {
			end, _ := ctx.Deadline()
			left.Store(int64(time.Until(end)))
			return nil
		},
	}, remote.HandlerOptions{Tokens: []string{token}, Timeout: time.Hour})
	far := dial(t, server.URL, remote.Options{Timeout: 24 * time.Hour})
	for _, c := range []struct{ has, least, most time.Duration }{
		{20 * time.Second, 0, 20 * time.Second},
		{10 * time.Minute, 20 * time.Second, 10 * time.Minute},
		{20 * time.Hour, 10 * time.Minute, time.Hour},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), c.has)
		if _, err := far.Get(ctx, semel.Digest{1}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if got := time.Duration(left.Load()); got < c.least || got > c.most {
			t.Errorf("a caller with %v left gave the store %v, want %v to %v", c.has, got, c.least, c.most)
		}
	}
}

// TestSlowStore: a store that does not answer costs a caller its deadline, and
// no more.
func TestSlowStore(t *testing.T) {
	h, err := remote.NewHandler(&storetest.Faulty{
		Store:  memory.New(memory.Options{}),
		Before: func(ctx context.Context, _ storetest.Call) error { <-ctx.Done(); return ctx.Err() },
	}, remote.HandlerOptions{Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	for _, o := range []remote.Options{{}, {Timeout: 50 * time.Millisecond}} {
		far := dial(t, server.URL, o)
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if o.Timeout == 0 {
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
		}
		_, err := far.CompareAndSwap(ctx, semel.Version{}, claim("k", 1))
		unclear(t, err)
		cancel()
	}
	// A server that takes connections and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = remote.Dial(t.Context(), "http://"+l.Addr().String(), remote.Options{Token: token, Timeout: 50 * time.Millisecond})
	says(t, err, "cannot use the store", "deadline exceeded")
}

// TestPanic: a store that panics is a store of which nobody knows.
func TestPanic(t *testing.T) {
	h, err := remote.NewHandler(&storetest.Faulty{
		Store: memory.New(memory.Options{}), Before: func(context.Context, storetest.Call) error { panic("boom") },
	}, remote.HandlerOptions{Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = quiet()
	server.Start()
	defer server.Close()
	far := dial(t, server.URL, remote.Options{})
	for range 3 {
		_, err := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
		unclear(t, err)
	}
}

// TestConnectionsAreKept: many callers at once use few connections, again and
// again.
func TestConnectionsAreKept(t *testing.T) {
	p := between(t, serveWith(t, memory.New(memory.Options{}), remote.HandlerOptions{Tokens: []string{token}}))
	far := dial(t, p.url(), remote.Options{Connections: 32})
	for range 10 {
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				if _, err := far.Get(t.Context(), semel.Digest{byte(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if n := p.counted(); n > 33 {
		t.Errorf("320 calls, 32 at once, took %d connections", n)
	}
}

// TestLongListsAndHistories: what does not fit into one message comes in several.
func TestLongListsAndHistories(t *testing.T) {
	inner := newJournalled(time.Now)
	far := dial(t, serve(t, inner), remote.Options{MaxBytes: 4 << 10})
	var old semel.Version
	for i := range 100 {
		next := claim(fmt.Sprint("k", i), 1)
		next.Result = make([]byte, 1000)
		if _, err := inner.CompareAndSwap(t.Context(), semel.Version{}, next); err != nil {
			t.Fatal(err)
		}
		r, err := inner.CompareAndSwap(t.Context(), old, claim("long", byte(i)))
		if err != nil {
			t.Fatal(err)
		}
		old = r.Record.Version
	}
	lister, _ := semel.As[semel.Lister](far)
	for _, limit := range []int{1, 50, 101, 200} {
		records, err := lister.List(t.Context(), semel.Filter{Limit: limit})
		want, _ := inner.List(t.Context(), semel.Filter{Limit: limit})
		if err != nil || len(records) != len(want) {
			t.Fatalf("limit %d: %d records, want %d; %v", limit, len(records), len(want), err)
		}
		for i := range want {
			if records[i].Digest != want[i].Digest || len(records[i].Result) != len(want[i].Result) {
				t.Errorf("limit %d: record %d is another", limit, i)
			}
		}
	}
	journal, _ := semel.As[semel.Journal](far)
	entries, err := journal.History(t.Context(), claim("long", 0).Digest)
	if err != nil || len(entries) != 100 {
		t.Fatalf("%d entries, want 100; %v", len(entries), err)
	}
	for i, e := range entries {
		if e.Record.Nonce[0] != byte(i) {
			t.Errorf("entry %d is that of write %d", i, e.Record.Nonce[0])
		}
	}
}

// TestDamageInAList: a list with an error still has the rest, in several parts.
func TestDamageInAList(t *testing.T) {
	inner := damagedList{memory.New(memory.Options{})}
	far := dial(t, serve(t, inner), remote.Options{MaxBytes: 4 << 10})
	for i := range 20 {
		next := claim(fmt.Sprint("k", i), 1)
		next.Result = make([]byte, 1000)
		if _, err := inner.CompareAndSwap(t.Context(), semel.Version{}, next); err != nil {
			t.Fatal(err)
		}
	}
	lister, _ := semel.As[semel.Lister](far)
	records, err := lister.List(t.Context(), semel.Filter{})
	if len(records) != 20 || !errors.Is(err, semel.ErrDamaged) {
		t.Errorf("%d records, want 20; %v", len(records), err)
	}
}

type damagedList struct{ *memory.Store }

func (s damagedList) List(ctx context.Context, f semel.Filter) ([]semel.Record, error) {
	records, _ := s.Store.List(ctx, f)
	return records, semel.ErrDamaged
}

// TestLargeConflictsOfABatch: what does not fit into the answer is unknown, and
// asked for alone it comes.
func TestLargeConflictsOfABatch(t *testing.T) {
	inner := memory.New(memory.Options{})
	far := dial(t, serve(t, inner), remote.Options{MaxBytes: 16 << 10})
	var swaps []semel.Swap
	for i := range 12 {
		next := claim(fmt.Sprint("k", i), 1)
		next.Result = make([]byte, 5<<10)
		if _, err := inner.CompareAndSwap(t.Context(), semel.Version{}, next); err != nil {
			t.Fatal(err)
		}
		swaps = append(swaps, semel.Swap{Next: claim(fmt.Sprint("k", i), 2)})
	}
	told := 0
	for i, out := range far.SwapMany(t.Context(), swaps) {
		if errors.Is(out.Err, semel.ErrConflict) && len(out.Reading.Record.Result) == 5<<10 {
			told++
			continue
		}
		unclear(t, out.Err)
		r, err := far.CompareAndSwap(t.Context(), semel.Version{}, swaps[i].Next)
		if !errors.Is(err, semel.ErrConflict) || len(r.Record.Result) != 5<<10 {
			t.Errorf("swap %d alone: %v", i, err)
		}
	}
	if told == 0 || told == len(swaps) {
		t.Errorf("%d of 12 conflicts fitted into one answer", told)
	}
}

// TestClosed: a closed store says so, and sends nothing.
func TestClosed(t *testing.T) {
	far := dial(t, serve(t, newJournalled(time.Now)), remote.Options{})
	if err := errors.Join(far.Close(), far.Close()); err != nil {
		t.Error(err)
	}
	_, err := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
	says(t, err, "closed; nothing was sent")
	watcher, _ := semel.As[semel.Watcher](far)
	_, stop := watcher.Watch(semel.Digest{1})
	stop()
}
