package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// transport chooses how a request travels: what may have an effect goes by the
// sender, which sends once; what has none goes by net/http, which may send again
// and can do more (HTTP/2, upgrades).
type transport struct {
	sender  *sender
	safe    *http.Transport
	silence time.Duration
	guarded []string // methods
}

func (g *Gateway) transport(silence time.Duration, guarded []string) *transport {
	if g.safe[silence] == nil {
		g.safe[silence] = &http.Transport{
			// No Proxy: an http_proxy in the environment is not meant for the upstream.
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   maxIdle, // the default of 2 more than halves the throughput
			IdleConnTimeout:       30 * time.Second,
			TLSHandshakeTimeout:   dialTimeout,
			ExpectContinueTimeout: time.Second,
			ResponseHeaderTimeout: silence,
			DisableCompression:    true, // what the upstream sends is what the client gets
		}
	}
	return &transport{sender: g.sender, safe: g.safe[silence], silence: silence, guarded: guarded}
}

// RoundTrip is part of http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	guarded, upgrade := slices.Contains(t.guarded, r.Method), r.Header["Upgrade"] != nil
	if !safe(r.Method) || guarded && !upgrade {
		// A server may ignore an upgrade. The body is here, so nobody waits for 100.
		delete(r.Header, "Upgrade")
		delete(r.Header, "Connection")
		delete(r.Header, "Expect")
		return t.sender.send(r, t.silence)
	}
	if guarded && r.Body == nil {
		r.Body, r.GetBody = io.NopCloser(strings.NewReader("")), nil // net/http does not send that again
	}
	resp, err := t.safe.RoundTrip(r)
	if err == nil && resp.StatusCode < 100 {
		_ = resp.Body.Close()
		err = errStatus
	}
	var dial *net.OpError
	if err != nil {
		return nil, &sendError{started: !errors.As(err, &dial) || dial.Op != "dial", err: err}
	}
	return resp, nil
}

// safe tells whether RFC 9110 calls the method safe.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// buffers are what answers are copied through. They are shared by all routes.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get is part of httputil.BufferPool.
func (b *buffers) Get() []byte {
	if room, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return room[:]
	}
	return make([]byte, bufferSize)
}

// Put is part of httputil.BufferPool.
func (b *buffers) Put(room []byte) { b.pool.Put((*[bufferSize]byte)(room)) }
