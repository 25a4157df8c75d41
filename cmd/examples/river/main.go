// River is a shop whose orders are shipped by a warehouse on the other side of
// the network. The order, the answer to its retries and a job of River's are one
// commit; the job makes the call, with a key that the warehouse recognises. It is
// an example to read and to run, and nothing imports it:
//
//	go run ./cmd/examples/river --postgres postgres://postgres@localhost:5432/postgres
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	database := flag.String("postgres", "", "`URL` of a PostgreSQL database, in which the tables are made")
	listen := flag.String("listen", "127.0.0.1:8080", "`address` to listen at")
	warehouse := flag.String("warehouse", "", "`URL` of the warehouse; without it, one that runs in this process")
	flag.Parse()
	if *database == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "river: which database? Give the URL of a PostgreSQL server that runs, such as")
		fmt.Fprintln(os.Stderr, "    --postgres postgres://postgres@localhost:5432/postgres")
		fmt.Fprintln(os.Stderr, "The tables of the shop, of River and of Semel are made in it.")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *database, *listen, *warehouse); err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, database, listen, far string) error {
	if far == "" {
		local, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer local.Close()
		far = "http://" + local.Addr().String()
		go func() { log.Print("warehouse: ", http.Serve(local, new(warehouse))) }()
	}
	shop, err := open(ctx, database, far)
	if err != nil {
		return err
	}
	defer shop.close()
	if err := shop.jobs.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log.Printf("orders are taken; send this twice:\n"+
		"    curl -i http://%s/orders -H 'Authorization: Bearer alice' -H 'Idempotency-Key: \"order-1\"' -d '{\"item\":\"lamp\"}'", listener.Addr())
	server := &http.Server{Handler: shop.handler, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close() // clients ask again, that is what keys are for
	}()
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}
