package mysql_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// round has callers do pairs for a while, and gives the pairs a second.
func round(b *testing.B, callers int, pair func(n uint64) error) float64 {
	b.Helper()
	var done atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	end := began.Add(time.Second)
	base := uint64(began.UnixNano()) << 20
	var next atomic.Uint64
	for range callers {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := pair(base + next.Add(1)); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(began).Seconds()
}

func digest(n uint64) semel.Digest {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
}

// plainPair gives what the store is measured against: two statements, prepared,
// each committed by itself, and no journal.
func plainPair(b *testing.B, url string, result []byte) func(n uint64) error {
	b.Helper()
	plain := sqlDB(b, url)
	plain.SetMaxOpenConns(64)
	plain.SetMaxIdleConns(64)
	if _, err := plain.Exec("CREATE TABLE plain (digest BINARY(32) NOT NULL PRIMARY KEY, state TINYINT NOT NULL, result BLOB)"); err != nil {
		b.Fatal(err)
	}
	insert, err := plain.Prepare("INSERT INTO plain (digest, state) VALUES (?, 1)")
	if err != nil {
		b.Fatal(err)
	}
	update, err := plain.Prepare("UPDATE plain SET state=2, result=? WHERE digest=?")
	if err != nil {
		b.Fatal(err)
	}
	return func(n uint64) error {
		d := digest(n)
		if _, err := insert.Exec(d[:]); err != nil {
			return err
		}
		_, err := update.Exec(result, d[:])
		return err
	}
}

func semelPair(s semel.Store, result []byte) func(n uint64) error {
	return func(n uint64) error {
		next := semel.Record{
			Digest: digest(n), State: semel.Pending, Attempt: 1, TTL: time.Minute, Owner: "host:1",
			Key: semel.Key{Scope: "tenant|alice|POST /charges", ID: fmt.Sprint(n)},
		}
		binary.BigEndian.PutUint64(next.Nonce[:], n)
		r, err := s.CompareAndSwap(context.Background(), semel.Version{}, next)
		if err != nil {
			return err
		}
		next = r.Record
		next.State, next.Code, next.Result, next.TTL, next.Replay = semel.Done, 201, result, 72*time.Hour, 24*time.Hour
		next.Nonce[15]++
		_, err = s.CompareAndSwap(context.Background(), r.Record.Version, next)
		return err
	}
}

// BenchmarkPair measures a claim with its completion, journal included, against
// two plain statements without one: alternating rounds of a second. Run it
// with -benchtime 1x; it prints the rounds.
func BenchmarkPair(b *testing.B) {
	result := slices.Repeat([]byte("receipt "), 19)
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(callers, "-callers"), func(b *testing.B) {
			url := database(b, fmt.Sprintf("bench_%d_%d", callers, time.Now().UnixNano()))
			plain := plainPair(b, url, result)
			s, err := mysql.Open(b.Context(), url, mysql.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var ratios []float64
			for range 5 * b.N {
				p := round(b, callers, plain)
				q := round(b, callers, semelPair(s, result))
				b.Logf("plain %.0f/s, semel %.0f/s: %.2f", p, q, q/p)
				ratios = append(ratios, q/p)
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "semel/plain")
		})
	}
}

// BenchmarkScope measures an operation of one INSERT in a scope against the same
// INSERT between BEGIN and COMMIT: alternating rounds of a second. Run it with
// -benchtime 1x; it prints the rounds.
func BenchmarkScope(b *testing.B) {
	const insert = "INSERT INTO orders (what) VALUES ('tea')"
	result := slices.Repeat([]byte("receipt "), 19)
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprint(callers, "-callers"), func(b *testing.B) {
			s := newShop(b, mysql.ScopeOptions{})
			s.db = appDB(b, s.url)
			s.db.SetMaxIdleConns(16)
			scopes := []*mysql.Scope{s.open(mysql.ScopeOptions{}), s.open(mysql.ScopeOptions{Policy: semel.Policy{Optimistic: true}})}
			bare := func(uint64) error {
				tx, err := s.db.Begin()
				if err != nil {
					return err
				}
				if _, err := tx.Exec(insert); err != nil {
					return err
				}
				return tx.Commit()
			}
			var ratios [2][]float64
			for range 5 * b.N {
				p := round(b, callers, bare)
				for i, scope := range scopes {
					q := round(b, callers, func(n uint64) error {
						key := semel.Key{Scope: "tenant|alice|POST /orders", ID: fmt.Sprint(n)}
						_, err := scope.Do(context.Background(), key, semel.Fingerprint{}, func(ctx context.Context, tx *sql.Tx) (semel.Result, error) {
							_, err := tx.ExecContext(ctx, insert)
							return semel.Result{Code: 201, Data: result}, err
						})
						return err
					})
					b.Logf("bare %.0f/s, scope %.0f/s: %.2f (optimistic %t)", p, q, q/p, i == 1)
					ratios[i] = append(ratios[i], q/p)
				}
			}
			for i, unit := range []string{"claim/bare", "optimistic/bare"} {
				slices.Sort(ratios[i])
				b.ReportMetric(ratios[i][len(ratios[i])/2], unit)
			}
		})
	}
}
