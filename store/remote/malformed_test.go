package remote_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
)

// spoiled serves a store whose answers, the greeting aside, are changed by spoil.
func spoiled(t *testing.T, store semel.Store, spoil func(w http.ResponseWriter, r *http.Request, answer []byte)) string {
	t.Helper()
	h, err := remote.NewHandler(store, remote.HandlerOptions{Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			h.ServeHTTP(w, r)
			return
		}
		right := httptest.NewRecorder()
		h.ServeHTTP(right, r)
		spoil(w, r, right.Body.Bytes())
	}))
	server.Config.ErrorLog = quiet()
	t.Cleanup(server.Close)
	return server.URL
}

// tell answers with a body of the right type.
func tell(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/vnd.semel.v1")
	_, _ = w.Write(body)
}

// sealed gives a message a checksum that fits.
func sealed(message []byte) []byte {
	body := bytes.Clone(message[:len(message)-4])
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

// payload gives the answer with another payload, framed as it has to be.
func payload(answer []byte, data ...byte) []byte {
	return sealed(append(append(bytes.Clone(answer[:21]), data...), 0, 0, 0, 0))
}

// TestMalformedAnswers: whatever is not a perfectly well-formed answer leaves
// open what happened, to a swap, a read and a batch alike.
func TestMalformedAnswers(t *testing.T) {
	type spoil = func(w http.ResponseWriter, r *http.Request, answer []byte)
	status := func(code int, kind, body string) spoil {
		return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	changed := func(change func(answer []byte) []byte) spoil {
		return func(w http.ResponseWriter, _ *http.Request, answer []byte) { tell(w, change(bytes.Clone(answer))) }
	}
	framed := func(data ...byte) spoil { return changed(func(a []byte) []byte { return payload(a, data...) }) }
	const page = "<html><body>502 Bad Gateway</body></html>"
	for name, s := range map[string]spoil{
		"empty 200":              status(200, "application/vnd.semel.v1", ""),
		"empty 200 without type": status(200, "", ""),
		"204":                    status(204, "", ""),
		"202":                    status(202, "application/vnd.semel.v1", ""),
		"page with 200":          status(200, "text/html", page),
		"502 page":               status(502, "text/html", page),
		"503 page":               status(503, "text/html", page),
		"409":                    status(409, "application/json", `{"type":"conflict"}`),
		"413":                    status(413, "text/plain", ""),
		"429":                    status(429, "text/plain", ""),
		"500":                    status(500, "text/plain", "panic"),
		"404":                    status(404, "text/plain", "404 page not found"),
		"a right answer with 500": func(w http.ResponseWriter, _ *http.Request, answer []byte) {
			w.Header().Set("Content-Type", "application/vnd.semel.v1")
			w.WriteHeader(500)
			_, _ = w.Write(answer)
		},
		"a right answer of another type": func(w http.ResponseWriter, _ *http.Request, answer []byte) { _, _ = w.Write(answer) },
		"gzip": func(w http.ResponseWriter, _ *http.Request, answer []byte) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "application/vnd.semel.v1")
			z := gzip.NewWriter(w)
			_, _ = z.Write(answer)
			_ = z.Close()
		},
		"cut, with the length of the whole": func(w http.ResponseWriter, _ *http.Request, answer []byte) {
			w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
			tell(w, answer[:len(answer)-3])
		},
		"cut by one":       changed(func(a []byte) []byte { return a[:len(a)-1] }),
		"cut by half":      changed(func(a []byte) []byte { return a[:len(a)/2] }),
		"one byte more":    changed(func(a []byte) []byte { return append(a, 0) }),
		"twice":            changed(func(a []byte) []byte { return append(a, a...) }),
		"another protocol": changed(func(a []byte) []byte { a[3] = 2; return sealed(a) }),
		"a verb too far":   changed(func(a []byte) []byte { a[4]++; return sealed(a) }),
		"the question":     changed(func(a []byte) []byte { a[4] &= 0x7f; return sealed(a) }),
		"of another call":  changed(func(a []byte) []byte { a[5]++; return sealed(a) }),
		"no payload":       framed(),
		"outcome 0":        framed(0),
		"outcome 9":        framed(9, 0, 0, 0, 0),
		"done and no more": framed(1),
		"a conflict":       framed(2),
		"damaged, no text": framed(3),
		"too large": changed(func(a []byte) []byte {
			return payload(a, bytes.Repeat([]byte{7}, 17<<20)...)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			far := dial(t, spoiled(t, memory.New(memory.Options{}), s), remote.Options{})
			allUnclear(t, far)
			_, err := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
			switch name {
			case "gzip":
				says(t, err, "Content-Encoding")
			case "too large":
				says(t, err, "more than 16777216 bytes")
			}
		})
	}
}

