package postgres_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// keys gives every operation of the benchmark a key of its own.
type keys struct{ n atomic.Uint64 }

func (k *keys) claim(part byte) semel.Record {
	n := k.n.Add(1)
	key := semel.Key{Scope: "tenant-7|alice|POST /charges", ID: fmt.Sprintf("order-%d-%d", part, n)}
	r := semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.FingerprintOf([]byte(key.ID)), State: semel.Pending,
		Attempt: 1, TTL: time.Minute, Key: key, Owner: "host-1:4711",
	}
	binary.BigEndian.PutUint64(r.Nonce[:], n)
	return r
}

// completed is claim r, done with an answer of 150 bytes.
func completed(r semel.Record) semel.Record {
	r.State, r.Code, r.TTL, r.Replay = semel.Done, 201, 72*time.Hour, 24*time.Hour
	r.Nonce[15]++
	r.Result = make([]byte, 150)
	return r
}

// pairs has callers claim and complete keys until n pairs are done, and gives the pairs
// per second.
func pairs(b *testing.B, callers, n int, pair func() error) float64 {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := pair(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// BenchmarkPairs compares claims and completions with two plain statements,
// INSERT and UPDATE, each a commit of its own and without a journal, on the same
// server: rounds alternate, and the ratio is the median of five.
func BenchmarkPairs(b *testing.B) {
	url := servers.Postgres(b).URL("postgres")
	ctx := context.Background()
	store, err := postgres.Open(ctx, url, postgres.Options{Schema: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns = 64
	plain, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Exec(ctx, `CREATE TABLE plain (digest bytea PRIMARY KEY, state smallint NOT NULL, written timestamptz NOT NULL, meta bytea, result bytea)`); err != nil {
		b.Fatal(err)
	}
	var k keys
	ours := func() error {
		next := k.claim('s')
		r, err := store.CompareAndSwap(ctx, semel.Version{}, next)
		if err == nil {
			_, err = store.CompareAndSwap(ctx, r.Record.Version, completed(next))
		}
		return err
	}
	theirs := func() error {
		next := k.claim('p')
		entry := next.Entry()
		meta := entry.AppendTo(nil)
		_, err := plain.Exec(ctx, `INSERT INTO plain (digest, state, written, meta) VALUES ($1, 1, now(), $2)`, next.Digest[:], meta)
		if err == nil {
			_, err = plain.Exec(ctx, `UPDATE plain SET state = 2, written = now(), meta = $2, result = $3 WHERE digest = $1 AND state = 1`, next.Digest[:], meta, make([]byte, 150))
		}
		return err
	}
	for _, c := range []struct{ callers, n, m int }{{1, 600, 600}, {64, 15000, 6000}, {512, 40000, 6000}} {
		b.Run(fmt.Sprint(c.callers), func(b *testing.B) {
			for range b.N {
				var ratios []float64
				for round := range 6 {
					p := pairs(b, c.callers, c.m, theirs)
					s := pairs(b, c.callers, c.n, ours)
					if round == 0 {
						continue // connections, plans
					}
					ratios = append(ratios, s/p)
					b.Logf("%d callers: store %.0f pairs/s, plain %.0f, ratio %.2f", c.callers, s, p, s/p)
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[len(ratios)/2], "x-plain")
			}
		})
	}
}
