package remote

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

func sample() semel.Record {
	return semel.Record{
		Digest: semel.Digest{1, 2, 3}, State: semel.Done, Version: semel.Version{Epoch: 1, Counter: 7}, Nonce: semel.Nonce{9}, Attempt: 1, Code: 201,
		Result: []byte("receipt"), WrittenAt: time.Unix(1, 1), TTL: time.Hour, Key: semel.Key{Scope: "a", ID: "k"}, Owner: "o",
	}
}

// FuzzOpen: a frame is taken only if it is what begin and seal write.
func FuzzOpen(f *testing.F) {
	f.Add(seal(append(begin(nil, verbGet, requestID{1}), "payload"...)))
	f.Add([]byte("SML"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for v := verbGet; v <= lastVerb; v++ {
			id, payload, err := open(b, v)
			if err == nil && !bytes.Equal(b, seal(append(begin(nil, v, id), payload.b...))) {
				t.Errorf("%x was taken for a message", b)
			}
		}
	})
}

// FuzzSwap is what a handler reads.
func FuzzSwap(f *testing.F) {
	r := sample()
	f.Add(appendSwap(nil, semel.Version{Epoch: 1}, &r))
	r.Result = nil
	f.Add(appendSwap(nil, semel.Version{}, &r))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := cursor{b: b}
		w := c.swap()
		if !c.whole() {
			return
		}
		again := cursor{b: appendSwap(nil, w.Old, &w.Next)}
		v := again.swap()
		w.Next.Version, w.Next.WrittenAt = semel.Version{}, time.Time{}
		if !again.whole() || fmt.Sprint(v) != fmt.Sprint(w) {
			t.Errorf("got %+v, want %+v", v, w)
		}
	})
}

// FuzzSwapped is what a client reads: nothing that it takes contradicts what
// it asked.
func FuzzSwapped(f *testing.F) {
	r := sample()
	old := semel.Version{Epoch: 1, Counter: 6}
	for _, out := range []semel.Swapped{
		{Reading: semel.Reading{Record: r, Now: time.Unix(2, 2)}},
		{Reading: semel.Reading{Record: r, Now: time.Unix(2, 2), Unconfirmed: true}, Err: semel.ErrConflict},
		{Reading: semel.Reading{Now: time.Unix(2, 2)}, Err: semel.ErrConflict},
		{Err: semel.ErrDamaged},
		{Err: semel.ErrRejected},
		{Err: context.Canceled},
	} {
		f.Add(appendSwapped(nil, &out, maxText))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		next := sample()
		next.Version, next.WrittenAt = semel.Version{}, time.Time{}
		c := cursor{b: b}
		out := c.swapped(old, &next)
		held := out.Reading.Record
		switch o := outcomeOf(out.Err); {
		case !c.whole():
		case o == done && (held.Version.Compare(old) <= 0 || held.Nonce != next.Nonce || out.Reading.Now.IsZero()),
			o == conflict && (held.Version == old || held.Held() && held.Digest != next.Digest || out.Reading.Now.IsZero()),
			o > conflict && held.Held():
			t.Errorf("%x was taken for %+v", b, out)
		}
	})
}

// FuzzReading is what a client reads of a get.
func FuzzReading(f *testing.F) {
	r := semel.Reading{Record: sample(), Now: time.Unix(2, 2)}
	f.Add(appendReading(nil, &r))
	f.Add(appendReading(nil, &semel.Reading{Now: time.Unix(2, 2)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := cursor{b: b}
		got := c.reading(sample().Digest)
		if !c.whole() {
			return
		}
		again := cursor{b: appendReading(nil, &got)}
		if back := again.reading(sample().Digest); !again.whole() || fmt.Sprint(back) != fmt.Sprint(got) {
			t.Errorf("got %+v, want %+v", back, got)
		}
	})
}

// FuzzHandler: whatever comes in, an answer goes out that is a refusal or a
// message, and only what decodes reaches the store.
func FuzzHandler(f *testing.F) {
	const token = "a-token-of-tests-that-is-long-enough"
	h, err := NewHandler(memory.New(memory.Options{}), HandlerOptions{Tokens: []string{token}})
	if err != nil {
		f.Fatal(err)
	}
	r := sample()
	f.Add(byte(verbSwap), appendSwap(nil, semel.Version{}, &r))
	f.Add(byte(verbMany), append([]byte{0, 0, 0, 1}, appendSwap(nil, semel.Version{}, &r)...))
	f.Add(byte(verbGet), make([]byte, 32))
	f.Add(byte(verbList), appendFilter(nil, &semel.Filter{ID: "k", Limit: 3}))
	f.Add(byte(verbSweep), make([]byte, 8))
	f.Add(byte(verbMeasure-1), []byte(nil))
	f.Fuzz(func(t *testing.T, which byte, payload []byte) {
		v := verb(which%byte(lastVerb)) + 1
		message := seal(append(begin(nil, v, requestID{4}), payload...))
		request := httptest.NewRequest(http.MethodPost, prefix+verbs[v], bytes.NewReader(message))
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Content-Type", messageType)
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, request)
		if answer.Code == http.StatusBadRequest {
			return
		}
		id, _, err := open(answer.Body.Bytes(), v|answerFlag)
		if answer.Code != http.StatusOK || err != nil || id != (requestID{4}) {
			t.Errorf("status %d, %v", answer.Code, err)
		}
	})
}

