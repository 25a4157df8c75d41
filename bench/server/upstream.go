package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
)

// serveUpstream is the service behind the proxies: it reads a request whole,
// counts it and answers with fixed bytes, without an HTTP library. The cheaper
// it is, the more of a measurement is the proxy's.
func serveUpstream(address string) error {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	var runs atomic.Int64
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = serveConn(c, &runs) // the proxy sees that it ended
		}()
	}
}

func serveConn(c net.Conn, runs *atomic.Int64) error {
	created := fmt.Appendf(nil, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
	r := bufio.NewReaderSize(c, 16<<10)
	for {
		get, err := readRequest(r)
		if err != nil {
			return err
		}
		out := created
		if get {
			text := strconv.FormatInt(runs.Load(), 10)
			out = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		} else {
			runs.Add(1)
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
	}
}

// readRequest reads one request with Content-Length or without a body.
func readRequest(r *bufio.Reader) (get bool, err error) {
	size := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		switch {
		case len(name) == 0:
			_, err := r.Discard(size)
			return get, err
		case first:
			get = bytes.HasPrefix(line, []byte("GET "))
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			if size, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return false, err
			}
		case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return false, errors.Join(errors.ErrUnsupported, io.ErrUnexpectedEOF)
		}
	}
}
