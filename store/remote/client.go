package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/semelhq/semel"
)

// client sends messages to one handler.
type client struct {
	base      string // the URL without a slash at its end
	options   Options
	transport *http.Transport
	maxBytes  int // of a message, as both ends allow

	mu       sync.Mutex
	closed   bool
	watching int // how many are followed
	end      context.Context
	stop     context.CancelFunc // of end: ends those who follow
	follow   sync.WaitGroup
}

// newRequestID needs to be unique, not secret.
func newRequestID() (id requestID) {
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	return id
}

// call sends one message, whose payload fill appends to a slice with room for
// size bytes, and gives the payload of the answer. An error says nothing of what
// the far store did, unless it is semel.ErrRejected: then nothing was sent.
func (c *client) call(ctx context.Context, v verb, size int, fill func(b []byte) []byte) (cursor, error) {
	if c.isClosed() {
		return cursor{}, errClosed
	}
	if ctx.Err() != nil {
		return cursor{}, fmt.Errorf("remote: nothing was sent: %w", context.Cause(ctx))
	}
	id := newRequestID()
	message := seal(fill(begin(make([]byte, 0, size+frameSize), v, id)))
	if len(message) > c.maxBytes {
		return cursor{}, fmt.Errorf("remote: nothing was sent: %w: it takes %d bytes on the wire and at most %d are taken; raise MaxBytes at both ends",
			semel.ErrRejected, len(message), c.maxBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	answer, err := c.exchange(ctx, v, message)
	if err == nil {
		var payload cursor
		if payload, err = c.openAnswer(answer, v, id); err == nil {
			return payload, nil
		}
	}
	return cursor{}, c.failed(v, err)
}

// failed tells where a call failed. The far store may have carried it out.
func (c *client) failed(v verb, err error) error {
	return fmt.Errorf("remote: %s at %s: %w", verbs[v], c.base, err)
}

func (c *client) openAnswer(answer []byte, v verb, id requestID) (cursor, error) {
	got, payload, err := open(answer, v|answerFlag)
	if err == nil && got != id {
		err = fmt.Errorf("an answer belongs to another question; something between mixes answers up")
	}
	return payload, err
}

// exchange posts a message and reads the whole answer.
func (c *client) exchange(ctx context.Context, v verb, message []byte) ([]byte, error) {
	request, err := c.request(ctx, http.MethodPost, prefix+verbs[v], message)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	request.Header.Set(headTimeout, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	request.Header.Set(headMaxBytes, strconv.Itoa(c.maxBytes))
	return c.send(request, messageType, c.maxBytes)
}

// request prepares a request that the transport cannot send twice: it has no
// Idempotency-Key, and a body without GetBody.
func (c *client) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		reader = io.NopCloser(bytes.NewReader(body))
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.ContentLength = int64(len(body))
		request.Header.Set("Content-Type", messageType)
	}
	if c.options.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	return request, nil
}

// send carries out one round trip, of which nothing but a whole body of the
// wanted type comes back without an error.
func (c *client) send(request *http.Request, wantType string, maxBytes int) ([]byte, error) {
	response, err := c.round(request, wantType)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return readBody(response.Body, response.ContentLength, maxBytes)
}

// round gives a response whose head is right. It goes past http.Client, which
// follows redirects.
func (c *client) round(request *http.Request, wantType string) (*http.Response, error) {
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, advise(err, request.URL.Scheme == "https")
	}
	encoding := response.Header.Get("Content-Encoding")
	switch got := response.Header.Get("Content-Type"); {
	case response.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxText))
		err = refused(response.StatusCode, string(text))
	case got != wantType:
		err = fmt.Errorf("an answer of type %q came where %s was expected; is there a proxy between?", printable(got), wantType)
	case encoding != "":
		err = fmt.Errorf("an answer came with Content-Encoding %q, which nobody asked for; is there a proxy between?", printable(encoding))
	default:
		return response, nil
	}
	response.Body.Close()
	return nil, err
}

// readBody reads a body of at most maxBytes to its end. length is the
// announced length, or -1.
func readBody(r io.Reader, length int64, maxBytes int) ([]byte, error) {
	tooLarge := func() error { return fmt.Errorf("%w: more than %d bytes", errTooLarge, maxBytes) }
	if length > int64(maxBytes) {
		return nil, tooLarge()
	}
	var buffer bytes.Buffer
	buffer.Grow(max(0, int(length)) + bytes.MinRead)
	_, err := buffer.ReadFrom(io.LimitReader(r, int64(maxBytes)+1))
	switch {
	case err != nil:
		return nil, err
	case buffer.Len() > maxBytes:
		return nil, tooLarge()
	}
	return buffer.Bytes(), nil
}

func (c *client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// close ends whoever follows a key and the idle connections.
func (c *client) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.follow.Wait()
	c.transport.CloseIdleConnections()
}
