package postgres

import (
	"errors"
	"net"
	"sync"
	"time"
)

// line is a way to a server that takes time: what is sent comes out half of a
// round trip later, in both directions.
type line struct {
	listener net.Listener
	mu       sync.Mutex
	open     []net.Conn
}

// delay begins a line to a server.
func delay(to string, trip time.Duration) (*line, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &line{listener: listener}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close() // which tells the client
				continue
			}
			l.mu.Lock()
			l.open = append(l.open, client, up)
			l.mu.Unlock()
			go carry(up, client, trip/2)
			go carry(client, up, trip/2)
		}
	}()
	return l, nil
}

func (l *line) address() string { return l.listener.Addr().String() }

func (l *line) close() {
	_ = l.listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close() // the other end may have closed it
	}
}

// carry hands on what comes, late.
func carry(to, from net.Conn, late time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		var failed error
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			if failed == nil {
				_, failed = to.Write(p.data)
			}
		}
		_ = errors.Join(failed, to.Close()) // a broken line is silence to both
	}()
	defer close(pieces)
	for {
		room := make([]byte, 16<<10)
		n, err := from.Read(room)
		if n > 0 {
			pieces <- piece{room[:n], time.Now().Add(late)}
		}
		if err != nil {
			return
		}
	}
}
