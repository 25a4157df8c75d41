package sqltx

import (
	"context"
	"database/sql"
	"errors"

	"github.com/semelhq/semel"
)

// In gives the store bound to the caller's own transaction, for Guard.Within.
// From the first key that is written there, a statement that fails has the COMMIT
// of tx refused, and so has a key whose operation did not end.
func In(store semel.Store, d Dialect, tx *sql.Tx) semel.Store {
	return &bound{store, d, tx}
}

type bound struct {
	semel.Store
	dialect Dialect
	tx      *sql.Tx
}

// Unwrap is part of semel.Unwrapper.
func (b *bound) Unwrap() semel.Store { return b.Store }

// Get is part of semel.Store.
func (b *bound) Get(ctx context.Context, digest semel.Digest) (r semel.Reading, err error) {
	err = b.on(ctx, func(ctx context.Context, c *Conn) error {
		r, err = b.dialect.Get(ctx, c, digest)
		return err
	})
	return r, err
}

// CompareAndSwap is part of semel.Store.
func (b *bound) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (r semel.Reading, err error) {
	err = b.on(ctx, func(ctx context.Context, c *Conn) error {
		if err := c.tx.key(); err != nil {
			return errors.Join(semel.ErrNotDone, semel.ErrRejected, err)
		}
		r, err = b.dialect.CompareAndSwap(ctx, c, old, next)
		switch {
		case err == nil:
			c.tx.wrote(&next)
		case !errors.Is(err, semel.ErrConflict):
			c.tx.fail(err)
		}
		return err
	})
	return r, err
}

// on runs fn on the connection of the transaction. Whatever is wrong with that
// will not become right by waiting.
func (b *bound) on(ctx context.Context, fn func(ctx context.Context, c *Conn) error) error {
	ran := false
	err := on(ctx, b.tx, func(ctx context.Context, c *Conn) error {
		if err := c.check(ctx, b.Store, b.dialect); err != nil {
			return err
		}
		ran = true
		return fn(ctx, c)
	})
	if err != nil && !ran && ctx.Err() == nil {
		return errors.Join(semel.ErrRejected, err)
	}
	return err
}