// allUnclear checks that no verb believes what it is answered.
func allUnclear(t *testing.T, far *remote.Store) {
	t.Helper()
	r, err := far.Get(t.Context(), claim("k", 1).Digest)
	unclear(t, err)
	if r.Record.Held() || !r.Now.IsZero() {
		t.Errorf("Get gave %+v", r)
	}
	_, err = far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
	unclear(t, err)
	for _, out := range far.SwapMany(t.Context(), []semel.Swap{{Next: claim("a", 1)}, {Next: claim("b", 1)}}) {
		unclear(t, out.Err)
	}
	lister, _ := semel.As[semel.Lister](far)
	if records, err := lister.List(t.Context(), semel.Filter{}); err == nil {
		t.Errorf("List gave %v", records)
	}
	sweeper, _ := semel.As[semel.Sweeper](far)
	if n, err := sweeper.Sweep(t.Context(), 10); err == nil {
		t.Errorf("Sweep gave %d", n)
	}
}

// TestEveryFlippedBit: no single bit of an answer can be wrong unseen.
func TestEveryFlippedBit(t *testing.T) {
	var bit atomic.Int64
	far := dial(t, spoiled(t, memory.New(memory.Options{}), func(w http.ResponseWriter, _ *http.Request, answer []byte) {
		n := int(bit.Load())
		if n/8 >= len(answer) {
			bit.Store(-1)
			tell(w, answer)
			return
		}
		answer[n/8] ^= 1 << (n % 8)
		tell(w, answer)
	}), remote.Options{})
	flipped := 0
	for n := int64(0); ; n++ {
		bit.Store(n)
		next := claim("k", 1)
		binary.BigEndian.PutUint64(next.Digest[:], uint64(n))
		_, err := far.CompareAndSwap(t.Context(), semel.Version{}, next)
		if bit.Load() < 0 {
			if err != nil {
				t.Errorf("a right answer: %v", err)
			}
			break
		}
		unclear(t, err)
		flipped++
	}
	if flipped < 400 {
		t.Errorf("%d bits were flipped", flipped)
	}
}

