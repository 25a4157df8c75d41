package stores

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/available"
	"github.com/semelhq/semel/store/memory"
	"github.com/semelhq/semel/store/tiered"
)

// Options are what a URL does not say.
type Options struct {
	// Cache are the URLs of caches in front of the store, nearest first, joined by
	// commas. Empty: memory:64MiB in front of a store that is over a network. "none":
	// none.
	Cache string
	// Token is for a store of another process.
	Token string
}

// UsageError is a mistake of whoever wrote a URL: nothing was opened.
type UsageError struct{ error }

// Unwrap gives the mistake.
func (e UsageError) Unwrap() error { return e.error }

// Opened is a store that is open, and what is to be known about it.
type Opened struct {
	semel.Store
	semel.Description
	// URL is the store's, without its password.
	URL string
	// Caches are the URLs of the caches in front, without passwords.
	Caches []string
	// Journal tells whether it has one.
	Journal bool
	durable semel.Store // without caches
	tiers   []tiered.Cache
	closers []io.Closer
}

// Check tells what is wrong with the URLs, without opening anything.
func Check(url string, o Options) error {
	k, err := find(url)
	if err == nil {
		_, err = caches(k, o)
	}
	if err != nil {
		return UsageError{err}
	}
	return nil
}

// Open opens a store with its caches, for a gateway.
func Open(ctx context.Context, url string, o Options) (*Opened, error) {
	k, err := find(url)
	if err != nil {
		return nil, UsageError{err}
	}
	near, err := caches(k, o)
	if err != nil {
		return nil, UsageError{err}
	}
	store, err := k.open(ctx, url, o)
	if err != nil {
		return nil, err
	}
	opened := newOpened(url, store)
	for _, c := range near {
		tier, err := c.open(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cache %s: %w", Redacted(c.url), err), opened.Close())
		}
		if closer, ok := tier.(io.Closer); ok {
			opened.closers = append(opened.closers, closer)
		}
		opened.tiers = append(opened.tiers, tier)
		opened.Caches = append(opened.Caches, Redacted(c.url))
	}
	if opened.Store, err = opened.cached(store); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// cached puts the caches in front of a store.
func (o *Opened) cached(store semel.Store) (semel.Store, error) {
	if len(o.tiers) == 0 {
		return store, nil
	}
	t, err := tiered.New(store, tiered.Options{Caches: o.tiers})
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, t)
	return t, nil
}

// reconcileWithin bounds how long Close waits for what was done without the
// store to be brought into it.
const reconcileWithin = 5 * time.Second

// FailOpen gives the store for routes that go on without it, behind the same
// caches: see package available. Close closes it, too.
func (o *Opened) FailOpen(conflict func(available.Conflict)) (semel.Store, error) {
	free, err := available.New(o.durable, available.Options{Local: memory.New(memory.Options{}), Conflict: conflict})
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, closeFunc(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), reconcileWithin)
		defer cancel()
		return free.Close(ctx)
	}))
	return o.cached(free)
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// Read opens a store to look at, without caches. It never makes one, and
// gateways may use it meanwhile.
func Read(ctx context.Context, url string, o Options) (*Opened, error) {
	k, err := find(url)
	if err != nil {
		return nil, UsageError{err}
	}
	read := k.read
	if read == nil {
		read = k.open
	}
	store, err := read(ctx, url, o)
	if err != nil {
		return nil, err
	}
	return newOpened(url, store), nil
}

// Migrate brings the schema of a store up to date.
func Migrate(ctx context.Context, url string) error {
	k, err := find(url)
	switch {
	case err != nil:
		return UsageError{err}
	case k.migrate == nil:
		return UsageError{fmt.Errorf("the store %s has no schema to migrate: it keeps its own format, and opening it is enough", Redacted(url))}
	}
	return k.migrate(ctx, url)
}

// Migrations gives the files of a store's schema.
func Migrations(url string) (fs.FS, error) {
	k, err := find(url)
	switch {
	case err != nil:
		return nil, UsageError{err}
	case k.migrations == nil:
		return nil, UsageError{fmt.Errorf("the store %s has no schema to migrate", Redacted(url))}
	}
	return k.migrations(), nil
}

func newOpened(url string, store semel.Store) *Opened {
	o := &Opened{Store: store, URL: Redacted(url), durable: store}
	if d, ok := semel.As[semel.Describer](store); ok {
		o.Description = d.Describe()
	}
	_, o.Journal = semel.As[semel.Journal](store)
	if closer, ok := store.(io.Closer); ok {
		o.closers = append(o.closers, closer)
	}
	return o
}

// Unwrap leads to what the store can do besides: to sweep, to list, to tell news.
func (o *Opened) Unwrap() semel.Store { return o.Store }

// Close closes the caches, then the store.
func (o *Opened) Close() error {
	var wrong []error
	for i := len(o.closers) - 1; i >= 0; i-- {
		wrong = append(wrong, o.closers[i].Close())
	}
	o.closers = nil
	return errors.Join(wrong...)
}
