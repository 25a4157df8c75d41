package semelgrpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// Server guards the methods of a gRPC server: it runs a handler once per key, and
// answers the duplicates. Its methods Unary and Stream are the interceptors. It is
// safe for concurrent use.
type Server struct {
	guard    *semel.Guard
	o        Options
	inFlight atomic.Int64
}

// NewServer gives the interceptors of a server. Settings that are unsafe or
// incomplete are refused with an error that says what to set.
func NewServer(guard *semel.Guard, o Options) (*Server, error) {
	if guard == nil {
		return nil, errors.New("semelgrpc: NewServer needs a guard")
	}
	_, transactions := semel.As[semel.Transactor](guard.Store())
	o, err := o.filled(transactions)
	if err != nil {
		return nil, err
	}
	return &Server{guard: guard, o: o}, nil
}

// Check compares the options with what a server has registered, as its
// GetServiceInfo gives it. The error names every method in the options that does
// not exist, since a method that is misspelt is not guarded; that is a stream and in
// Methods, or unary and in Streams; and every stream that would be refused.
func (s *Server) Check(registered map[string]grpc.ServiceInfo) error {
	var wrong []error
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("semelgrpc: "+format, args...)) }
	streaming := make(map[string]bool)
	for service, info := range registered {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			streaming[name] = m.IsClientStream || m.IsServerStream
			if streaming[name] && !listed(s.o.Streams, name) {
				refuse("%s is a stream and is in nobody's list: it would be refused; name it in Streams if its effects need no guard", name)
			}
		}
	}
	for name := range s.o.Methods {
		if !exists(streaming, name, false) {
			refuse("Methods has %s, and the server has no such unary method", name)
		}
	}
	for _, name := range s.o.Streams {
		if !exists(streaming, name, true) {
			refuse("Streams has %s, and the server has no such streaming method", name)
		}
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(wrong...)
}

// exists tells whether there is a method of that kind that name stands for.
func exists(streaming map[string]bool, name string, stream bool) bool {
	for method, is := range streaming {
		if is == stream && (method == name || ofService(method) == name) {
			return true
		}
	}
	return false
}

// Unary is a grpc.UnaryServerInterceptor. Interceptors that tell who calls come
// before it in the chain, those that look at responses after it: to those before it
// a guarded method's response is an opaque message, of the right bytes and of no
// type.
//
// The handler's context does not end when the client leaves, nor at the client's
// deadline, see semel.Claim. A handler that panics ends with INTERNAL; the panic
// does not go on.
func (s *Server) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	name := info.FullMethod
	m, guarded := s.o.Methods[name]
	if !guarded {
		if m, guarded = s.o.Methods[ofService(name)]; guarded && m.Policy.Name == ofService(name) {
			m.Policy.Name = name
		}
	}
	lines := metadata.ValueFromIncomingContext(ctx, KeyMetadata)
	if !guarded || len(lines) == 0 && !m.RequireKey && !m.DeriveKey {
		return handler(ctx, req)
	}
	c := &call{s: s, m: &m, name: name, ctx: ctx, req: req, handler: handler, stream: grpc.ServerTransportStreamFromContext(ctx)}
	if s.inFlight.Add(1) > int64(s.o.MaxInFlight) {
		s.inFlight.Add(-1)
		return c.refuse(refusal{reason: TooManyInFlight})
	}
	defer s.inFlight.Add(-1)
	ask, refused := c.ask(lines)
	if refused.reason != "" {
		return c.refuse(refused)
	}
	return c.serve(ask)
}

// Stream is a grpc.StreamServerInterceptor. It guards nothing: methods that are in
// Streams pass, others are refused, and so is each call that carries a key, whose
// client believes in a guard that is not there.
func (s *Server) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	r := refusal{reason: StreamRefused}
	switch keyed := len(metadata.ValueFromIncomingContext(stream.Context(), KeyMetadata)) > 0; {
	case !listed(s.o.Streams, info.FullMethod):
		r.detail = info.FullMethod + " is a stream, which cannot be guarded, and the server does not name it among those that need no guard"
	case keyed:
		r.detail = info.FullMethod + " is a stream, which cannot be guarded: it takes no idempotency key"
	default:
		return handler(srv, stream)
	}
	st := r.status()
	stream.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", pushback(st)))
	return st.Err()
}

// call is one call of a guarded method.
type call struct {
	s       *Server
	m       *Method
	name    string
	ctx     context.Context
	req     any
	handler grpc.UnaryHandler
	stream  grpc.ServerTransportStream // nil outside of a gRPC server
}

// maxMemo is the longest memo in bytes: it is written with every claim.
const maxMemo = 4 << 10

