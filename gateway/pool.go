package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"sync"
	"time"
)

const (
	// maxIdle is how many idle connections are kept.
	maxIdle = 1024
	// idleLimit is how long a connection may lie idle. It is below the keep-alive of
	// common servers (gunicorn 2 s, Node and Apache 5 s): a request on a connection
	// that its server is about to close may be lost, and nobody then knows whether
	// it ran.
	idleLimit = time.Second
	// dialTimeout bounds name lookup, connecting and the TLS handshake.
	dialTimeout = 10 * time.Second
)

// pool holds the idle connections to one upstream. It is safe for concurrent
// use.
type pool struct {
	address string
	tls     *tls.Config // nil for http
	dialer  net.Dialer

	mu     sync.Mutex
	closed bool
	idle   []*conn // the one used last is at the end
}

func newPool(upstream *url.URL) *pool {
	p := &pool{address: upstream.Host}
	port := "80"
	if upstream.Scheme == "https" {
		port = "443"
		p.tls = &tls.Config{ServerName: upstream.Hostname(), NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	}
	if upstream.Port() == "" {
		p.address = net.JoinHostPort(upstream.Hostname(), port)
	}
	return p
}

// get gives an idle connection that is still alive, or a new one.
func (p *pool) get(ctx context.Context) (*conn, error) {
	for {
		c := p.take()
		if c == nil {
			return p.dial(ctx)
		}
		if alive(c.Conn) {
			return c, nil
		}
		_ = c.Close()
	}
}

func (p *pool) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 || time.Since(p.idle[n-1].idle) > idleLimit {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// put takes back a connection on which nothing is under way.
func (p *pool) put(c *conn) {
	now := time.Now()
	c.reused, c.idle = true, now
	if c.silence > 0 && c.silence < 2*idleLimit {
		_ = c.SetReadDeadline(time.Time{}) // it would end while c is idle
	}
	p.mu.Lock()
	if p.closed || len(p.idle) >= maxIdle {
		p.mu.Unlock()
		_ = c.Close()
		return
	}
	p.idle = append(p.idle, c)
	old := now.Sub(p.idle[0].idle) > 2*idleLimit
	p.mu.Unlock()
	if old {
		p.trim()
	}
}

// trim closes the connections that have been idle for too long.
func (p *pool) trim() {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].idle) > idleLimit {
		n++
	}
	old := append([]*conn(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// close closes the idle connections, and those that come back later.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

func (p *pool) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := p.dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	if p.tls == nil {
		return newConn(raw), nil
	}
	secure := tls.Client(raw, p.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return newConn(secure), nil
}
