package lossy

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// segment is how much is read at a time. A request that fits is one segment.
const segment = 32 << 10

// dialTimeout bounds how long an upstream may take to accept.
const dialTimeout = 5 * time.Second

// A link is one client's connection and its other half.
type link struct {
	proxy  *Proxy
	client net.Conn
	source *rand.Rand // of the goroutine that reads from the client

	mu       sync.Mutex
	upstream net.Conn // nil until the first exchange
	fate     fate     // of the exchange that runs
	answered bool     // the exchange's answer has begun: what the client sends next begins another
	hangUp   *time.Timer
	down     bool
}

func newLink(p *Proxy, client net.Conn, number uint64) *link {
	return &link{proxy: p, client: client, source: rand.New(rand.NewPCG(p.seed, number)), answered: true}
}

// run passes on what the client sends until one side ends.
func (l *link) run() {
	var answers sync.WaitGroup
	defer answers.Wait()
	defer l.close()
	buffer := make([]byte, segment)
	for {
		n, err := l.client.Read(buffer)
		if n > 0 && !l.request(buffer[:n], &answers) {
			return
		}
		if err != nil {
			return
		}
	}
}

// request passes a segment on and tells whether the link is still up.
func (l *link) request(data []byte, answers *sync.WaitGroup) bool {
	l.mu.Lock()
	first, upstream := l.answered, l.upstream
	l.mu.Unlock()
	var fate fate
	if first {
		faults, address := l.proxy.begin()
		fate = faults.draw(l.source)
		if upstream = l.begin(fate, upstream, address, answers); upstream == nil {
			return false
		}
	}
	if fate.fault == RequestCut {
		_, _ = upstream.Write(data[:(len(data)+1)/2])
		l.proxy.happened(RequestCut)
		l.reset()
		return false
	}
	_, err := upstream.Write(data)
	if fate.fault == HangUp && err == nil {
		l.mu.Lock()
		l.hangUp = time.AfterFunc(fate.hangUp, func() {
			if l.reset() {
				l.proxy.happened(HangUp)
			}
		})
		l.mu.Unlock()
	}
	return err == nil
}

// begin begins an exchange: it applies what happens before the request arrives,
// and gives the connection to send it on, nil if there is nothing to send.
func (l *link) begin(f fate, upstream net.Conn, address string, answers *sync.WaitGroup) net.Conn {
	if f.before > 0 || f.after > 0 {
		l.proxy.count(func(c *Counts) { c.Held++ })
	}
	if !l.sleep(f.before) {
		return nil
	}
	if f.fault == RequestLost {
		l.proxy.happened(RequestLost)
		l.reset()
		return nil
	}
	if upstream == nil {
		made, err := net.DialTimeout("tcp", address, dialTimeout)
		if err != nil || !l.adopt(made) {
			l.proxy.count(func(c *Counts) { c.Refused++ })
			l.reset()
			return nil
		}
		upstream = made
		answers.Add(1)
		go func() {
			defer answers.Done()
			defer l.close()
			l.answers(made)
		}()
	}
	l.mu.Lock()
	l.fate, l.answered = f, false
	l.mu.Unlock()
	return upstream
}

// adopt takes the upstream's connection in, unless the link is down already.
func (l *link) adopt(upstream net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		upstream.Close()
		return false
	}
	l.upstream = upstream
	return true
}

// answers passes on what the upstream sends until one side ends.
func (l *link) answers(upstream net.Conn) {
	buffer := make([]byte, segment)
	for {
		n, err := upstream.Read(buffer)
		if n > 0 && !l.answer(buffer[:n]) {
			return
		}
		if err != nil {
			return
		}
	}
}

// answer passes a segment on and tells whether the link is still up.
func (l *link) answer(data []byte) bool {
	l.mu.Lock()
	first, f := !l.answered, l.fate
	l.answered = true
	l.mu.Unlock()
	if first {
		if !l.sleep(f.after) {
			return false
		}
		switch f.fault {
		case AnswerCut:
			_, _ = l.client.Write(data[:(len(data)+1)/2])
			l.proxy.happened(AnswerCut)
			l.close() // not a reset: what was sent is to arrive
			return false
		case AnswerLost, HangUp: // a client that has hung up gets no answer, however quick
			if l.reset() {
				l.proxy.happened(f.fault)
			}
			return false
		}
	}
	_, err := l.client.Write(data)
	return err == nil
}

// sleep holds the exchange up and tells whether the proxy is still open.
func (l *link) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.proxy.done:
		return false
	}
}

// reset ends both connections at once, without a goodbye, and tells whether
// they were up.
func (l *link) reset() bool { return l.end(true) }

// close ends both connections after what was sent.
func (l *link) close() { l.end(false) }

func (l *link) end(hard bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return false
	}
	l.down = true
	if l.hangUp != nil {
		l.hangUp.Stop()
	}
	for _, c := range [...]net.Conn{l.client, l.upstream} {
		if c == nil {
			continue
		}
		if tcp, ok := c.(*net.TCPConn); ok && hard {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	return true
}
