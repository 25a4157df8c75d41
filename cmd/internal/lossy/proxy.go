package lossy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Options are a proxy's settings.
type Options struct {
	// Upstream is the address, host:port, that everything is passed on to.
	Upstream string
	// Listen is the proxy's own address. Default 127.0.0.1:0, a free port.
	Listen string
	// Seed determines the fates: those of the n-th exchange of the m-th connection
	// are the same in each run with the same seed and faults. Which request is that
	// one depends on the clients.
	Seed uint64
	// Faults is what happens, until SetFaults.
	Faults Faults
}

// Proxy is a lossy network between clients and one upstream. It is safe for
// concurrent use.
type Proxy struct {
	listener net.Listener
	seed     uint64
	wait     sync.WaitGroup
	done     chan struct{} // closed by Close

	mu       sync.Mutex
	upstream string
	faults   Faults
	counts   Counts
	links    map[*link]struct{}
	closed   bool
}

// Counts tell what a proxy did so far.
type Counts struct {
	// Connections that clients made.
	Connections int
	// Exchanges that clients began.
	Exchanges int
	// Refused exchanges found no upstream, and the client's connection was reset.
	Refused int
	// Held exchanges were delayed.
	Held int
	// Happened counts the faults that came to pass; fewer than were drawn, since
	// an answer that never comes cannot be lost. Happened[Pass] stays 0.
	Happened [faultKinds]int
}

// Lost is the number of exchanges that a fault hit.
func (c Counts) Lost() int {
	n := 0
	for _, happened := range c.Happened {
		n += happened
	}
	return n
}

// Start listens and passes on until Close.
func Start(o Options) (*Proxy, error) {
	if err := o.Faults.check(); err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(o.Upstream); err != nil {
		return nil, fmt.Errorf("lossy: upstream %q: %w", o.Upstream, err)
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("lossy: %w", err)
	}
	p := &Proxy{
		listener: listener, seed: o.Seed, upstream: o.Upstream, faults: o.Faults,
		done: make(chan struct{}), links: make(map[*link]struct{}),
	}
	p.wait.Add(1)
	go p.accept()
	return p, nil
}

// Addr is the address, host:port, that clients use in place of the upstream's.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetFaults changes what happens to the exchanges that begin from now on.
func (p *Proxy) SetFaults(f Faults) error {
	if err := f.check(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
	return nil
}

// SetUpstream changes where connections that are made from now on lead to.
func (p *Proxy) SetUpstream(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upstream = address
}

// Counts gives what happened so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Close resets all connections, stops listening and waits for the goroutines.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.done)
	for l := range p.links {
		l.reset()
	}
	p.mu.Unlock()
	err := p.listener.Close()
	p.wait.Wait()
	return err
}

func (p *Proxy) accept() {
	defer p.wait.Done()
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: others will be closed
			time.Sleep(10 * time.Millisecond)
			continue
		}
		p.serve(client)
	}
}

// serve starts a link for a new connection, unless the proxy is closed.
func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		client.Close()
		return
	}
	p.counts.Connections++
	l := newLink(p, client, uint64(p.counts.Connections))
	p.links[l] = struct{}{}
	p.wait.Add(1)
	go func() {
		defer p.wait.Done()
		l.run()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	}()
}

// begin counts an exchange and gives what it may meet.
func (p *Proxy) begin() (Faults, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.Exchanges++
	return p.faults, p.upstream
}

func (p *Proxy) count(add func(*Counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.counts)
}

func (p *Proxy) happened(f Fault) { p.count(func(c *Counts) { c.Happened[f]++ }) }
