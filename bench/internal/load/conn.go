package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/semelhq/semel/bench/internal/rounds"
)

// answerWithin is how long an answer may take.
const answerWithin = 30 * time.Second

type conn struct {
	net.Conn
	buffer []byte
}

// Answer is what came back. Its bytes are valid until the next request on the
// same connection.
type Answer struct {
	Status int
	Head   []byte
	Body   []byte
	Err    error
}

func (a Answer) clone(err error) Answer {
	return Answer{Status: a.Status, Head: bytes.Clone(a.Head), Body: bytes.Clone(a.Body), Err: err}
}

func (c *conn) run(ctx context.Context, s *rounds.Sample, r *Request, keys Keys, end time.Time) error {
	own := r.clone()
	from := time.Now()
	if err := c.SetDeadline(end.Add(answerWithin)); err != nil {
		return err
	}
	for from.Before(end) && ctx.Err() == nil {
		if _, err := c.exchange(own, keys()); err != nil {
			return err
		}
		now := time.Now()
		s.Saw(now.Sub(from))
		from = now
	}
	return nil
}

// exchange sends one request and reads its answer.
func (c *conn) exchange(r *Request, key uint64) (Answer, error) {
	r.set(key)
	if _, err := c.Write(r.bytes); err != nil {
		return Answer{}, err
	}
	b := c.buffer[:0]
	head, size := 0, -1
	for size < 0 || len(b) < head+size {
		if len(b) == cap(b) {
			return Answer{}, errors.New("the answer is too long")
		}
		n, err := c.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil {
			return Answer{}, fmt.Errorf("after %q: %w", b, err)
		}
		if size >= 0 {
			continue
		}
		if head = bytes.Index(b, endOfHead) + len(endOfHead); head >= len(endOfHead) {
			if size = length(b[:head]); size < 0 {
				return Answer{}, fmt.Errorf("the answer has no length: %q", b)
			}
		}
	}
	a := Answer{Head: b[:head], Body: b[head : head+size]}
	var err error
	if a.Status, err = status(a.Head); err != nil {
		return a, err
	}
	return a, r.expected(&a)
}

var endOfHead = []byte("\r\n\r\n")

// status reads "HTTP/1.1 201 Created".
func status(head []byte) (int, error) {
	const at = len("HTTP/1.1 ")
	if len(head) < at+3 {
		return 0, fmt.Errorf("no status line: %q", head)
	}
	return strconv.Atoi(string(head[at : at+3]))
}

// length finds Content-Length, or gives -1.
func length(head []byte) int {
	for len(head) > 0 {
		i := bytes.IndexByte(head, '\n')
		line := head[:i+1]
		head = head[i+1:]
		const name = "content-length:"
		if len(line) < len(name) || line[0]|0x20 != 'c' || !bytes.EqualFold(line[:len(name)], []byte(name)) {
			continue
		}
		n, err := strconv.Atoi(string(bytes.TrimSpace(line[len(name):])))
		if err != nil {
			return -1
		}
		return n
	}
	return -1
}
