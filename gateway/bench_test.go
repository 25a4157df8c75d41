package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkGateway measures one request through the gateway, both ends in this
// process. "proxy" is httputil.ReverseProxy alone, on a transport that keeps its
// connections.
func BenchmarkGateway(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"ch_1","amount":100}`)
	}))
	defer upstream.Close()
	d := open(b, upstream.URL, nil)
	plain := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   d.rewrite,
		Transport: &http.Transport{MaxIdleConnsPerHost: maxIdle, DisableCompression: true},
	})
	defer plain.Close()
	var n atomic.Int64
	fresh := func() string { return fmt.Sprintf("key-%d", n.Add(1)) }
	for _, c := range []struct {
		name, url string
		key       func() string
	}{
		{"proxy", plain.URL, fresh},
		{"fresh", d.url, fresh},
		{"replay", d.url, func() string { return "one" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) { converse(b, pb, strings.TrimPrefix(c.url, "http://"), c.key) })
		})
	}
}

// converse sends one request after the other on one connection.
func converse(b *testing.B, pb *testing.PB, address string, key func() string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for pb.Next() {
		fmt.Fprintf(c, "POST /charges HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\nContent-Length: 15\r\n\r\n{\"amount\": 100}", key())
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusCreated {
			b.Errorf("got %d, want 201", resp.StatusCode)
			return
		}
	}
}
