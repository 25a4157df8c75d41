package remote_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/batch"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
)

// BenchmarkInsert inserts fresh keys through TLS on loopback, the far store
// being in memory: what is measured is the way there and back.
func BenchmarkInsert(b *testing.B) {
	ca := newAuthority(b)
	for _, callers := range []int{1, 64, 512} {
		for name, o := range map[string]remote.Options{"HTTP1": {}, "HTTP2": {HTTP2: true}} {
			for _, batched := range []bool{false, true} {
				b.Run(fmt.Sprintf("callers=%d/%s/batched=%t", callers, name, batched), func(b *testing.B) {
					server := ca.serve(b, memory.New(memory.Options{}), remote.HandlerOptions{Tokens: []string{token}}, tls.NoClientCert)
					o.TLS = ca.client(b)
					far := dial(b, server.URL, o)
					var store semel.Store = far
					if batched {
						front := batch.New(far, batch.Options{Workers: 4})
						defer front.Close()
						store = front
					}
					insert(b, store, callers)
				})
			}
		}
	}
}

func insert(b *testing.B, store semel.Store, callers int) {
	b.Helper()
	b.ReportAllocs()
	var n atomic.Uint64
	one := func() {
		next := claim("k", 1)
		binary.BigEndian.PutUint64(next.Digest[:], n.Add(1))
		if _, err := store.CompareAndSwap(b.Context(), semel.Version{}, next); err != nil {
			b.Error(err)
		}
	}
	if callers == 1 {
		for b.Loop() {
			one()
		}
		return
	}
	b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			one()
		}
	})
}
