package otter_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

// spoil does to a Redis cache what happens to caches, until stop is closed: it
// is emptied, killed and started again, stopped for a while; and it is too small
// for what it gets, so it evicts all the time.
func spoil(t *testing.T, r *server.Redis, stop <-chan struct{}) (rounds int) {
	for ; ; rounds++ {
		select {
		case <-stop:
			return rounds
		case <-time.After(20 * time.Millisecond):
		}
		var err error
		switch rounds % 12 {
		case 5:
			if err = r.Kill(); err == nil {
				err = r.Start()
			}
		case 11:
			if err = r.Pause(); err == nil {
				<-time.After(30 * time.Millisecond)
				err = r.Resume()
			}
		default:
			err = flushAll(r)
		}
		if err != nil {
			t.Error(err)
			return rounds
		}
	}
}

func flushAll(r *server.Redis) error {
	c, err := net.Dial("tcp", r.Address())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("FLUSHALL\r\n")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 64))
	return err
}

// TestTwoTiersOverARealCache: three processes, each with its own memory and one
// Redis for all, over one durable store. Whatever becomes of Redis, each key runs
// once and has one answer.
func TestTwoTiersOverARealCache(t *testing.T) {
	cacheServer, err := server.StartRedis(t.TempDir(), server.RedisOptions{Settings: map[string]string{
		"maxmemory": "3mb", "maxmemory-policy": "allkeys-lru", "save": "", "appendonly": "no",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cacheServer.Stop(); err != nil {
			t.Error(err)
		}
	}()
	database := memory.New(memory.Options{})
	var stores []*tiered.Store
	var guards []*semel.Guard
	for range 3 {
		far, err := redis.OpenCache(t.Context(), cacheServer.URL(), redis.CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		near, err := otter.New(otter.Options{MaxBytes: 1 << 20}) // too small for all keys
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		s, err := tiered.New(database, tiered.Options{Caches: []tiered.Cache{near, far}, CacheTimeout: 100 * time.Millisecond, CacheRest: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		g, err := semel.NewGuard(s, semel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		stores, guards = append(stores, s), append(guards, g)
	}
	stop, spoilt := make(chan struct{}), make(chan int, 1)
	go func() { spoilt <- spoil(t, cacheServer, stop) }()
	herd(t, guards)
	close(stop)
	t.Logf("Redis was spoilt %d times", <-spoilt)
	for i, s := range stores {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		st := s.Stats()
		t.Logf("process %d: near %+v, far %+v, %d misses", i, st.Tiers[0], st.Tiers[1], st.Misses)
		if st.Tiers[0].Hits == 0 || st.Tiers[1].Hits == 0 {
			t.Errorf("process %d: a tier gave no answer, so nothing was tested", i)
		}
	}
}

// herd has every key asked for many times at every guard.
func herd(t *testing.T, guards []*semel.Guard) {
	const keys, workers, turns = 3000, 6, 12_000
	var runs [keys]atomic.Int64
	answer := func(k int) []byte { return bytes.Repeat([]byte{byte(k), byte(k >> 8)}, 500) }
	p, err := semel.Policy{Wait: 30 * time.Second}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range turns {
				k := (i*(2*w+1) + i*i/7) % keys
				ask := semel.Ask{Key: semel.Key{Scope: "tenant", ID: fmt.Sprint(k)}, Policy: &p}
				a, err := guards[w%len(guards)].Do(t.Context(), ask, func(context.Context) (semel.Result, error) {
					return semel.Result{Code: 201 + int(runs[k].Add(1)) - 1, Data: answer(k)}, nil
				})
				if err != nil || a.Code != 201 || !bytes.Equal(a.Data, answer(k)) || a.Unconfirmed {
					t.Errorf("key %d: %d with %d bytes, flagged %t, %v", k, a.Code, len(a.Data), a.Unconfirmed, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for k := range keys {
		if n := runs[k].Load(); n > 1 {
			t.Errorf("key %d ran %d times", k, n)
		}
	}
}