// FuzzAnswer: whatever a server answers, a client gives an error or what it
// could have been told.
func FuzzAnswer(f *testing.F) {
	h, err := NewHandler(memory.New(memory.Options{}), HandlerOptions{MutualTLS: true})
	if err != nil {
		f.Fatal(err)
	}
	var answer []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(h.hello)
			return
		}
		body, _ := readBody(r.Body, r.ContentLength, 1<<20)
		w.Header().Set("Content-Type", messageType)
		_, _ = w.Write(seal(append(append([]byte{}, body[:4]...), append(append([]byte{body[4] | answerFlag}, body[5:headSize]...), answer...)...)))
	}))
	f.Cleanup(server.Close)
	far, err := Dial(context.Background(), server.URL, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{1, 0, 0, 0, 0, 1})
	f.Add(appendMeasure([]byte{byte(done)}, &semel.Measure{At: time.Unix(2, 2), Records: -1}))
	f.Add(append(appendMeasure([]byte{byte(done)}, &semel.Measure{At: time.Unix(2, 2)}), 0))
	f.Add(appendMeasure([]byte{byte(done)}, &semel.Measure{At: time.Unix(2, 2), Records: 7, Estimated: true, Bytes: 4096, JournalBytes: -1, OldestPending: time.Unix(1, 1)}))
	f.Fuzz(func(t *testing.T, payload []byte) {
		answer = payload
		ctx := t.Context()
		r, err := far.Get(ctx, semel.Digest{1})
		if err == nil && r.Now.IsZero() {
			t.Errorf("Get took %x", payload)
		}
		if lister, ok := semel.As[semel.Lister](far); ok {
			if records, err := lister.List(ctx, semel.Filter{Limit: 7}); err == nil && len(records) > 7 {
				t.Errorf("List took %x", payload)
			}
		}
		if measurer, ok := semel.As[semel.Measurer](far); ok {
			m, err := measurer.Measure(ctx)
			if err == nil && (len(payload) != 1+8+8+1+4*8 || m.At.IsZero() || m.Records < 0 || m.Bytes < -1 || m.JournalBytes < -1 || fmt.Sprint(m) != fmt.Sprint(again(m))) {
				t.Errorf("Measure took %x for %+v", payload, m)
			}
		}
		if sweeper, ok := semel.As[semel.Sweeper](far); ok {
			if n, err := sweeper.Sweep(ctx, 7); err == nil && n < 0 {
				t.Errorf("Sweep took %x", payload)
			}
		}
	})
}

// again sends a measure once more.
func again(m semel.Measure) semel.Measure {
	c := cursor{b: appendMeasure(nil, &m)}
	return c.measure()
}

// TestReadingOfAnother: a reading that does not say what was asked is bad.
func TestReadingOfAnother(t *testing.T) {
	r := semel.Reading{Record: sample(), Now: time.Unix(2, 2)}
	for name, c := range map[string]struct {
		data   []byte
		digest semel.Digest
		ok     bool
	}{
		"right":           {appendReading(nil, &r), r.Record.Digest, true},
		"another digest":  {appendReading(nil, &r), semel.Digest{5}, false},
		"another result":  {bytes.Replace(appendReading(nil, &r), r.Record.Result, []byte("RECEIPT"), 1), r.Record.Digest, false},
		"without a clock": {appendReading(nil, &semel.Reading{Record: r.Record}), r.Record.Digest, false},
	} {
		in := cursor{b: c.data}
		if in.reading(c.digest); in.whole() != c.ok {
			t.Errorf("%s: taken %t, want %t", name, in.whole(), c.ok)
		}
	}
	swap := cursor{b: bytes.Replace(appendSwap(nil, semel.Version{}, &r.Record), r.Record.Result, []byte("RECEIPT"), 1)}
	if swap.swap(); swap.whole() {
		t.Error("a swap with another result was taken")
	}
}

// TestOnlyLocal: whatever a name resolves to, plain HTTP stays on the machine.
func TestOnlyLocal(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"10.0.0.1": false, "192.0.2.7": false, "2001:db8::1": false, "0.0.0.0": false, "::ffff:192.0.2.7": false,
	} {
		near, away := net.Pipe()
		conn, err := onlyLocal(&peer{Conn: near, address: &net.TCPAddr{IP: net.ParseIP(address), Port: 80}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil {
			conn.Close()
		}
		if _, err := away.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: something was sent", address)
		}
		away.Close()
	}
}

type peer struct {
	net.Conn
	address net.Addr
}

func (p *peer) RemoteAddr() net.Addr { return p.address }
