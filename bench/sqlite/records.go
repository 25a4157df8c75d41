package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
)

// record is the n-th operation as it is claimed.
func record(n uint64) semel.Record {
	key := semel.Key{Scope: "tenant-7|user-42|POST /payments", ID: fmt.Sprintf("order-%010d", n)}
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.Fingerprint{1, 2, 3}, State: semel.Pending,
		Nonce: semel.Nonce{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), 1}, Attempt: 1,
		TTL: 30 * time.Second, Key: key, Owner: "host-1:4242",
	}
}

// finished is r as it is completed.
func finished(r semel.Record) semel.Record {
	r.Nonce[5]++
	r.State, r.Code, r.Result = semel.Done, 201, answer()
	r.TTL, r.Replay = 72*time.Hour, 24*time.Hour
	return r
}

// answer is a small API's answer, in bytes of its own as a request has them.
func answer() []byte {
	return []byte(`{"id":"pay_9f2c1e7a","object":"payment","amount":1999,"currency":"eur","status":"captured","created":1794816000,"customer":"cus_42","description":"order 4711"}`)
}

// fill gives both sides what they hold at the start.
func fill(semelPath, plainPath string) error {
	store, err := sqlite.Open(semelPath, sqlite.Options{})
	if err != nil {
		return err
	}
	plain, err := openPlain(plainPath)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	const chunk = 5000
	for from := 0; from < held && err == nil; from += chunk {
		var swaps []semel.Swap
		for n := from; n < from+chunk; n++ {
			swaps = append(swaps, semel.Swap{Next: finished(record(uint64(n)))})
		}
		for _, done := range store.SwapMany(context.Background(), swaps) {
			err = errors.Join(err, done.Err)
		}
		err = errors.Join(err, plain.fill(from, from+chunk))
	}
	// Closing moves everything from the -wal files into the databases, and to the disk.
	return errors.Join(err, store.Close(), plain.db.Close())
}