// ask gives what to ask the guard, or a refusal. The last part of the scope tells
// sent keys from derived ones, so no client can send a key that is another's
// derived one.
func (c *call) ask(lines []string) (semel.Ask, refusal) {
	var id string
	source := "content"
	if len(lines) > 0 {
		var err error
		if id, err = semelhttp.ParseKey(lines); err != nil {
			return semel.Ask{}, refusal{reason: KeyInvalid, detail: err.Error()}
		}
		source = "key"
	} else if c.m.RequireKey {
		return semel.Ask{}, refusal{reason: KeyRequired}
	}
	scope, err := c.s.o.Scope(c.ctx, c.name)
	switch {
	case err != nil:
		return semel.Ask{}, refusal{reason: ScopeRequired, detail: err.Error()}
	case scope == "":
		return semel.Ask{}, refusal{reason: ScopeRequired, detail: "this call belongs to nobody that the method knows"}
	}
	req, ok := c.req.(proto.Message)
	if !ok {
		return semel.Ask{}, refusal{reason: MessageUnsupported}
	}
	if size := proto.Size(req); size > c.s.o.MaxMessage {
		return semel.Ask{}, refusal{reason: MessageTooLarge, detail: fmt.Sprintf("this method takes requests of up to %d bytes, and this one has %d", c.s.o.MaxMessage, size)}
	}
	fingerprint, err := c.m.fingerprint(c.ctx, c.name, req)
	if err != nil {
		return semel.Ask{}, refusal{reason: MessageUnreadable, detail: err.Error()}
	}
	if id == "" {
		id = fingerprint.String()
	}
	ask := semel.Ask{
		Key:         semel.Key{Scope: semel.JoinScope(scope, c.name, source), ID: id},
		Fingerprint: fingerprint, Tenant: scope, Policy: &c.m.Policy,
	}
	if refused := c.tenant(&ask); refused.reason != "" {
		return ask, refused
	}
	if c.m.Memo == nil {
		return ask, refusal{}
	}
	if ask.Memo, err = c.m.Memo(c.ctx, req); err != nil {
		return ask, refusal{reason: MessageUnreadable, detail: err.Error()}
	}
	if len(ask.Memo) > maxMemo {
		return ask, refusal{reason: MessageTooLarge, detail: fmt.Sprintf("what this method keeps of a request to find out an unknown outcome may have %d bytes, and of this one has %d", maxMemo, len(ask.Memo))}
	}
	return ask, refusal{}
}

// tenant sets whose quota the call counts for, where that is not the scope.
func (c *call) tenant(ask *semel.Ask) (refused refusal) {
	if c.s.o.Tenant == nil || c.m.Policy.Quota == nil {
		return refusal{}
	}
	name, err := c.s.o.Tenant(c.ctx, c.name)
	switch {
	case err != nil:
		return refusal{reason: ScopeRequired, detail: err.Error()}
	case name == "":
		return refusal{reason: ScopeRequired, detail: "it is not known whose quota this call counts for"}
	}
	ask.Tenant = name
	return refusal{}
}

// serve asks the guard and does what it says.
func (c *call) serve(ask semel.Ask) (any, error) {
	claim, v, err := c.s.guard.Begin(c.ctx, ask)
	if v.Unconfirmed {
		send(c.stream, metadata.Pairs(UnconfirmedMetadata, "true"), nil)
	}
	switch {
	case claim != nil:
		e := c.run(claim)
		for e.again {
			e = c.run(claim)
		}
		return e.resp, e.err
	case err != nil:
		return c.unavailable(err)
	}
	return c.answer(c.s.guard.Digest(ask.Key), v)
}

// unavailable answers a call for which nothing was started.
func (c *call) unavailable(err error) (any, error) {
	if c.ctx.Err() == nil || errors.Is(err, semel.ErrUnavailable) {
		return c.refuse(refusal{reason: StoreUnavailable})
	}
	return nil, status.FromContextError(c.ctx.Err()).Err()
}

// answer tells a duplicate what the record says.
func (c *call) answer(digest semel.Digest, v semel.Verdict) (any, error) {
	if v.Action != semel.Replay {
		r := refused(v)
		if r.reason == OutcomeUnknown {
			return c.doubtful(digest)
		}
		return c.refuse(r)
	}
	s, err := decode(v.Held.Result)
	if err != nil {
		// A record that cannot be read is in doubt, never absent (INVARIANTS S15).
		return c.doubtful(digest)
	}
	resp, told := s.answer()
	if errors.Is(told, errResult) {
		return c.doubtful(digest)
	}
	if v.Reason == semel.Shared {
		c.send(&s, outcomeNotDone)
		return resp, told
	}
	s.header.Set(ReplayMetadata, "true")
	c.send(&s, outcomeDone)
	return resp, told
}

const (
	outcomeDone    = "done"
	outcomeNotDone = "not-done"
)

// send hands the metadata of an answer on. An error is marked with what it means,
// and gRPC's own retries are told to leave it alone.
func (c *call) send(s *stored, outcome string) {
	if s.code != codes.OK {
		s.trailer = metadata.Join(s.trailer, metadata.Pairs(OutcomeMetadata, outcome))
		if outcome == outcomeDone {
			s.trailer.Set("grpc-retry-pushback-ms", "-1")
		}
	}
	send(c.stream, s.header, s.trailer)
}

// maxInProgress is the longest RetryInfo for a lease that runs: most end long
// before.
const maxInProgress = 5 * time.Second

// refused gives the refusal for a verdict.
func refused(v semel.Verdict) refusal {
	switch v.Reason {
	case semel.InProgress:
		return refusal{reason: InProgress, wait: min(v.RetryAfter, maxInProgress)}
	case semel.Mismatch:
		return refusal{reason: PayloadMismatch}
	case semel.Gone:
		return refusal{reason: ResultGone, original: codes.Code(v.Held.Code)}
	case semel.OverQuota:
		return refusal{reason: QuotaExceeded, wait: v.RetryAfter}
	case semel.Expired:
		return refusal{reason: KeyExpired}
	case semel.Early:
		return refusal{reason: KeyEarly}
	}
	return refusal{reason: OutcomeUnknown}
}

// refuse ends the call with a status of this package.
func (c *call) refuse(r refusal) (any, error) {
	st := r.status()
	send(c.stream, nil, metadata.Pairs("grpc-retry-pushback-ms", pushback(st)))
	return nil, st.Err()
}
