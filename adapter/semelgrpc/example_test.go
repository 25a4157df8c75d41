package semelgrpc_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/semelgrpc"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

func ExampleNewServer() {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	once, err := semelgrpc.NewServer(guard, semelgrpc.Options{
		Scope:   semelgrpc.MetadataScope("authorization"),
		Methods: map[string]semelgrpc.Method{"/bank.Payments/Charge": {RequireKey: true}},
		Streams: []string{"/bank.Payments/Watch"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	charges := 0
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(once.Unary), grpc.ChainStreamInterceptor(once.Stream))
	server.RegisterService(serviceDesc(), &bank{charge: func(_ context.Context, amount string) (string, error) {
		charges++
		return fmt.Sprintf("charge %d of %s", charges, amount), nil
	}})
	if err := once.Check(server.GetServiceInfo()); err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.Serve(l)
	defer server.Stop()

	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	for _, amount := range []string{"100", "100", "900"} {
		ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer alice", "idempotency-key", "order-42")
		answer := new(wrapperspb.StringValue)
		var header metadata.MD
		err := cc.Invoke(ctx, "/bank.Payments/Charge", wrapperspb.String(amount), answer, grpc.Header(&header))
		fmt.Printf("%v %q %q %v\n", status.Code(err), semelgrpc.ReasonOf(err), answer.GetValue(), header.Get("idempotent-replayed"))
	}
	// Output:
	// OK "" "charge 1 of 100" []
	// OK "" "charge 1 of 100" [true]
	// FailedPrecondition "PAYLOAD_MISMATCH" "" []
}

// The first answer is lost on its way. The client asks again under the same key,
// and the server gives the stored answer: one charge.
func ExampleClient() {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	once, err := semelgrpc.NewServer(guard, semelgrpc.Options{
		Scope: semelgrpc.SharedScope(), Methods: map[string]semelgrpc.Method{"/bank.Payments/Charge": {}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	calls, charges := 0, 0
	lossy := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		if calls++; calls == 1 { // executed, and the answer does not come
			return nil, status.Error(codes.Unavailable, "the connection broke")
		}
		return resp, err
	}
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(lossy, once.Unary))
	server.RegisterService(serviceDesc(), &bank{charge: func(_ context.Context, amount string) (string, error) {
		charges++
		return fmt.Sprintf("charge %d of %s", charges, amount), nil
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.Serve(l)
	defer server.Stop()

	client := &semelgrpc.Client{Methods: []string{"/bank.Payments/Charge"}}
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainUnaryInterceptor(client.Unary))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	answer := new(wrapperspb.StringValue)
	err = cc.Invoke(context.Background(), "/bank.Payments/Charge", wrapperspb.String("100 EUR"), answer)
	switch semelgrpc.OutcomeOf(err) {
	case semelhttp.OutcomeDone: // also an error: it is the operation's answer
		fmt.Printf("%s, %v, %d calls\n", answer.GetValue(), status.Code(err), calls)
	case semelhttp.OutcomeNotDone:
		fmt.Println("nothing happened; it is safe to give up:", err)
	default:
		fmt.Println("it may have happened; ask again with the same key:", err)
	}
	// Output: charge 1 of 100 EUR, OK, 2 calls
}
