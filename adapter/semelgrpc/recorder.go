package semelgrpc

import (
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// recorder takes the metadata that a handler sets, so that nothing leaves before
// the answer is stored, and nothing stays of a run that was undone. It is safe for
// concurrent use, as gRPC's own is.
type recorder struct {
	method string

	mu              sync.Mutex
	sent            bool // the handler believes so
	closed          bool
	header, trailer metadata.MD
}

var errHeaderSent = errors.New("semelgrpc: the header was sent already")

// errHandlerReturned, for a handler's goroutine that outlives it.
var errHandlerReturned = errors.New("semelgrpc: the handler has returned")

// Method is part of grpc.ServerTransportStream.
func (r *recorder) Method() string { return r.method }

// SetHeader is part of grpc.ServerTransportStream.
func (r *recorder) SetHeader(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return errHandlerReturned
	case r.sent:
		return errHeaderSent
	}
	r.header = metadata.Join(r.header, md)
	return nil
}

// SendHeader is part of grpc.ServerTransportStream. The header leaves with the
// answer, and not before.
func (r *recorder) SendHeader(md metadata.MD) error {
	if err := r.SetHeader(md); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = true
	return nil
}

// SetTrailer is part of grpc.ServerTransportStream.
func (r *recorder) SetTrailer(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errHandlerReturned
	}
	r.trailer = metadata.Join(r.trailer, md)
	return nil
}

// close ends the recording and gives what was recorded, less what only this
// package may say.
func (r *recorder) close() (header, trailer metadata.MD) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, md := range [...]metadata.MD{r.header, r.trailer} {
		for _, name := range [...]string{ReplayMetadata, UnconfirmedMetadata, OutcomeMetadata} {
			delete(md, name)
		}
	}
	return r.header, r.trailer
}

// kept gives the part of md that is stored.
func kept(md metadata.MD, names []string) metadata.MD {
	out := metadata.MD{}
	for _, name := range names {
		if values := md[name]; len(values) > 0 {
			out[name] = values
		}
	}
	return out
}

// send hands metadata to the real stream. An error says that the client has left
// or that an interceptor outside of this one has sent the header: the answer that
// is stored stays what it is.
func send(stream grpc.ServerTransportStream, header, trailer metadata.MD) {
	if stream == nil {
		return
	}
	if len(header) > 0 {
		_ = stream.SetHeader(header)
	}
	if len(trailer) > 0 {
		_ = stream.SetTrailer(trailer)
	}
}
