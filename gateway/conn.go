package gateway

import (
	"bufio"
	"errors"
	"net"
	"time"
)

// maxHead is the longest head of an answer in bytes, interim answers included.
const maxHead = 1 << 20

var errHeadTooLong = errors.New("the head of its answer is longer than 1 MiB")

// conn is one HTTP/1.1 connection to the upstream. It counts the bytes that
// leave, which is how a failure is judged, and ends a silence that lasts too
// long. One exchange at a time uses it.
type conn struct {
	net.Conn
	reader *bufio.Reader
	reused bool
	idle   time.Time // since when, while in the pool

	// Of the exchange under way.
	silence time.Duration // longest wait for the next byte, each way; 0 is no limit
	sent    int64         // bytes; belongs to whoever writes
	head    int           // bytes of the head that may still come; negative: the head is over
}

func newConn(raw net.Conn) *conn {
	c := &conn{Conn: raw}
	c.reader = bufio.NewReader(c)
	return c
}

// begin prepares the next exchange.
func (c *conn) begin(silence time.Duration) {
	c.silence, c.sent, c.head = silence, 0, maxHead
}

// Write is part of io.Writer. It counts what the kernel took, even if it then
// failed.
func (c *conn) Write(p []byte) (int, error) {
	if c.silence > 0 {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.silence))
	}
	n, err := c.Conn.Write(p)
	c.sent += int64(n)
	return n, err
}

// Read is part of io.Reader.
func (c *conn) Read(p []byte) (int, error) {
	if c.head == 0 {
		return 0, errHeadTooLong
	}
	if c.silence > 0 {
		_ = c.Conn.SetReadDeadline(time.Now().Add(c.silence))
	}
	if c.head > 0 {
		p = p[:min(len(p), c.head)]
	}
	n, err := c.Conn.Read(p)
	if c.head > 0 {
		c.head -= n
	}
	return n, err
}
