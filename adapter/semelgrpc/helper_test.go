package semelgrpc_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/semelgrpc"
	"github.com/semelhq/semel/store/memory"
)

const (
	charge  = "/bank.Payments/Charge"
	balance = "/bank.Payments/Balance"
	totals  = "/bank.Payments/Totals"
	watch   = "/bank.Payments/Watch"
)

// bank is a service as protoc-gen-go-grpc would describe it: Charge and Balance take
// and give text, Totals gives a message with a map, Watch streams.
type bank struct {
	charge  func(ctx context.Context, text string) (string, error)
	balance func(ctx context.Context, text string) (string, error)
	totals  func(ctx context.Context) (*structpb.Struct, error)
}

func unary[Q any, PQ interface {
	*Q
	proto.Message
}, A any](name string, run func(b *bank, ctx context.Context, req PQ) (A, error)) grpc.MethodDesc {
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			req := PQ(new(Q))
			if err := decode(req); err != nil {
				return nil, err
			}
			info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/bank.Payments/" + name}
			handler := func(ctx context.Context, req any) (any, error) { return run(srv.(*bank), ctx, req.(PQ)) }
			if interceptor == nil {
				return handler(ctx, req)
			}
			return interceptor(ctx, req, info, handler)
		},
	}
}

func text(run func(b *bank) func(context.Context, string) (string, error)) func(*bank, context.Context, *wrapperspb.StringValue) (any, error) {
	return func(b *bank, ctx context.Context, req *wrapperspb.StringValue) (any, error) {
		out, err := run(b)(ctx, req.GetValue())
		if err != nil {
			return nil, err
		}
		return wrapperspb.String(out), nil
	}
}

func serviceDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "bank.Payments", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("Charge", text(func(b *bank) func(context.Context, string) (string, error) { return b.charge })),
			unary("Balance", text(func(b *bank) func(context.Context, string) (string, error) { return b.balance })),
			unary("Totals", func(b *bank, ctx context.Context, _ *structpb.Struct) (*structpb.Struct, error) { return b.totals(ctx) }),
		},
		Streams: []grpc.StreamDesc{{StreamName: "Watch", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			if err := s.RecvMsg(new(wrapperspb.StringValue)); err != nil {
				return err
			}
			return s.SendMsg(wrapperspb.String("event"))
		}}},
	}
}

// listener remembers its connections, so that a test can break them.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
	}
	return c, err
}

// cut breaks all connections.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// running is a server with its parts.
type running struct {
	*listener
	server *grpc.Server
	once   *semelgrpc.Server
	guard  *semel.Guard
}

func newGuard(t testing.TB, store semel.Store) *semel.Guard {
	t.Helper()
	g, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// serve starts a server; scopes come from the metadata x-tenant. outer come before
// the guard.
func serve(t testing.TB, b *bank, o semelgrpc.Options, store semel.Store, outer ...grpc.UnaryServerInterceptor) *running {
	t.Helper()
	if o.Scope == nil {
		o.Scope = semelgrpc.MetadataScope("x-tenant")
	}
	if o.Methods == nil {
		o.Methods = map[string]semelgrpc.Method{charge: {}}
	}
	if store == nil {
		store = memory.New(memory.Options{})
	}
	return serveGuard(t, b, o, newGuard(t, store), outer...)
}

func serveGuard(t testing.TB, b *bank, o semelgrpc.Options, guard *semel.Guard, outer ...grpc.UnaryServerInterceptor) *running {
	t.Helper()
	once, err := semelgrpc.NewServer(guard, o)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{listener: &listener{Listener: tcp}, once: once, guard: guard}
	r.server = grpc.NewServer(grpc.ChainUnaryInterceptor(append(outer, once.Unary)...), grpc.ChainStreamInterceptor(once.Stream), grpc.WaitForHandlers(true))
	r.server.RegisterService(serviceDesc(), b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.server.Serve(r.listener)
	}()
	t.Cleanup(func() { r.server.Stop(); <-done })
	return r
}

func (r *running) dial(t testing.TB, o ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+r.Addr().String(), append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}),
	}, o...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// told is what a client saw.
type told struct {
	text            string
	err             error
	header, trailer metadata.MD
}

func (r told) code() codes.Code         { return status.Code(r.err) }
func (r told) reason() semelgrpc.Reason { return semelgrpc.ReasonOf(r.err) }
func (r told) replayed() bool {
	return len(r.header.Get(semelgrpc.ReplayMetadata)) == 1 && r.header.Get(semelgrpc.ReplayMetadata)[0] == "true"
}

// ask calls a method of text once; pairs are metadata, which x-tenant is added to.
func ask(t testing.TB, cc *grpc.ClientConn, method, text string, pairs ...string) (r told) {
	t.Helper()
	return askUnder(t.Context(), cc, method, text, pairs...)
}

func askUnder(ctx context.Context, cc *grpc.ClientConn, method, text string, pairs ...string) (r told) {
	md := metadata.Pairs(pairs...)
	if len(md.Get("x-tenant")) == 0 {
		md.Set("x-tenant", "acme")
	}
	out := new(wrapperspb.StringValue)
	r.err = cc.Invoke(metadata.NewOutgoingContext(ctx, md), method, wrapperspb.String(text), out, grpc.Header(&r.header), grpc.Trailer(&r.trailer))
	r.text = out.GetValue()
	return r
}

// counted is a bank that counts the charges that it runs.
func counted(runs *atomic.Int64) *bank {
	return &bank{charge: func(_ context.Context, text string) (string, error) {
		return fmt.Sprintf("charge %d of %s", runs.Add(1), text), nil
	}}
}
