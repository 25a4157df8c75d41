package remote_test

import (
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// proxy stands between client and server and cuts connections at a byte.
type proxy struct {
	target string
	listen net.Listener
	wg     sync.WaitGroup

	mu          sync.Mutex
	open        map[net.Conn]bool
	connections int
	// How many bytes still pass, in each direction; below 0 all. The connection is
	// cut when the next one would have to pass.
	requests, answers int
}

// between puts a proxy in front of a server.
func between(t testing.TB, server *httptest.Server) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: strings.TrimPrefix(server.URL, "http://"), listen: l, open: map[net.Conn]bool{}, requests: -1, answers: -1}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.drop()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "http://" + p.listen.Addr().String() }

// pass sets how many bytes still pass.
func (p *proxy) pass(requests, answers int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.answers = requests, answers
}

// drop cuts what is connected.
func (p *proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
	clear(p.open)
}

func (p *proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.connections++
		p.open[client], p.open[server] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.carry(server, client, &p.requests) })
		p.wg.Go(func() { p.carry(client, server, &p.answers) })
	}
}

// carry copies one direction until left is used up or a side closes.
func (p *proxy) carry(to, from net.Conn, left *int) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		cut := *left >= 0 && n > *left
		if cut {
			n = *left
		}
		if *left >= 0 {
			*left -= n
		}
		p.mu.Unlock()
		if _, werr := to.Write(buffer[:n]); err != nil || werr != nil || cut {
			return
		}
	}
}

func (p *proxy) counted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connections
}
