package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/stores"
)

// tokenVariable has the token for a store of another process: a credential does
// not belong on a command line.
const tokenVariable = "SEMEL_STORE_TOKEN"

// openWithin bounds how long a store may take to open.
const openWithin = 30 * time.Second

// addStore adds the flag that names the store to look into.
func addStore(flags *pflag.FlagSet, url *string) {
	flags.StringVar(url, "store", storeDefault(), "`URL` of the store of the gateway, such as sqlite:PATH or postgres://…")
}

// storeDefault is where verbs look if they are not told.
func storeDefault() string {
	if url := os.Getenv("SEMEL_STORE"); url != "" {
		return url
	}
	return "sqlite:semel.db"
}

// openStore opens the store of a gateway.
func openStore(ctx context.Context, url, cache string) (*stores.Opened, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	o, err := stores.Open(ctx, url, stores.Options{Cache: cache, Token: os.Getenv(tokenVariable)})
	return o, usage(err)
}

// readStore opens a store to look at. It never makes one, and a gateway may use
// it meanwhile.
func readStore(ctx context.Context, url string) (*stores.Opened, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	o, err := stores.Read(ctx, url, stores.Options{Token: os.Getenv(tokenVariable)})
	return o, usage(err)
}

// usage makes a mistake in a URL one of usage.
func usage(err error) error {
	var wrong stores.UsageError
	if errors.As(err, &wrong) {
		return usageError{err}
	}
	return err
}

// clock asks the store for its time: leases and retentions are judged by it.
func clock(ctx context.Context, store semel.Store) (time.Time, error) {
	r, err := store.Get(ctx, semel.Digest{})
	return r.Now, err
}
