package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

// openStore opens a store, with a cache in this process in front of one that is
// over a network, as the gateway does.
func openStore(url string) (semel.Store, error) {
	var durable semel.Store
	var err error
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "memory":
		return memory.New(memory.Options{}), nil
	case "postgres":
		durable, err = postgres.Open(context.Background(), url, postgres.Options{})
	case "redis":
		durable, err = redis.Open(context.Background(), url, redis.Options{})
	default:
		err = fmt.Errorf("there is no store %q here", url)
	}
	if err != nil {
		return nil, err
	}
	cache, err := otter.New(otter.Options{})
	if err != nil {
		return nil, err
	}
	return tiered.New(durable, tiered.Options{Caches: []tiered.Cache{cache}})
}