// TestContradictions: an answer that decodes and cannot be true is none.
func TestContradictions(t *testing.T) {
	old := semel.Version{Epoch: 1, Counter: 9}
	now := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	stamp := func(epoch, counter byte, written []byte) []byte {
		b := append([]byte{1, 7: 0, 8: epoch}, 0, 0, 0, 0, 0, 0, 0, counter)
		b = append(b, written...)
		return append(append(b, now...), 0)
	}
	for name, c := range map[string]struct {
		data []byte
		ok   bool
	}{
		"newer":                     {stamp(1, 10, now), true},
		"the old version":           {stamp(1, 9, now), false},
		"an older version":          {stamp(0, 255, now), false},
		"no time":                   {stamp(1, 10, make([]byte, 8)), false},
		"a byte over":               {append(stamp(1, 10, now), 0), false},
		"unconfirmed is 2":          {append(stamp(1, 10, now)[:33], 2), false},
		"conflict, nothing held":    {append(append([]byte{2}, now...), 0, 0), false}, // with the conflict's own check below
		"conflict without a clock":  {append(make([]byte, 8), 0, 0), false},
		"conflict with half a page": {append(append([]byte{2}, now...), 0, 1, 3, 4, 5), false},
	} {
		far := dial(t, spoiled(t, memory.New(memory.Options{}), func(w http.ResponseWriter, _ *http.Request, answer []byte) {
			tell(w, payload(answer, c.data...))
		}), remote.Options{})
		r, err := far.CompareAndSwap(t.Context(), old, claim("k", 1))
		switch {
		case name == "conflict, nothing held": // over a version it is true, over nothing it is not
			if !strings.Contains(errText(err), "another version") || r.Record.Held() {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			_, err := far.CompareAndSwap(t.Context(), semel.Version{}, claim("k", 1))
			unclear(t, err)
		case c.ok && (err != nil || r.Record.Version != semel.Version{Epoch: 1, Counter: 10}):
			t.Errorf("%s: %+v, %v", name, r, err)
		case !c.ok:
			unclear(t, err)
		}
	}
}

// TestLyingStore: what a store says that cannot be is not passed on.
func TestLyingStore(t *testing.T) {
	now := time.Now()
	written := claim("k", 1)
	written.Version, written.WrittenAt = semel.Version{Epoch: 1, Counter: 1}, now
	with := func(change func(r *semel.Record)) semel.Record {
		r := written
		change(&r)
		return r
	}
	for name, r := range map[string]semel.Reading{
		"nothing":       {},
		"no clock":      {Record: written},
		"another key":   {Record: with(func(r *semel.Record) { r.Digest[0]++; r.Nonce[0]++ }), Now: now},
		"no such state": {Record: with(func(r *semel.Record) { r.State, r.WrittenAt = 77, time.Time{} }), Now: now},
		"no such class": {Record: with(func(r *semel.Record) { r.Class, r.WrittenAt = 77, time.Time{} }), Now: now},
	} {
		for _, answer := range []error{nil, semel.ErrConflict} {
			far := dial(t, serve(t, lying{r, answer}), remote.Options{})
			got, err := far.Get(t.Context(), written.Digest)
			if err == nil {
				t.Errorf("%s: Get gave %+v", name, got)
			}
			says(t, err, "the far store failed") // it is the handler that finds out
			old := semel.Version{}
			_, err = far.CompareAndSwap(t.Context(), old, claim("k", 1))
			unclear(t, err)
		}
	}
	far := dial(t, serve(t, lying{semel.Reading{Record: written, Now: now}, nil}), remote.Options{})
	for _, out := range far.SwapMany(t.Context(), []semel.Swap{{Next: claim("k", 1)}, {Next: claim("k", 1)}}) {
		unclear(t, out.Err)
		says(t, out.Err, "too few or too many answers")
	}
}

// lying answers everything with one reading, and batches with one answer.
type lying struct {
	reading semel.Reading
	err     error
}

func (s lying) Get(context.Context, semel.Digest) (semel.Reading, error) { return s.reading, nil }

func (s lying) CompareAndSwap(context.Context, semel.Version, semel.Record) (semel.Reading, error) {
	return s.reading, s.err
}

func (s lying) SwapMany(context.Context, []semel.Swap) []semel.Swapped {
	return make([]semel.Swapped, 1)
}

// TestRestOfABatch: after a message that failed, the rest is not sent.
func TestRestOfABatch(t *testing.T) {
	var sent atomic.Int64
	far := dial(t, spoiled(t, memory.New(memory.Options{}), func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		sent.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	}), remote.Options{MaxBytes: 4 << 10})
	var swaps []semel.Swap
	for i := range 100 {
		next := claim("k", byte(i))
		next.Digest[0] = byte(i)
		swaps = append(swaps, semel.Swap{Next: next})
	}
	for _, out := range far.SwapMany(t.Context(), swaps) {
		unclear(t, out.Err)
	}
	if sent.Load() != 1 {
		t.Errorf("%d messages were sent", sent.Load())
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
