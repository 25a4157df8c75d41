package postgres_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel/store/scopetest"
)

// proxy stands between a store and its server, and understands as much of the
// protocol as it takes to count round trips and to lose the answer to one.
type proxy struct {
	listener net.Listener
	upstream atomic.Pointer[string]
	trips    atomic.Int64 // answers that ended, after the first of each connection
	executes atomic.Int64 // statements sent
	cancels  atomic.Int64 // requests to cancel
	lose     atomic.Int64 // how many of the next answers to lose, connection and all
	loseAt   atomic.Int32 // breaks the connection of the next COMMIT: a scopetest.Loss
	mu       sync.Mutex
	open     []net.Conn
}

// between starts a proxy in front of the server at an URL, and gives the URL
// that leads through it.
func between(t testing.TB, to string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(to)
	must(t, err)
	p := &proxy{}
	p.upstream.Store(hostOf(t, to))
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.cut()
	})
	go p.accept()
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

// lossAt breaks the connection of the next COMMIT that is sent with others.
func (p *proxy) lossAt(when scopetest.Loss) { p.loseAt.Store(int32(when)) }

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
}

// refused fails the test if a request to cancel comes within a while: it would
// come at once.
func (p *proxy) refused(t testing.TB) {
	t.Helper()
	for range 100 {
		if p.cancels.Load() > 0 {
			t.Error("the driver asked the server to cancel a commit")
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", *p.upstream.Load())
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.open = append(p.open, client, up)
		p.mu.Unlock()
		go p.requests(up, client)
		go p.answers(client, up)
	}
}

// requests counts Execute messages on their way.
func (p *proxy) requests(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	size := make([]byte, 4) // the first message has no type
	if _, err := io.ReadFull(from, size); err != nil {
		return
	}
	start := make([]byte, binary.BigEndian.Uint32(size))
	copy(start, size)
	if _, err := io.ReadFull(from, start[4:]); err != nil {
		return
	}
	const cancelRequest = 80877102
	if len(start) == 16 && binary.BigEndian.Uint32(start[4:]) == cancelRequest {
		p.cancels.Add(1)
	}
	if _, err := to.Write(start); err != nil {
		return
	}
	messages(from, func(kind byte, whole []byte) bool {
		if kind == 'E' {
			p.executes.Add(1)
		}
		if kind == 'P' && bytes.Contains(whole, []byte("\x00COMMIT\x00")) {
			switch scopetest.Loss(p.loseAt.Swap(0)) {
			case scopetest.BeforeCommit:
				return false
			case scopetest.AfterCommit:
				p.lose.Store(1)
			}
		}
		_, err := to.Write(whole)
		return err == nil
	})
}

// answers forwards what the server says, and counts the ends of answers.
func (p *proxy) answers(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	started := false
	var answer bytes.Buffer
	messages(from, func(kind byte, whole []byte) bool {
		answer.Write(whole)
		if kind == 'Z' && started && p.lose.Load() > 0 && p.lose.Add(-1) >= 0 {
			return false // the server has carried it out
		}
		if kind == 'Z' {
			if started {
				p.trips.Add(1)
			}
			started = true
		}
		if p.lose.Load() > 0 && started && kind != 'Z' {
			return true // held back until the end is known
		}
		_, err := to.Write(answer.Bytes())
		answer.Reset()
		return err == nil
	})
}

// messages hands over one message after the other until the end.
func messages(from io.Reader, visit func(kind byte, whole []byte) bool) {
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		whole := make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
		copy(whole, head)
		if _, err := io.ReadFull(from, whole[5:]); err != nil {
			return
		}
		if !visit(head[0], whole) {
			return
		}
	}
}

// hostOf gives the host and port of an URL.
func hostOf(t testing.TB, of string) *string {
	t.Helper()
	u, err := url.Parse(of)
	must(t, err)
	host := strings.Clone(u.Host)
	return &host
}
