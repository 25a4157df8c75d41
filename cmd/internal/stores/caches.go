package stores

import (
	"context"
	"errors"

	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/store/tiered"
)

func openMemoryCache(size int64) (tiered.Cache, error) {
	return otter.New(otter.Options{MaxBytes: int(size)})
}

func openRedisCache(ctx context.Context, url string) (tiered.Cache, error) {
	return nil, errors.New("not yet")
}
