package remote_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
	"github.com/semelhq/semel/store/storetest"
)

const token = "a-token-of-tests-that-is-long-enough"

// serve serves a store with a token, over plain HTTP on loopback.
func serve(t testing.TB, store semel.Store) (address string) {
	t.Helper()
	return serveWith(t, store, remote.HandlerOptions{Tokens: []string{token}}).URL
}

func serveWith(t testing.TB, store semel.Store, o remote.HandlerOptions) *httptest.Server {
	t.Helper()
	h, err := remote.NewHandler(store, o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		h.Close()
		server.Close()
	})
	return server
}

func dial(t testing.TB, address string, o remote.Options) *remote.Store {
	t.Helper()
	if o.Token == "" {
		o.Token = token
	}
	s, err := remote.Dial(t.Context(), address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// far gives the handler of each place: a store there lives on while its clients
// come and go, as a server's does.
type far struct {
	mu      sync.Mutex
	address map[string]string
}

func (f *far) at(t testing.TB, at storetest.Place, open func() (address string)) string {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.address == nil {
		f.address = map[string]string{}
	}
	if f.address[at.Name] == "" {
		f.address[at.Name] = open()
	}
	return f.address[at.Name]
}

const has = storetest.Batches | storetest.Sweeps | storetest.Lists | storetest.Durable | storetest.Shared

func TestStore(t *testing.T) {
	var f far
	storetest.Run(t, storetest.Maker{
		Has: has,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			return dial(t, f.at(t, at, func() string { return serve(t, memory.New(memory.Options{Now: at.Now})) }), remote.Options{})
		},
	})
}

// TestJournalled: a far store with a journal has one here, too.
func TestJournalled(t *testing.T) {
	var f far
	storetest.Run(t, storetest.Maker{
		Has: has | storetest.Journals,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			return dial(t, f.at(t, at, func() string { return serve(t, newJournalled(at.Now)) }), remote.Options{})
		},
	})
}

// TestBare: a far store that can do nothing but get and swap. Small messages
// have every batch and every larger result taken apart.
func TestBare(t *testing.T) {
	var f far
	storetest.Run(t, storetest.Maker{
		Has: storetest.Batches | storetest.Durable | storetest.Shared,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			return dial(t, f.at(t, at, func() string { return serve(t, bare{memory.New(memory.Options{Now: at.Now})}) }), remote.Options{MaxBytes: 2 << 20})
		},
	})
}

func TestBatchInFront(t *testing.T) {
	var f far
	storetest.Run(t, storetest.Maker{
		Has: has,
		Open: func(t testing.TB, at storetest.Place) semel.Store {
			address := f.at(t, at, func() string { return serve(t, memory.New(memory.Options{Now: at.Now})) })
			return batch.New(dial(t, address, remote.Options{}), batch.Options{Workers: 4})
		},
	})
}

// TestMutualTLS is the suite with certificates in place of tokens, over
// HTTP/1.1 and over HTTP/2.
func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t)
	own := ca.certificate(t, "client", valid)
	for _, http2 := range []bool{false, true} {
		var f far
		storetest.Run(t, storetest.Maker{
			Has: has,
			Open: func(t testing.TB, at storetest.Place) semel.Store {
				address := f.at(t, at, func() string {
					return ca.serve(t, memory.New(memory.Options{Now: at.Now}), remote.HandlerOptions{MutualTLS: true}, tls.RequireAndVerifyClientCert).URL
				})
				s, err := remote.Dial(t.Context(), address, remote.Options{TLS: ca.client(t, own), HTTP2: http2})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
		})
	}
}

// bare hides what a store can do beyond the two verbs.
type bare struct{ store semel.Store }

func (s bare) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	return s.store.Get(ctx, d)
}

func (s bare) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	return s.store.CompareAndSwap(ctx, old, next)
}

var _ http.Handler = (*remote.Handler)(nil)

// quiet takes the log of servers that are called wrongly on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// listen serves on a port of its own.
func listen(t testing.TB, server *http.Server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}
