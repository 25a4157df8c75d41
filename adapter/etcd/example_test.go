package etcd_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
	"github.com/semelhq/semel/internal/server"
)

func Example() {
	address, stop := startEtcd() // "127.0.0.1:2379"
	defer stop()

	ctx := context.Background()
	store, err := etcd.Open(ctx, "etcd://"+address+"/payments", etcd.Options{})
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
	for range 2 { // the second round is the client's retry
		answer, err := guard.Do(ctx, ask, func(context.Context) (semel.Result, error) {
			fmt.Println("charging")
			return semel.Result{Data: []byte("receipt 1")}, nil
		})
		fmt.Println(string(answer.Data), answer.Replayed, err)
	}
	// Output:
	// charging
	// receipt 1 false <nil>
	// receipt 1 true <nil>
}

// startEtcd stands for the cluster that you have.
func startEtcd() (address string, stop func()) {
	dir, err := os.MkdirTemp("", "semel")
	if err != nil {
		panic(err)
	}
	e, err := server.StartEtcd(dir, server.EtcdOptions{})
	if err != nil {
		panic(err)
	}
	return strings.TrimPrefix(e.URL(), "http://"), func() {
		_ = e.Kill()
		_ = os.RemoveAll(dir)
	}
}
