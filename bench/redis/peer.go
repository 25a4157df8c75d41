package redis

import (
	"context"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semelhq/semel/bench/internal/pairs"
)

// peer is what one writes by hand with go-redis: SET NX to claim, SET to store
// the answer. Nothing fences the second.
type peer struct{ client *goredis.Client }

func openPeer(address string) *peer {
	return &peer{goredis.NewClient(&goredis.Options{Addr: address, MaxRetries: -1})}
}

// pair is a claim and a completion.
func (p *peer) pair(n uint64) error {
	ctx := context.Background()
	r := pairs.Record(n)
	key := "peer:" + string(r.Digest[:])
	won, err := p.client.SetNX(ctx, key, "in progress", r.TTL).Result()
	if err == nil && !won {
		err = errors.New("a fresh key is taken")
	}
	if err != nil {
		return err
	}
	return p.client.Set(ctx, key, pairs.Finished(r).Result, 72*time.Hour).Err()
}
