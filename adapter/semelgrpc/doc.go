// Package semelgrpc is the gRPC door: [Server] gives a server's unary methods the
// contract of idempotency keys, [Client] gives a client safe retries.
//
//	guard, err := semel.NewGuard(store, semel.Options{})
//	…
//	once, err := semelgrpc.NewServer(guard, semelgrpc.Options{
//		Scope:   semelgrpc.MetadataScope("authorization"),
//		Methods: map[string]semelgrpc.Method{"/bank.Payments/Charge": {RequireKey: true}},
//	})
//	…
//	server := grpc.NewServer(grpc.ChainUnaryInterceptor(once.Unary), grpc.ChainStreamInterceptor(once.Stream))
//	…
//	err = once.Check(server.GetServiceInfo()) // a method that is misspelt would not be guarded
//
// The key is the metadata idempotency-key, in the grammar of the HTTP header. A
// refusal is a status with an ErrorInfo whose reason tells it from others of the
// same code. docs/spec/grpc.md holds the table of codes.
//
// A response is stored before it leaves, so methods whose responses are streams
// cannot be guarded; and messages have to be protocol buffers.
//
// Servers and clients of gRPC import it; servers of HTTP take semelhttp.
package semelgrpc
