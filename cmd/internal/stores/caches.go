package stores

import (
	"context"
	"fmt"
	"strings"

	"github.com/semelhq/semel/adapter/otter"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/store/tiered"
)

// cache is a cache's URL, taken apart.
type cache struct {
	url  string
	open func(ctx context.Context) (tiered.Cache, error)
}

// defaultCache is in front of stores that are over a network.
const defaultCache = "memory:64MiB"

// caches takes the caches' URLs apart.
func caches(k kind, o Options) ([]cache, error) {
	text := o.Cache
	switch {
	case text == "none", text == "" && !k.far:
		return nil, nil
	case text == "":
		text = defaultCache
	}
	var out []cache
	for _, url := range split(text) {
		scheme, rest, _ := strings.Cut(url, ":")
		switch alias(scheme) {
		case "memory":
			size, err := config.ParseBytes(rest)
			if err != nil {
				return nil, fmt.Errorf("the cache %q needs a size, as in memory:64MiB: %w", url, err)
			}
			out = append(out, cache{url, func(context.Context) (tiered.Cache, error) {
				return otter.New(otter.Options{MaxBytes: int(size)})
			}})
		case "redis":
			out = append(out, cache{url, func(ctx context.Context) (tiered.Cache, error) {
				return redis.OpenCache(ctx, url, redis.CacheOptions{})
			}})
		default:
			return nil, fmt.Errorf("the cache %q is unknown; there are memory:SIZE (of this process), redis://HOST, and none", Redacted(url))
		}
	}
	return out, nil
}

// split splits a list of URLs, in which a comma may also stand between hosts.
func split(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, "memory:") || strings.Contains(part, "://") || len(out) == 0 {
			out = append(out, part)
		} else {
			out[len(out)-1] += "," + part
		}
	}
	return out
}
