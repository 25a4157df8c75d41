package remote_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/remote"
)

func Example() {
	const token = "4f1d9e0c8a7b6e5d4c3b2a19" // of `openssl rand -hex 12`, known at both ends

	// Where the store is. In production an http.Server with TLS serves the handler.
	handler, err := remote.NewHandler(memory.New(memory.Options{}), remote.HandlerOptions{Tokens: []string{token}})
	if err != nil {
		fmt.Println(err)
		return
	}
	server := httptest.NewServer(handler)
	defer server.Close()

	// Where it is used.
	store, err := remote.Dial(context.Background(), server.URL, remote.Options{Token: token})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := semel.Ask{Key: semel.Key{Scope: semel.JoinScope("tenant-7", "charge"), ID: "order-42"}}
	for range 2 {
		answer, err := guard.Do(context.Background(), ask, func(context.Context) (semel.Result, error) {
			fmt.Println("charging")
			return semel.Result{Data: []byte("receipt 1")}, nil
		})
		fmt.Println(string(answer.Data), answer.Replayed, err)
	}
	_, lists := semel.As[semel.Lister](store)
	_, journals := semel.As[semel.Journal](store)
	fmt.Println("lists:", lists, "journals:", journals)
	// Output:
	// charging
	// receipt 1 false <nil>
	// receipt 1 true <nil>
	// lists: true journals: false
}
