package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
)

// wire counts the calls that leave the process, by method.
type wire struct {
	mu    sync.Mutex
	calls map[string]int
}

func (w *wire) dial() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
		if !ofFloor(req) {
			w.mu.Lock()
			w.calls[method[strings.LastIndex(method, ".")+1:]]++
			w.mu.Unlock()
		}
		return invoke(ctx, method, req, reply, cc, o...)
	})
}

// ofFloor tells whether a call is of the goroutine that keeps the floor.
func ofFloor(req any) bool {
	switch r := req.(type) {
	case *etcdserverpb.RangeRequest:
		return strings.HasSuffix(string(r.Key), "/floor")
	case *etcdserverpb.TxnRequest:
		return len(r.Success) == 1 && strings.HasSuffix(string(r.Success[0].GetRequestPut().GetKey()), "/floor")
	}
	return false
}

// during gives the calls that fn makes.
func (w *wire) during(fn func()) string {
	w.mu.Lock()
	w.calls = map[string]int{}
	w.mu.Unlock()
	fn()
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimPrefix(fmt.Sprint(w.calls), "map")
}

func TestRoundTrips(t *testing.T) {
	e := servers.Etcd(t)
	w := &wire{calls: map[string]int{}}
	s := open(t, at(e, "wire"), etcd.WithDial(etcd.Options{}, w.dial()))
	var claim semel.Record
	for _, c := range []struct {
		name, want string
		fn         func()
	}{
		{"claim", "[KV/Txn:1]", func() { claim = swap(t, s, semel.Version{}, pending("k", 1)) }},
		{"duplicate", "[KV/Txn:1]", func() {
			if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending("k", 2)); !errors.Is(err, semel.ErrConflict) {
				t.Fatal(err)
			}
		}},
		{"completion", "[KV/Txn:1]", func() { swap(t, s, claim.Version, done(claim, 1, "receipt")) }},
		{"get", "[KV/Range:1]", func() {
			if _, err := s.Get(t.Context(), claim.Digest); err != nil {
				t.Fatal(err)
			}
		}},
		{"batch of 120 claims", "[KV/Txn:1]", func() {
			swaps := make([]semel.Swap, 120)
			for i := range swaps {
				swaps[i].Next = pending(fmt.Sprint("b", i), 1)
			}
			for _, o := range s.SwapMany(t.Context(), swaps) {
				if o.Err != nil {
					t.Fatal(o.Err)
				}
			}
		}},
	} {
		got := w.during(c.fn)
		t.Logf("%s: %s", c.name, got)
		if got != c.want {
			t.Errorf("%s: calls %s, want %s", c.name, got, c.want)
		}
	}
}

// A duplicate changes nothing in the key space.
func TestDuplicateWritesNothing(t *testing.T) {
	e := own(t, nil)
	c := plain(t, e, "", "")
	s := open(t, at(e, "duplicate"), etcd.Options{})
	claim := swap(t, s, semel.Version{}, pending("k", 1))
	key := "/duplicate/r/" + string(claim.Digest[:])
	before, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending("k", 2)); !errors.Is(err, semel.ErrConflict) {
			t.Fatal(err)
		}
	}
	after, err := c.Get(t.Context(), key)
	if err != nil || after.Kvs[0].ModRevision != before.Kvs[0].ModRevision {
		t.Errorf("revision %d, then %d, %v", before.Kvs[0].ModRevision, after.Kvs[0].ModRevision, err)
	}
	if h, err := s.History(t.Context(), claim.Digest); err != nil || len(h) != 1 {
		t.Errorf("%d lines in the journal, %v", len(h), err)
	}
}

// cutter stands in front of a server and, when armed, cuts each connection at
// the first bytes that come back: the request was carried out, its answer is lost.
type cutter struct {
	address string
	armed   atomic.Bool
	cuts    atomic.Int64
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{address: l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close() })
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(back, client); _ = back.Close() }()
			go c.answer(client, back)
		}
	})
	return c
}

func (c *cutter) answer(client, back net.Conn) {
	defer client.Close()
	defer back.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := back.Read(b)
		if err != nil {
			return
		}
		if c.armed.Swap(false) {
			c.cuts.Add(1)
			time.Sleep(50 * time.Millisecond) // so that the request is carried out
			return
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

// Field bug 8: the client repeats a write whose answer was lost, and tells the
// owner "duplicate". Ours sends a write once, tells of the lost answer, and the
// repeated swap brings its own nonce.
func TestFieldBug08_ClientRepeatsALostWrite(t *testing.T) {
	e := servers.Etcd(t)
	c := newCutter(t, e.Address())
	w := &wire{calls: map[string]int{}}
	s := open(t, "etcd://"+c.address+"/lost", etcd.WithDial(etcd.Options{Times: []string{e.URL()}}, w.dial()))
	for i := range 10 {
		next := pending(fmt.Sprint("k", i), 1)
		got := w.during(func() {
			c.armed.Store(true)
			_, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
			if err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrRejected) {
				t.Errorf("the answer was lost: got %v, want an error that claims nothing", err)
			}
		})
		if got != "[KV/Txn:1]" {
			t.Errorf("the calls of one write whose answer was lost: %s", got)
		}
		var r semel.Reading
		var err error
		for range 100 { // the connection comes back
			if r, err = s.CompareAndSwap(t.Context(), semel.Version{}, next); err == nil || errors.Is(err, semel.ErrConflict) {
				break
			}
		}
		if err != nil && (!errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce) {
			t.Errorf("repeated: %v, %v; want our own nonce", r.Record.Nonce, err)
		}
		if h, err := s.History(t.Context(), next.Digest); err != nil || len(h) != 1 {
			t.Errorf("%d lines in the journal, want 1; %v", len(h), err)
		}
	}
	if c.cuts.Load() != 10 {
		t.Errorf("%d answers were cut, want 10", c.cuts.Load())
	}
}
